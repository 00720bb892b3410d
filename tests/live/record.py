"""Run the agents of `tests/live/agents` for real and keep what they export.

    python -m tests.live.record PYTHON [NAME...]

PYTHON is an interpreter that has `agents/requirements.txt` installed. Every agent talks to a scripted model server,
those of `agents/context` to the one that plays `context_cases`, and exports through its real SDK exporter into a real
receiver, half of them over gRPC and half over HTTP. What the receiver put into its journal becomes
`recorded/NAME.binpb`: protobuf requests, each behind its length as a varint; `context/NAME` is compressed. Stack traces
are taken out, they tell about the recording machine.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from receiver import Receiver, ReceiverConfig
from spanwise.model import Signal
from spanwise.stage import SealedRange
from tests.live.context_server import context_server
from tests.live.model_server import model_server
from tests.live.tape import RECORDED, write

HERE = Path(__file__).parent
AGENTS = tuple(
    sorted(
        str(path.relative_to(HERE / "agents").with_suffix(""))
        for path in (HERE / "agents").rglob("*.py")
        if path.stem not in ("common", "play")
    )
)


@dataclass
class _Tape:
    """A journal that keeps everything and forgets nothing."""

    bodies: list[bytes] = field(default_factory=list)
    pending_bytes: int = 0

    async def append(self, tenant: str, signal: Signal, items: int, body: bytes) -> None:
        self.bodies.append(body)

    def seal(self, *, bytes_max: int, timeout_s: float) -> SealedRange | None:
        return None

    def done(self, taken: SealedRange) -> None:
        pass

    def close(self) -> None:
        pass


def _without_stack_traces(body: bytes) -> bytes:
    request = ExportTraceServiceRequest.FromString(body)
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                for event in span.events:
                    for attribute in event.attributes:
                        if attribute.key == "exception.stacktrace":
                            attribute.value.string_value = "(taken out)"
    return request.SerializeToString()


async def record(python: str, names: tuple[str, ...]) -> None:
    tape = _Tape()
    receiver = Receiver(ReceiverConfig(grpc="127.0.0.1:0", http="127.0.0.1:0"), tape)
    await receiver.start()
    (RECORDED / "context").mkdir(parents=True, exist_ok=True)
    with model_server() as model_url, context_server() as context_url:
        for name in names:
            tape.bodies.clear()
            over_grpc = AGENTS.index(name) % 2 == 0
            endpoint = f"http://{receiver.grpc_address if over_grpc else receiver.http_address}"
            process = await asyncio.create_subprocess_exec(
                python,
                HERE / "agents" / f"{name}.py",
                env={
                    **os.environ,
                    "MODEL_URL": context_url if name.startswith("context/") else model_url,
                    "OTLP_ENDPOINT": endpoint,
                    "OTLP_TRANSPORT": "grpc" if over_grpc else "http",
                },
            )
            if await process.wait():
                raise SystemExit(f"{name} ended with {process.returncode}")
            suffix = "binpb.gz" if name.startswith("context/") else "binpb"
            size = write(RECORDED / f"{name}.{suffix}", map(_without_stack_traces, tape.bodies))
            print(f"{name}: {len(tape.bodies)} requests, {size} bytes over {'gRPC' if over_grpc else 'HTTP'}")
    await receiver.drain()


def main() -> None:
    python, *names = sys.argv[1:]
    asyncio.run(record(python, tuple(names) or AGENTS))


if __name__ == "__main__":
    main()
