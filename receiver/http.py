"""OTLP over HTTP/1.1: `POST /v1/traces`, `/v1/logs` and `/v1/metrics`, protobuf or JSON, plain or gzip."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

from receiver.admission import Slot
from receiver.answer import (
    JSON,
    PROTOBUF,
    HttpAnswer,
    Kind,
    RefusedError,
    Service,
    http_accepted,
    http_refusal,
)
from receiver.auth import Authenticator
from receiver.config import MIB, Address, ReceiverConfig, parse_address
from receiver.connections import Connection, Connections
from receiver.inflate import Gunzip
from receiver.intake import Call, Intake
from receiver.tls import Certificates

PATHS: Final[dict[str, Service]] = {"/v1/traces": "traces", "/v1/logs": "logs", "/v1/metrics": "metrics"}

_BYTES_PER_S_MIN: Final = 1024
_PACE_WINDOW_S: Final = 5.0
_GROWTH_MIN: Final = 256 << 10
_LINGER_S: Final = 2.0
"""How long a refused sender is listened to, so that it reads the answer instead of a connection reset."""


class HttpListener:
    """The HTTP port. `start` binds it, `stop` closes it."""

    def __init__(
        self, config: ReceiverConfig, authenticator: Authenticator, intake: Intake, certificates: Certificates | None
    ) -> None:
        self._config = config
        self._authenticator = authenticator
        self._intake = intake
        self._certificates = certificates
        self._connections: Connections | None = None
        self._listeners: list[asyncio.Server] = []

    async def start(self) -> Address:
        """Bind and serve. Raises OSError if the address cannot be had."""
        address, limits = parse_address(self._config.http), self._config.limits
        self._connections = Connections(
            self._answer,
            connections_max=limits.connections_max,
            header_timeout_s=limits.header_timeout_s,
            manners=_Manners(self._intake),
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=limits.idle_timeout_s,
            lingering_time=_LINGER_S,
        )
        try:
            self._listeners = [await self._listen(host=address.host, port=address.port)]
        except OSError as error:
            raise OSError(f"cannot listen on {address} (http): {error.strerror}") from error
        return Address(address.host, self._listeners[0].sockets[0].getsockname()[1])

    async def reload(self) -> None:
        """Take the certificates as they are now for new connections; those that are open stay."""
        before = self._listeners
        # a listener keeps the context it began with, so there are new ones on the same sockets
        sockets = [socket.dup() for listener in before for socket in listener.sockets]
        self._listeners = [await self._listen(sock=socket) for socket in sockets]
        for listener in before:
            listener.close()

    async def _listen(self, **where: Any) -> asyncio.Server:
        certificates, connections = self._certificates, self._connections
        assert connections is not None  # noqa: S101 - `start` has made it
        return await asyncio.get_running_loop().create_server(
            connections,
            ssl=certificates.context if certificates else None,
            ssl_handshake_timeout=self._config.limits.header_timeout_s if certificates else None,
            backlog=1024,
            **where,
        )

    async def stop(self, grace_s: float) -> None:
        if self._connections is None:
            return
        for listener in self._listeners:
            listener.close()
        self._connections.pre_shutdown()
        await self._connections.shutdown(grace_s)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        assert isinstance(protocol, Connection)  # noqa: S101 - what our factory makes
        with protocol.busy():
            origin = self._allowed_origin(request)
            if request.method == "OPTIONS" and origin:
                return web.Response(status=204, headers=_preflight(origin))
            json = request.content_type == JSON
            call = Call("http", PATHS.get(request.path))
            call.json = json
            try:
                with self._intake.outcome(call):
                    answer = await self._export(request, call)
            except RefusedError as refused:
                answer = http_refusal(refused, json=json)
            result = _respond(answer)
            if origin:
                result.headers.update(_cors(origin))
            if answer.status in {401, 413, 503} and not request.content.is_eof():
                # the rest of the body is not worth reading for the sake of the connection
                result.force_close()
            if 0 < self._intake.limits.connection_age_s < protocol.age_s:
                result.force_close()
            return result

    async def _export(self, request: web.BaseRequest, call: Call) -> HttpAnswer:
        if call.service is None:
            raise RefusedError(Kind.NO_SUCH_PATH, "no_such_path", f"send to one of {', '.join(PATHS)}")
        if request.method != "POST":
            raise RefusedError(Kind.NO_SUCH_METHOD, "no_such_method", "use POST")
        call.tenant = self._authenticator.tenant(request.headers.getall("Authorization", []))
        if request.content_type not in {JSON, PROTOBUF}:
            raise RefusedError(Kind.MEDIA_TYPE, "content_type", f"send {PROTOBUF} or {JSON}")
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in {"gzip", "identity"}:
            raise RefusedError(Kind.ENCODING, "content_encoding", "send the body as gzip or identity")
        declared = request.content_length
        if declared is not None and declared > self._intake.limits.request_bytes_max:
            raise self._intake.too_large()
        slot = await self._intake.reserve(call, _GROWTH_MIN if declared is None else declared)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._read(request, slot, Gunzip() if encoding == "gzip" else None)
        slot.shrink(len(body))
        return http_accepted(call.service, await self._intake.take(call, body), json=call.json)

    async def _read(self, request: web.BaseRequest, slot: Slot, gunzip: Gunzip | None) -> bytes:
        """The whole body, inflated. It is counted against the budget as it grows."""
        loop, limits = asyncio.get_running_loop(), self._intake.limits
        pieces: list[bytes] = []
        size = received = 0
        end = loop.time() + limits.body_timeout_s
        # a body that could not be there by the deadline at this pace need not be waited for
        pace = max(_BYTES_PER_S_MIN, (request.content_length or 0) / limits.body_timeout_s) * _PACE_WINDOW_S
        wanted = pace
        try:
            async with asyncio.timeout_at(min(end, loop.time() + _PACE_WINDOW_S)) as timeout:
                while chunk := await request.content.readany():
                    received += len(chunk)
                    if received >= wanted:
                        wanted = received + pace
                        timeout.reschedule(min(end, loop.time() + _PACE_WINDOW_S))
                    if received > limits.request_bytes_max:
                        raise self._intake.too_large()
                    for piece in gunzip.feed(chunk) if gunzip else (chunk,):
                        before, size = size, size + len(piece)
                        if size > limits.request_bytes_max:
                            raise self._intake.too_large()
                        if size > slot.bytes:
                            await slot.grow(min(limits.request_bytes_max, max(2 * slot.bytes, _GROWTH_MIN)))
                        pieces.append(piece)
                        if gunzip and before // MIB != size // MIB:
                            await asyncio.sleep(0)  # inflating is the one long computation on the loop
                if gunzip:
                    gunzip.finish()
        except TimeoutError:
            raise RefusedError(
                Kind.UNAVAILABLE,
                "slow_body",
                f"the body came too slowly for {limits.body_timeout_s:g} s (limits.body_timeout_s)",
            ) from None
        except ValueError as error:
            raise RefusedError(Kind.INVALID, "invalid_request", str(error)) from None
        except web.RequestPayloadError:
            raise RefusedError(Kind.INVALID, "invalid_request", "the body is not valid HTTP") from None
        except ConnectionError:
            raise RefusedError(Kind.UNAVAILABLE, "disconnected", "the connection was lost") from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _allowed_origin(self, request: web.BaseRequest) -> str:
        origin = request.headers.get("Origin", "")
        return origin if origin and origin in self._config.cors_origins else ""


class _Manners:
    """Refusals of the receiver for connections that have no request."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def too_many(self) -> bytes:
        why = f"over {self._intake.limits.connections_max} connections are open (limits.connections_max)"
        refused = RefusedError(Kind.UNAVAILABLE, "connections", f"{why}; try again in a second")
        self._intake.count(Call("http", None), refused)
        answer = http_refusal(refused, json=False)
        headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n".encode() + answer.body

    def slow_header(self) -> None:
        self._intake.count(Call("http", None), RefusedError(Kind.UNAVAILABLE, "slow_header", ""))

    def unreadable(self, status: int) -> web.Response:
        kind, reason, text = Kind.INVALID, "invalid_http", "not a valid HTTP request"
        if status >= 500:
            kind, reason, text = Kind.UNAVAILABLE, "internal_error", "internal error; try again in a second"
        refused = RefusedError(kind, reason, text)
        self._intake.count(Call("http", None), refused)
        return _respond(http_refusal(refused, json=False))


def _respond(answer: HttpAnswer) -> web.Response:
    return web.Response(status=answer.status, headers={**answer.headers, "Server": "spanwise"}, body=answer.body)


def _cors(origin: str) -> dict[str, str]:
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin", "Access-Control-Expose-Headers": "Retry-After"}


def _preflight(origin: str) -> dict[str, str]:
    return {
        **_cors(origin),
        "Access-Control-Allow-Methods": "POST",
        "Access-Control-Allow-Headers": "authorization, content-type, content-encoding",
        "Access-Control-Max-Age": "600",
    }
