"""What the receiver learns about a request before it keeps it, and what it cuts."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from spanwise import _native
from tests.native.requests import attribute, field, request_of, span

NONE = {"items_max": 10**9, "attributes_max": 10**9}


def inspect(body: bytes, **limits: int) -> _native.Inspection:
    return _native.inspect("traces", body, **(NONE | limits))


def request(*spans: Span) -> bytes:
    return request_of(*(span.SerializeToString() for span in spans))


def test_items_and_attributes_of_every_place_are_counted() -> None:
    one = attribute("k", "v")
    sent = span(attributes=[one, one], events=[Span.Event(attributes=[one])], links=[Span.Link(attributes=[one])])
    scope_spans = ScopeSpans(scope=InstrumentationScope(attributes=[one]), spans=[sent, sent])
    resource_spans = ResourceSpans(resource=Resource(attributes=[one]), scope_spans=[scope_spans])
    found = inspect(ExportTraceServiceRequest(resource_spans=[resource_spans] * 2).SerializeToString())
    assert (found.items, found.attributes, found.rejected, found.repaired) == (4, 2 * (1 + 1 + 2 * 4), 0, 0)


def test_an_empty_request_has_nothing() -> None:
    found = inspect(b"")
    assert (found.items, found.attributes, found.rejects) == (0, 0, [])


def test_counting_stops_above_a_limit() -> None:
    body = request(*[span(attributes=[attribute("k", "v")] * 5)] * 100)
    assert inspect(body, items_max=100).items == 100
    assert inspect(body, items_max=10).items == 11
    stopped = inspect(body, attributes_max=20)
    assert (stopped.items, stopped.attributes) == (5, 25)


def test_resource_attributes_alone_can_be_above_the_limit() -> None:
    resource = Resource(attributes=[attribute("k", "v")] * 50).SerializeToString()
    assert inspect(field(1, field(1, resource)), attributes_max=20).attributes == 50


def test_rejects_carry_their_index_and_reason() -> None:
    found = inspect(request(span(), span(span_id=b""), span(), span(trace_id=bytes(16))))
    assert found.items == 4
    assert found.rejects == [
        (1, "span_id is 0 bytes long, not 8 (16 hexadecimal digits in OTLP/JSON)"),
        (3, "trace_id is all zero"),
    ]


def test_a_hundred_rejects_are_listed_and_all_counted() -> None:
    found = inspect(request(*[span(span_id=b"")] * 250))
    assert (len(found.rejects), found.rejected) == (100, 250)


def test_strings_to_repair_are_counted_also_inside_values() -> None:
    nested = AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="@"), AnyValue(string_value="fine")]))
    sent = span(name="@", attributes=[attribute("@", "@"), KeyValue(key="a", value=nested)], status=Status(message="@"))
    assert inspect(request(sent).replace(b"@", b"\xff")).repaired == 5


@pytest.mark.parametrize(
    ("body", "at"),
    [(b"\x0a", 1), (b"\x0a\x05abc", 2), (b"\x00", 0), (field(1, field(2, b"\x12\x05")), 6), (b"\x0f", 1)],
)
def test_a_request_that_is_no_message_is_refused_with_the_byte(body: bytes, at: int) -> None:
    with pytest.raises(ValueError, match=rf"cannot read the request: byte {at}: not valid protobuf"):
        inspect(body)


def test_an_unknown_signal_is_refused() -> None:
    with pytest.raises(ValueError, match="signal"):
        _native.inspect("metrics", b"", **NONE)


def parsed(body: bytes) -> list[Span]:
    (resource_spans,) = ExportTraceServiceRequest.FromString(body).resource_spans
    return list(resource_spans.scope_spans[0].spans)


def cut(body: bytes, span_bytes_max: int) -> tuple[bytes, list[tuple[int, str, int, str]]]:
    return _native.cut_oversized(body, span_bytes_max=span_bytes_max)


def test_a_request_of_small_spans_is_returned_as_it_is() -> None:
    body = request(span(), span(attributes=[attribute("k", "x" * 5_000)]))
    same, cuts = cut(body, 6_000)
    assert same is body
    assert cuts == []


def test_the_longest_values_of_a_large_span_are_cut_and_named() -> None:
    large = span(
        attributes=[attribute("small", "x" * 500), attribute("large", "x" * 5_000), attribute("larger", "é" * 9_000)]
    )
    body = request(span(), large, span())
    rewritten, cuts = cut(body, 8_000)
    before, found, after = parsed(rewritten)
    assert before == after == span()
    assert len(found.SerializeToString()) <= 8_000
    values = {entry.key: entry.value.string_value for entry in found.attributes}
    assert values["small"] == "x" * 500
    assert cuts[0] == (1, "large", 5_000, "c40b706e6ba9af508d8567cbc9ee3d90")
    assert [(index, key, size) for index, key, size, _ in cuts] == [(1, "large", 5_000), (1, "larger", 18_000)]
    for _, key, size, hash_ in cuts:
        text, _, note = values[key].rpartition("...")
        assert note == f"[cut by spanwise: {size} bytes, xxh3 {hash_}]"
        assert set(text) == {"x" if key == "large" else "é"}
        assert len(text.encode()) > 3_000


def test_values_of_every_kind_and_place_can_be_cut() -> None:
    big = "x" * 10_000
    array = AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=big)]))
    sent = span(
        name=big,
        trace_state=big,
        status=Status(message=big, code=Status.STATUS_CODE_ERROR),
        attributes=[
            KeyValue(key="array", value=array),
            KeyValue(key="bytes", value=AnyValue(bytes_value=b"\xff" * 10_000)),
            KeyValue(key="number", value=AnyValue(int_value=1)),
        ],
        events=[Span.Event(), Span.Event(name=big, attributes=[attribute("k", big)])],
        links=[Span.Link(trace_state=big, attributes=[attribute("k", big)])],
    )
    rewritten, cuts = cut(request(sent), 20_000)
    (found,) = parsed(rewritten)
    assert len(found.SerializeToString()) <= 20_000
    assert {(key, size) for _, key, size, _ in cuts} == {
        ("name", 10_000),
        ("trace_state", 10_000),
        ("status.message", 10_000),
        ("array", 10_004),
        ("bytes", 10_000),
        ("events[1].name", 10_000),
        ("events[1].k", 10_000),
        ("links[0].trace_state", 10_000),
        ("links[0].k", 10_000),
    }
    assert found.status.code == Status.STATUS_CODE_ERROR
    assert [len(event.attributes) for event in found.events] == [0, 1]
    values = {entry.key: entry.value for entry in found.attributes}
    assert values["array"].string_value.startswith('["xxx')
    assert values["bytes"].string_value.startswith("ffff")
    assert values["number"].int_value == 1


def test_many_small_values_stay_though_their_span_is_large() -> None:
    body = request(span(attributes=[attribute(f"k{n}", "x" * 900) for n in range(20)]))
    same, cuts = cut(body, 10_000)
    assert same is body
    assert cuts == []


def test_a_span_that_is_no_message_stays_for_decoding_to_reject() -> None:
    body = request_of(span().SerializeToString() + b"\x4a\x05" + b"x" * 9_000)
    same, cuts = cut(body, 8_000)
    assert same is body
    assert cuts == []


def test_a_request_that_is_no_message_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="byte"):
        cut(field(1, bytes(100)), 10)
