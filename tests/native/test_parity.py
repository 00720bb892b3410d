"""The native core reads requests as the reference decoder of `opentelemetry-proto` does, and loses nothing."""

from __future__ import annotations

import base64
import json
import random
from functools import cache
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from processors.normalise import plan_json
from spanwise import _native
from tests.native import oracle, requests
from tests.native.requests import RECEIVED, REQUESTS
from tests.shared import CORPUS

needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no recorded telemetry at {CORPUS}")
TRACES = sorted(path.name for path in CORPUS.glob("*.jsonl") if path.name.count(".") == 1)
LOGS = sorted(path.name for path in CORPUS.glob("*.logs.jsonl"))
LIMITS = {"items_max": 10**9, "attributes_max": 10**9}


@cache
def decoder() -> _native.Decoder:
    return _native.Decoder(plan_json())


def check(*bodies: bytes) -> None:
    """All of what the reference decoder reads in the requests is in the rows made of them."""
    expected = [oracle.expected(ExportTraceServiceRequest.FromString(body)) for body in bodies]
    decoded = decoder().decode([(str(index), RECEIVED, "traces", body) for index, body in enumerate(bodies)])
    rejects = [(frame, item) for frame, spans in enumerate(expected) for item, span in enumerate(spans) if span is None]
    assert [(frame, item) for frame, item, _ in decoded.rejects] == rejects[:1000]
    assert decoded.rejected == len(rejects)
    kept = [(str(frame), span) for frame, spans in enumerate(expected) for span in spans if span is not None]
    rows, content = oracle.rows(decoded.spans), oracle.stored(decoded.content)
    assert len(rows) == len(kept)
    for row, (tenant, span) in zip(rows, kept, strict=True):
        assert row["tenant"] == tenant
        oracle.check_span(span, row, content)
    for frame, body in enumerate(bodies):
        inspection = _native.inspect("traces", body, **LIMITS)
        assert inspection.items == len(expected[frame])
        assert [item for item, _ in inspection.rejects] == [item for at, item in rejects if at == frame][:100]
        assert inspection.repaired == 0


def with_base64_ids(document: Any) -> Any:
    """Protobuf's own JSON mapping of an OTLP/JSON document."""
    if isinstance(document, dict):
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode()
            if key in ("traceId", "spanId", "parentSpanId")
            else with_base64_ids(value)
            for key, value in document.items()
        }
    return [with_base64_ids(item) for item in document] if isinstance(document, list) else document


@needs_corpus
@pytest.mark.parametrize("name", TRACES)
def test_no_attribute_of_a_recorded_span_is_lost(name: str) -> None:
    lines = (CORPUS / name).read_bytes().splitlines()
    check(*(_native.json_to_protobuf("traces", line) for line in lines))


@needs_corpus
@pytest.mark.parametrize("name", [*TRACES, *LOGS])
def test_recorded_json_becomes_the_protobuf_that_the_reference_makes_of_it(name: str) -> None:
    signal, kind = ("logs", ExportLogsServiceRequest) if name in LOGS else ("traces", ExportTraceServiceRequest)
    for line in (CORPUS / name).read_bytes().splitlines():
        reference = ParseDict(with_base64_ids(json.loads(line)), kind(), ignore_unknown_fields=True)
        assert kind.FromString(_native.json_to_protobuf(signal, line)) == reference


@given(REQUESTS, REQUESTS)
@settings(max_examples=80, deadline=None)
def test_any_legal_request_is_read_as_the_reference_reads_it(
    one: ExportTraceServiceRequest, other: ExportTraceServiceRequest
) -> None:
    check(one.SerializeToString(), other.SerializeToString())


@given(REQUESTS, st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_unknown_fields_anywhere_change_nothing(request: ExportTraceServiceRequest, seed: int) -> None:
    plain = request.SerializeToString()
    sprinkled = requests.sprinkle(plain, random.Random(seed))
    read = ExportTraceServiceRequest.FromString(sprinkled)
    read.DiscardUnknownFields()
    assert read.SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)
    check(sprinkled)


@given(REQUESTS)
@settings(max_examples=80, deadline=None)
def test_any_request_is_the_same_through_json(request: ExportTraceServiceRequest) -> None:
    text = json.dumps(requests.to_json(request)).encode()
    through = ExportTraceServiceRequest.FromString(_native.json_to_protobuf("traces", text))
    # JSON has one NaN, protobuf has many
    reference = ParseDict(MessageToDict(request), ExportTraceServiceRequest())
    assert through.SerializeToString(deterministic=True) == reference.SerializeToString(deterministic=True)


def test_messages_sent_in_pieces_are_merged() -> None:
    span = requests.span().SerializeToString()
    for piece in (
        requests.field(15, requests.field(2, b"first")) + requests.field(15, b"\x18\x02"),
        requests.field(9, requests.field(1, b"k") + requests.field(2, b"\x10\x01") + requests.field(2, b"")),
        requests.field(
            9,
            requests.field(1, b"k")
            + requests.field(2, requests.field(5, requests.field(1, b"\x18\x01")))
            + requests.field(2, requests.field(5, requests.field(1, b"\x18\x02"))),
        ),
        requests.field(
            9,
            requests.field(1, b"k")
            + requests.field(2, requests.field(5, requests.field(1, b"\x18\x01")) + requests.field(1, b"text")),
        ),
        requests.field(9, requests.field(1, b"k") + requests.field(1, b"later key")),
    ):
        check(requests.request_of(span + piece))
    resource = requests.attribute("service.name", "checkout").SerializeToString()
    check(
        requests.field(
            1,
            requests.field(2, requests.field(2, span))
            + requests.field(1, requests.field(1, resource))
            + requests.field(1, requests.field(1, resource)),
        )
    )
