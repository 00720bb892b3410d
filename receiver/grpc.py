"""OTLP over gRPC.

`Export` is unary for the sender and a stream for us: only so can a request be authenticated and admitted while its
body still waits in HTTP/2 flow control. The message arrives as raw bytes, already inflated by gRPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from receiver.admission import Slot
from receiver.answer import Accepted, Kind, RefusedError, Service, grpc_refusal, response
from receiver.auth import Authenticator
from receiver.config import Address, LimitsConfig, ReceiverConfig, parse_address
from receiver.intake import Call, Intake
from receiver.tls import Certificates

SERVICES: Final[dict[str, Service]] = {
    trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name: "traces",
    logs_service_pb2.DESCRIPTOR.services_by_name["LogsService"].full_name: "logs",
    metrics_service_pb2.DESCRIPTOR.services_by_name["MetricsService"].full_name: "metrics",
}

_AHEAD_SHARE: Final = 2
_AHEAD_S: Final = 0.1
"""gRPC does not say how big a message is before it has arrived. Most are small and here at once, so each is admitted
with half of the biggest size for `_AHEAD_S`; one that takes longer has to be covered in full. So no more than twice
the budget can be held, by fast senders of the biggest messages, for that long."""

_FOR_EVER_MS: Final = (1 << 31) - 1
_SPARE_S: Final = 2.0

Context = grpc.aio.ServicerContext[Any, Any]


class GrpcListener:
    """The gRPC port. `start` binds it, `stop` closes it."""

    def __init__(
        self, config: ReceiverConfig, authenticator: Authenticator, intake: Intake, certificates: Certificates | None
    ) -> None:
        self._config = config
        self._certificates = certificates
        self._authenticator = authenticator
        self._intake = intake
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> Address:
        """Bind and serve. Raises OSError if the address cannot be had."""
        server = grpc.aio.server(options=_options(self._config.limits))
        for name, service in SERVICES.items():
            method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(self._handler(service))
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": method}),))
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._config.reflection:
            reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        address = parse_address(self._config.grpc)
        try:
            if self._certificates is None:
                port = server.add_insecure_port(str(address))
            else:
                port = server.add_secure_port(str(address), self._certificates.grpc_credentials())
        except RuntimeError:
            port = 0
        if not port:
            raise OSError(
                f"cannot listen on {address} (grpc): the port is in use or the address is not of this machine"
            )
        await server.start()
        self._server = server
        return Address(address.host, port)

    async def not_serving(self) -> None:
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        if self._server is not None:
            await self._server.stop(grace_s)

    def _handler(self, service: Service) -> Callable[[Any, Context], Awaitable[bytes]]:
        async def export(_: Any, context: Context) -> bytes:
            try:
                return response(service, await self._export(service, context))
            except RefusedError as refused:
                await context.abort(*grpc_refusal(refused))

        return export

    async def _export(self, service: Service, context: Context) -> Accepted:
        call = Call("grpc", service)
        with self._intake.outcome(call):
            call.tenant = self._authenticator.tenant(_authorization(context))
            slot = await self._intake.reserve(call, self._intake.limits.request_bytes_max // _AHEAD_SHARE)
            deadline = asyncio.get_running_loop().time() + self._intake.limits.body_timeout_s
            body = await self._read(context, slot, 0, deadline)
            if body is None:
                try:
                    # gRPC has answered RESOURCE_EXHAUSTED itself if the message was too large, and cancels this call
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    self._intake.count(call, self._intake.too_large())
                    raise
                raise RefusedError(Kind.INVALID, "invalid_request", "the call ended without a message")
            await slot.grow(len(body))
            if await self._read(context, slot, len(body), deadline) is not None:
                raise RefusedError(Kind.INVALID, "invalid_request", "Export takes one message, this call sent more")
            slot.shrink(len(body))
            return await self._intake.take(call, body)

    async def _read(self, context: Context, slot: Slot, held: int, deadline: float) -> bytes | None:
        """The next message, or None at the end of the stream."""
        loop = asyncio.get_running_loop()
        limits = self._intake.limits
        crowded = False

        def cover() -> None:
            nonlocal crowded
            if not slot.try_grow(held + limits.request_bytes_max):
                crowded = True
                timeout.reschedule(loop.time())

        covering = loop.call_later(_AHEAD_S, cover)
        try:
            async with asyncio.timeout_at(deadline) as timeout:
                message = await context.read()
        except TimeoutError:
            if crowded:
                raise RefusedError(
                    Kind.UNAVAILABLE, "overloaded", "too many bytes are in flight; try again in a second"
                ) from None
            raise RefusedError(
                Kind.UNAVAILABLE,
                "slow_body",
                f"the message took over {limits.body_timeout_s:g} s (limits.body_timeout_s)",
            ) from None
        finally:
            covering.cancel()
        return None if message is grpc.aio.EOF else message


def _authorization(context: Context) -> list[str]:
    metadata = context.invocation_metadata() or ()
    return [value if isinstance(value, str) else "" for key, value in metadata if key == "authorization"]


def _options(limits: LimitsConfig) -> list[tuple[str, int]]:
    """`grpc.so_reuseport` off: else a second process silently shares the port. `maximum_concurrent_rpcs` is not used:
    its refusal is RESOURCE_EXHAUSTED, on which senders drop their data. An old connection has as long to finish as a
    request may take; a watcher of health, which never finishes, is cut off then."""
    age_ms = int(limits.connection_age_s * 1000) or _FOR_EVER_MS
    longest_s = limits.wait_s + limits.body_timeout_s + limits.ack_timeout_s + _SPARE_S
    return [
        ("grpc.max_connection_age_ms", min(age_ms, _FOR_EVER_MS)),
        ("grpc.max_connection_age_grace_ms", int(longest_s * 1000)),
        ("grpc.max_receive_message_length", limits.request_bytes_max),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.max_concurrent_streams", 100),
        ("grpc.max_allowed_incoming_connections", limits.connections_max),
        ("grpc.server_handshake_timeout_ms", int(limits.header_timeout_s * 1000)),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 4),
        ("grpc.so_reuseport", 0),
        # the probe opens the window of waiting bodies from 64 KiB to MiBs; one that is read gets its whole size anyway
        ("grpc.http2.bdp_probe", 0),
        # bits: 0 identity, 1 deflate, 2 gzip
        ("grpc.compression_enabled_algorithms_bitset", 0b101),
    ]
