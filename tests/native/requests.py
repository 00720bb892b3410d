"""Export requests of every legal shape, and the bytes to spoil them with."""

from __future__ import annotations

import json
import random
from typing import Any

from google.protobuf.json_format import MessageToDict
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

RECEIVED = 1_795_219_287_117_000_000

KEYS = st.sampled_from(["a", "b", "", "gen_ai.input.messages", "llm.input_messages.0.message.content", "ключ"])
TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "x" * 256,
            "x" * 257,
            "é" * 250,
            json.dumps([{"role": "user", "content": "hello " * 40}, {"role": "tool", "content": 'q"\\' * 30}]),
            json.dumps([{"n": "long " * 30}, "b" * 99], separators=(",", ":")),
            json.dumps(list(range(300))),
            "[" + "y" * 300,
            "[]" * 200,
        ]
    ),
)
INT64 = st.integers(-(2**63), 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
NANOS = st.one_of(
    st.integers(RECEIVED - 10**12, RECEIVED + 10**12), st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1])
)


def _array(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    return st.lists(values, max_size=3).map(lambda items: AnyValue(array_value=ArrayValue(values=items)))


def _list(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    entry = st.builds(lambda key, value: KeyValue(key=key, value=value), KEYS, values)
    return st.lists(entry, max_size=3).map(lambda items: AnyValue(kvlist_value=KeyValueList(values=items)))


SCALARS: st.SearchStrategy[AnyValue] = st.one_of(
    st.just(AnyValue()),
    TEXT.map(lambda value: AnyValue(string_value=value)),
    st.booleans().map(lambda value: AnyValue(bool_value=value)),
    INT64.map(lambda value: AnyValue(int_value=value)),
    st.floats().map(lambda value: AnyValue(double_value=value)),
    st.binary(max_size=300).map(lambda value: AnyValue(bytes_value=value)),
)
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(_array(inner), _list(inner)), max_leaves=6)
ATTRIBUTES = st.lists(st.builds(lambda key, value: KeyValue(key=key, value=value), KEYS, VALUES), max_size=5)


def _id(length: int) -> st.SearchStrategy[bytes]:
    valid = st.binary(min_size=length, max_size=length)
    return st.one_of(valid, valid, valid, st.sampled_from([b"", bytes(length), b"\1" * (length - 1)]))


EVENTS = st.builds(Span.Event, time_unix_nano=NANOS, name=TEXT, attributes=ATTRIBUTES, dropped_attributes_count=UINT32)
LINKS = st.builds(
    Span.Link,
    trace_id=st.binary(max_size=17),
    span_id=st.binary(max_size=9),
    trace_state=TEXT,
    attributes=ATTRIBUTES,
    flags=UINT32,
)
SPANS = st.builds(
    Span,
    trace_id=_id(16),
    span_id=_id(8),
    parent_span_id=_id(8),
    trace_state=TEXT,
    flags=UINT32,
    name=TEXT,
    kind=st.integers(0, 9),
    start_time_unix_nano=NANOS,
    end_time_unix_nano=NANOS,
    attributes=ATTRIBUTES,
    dropped_attributes_count=UINT32,
    events=st.lists(EVENTS, max_size=2),
    dropped_events_count=UINT32,
    links=st.lists(LINKS, max_size=2),
    dropped_links_count=UINT32,
    status=st.one_of(st.none(), st.builds(Status, message=TEXT, code=st.integers(0, 5))),
)
SCOPES = st.one_of(st.none(), st.builds(InstrumentationScope, name=TEXT, version=TEXT, attributes=ATTRIBUTES))
REQUESTS = st.builds(
    ExportTraceServiceRequest,
    resource_spans=st.lists(
        st.builds(
            ResourceSpans,
            resource=st.one_of(st.none(), st.builds(Resource, attributes=ATTRIBUTES)),
            scope_spans=st.lists(
                st.builds(ScopeSpans, scope=SCOPES, spans=st.lists(SPANS, max_size=3), schema_url=TEXT), max_size=2
            ),
            schema_url=TEXT,
        ),
        max_size=2,
    ),
)


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, body: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def request_of(*spans: bytes, resource: bytes = b"", scope: bytes = b"") -> bytes:
    """A request around encoded spans."""
    scope_spans = field(1, scope) + b"".join(field(2, span) for span in spans)
    return field(1, field(1, resource) + field(2, scope_spans))


def span(**fields: Any) -> Span:
    """A valid span of the time of `RECEIVED`."""
    defaults: dict[str, Any] = {
        "trace_id": b"\1" * 16,
        "span_id": b"\2" * 8,
        "name": "span",
        "start_time_unix_nano": RECEIVED - 2_000_000_000,
        "end_time_unix_nano": RECEIVED - 1_000_000_000,
    }
    return Span(**(defaults | fields))


def attribute(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


UNKNOWN_FIELDS = (
    varint(100 << 3) + varint(7),
    varint(101 << 3 | 1) + b"12345678",
    field(102, b"new"),
    varint(103 << 3 | 5) + b"1234",
    # a group with a group in it
    varint(104 << 3 | 3) + varint(1 << 3 | 3) + varint(1 << 3 | 4) + field(2, b"x") + varint(104 << 3 | 4),
    # field 1 of every message, in a wire type that it does not have anywhere
    varint(1 << 3 | 5) + b"1234",
)


def sprinkle(body: bytes, random_: random.Random, depth: int = 0) -> bytes:
    """The same message with unknown fields between those of its outer four levels."""
    out, at = bytearray(), 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = body[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    nested = ({1}, {1, 2}, {1, 2}, {9, 11, 13, 15})[depth] if depth < 4 else set()
    while at < len(body):
        if random_.random() < 0.3:
            out += random_.choice(UNKNOWN_FIELDS)
        start = at
        tag = number()
        if tag & 7 == 2:
            length = number()
            inner = body[at : at + length]
            at += length
            if tag >> 3 in nested and not (depth == 1 and tag >> 3 == 1) and not (depth == 2 and tag >> 3 == 1):
                out += field(tag >> 3, sprinkle(inner, random_, depth + 1))
            else:
                out += body[start:at]
        else:
            if tag & 7 == 0:
                number()
            else:
                at += 8 if tag & 7 == 1 else 4
            out += body[start:at]
    return bytes(out)


def to_json(request: ExportTraceServiceRequest) -> dict[str, Any]:
    """OTLP/JSON: as protobuf's own, but with hexadecimal ids."""
    document: dict[str, Any] = MessageToDict(request)
    spans = [
        span
        for resource_spans in zip_messages(request.resource_spans, document.get("resourceSpans", []))
        for scope_spans in zip_messages(resource_spans[0].scope_spans, resource_spans[1].get("scopeSpans", []))
        for span in zip_messages(scope_spans[0].spans, scope_spans[1].get("spans", []))
    ]
    for message, found in spans:
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in found:
                found[name] = getattr(
                    message, {"traceId": "trace_id", "spanId": "span_id"}.get(name, "parent_span_id")
                ).hex()
        for link, linked in zip_messages(message.links, found.get("links", [])):
            linked["traceId"], linked["spanId"] = link.trace_id.hex(), link.span_id.hex()
    return document


def zip_messages(messages: Any, documents: list[dict[str, Any]]) -> list[tuple[Any, dict[str, Any]]]:
    return list(zip(messages, documents, strict=True))


def mutate(body: bytes, random_: random.Random) -> bytes:
    """The same bytes with one to four small defects."""
    out = bytearray(body)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        if not out:
            break
        at = random_.randrange(len(out))
        match random_.randrange(7):
            case 0:
                out[at] ^= 1 << random_.randrange(8)
            case 1:
                out[at] = random_.choice((0, 1, 0x7F, 0x80, 0xFF, random_.randrange(256)))
            case 2:
                del out[at : at + random_.randint(1, 8)]
            case 3:
                out[at:at] = random_.randbytes(random_.randint(1, 8))
            case 4:
                stop = at + random_.randint(1, 64)
                out[at:at] = out[at:stop]
            case 5:
                del out[at:]
            case 6:
                source = random_.randrange(len(out))
                size = random_.randint(1, 32)
                out[at : at + size] = out[source : source + size]
    return bytes(out)
