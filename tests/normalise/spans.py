"""One span or log record in, its canonical row out, through the real decoder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from processors.normalise import plan_json
from spanwise import _native
from spanwise.model import Signal

START = 1_795_220_000_000_000_000
"""Start of spans, ns."""

Row = dict[str, Any]


@cache
def _decoder() -> _native.Decoder:
    return _native.Decoder(plan_json())


def decode(signal: Signal, requests: Iterable[bytes]) -> list[Row]:
    """Rows of OTLP/JSON requests, in order."""
    frames = [("t", START, signal, _native.json_to_protobuf(signal, request)) for request in requests]
    decoded = _decoder().decode(frames)
    rows: list[Row] = (decoded.spans if signal == "traces" else decoded.log_events).to_pylist()
    for row in rows:
        row["attributes"] = dict(row["attributes"])
    return rows


def value(of: object) -> dict[str, Any]:
    """A Python value as an OTLP/JSON AnyValue."""
    match of:
        case bool():
            return {"boolValue": of}
        case int():
            return {"intValue": str(of)}
        case float():
            return {"doubleValue": of}
        case Mapping():
            return {"kvlistValue": {"values": attributes(of)}}
        case str():
            return {"stringValue": of}
        case Sequence():
            return {"arrayValue": {"values": [value(item) for item in of]}}
    raise TypeError(type(of))


def attributes(of: Mapping[str, object]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value(item)} for key, item in of.items()]


def _resource(service: str) -> dict[str, Any]:
    return {"attributes": attributes({"service.name": service})}


def span(
    of: Mapping[str, object] | None = None,
    *,
    name: str = "call",
    scope: str = "",
    service: str = "svc",
    parent: str = "",
    error: bool = False,
    message: str = "",
    events: Sequence[tuple[str, Mapping[str, object]]] = (),
) -> Row:
    """The row of one span with these attributes."""
    body = {
        "traceId": "1" * 32,
        "spanId": "2" * 16,
        "parentSpanId": parent,
        "name": name,
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(START + 1_000_000),
        "attributes": attributes(of or {}),
        "status": {"code": 2, "message": message} if error else {},
        "events": [
            {"timeUnixNano": str(START), "name": event, "attributes": attributes(keys)} for event, keys in events
        ],
    }
    scopes = [{"scope": {"name": scope}, "spans": [body]}]
    request = {"resourceSpans": [{"resource": _resource(service), "scopeSpans": scopes}]}
    [row] = decode("traces", [json.dumps(request).encode()])
    return row


def log(of: Mapping[str, object] | None = None, *, event: str = "", body: object = "", scope: str = "") -> Row | None:
    """The row of one log record, None if it is not kept."""
    record = {
        "timeUnixNano": str(START),
        "eventName": event,
        "body": value(body),
        "attributes": attributes(of or {}),
    }
    scopes = [{"scope": {"name": scope}, "logRecords": [record]}]
    request = {"resourceLogs": [{"resource": _resource("svc"), "scopeLogs": scopes}]}
    rows = decode("logs", [json.dumps(request).encode()])
    return rows[0] if rows else None


def usage(row: Row) -> tuple[int | None, ...]:
    """(input, output, cache read, cache write, reasoning) tokens of a row."""
    return (
        row["input_tokens"],
        row["output_tokens"],
        row["cache_read_tokens"],
        row["cache_write_tokens"],
        row["reasoning_tokens"],
    )
