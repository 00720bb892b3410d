"""OTLP/JSON as the specification allows it, and as it should not be."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from processors.normalise import plan_json
from spanwise import _native
from tests.native import oracle
from tests.native.requests import RECEIVED

IDS = {"traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0102030405060708"}


def request(*spans: Any) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def read(**fields: Any) -> Span:
    body = _native.json_to_protobuf("traces", request(IDS | fields))
    span = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans[0]
    assert isinstance(span, Span)
    return span


def value(document: Any) -> AnyValue:
    found = read(attributes=[{"key": "k", "value": document}]).attributes[0].value
    assert isinstance(found, AnyValue)
    return found


def test_ids_are_hexadecimal_of_any_case() -> None:
    assert read(traceId="0102030405060708090A0b0C0d0E0f10").trace_id == bytes(range(1, 17))


@pytest.mark.parametrize("number", [1795219287117000000, "1795219287117000000"])
def test_64_bit_integers_are_strings_or_numbers(number: int | str) -> None:
    assert read(startTimeUnixNano=number).start_time_unix_nano == 1795219287117000000
    assert value({"intValue": number}).int_value == 1795219287117000000


@pytest.mark.parametrize(
    ("kind", "code"), [(3, 2), ("3", "2"), ("SPAN_KIND_CLIENT", "STATUS_CODE_ERROR")], ids=["number", "text", "name"]
)
def test_enums_are_names_or_numbers(kind: int | str, code: int | str) -> None:
    span = read(kind=kind, status={"code": code})
    assert (span.kind, span.status.code) == (Span.SPAN_KIND_CLIENT, 2)


def test_unknown_enum_names_and_fields_are_ignored() -> None:
    span = read(kind="SPAN_KIND_NEW", name="n", new={"a": [1, {"b": None}]}, trace_state="snake case is no name here")
    assert (span.kind, span.name, span.trace_state) == (0, "n", "")


def test_null_is_absent() -> None:
    span = read(name=None, attributes=None, status=None, events=[None], kind=None)
    assert span == Span(trace_id=bytes.fromhex(IDS["traceId"]), span_id=bytes.fromhex(IDS["spanId"]))


@pytest.mark.parametrize(
    ("document", "field", "expected"),
    [
        ({"stringValue": "\0 ü \U0001f600"}, "string_value", "\0 ü \U0001f600"),
        ({"boolValue": False}, "bool_value", False),
        ({"doubleValue": 1}, "double_value", 1.0),
        ({"doubleValue": "Infinity"}, "double_value", float("inf")),
        ({"doubleValue": "-1e300"}, "double_value", -1e300),
        ({"bytesValue": "AAH/"}, "bytes_value", b"\0\1\xff"),
        ({"bytesValue": "_-8"}, "bytes_value", b"\xff\xef"),
        ({"intValue": "9223372036854775807"}, "int_value", 2**63 - 1),
    ],
)
def test_values_of_every_kind_are_read(document: Any, field: str, expected: Any) -> None:
    found = value(document)
    assert found.WhichOneof("value") == field
    assert getattr(found, field) == expected


def test_a_lone_surrogate_is_replaced() -> None:
    text = request(IDS | {"name": "@"}).replace(b"@", rb"a\ud800b\udc00\ud83d\ude00")
    body = _native.json_to_protobuf("traces", text)
    name = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans[0].name
    assert name == "a\ufffdb\ufffd\U0001f600"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"traceId": "zz"}, "trace_id is not hexadecimal"),
        ({"traceId": "AQIDBAUGBwgJCgsMDQ4PEA=="}, "trace_id is not hexadecimal"),
        ({"spanId": "010203040506070"}, "span_id is not hexadecimal"),
        ({"spanId": "01020304050607"}, "span_id is 7 bytes long"),
        ({"parentSpanId": "0102"}, "parent_span_id is 2 bytes long"),
        ({"traceId": 5}, "wrong JSON type"),
        ({"name": ["n"]}, "wrong JSON type"),
        ({"attributes": [{"key": "k", "value": {"intValue": 1.5}}]}, "wrong JSON type"),
        ({"attributes": [{"key": "k", "value": {"intValue": "9223372036854775808"}}]}, "wrong JSON type"),
        ({"startTimeUnixNano": "yesterday"}, "wrong JSON type"),
    ],
)
def test_a_span_with_a_wrong_field_is_rejected_alone(fields: dict[str, Any], reason: str) -> None:
    body = _native.json_to_protobuf("traces", request(IDS, IDS | fields, IDS))
    decoded = _native.Decoder(plan_json()).decode([("t", RECEIVED, "traces", body)])
    assert decoded.spans.num_rows == 2
    ((_, item, said),) = decoded.rejects
    assert item == 1
    assert reason in said


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (b"", 0),
        (b"[]", 0),
        (b'"text"', 0),
        (b"{} {}", 3),
        (b'{"resourceSpans"', 16),
        (b'{"resourceSpans":{}}', 17),
        (b'{"resourceSpans":[{"resource":{"attributes":7}}]}', 44),
        (b'{"x":nul}', 5),
        (b'{"x":1e}', 5),
        (b'{"x":[1 2]}', 8),
        (b'{"resourceSpans":[{"schemaUrl":"\\q"}]}', 31),
        (b"\xef\xbb\xbf{}", 0),
    ],
)
def test_what_is_no_export_request_is_refused_with_the_position(text: bytes, at: int) -> None:
    with pytest.raises(ValueError, match=rf"cannot read the request as OTLP/JSON: position {at}:"):
        _native.json_to_protobuf("traces", text)


def test_errors_do_not_quote_the_payload() -> None:
    with pytest.raises(ValueError, match="position") as raised:
        _native.json_to_protobuf("traces", b'{"secret": tomato}')
    assert "secret" not in str(raised.value)
    assert "tomato" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"x":' + b"[" * 100_000,
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000,
        b'{"resourceSpans":[' * 100_000,
        b'{"resourceSpans":[{"resource":{"attributes":[{"value":' + b'{"arrayValue":{"values":[' * 100_000,
    ],
)
def test_hostile_nesting_does_no_harm(text: bytes) -> None:
    with suppress(ValueError):
        _native.json_to_protobuf("traces", text)


@pytest.mark.parametrize("levels", [32, 33, 100_000])
def test_values_nested_deeper_than_32_levels_are_kept_as_text(levels: int) -> None:
    text = request(IDS | {"attributes": [{"key": "k", "value": "@"}]}).replace(
        b'"@"', b'{"arrayValue":{"values":[' * levels + b'{"intValue":"1"}' + b"]}}" * levels
    )
    body = _native.json_to_protobuf("traces", text)
    decoded = _native.Decoder(plan_json()).decode([("t", RECEIVED, "traces", body)])
    (row,) = oracle.rows(decoded.spans)
    found = json.loads(oracle.whole(row, oracle.stored(decoded.content), "attributes", "k", row["attributes"][0][1]))
    for _ in range(32):
        (found,) = found
    assert found == (1 if levels == 32 else "[" * (levels - 32) + "1" + "]" * (levels - 32))


def test_log_records_are_read() -> None:
    record = {
        "timeUnixNano": "5",
        "observedTimeUnixNano": 6,
        "severityNumber": "SEVERITY_NUMBER_WARN2",
        "severityText": "WARN",
        "body": {"kvlistValue": {"values": [{"key": "a", "value": {"boolValue": True}}]}},
        "traceId": IDS["traceId"],
        "spanId": IDS["spanId"],
        "eventName": "event",
        "flags": 1,
    }
    text = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record], "schemaUrl": "u"}]}]}).encode()
    found = ExportLogsServiceRequest.FromString(_native.json_to_protobuf("logs", text)).resource_logs[0].scope_logs[0]
    (log,) = found.log_records
    assert found.schema_url == "u"
    assert (log.time_unix_nano, log.observed_time_unix_nano, log.severity_number, log.severity_text) == (
        5,
        6,
        14,
        "WARN",
    )
    assert log.body.kvlist_value.values[0].value.bool_value is True
    assert (log.trace_id.hex(), log.span_id.hex(), log.event_name, log.flags) == (*IDS.values(), "event", 1)
