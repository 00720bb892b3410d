"""The exporters people really use: the OpenTelemetry SDK over gRPC and HTTP, gzip and plain."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from receiver import Receiver
from tests.receiver.conftest import Start
from tests.receiver.doubles import Counted, MemoryJournal

KINDS = ["grpc", "grpc-gzip", "http", "http-gzip"]


def exporter(receiver: Receiver, kind: str, token: str = "") -> SpanExporter:
    headers = {"authorization": f"Bearer {token}"} if token else None
    if kind.startswith("grpc"):
        compression = grpc.Compression.Gzip if kind.endswith("gzip") else grpc.Compression.NoCompression
        return GrpcExporter(
            endpoint=f"http://{receiver.grpc_address}", insecure=True, compression=compression, headers=headers
        )
    return HttpExporter(
        endpoint=f"http://{receiver.http_address}/v1/traces",
        compression=HttpCompression.Gzip if kind.endswith("gzip") else HttpCompression.NoCompression,
        headers=headers,
    )


@pytest.fixture
def spans() -> Iterator[tuple[ReadableSpan, ...]]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("agent")
    with tracer.start_as_current_span("invoke_agent"):
        for number in range(20):
            with tracer.start_as_current_span("chat", attributes={"gen_ai.usage.input_tokens": number}):
                pass
    yield memory.get_finished_spans()
    provider.shutdown()


async def export(sender: SpanExporter, spans: tuple[ReadableSpan, ...]) -> SpanExportResult:
    try:
        return await asyncio.to_thread(sender.export, spans)
    finally:
        await asyncio.to_thread(sender.shutdown)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_sdk_exports_is_acknowledged_and_in_the_journal(
    receiver: Receiver, journal: MemoryJournal, spans: tuple[ReadableSpan, ...], kind: str
) -> None:
    assert await export(exporter(receiver, kind), spans) is SpanExportResult.SUCCESS

    [frame] = journal.frames
    assert frame.items == len(spans) == 21
    request = ExportTraceServiceRequest.FromString(frame.body)
    sent = {span.context.span_id.to_bytes(8, "big") for span in spans}
    assert {span.span_id for span in request.resource_spans[0].scope_spans[0].spans} == sent


@pytest.mark.parametrize("kind", KINDS)
async def test_the_sdk_keeps_its_spans_through_a_refusal_and_delivers_them_once(
    receiver: Receiver, journal: MemoryJournal, counted: Counted, spans: tuple[ReadableSpan, ...], kind: str
) -> None:
    journal.refusals_left = 1

    assert await export(exporter(receiver, kind), spans) is SpanExportResult.SUCCESS

    assert [frame.items for frame in journal.frames] == [21]
    assert counted.refusals == {("traces", kind.split("-", maxsplit=1)[0], "journal_full"): 1}


@pytest.mark.parametrize("kind", ["grpc", "http"])
async def test_the_sdk_is_told_apart_by_its_token(
    start: Start, journal: MemoryJournal, spans: tuple[ReadableSpan, ...], kind: str
) -> None:
    receiver = await start(tokens=[{"tenant": "team-a", "sha256": hashlib.sha256(b"secret").hexdigest()}])

    assert await export(exporter(receiver, kind, "secret"), spans) is SpanExportResult.SUCCESS
    assert await export(exporter(receiver, kind, "wrong"), spans) is SpanExportResult.FAILURE

    assert [frame.tenant for frame in journal.frames] == ["team-a"]
