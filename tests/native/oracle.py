"""What a request holds, read by the reference decoder, and what the native core wrote about it, read back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

INT64_MAX = 2**63 - 1
INLINE_BYTES_MAX = 256
PREVIEW_CHARACTERS = 200
LETTERS = {
    None: "n",
    "string_value": "s",
    "bool_value": "b",
    "int_value": "i",
    "double_value": "d",
    "array_value": "a",
    "kvlist_value": "k",
    "bytes_value": "y",
    "string_value_strindex": "n",
}
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")

Comparable: TypeAlias = tuple[str, Any]
"""Type letter and value: text, number, or the parsed JSON of an array or list (objects as tuples of pairs)."""


class Expected(NamedTuple):
    """One span as the reference decoder reads it; attributes by key, in order."""

    columns: dict[str, Any]
    attributes: dict[str, Comparable]
    resource: dict[str, Comparable]
    scope: dict[str, Comparable]
    events: list[tuple[int, str, dict[str, Comparable]]]
    links: list[tuple[str, str, str, dict[str, Comparable]]]


def _double(number: float) -> Any:
    """A double that compares equal to itself."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return ("double", number, math.copysign(1, number))


def _nested(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_nested(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return tuple((entry.key, _nested(entry.value)) for entry in value.kvlist_value.values)
    if kind == "bytes_value":
        return value.bytes_value.hex()
    if kind == "double_value":
        return _double(value.double_value)
    return getattr(value, kind) if kind and kind != "string_value_strindex" else None


def comparable(value: AnyValue) -> Comparable:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return "s", value.string_value
    if kind == "int_value":
        return "i", value.int_value
    return LETTERS[kind], "" if LETTERS[kind] == "n" else _nested(value)


def read_back(letter: str, text: str) -> Comparable:
    """The stored text of a value, as `comparable` has it."""
    if letter == "i":
        return letter, int(text)
    if letter == "b":
        return letter, {"true": True, "false": False}[text]
    if letter == "d":
        return letter, _double(float(text))
    if letter in "ak":
        return letter, json.loads(text, object_pairs_hook=tuple, parse_float=lambda number: _double(float(number)))
    return letter, text


def _attributes(attributes: Iterable[KeyValue]) -> dict[str, Comparable]:
    return {attribute.key: comparable(attribute.value) for attribute in attributes}


def _clamp(nanos: int) -> int:
    return min(nanos, INT64_MAX)


def _valid(span: Span) -> bool:
    parent = span.parent_span_id
    return (
        (len(span.trace_id), len(span.span_id)) == (16, 8)
        and any(span.trace_id)
        and any(span.span_id)
        and len(parent) in (0, 8)
    )


def _span(resource_spans: ResourceSpans, scope_spans: ScopeSpans, span: Span) -> Expected:
    resource, scope = resource_spans.resource, scope_spans.scope
    parent = span.parent_span_id
    return Expected(
        columns={
            "trace_id": span.trace_id.hex(),
            "span_id": span.span_id.hex(),
            "parent_span_id": parent.hex() if any(parent) else "",
            "trace_state": span.trace_state,
            "flags": span.flags,
            "start_time": _clamp(span.start_time_unix_nano),
            "duration_ns": max(0, span.end_time_unix_nano - span.start_time_unix_nano),
            "scope": scope.name,
            "scope_version": scope.version,
            "name": span.name,
            "span_kind": KINDS[span.kind] if 0 <= span.kind < len(KINDS) else "unspecified",
            "status": STATUSES[span.status.code] if 0 <= span.status.code < len(STATUSES) else "unset",
            "status_message": span.status.message,
            "dropped_attributes_count": span.dropped_attributes_count,
            "dropped_events_count": span.dropped_events_count,
            "dropped_links_count": span.dropped_links_count,
            "schema_url": scope_spans.schema_url or resource_spans.schema_url,
        },
        attributes=_attributes(span.attributes),
        resource=_attributes(resource.attributes),
        scope=_attributes(scope.attributes),
        events=[(_clamp(event.time_unix_nano), event.name, _attributes(event.attributes)) for event in span.events],
        links=[
            (link.trace_id.hex(), link.span_id.hex(), link.trace_state, _attributes(link.attributes))
            for link in span.links
        ],
    )


def expected(request: ExportTraceServiceRequest) -> list[Expected | None]:
    """The spans of a request in order, `None` where the span has to be rejected."""
    return [
        _span(resource_spans, scope_spans, span) if _valid(span) else None
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows with times as integers, which Python's own time types are too coarse for."""
    columns: list[list[Any]] = []
    for name in batch.schema.names:
        column: Any = batch.column(name)
        if name == "events":
            events = column.values
            times = events.field("time").cast(pa.int64())
            fields = [times, events.field("name"), events.field("attributes"), events.field("types")]
            struct = pa.StructArray.from_arrays(fields, names=["time", "name", "attributes", "types"])
            column = pa.ListArray.from_arrays(column.offsets, struct)
        elif pa.types.is_timestamp(column.type):
            column = pc.cast(column, pa.int64())
        columns.append(column.to_pylist())
    return [dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


Stored: TypeAlias = dict[tuple[str, str, str], str]


def stored(content: pa.RecordBatch) -> Stored:
    """Content by (tenant, trace id, hash); each is there once."""
    found = {(row["tenant"], row["trace_id"], row["hash"]): row["value"] for row in rows(content)}
    assert len(found) == content.num_rows
    return found


def whole(row: dict[str, Any], content: Stored, place: str, key: str, text: str) -> str:
    """The value of an entry, cut or not: its references stand under `<place>.<key>`."""
    name = f"{place}.{key}"
    references = [reference for reference in row["content"] if reference["key"] == name]
    if not references:
        assert len(text.encode()) <= INLINE_BYTES_MAX
        return text
    values = [content[row["tenant"], row["trace_id"], reference["hash"]] for reference in references]
    assert [len(value.encode()) for value in values] == [reference["bytes"] for reference in references]
    (form,) = {reference["form"] for reference in references}
    if form == "text":
        (value,) = values
    else:
        value = "[" + {"item": ",", "item_sp": ", "}[form].join(values) + "]"
    assert len(value.encode()) > INLINE_BYTES_MAX
    assert text == value[:PREVIEW_CHARACTERS]
    return value


def _entries(
    row: dict[str, Any], content: Stored, place: str, entries: Sequence[tuple[str, str]], types: str
) -> dict[str, Comparable]:
    assert len(types) == len(entries)
    return {
        key: read_back(letter, whole(row, content, place, key, text))
        for letter, (key, text) in zip(types, entries, strict=True)
    }


def restore(row: dict[str, Any], content: Stored) -> dict[str, Comparable]:
    """Every original attribute of a span, from its row and the content table."""
    types = row["attribute_types"]
    sent = [index for index, letter in enumerate(types) if letter.islower()]
    assert sent == list(range(len(sent))), "derived attributes come last"
    return _entries(row, content, "attributes", row["attributes"][: len(sent)], types[: len(sent)])


def check_span(expected: Expected, row: dict[str, Any], content: Stored) -> None:
    """Everything that the reference decoder knows of a span is in its row."""
    for name, value in expected.columns.items():
        assert row[name] == value, name
    attributes = restore(row, content)
    assert attributes == expected.attributes
    assert list(attributes) == list(expected.attributes)
    for place, column, sent in (
        ("resource", "resource_attributes", expected.resource),
        ("scope", "scope_attributes", expected.scope),
    ):
        types = "".join(letter for letter, _ in sent.values())
        assert _entries(row, content, place, row[column], types) == sent
    assert len(row["events"]) == len(expected.events)
    for index, (event, (time, name, sent)) in enumerate(zip(row["events"], expected.events, strict=True)):
        assert (event["time"], event["name"]) == (time, name)
        assert _entries(row, content, f"events[{index}]", event["attributes"], event["types"]) == sent
    assert len(row["links"]) == len(expected.links)
    for index, (link, (*ids, sent)) in enumerate(zip(row["links"], expected.links, strict=True)):
        assert [link["trace_id"], link["span_id"], link["trace_state"]] == ids
        types = "".join(letter for letter, _ in sent.values())
        assert _entries(row, content, f"links[{index}]", link["attributes"], types) == sent
