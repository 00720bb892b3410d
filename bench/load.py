"""A load generator that knows what it was promised: raw gRPC, several connections, every acknowledged span counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from bench.payloads import Payload

Export: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[bytes, ExportTraceServiceResponse]

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


@dataclass
class Sent:
    """What a run achieved. Seconds, bytes, spans; `ack_s` holds one latency a request."""

    seconds: float = 0.0
    bytes: int = 0
    spans: int = 0
    requests: int = 0
    refused: int = 0
    ack_s: list[float] = field(default_factory=list)

    def ack_quantile_ms(self, q: float) -> float:
        ordered = sorted(self.ack_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1000 if ordered else float("nan")


async def send(
    endpoint: str, payloads: Sequence[Payload], *, connections: int = 4, requests_per_s: float | None = None
) -> Sent:
    """Send each payload once; refused requests are sent again after 1 s. Open loop if `requests_per_s` is given."""
    sent = Sent()
    queue: asyncio.Queue[tuple[Payload, float]] = asyncio.Queue()
    started = time.monotonic()
    for index, payload in enumerate(payloads):
        queue.put_nowait((payload, started + index / requests_per_s if requests_per_s else started))

    async def worker() -> None:
        async with grpc.aio.insecure_channel(endpoint, options=_OPTIONS) as channel:
            export: Export = channel.unary_unary(
                METHOD, request_serializer=None, response_deserializer=ExportTraceServiceResponse.FromString
            )
            while not queue.empty():
                payload, due = queue.get_nowait()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                # From the due time on: a server that stalls must not slow the clock down with the load.
                begun = due if requests_per_s else time.monotonic()
                while True:
                    try:
                        response = await export(payload.body)
                    except grpc.aio.AioRpcError as error:
                        if error.code() is not grpc.StatusCode.UNAVAILABLE:
                            raise
                        sent.refused += 1
                        await asyncio.sleep(1)
                        continue
                    break
                if response.partial_success.rejected_spans:
                    raise RuntimeError(f"the server rejected spans of a valid request: {response.partial_success}")
                sent.ack_s.append(time.monotonic() - begun)
                sent.requests += 1
                sent.spans += payload.spans
                sent.bytes += len(payload.body)

    await asyncio.gather(*(worker() for _ in range(connections)))
    sent.seconds = time.monotonic() - started
    return sent
