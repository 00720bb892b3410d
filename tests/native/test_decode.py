"""What a row says about its span, beyond what was sent: times, versions, references, rejects."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from processors.normalise import plan_json
from spanwise import _native
from spanwise.model import CONTENT, LOG_EVENTS, SPANS
from tests.native import oracle
from tests.native.requests import RECEIVED, attribute, request_of, span

DECODER = _native.Decoder(plan_json())
DAY = 86_400 * 10**9
"""ns"""
TODAY = date(2026, 11, 21)


def decode(*spans: Span, received: int = RECEIVED, resource: Resource | None = None) -> _native.Decoded:
    encoded = b"" if resource is None else resource.SerializeToString()
    request = request_of(*(span.SerializeToString() for span in spans), resource=encoded)
    return DECODER.decode([("tenant", received, "traces", request)])


def row(sent: Span, **options: Any) -> dict[str, Any]:
    (found,) = oracle.rows(decode(sent, **options).spans)
    return found


def references(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(reference["key"], reference["form"]) for reference in row["content"]]


def test_batches_have_the_schemas_of_the_column_tables() -> None:
    decoded = decode(span())
    assert decoded.spans.schema.equals(SPANS.arrow)
    assert decoded.content.schema.equals(CONTENT.arrow)
    assert decoded.log_events.schema.equals(LOG_EVENTS.arrow)


def test_no_frames_give_empty_batches() -> None:
    decoded = DECODER.decode([])
    assert (decoded.spans.num_rows, decoded.content.num_rows, decoded.log_events.num_rows) == (0, 0, 0)
    assert decoded.spans.schema.equals(SPANS.arrow)


def test_the_module_does_not_import_pyarrow() -> None:
    code = "import sys; from spanwise import _native; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_wrong_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot read the plan"):
        _native.Decoder(b"{}")


def test_an_unknown_signal_is_refused() -> None:
    with pytest.raises(ValueError, match="signal"):
        DECODER.decode([("t", RECEIVED, "metrics", b"")])


def test_the_same_frames_give_the_same_bytes() -> None:
    messages = json.dumps([{"role": "user", "content": "hello " * 100}] * 3)
    request = request_of(
        *(
            span(name=f"n{n}", attributes=[attribute("gen_ai.input.messages", messages)]).SerializeToString()
            for n in range(50)
        )
    )
    frames = [(tenant, RECEIVED, "traces", request) for tenant in "abc"]
    one, other = DECODER.decode(frames), _native.Decoder(plan_json()).decode(frames)
    for name in ("spans", "content", "log_events"):
        assert getattr(one, name).serialize() == getattr(other, name).serialize()


def test_content_is_there_once_a_tenant_and_trace() -> None:
    big = attribute("big", "x" * 300)
    request = request_of(
        *(
            span(trace_id=trace, span_id=bytes([n + 1]) * 8, attributes=[big]).SerializeToString()
            for n, trace in enumerate((b"\1" * 16, b"\2" * 16, b"\1" * 16))
        )
    )
    content = DECODER.decode([("a", RECEIVED, "traces", request), ("b", RECEIVED, "traces", request)]).content
    found = [(entry["tenant"], entry["trace_id"]) for entry in oracle.rows(content)]
    assert found == [("a", "01" * 16), ("a", "02" * 16), ("b", "01" * 16), ("b", "02" * 16)]


def test_content_is_addressed_by_xxh3_128_of_its_text() -> None:
    (entry,) = oracle.rows(decode(span(attributes=[attribute("big", "é" * 300)])).content)
    # as `xxhsum -H2` prints it
    assert entry["hash"] == "06bd0527a824b185e0eec15945d8a29d"


@pytest.mark.parametrize(
    ("value", "form", "count"),
    [
        (json.dumps([{"role": "user", "content": "x" * 200}] * 2), "item_sp", 2),
        (json.dumps([{"role": "user", "content": "x" * 200}] * 2, separators=(",", ":")), "item", 2),
        (json.dumps(["x" * 300]), "item", 1),
        # numbers of an embedding: as many references as numbers would be larger than the numbers
        (json.dumps([0.123456789] * 500), "text", 1),
        (json.dumps(["/usr/lib/python3/dist-packages/module/file.py" * 3] * 100), "text", 1),
        (json.dumps(["x" * 300] * 3), "item_sp", 3),
        ("[" + "x" * 300, "text", 1),
        ("x" * 257, "text", 1),
    ],
)
def test_a_big_value_is_referred_to_in_the_form_that_repeats(value: str, form: str, count: int) -> None:
    assert references(row(span(attributes=[attribute("big", value)]))) == [("attributes.big", form)] * count


def test_a_value_of_256_bytes_stays_whole() -> None:
    assert references(row(span(attributes=[attribute("big", "é" * 128)]))) == []


def test_a_growing_history_is_stored_once() -> None:
    messages = [{"role": "user", "content": f"{n} " + "x" * 500} for n in range(20)]
    spans = [
        span(span_id=bytes([n + 1]) * 8, attributes=[attribute("llm.history", json.dumps(messages[: n + 1]))])
        for n in range(20)
    ]
    decoded = decode(*spans)
    assert decoded.content.num_rows == 20
    content = oracle.stored(decoded.content)
    for number, found in enumerate(oracle.rows(decoded.spans)):
        assert oracle.restore(found, content)["llm.history"] == ("s", json.dumps(messages[: number + 1]))


def test_an_original_and_a_canonical_value_of_one_name_are_told_apart() -> None:
    sent = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hello " * 60}]}], indent=1)
    decoded = decode(
        span(attributes=[attribute("gen_ai.operation.name", "chat"), attribute("gen_ai.input.messages", sent)])
    )
    (found,) = oracle.rows(decoded.spans)
    assert {key for key, _ in references(found)} == {"attributes.gen_ai.input.messages", "gen_ai.input.messages"}
    assert oracle.restore(found, oracle.stored(decoded.content))["gen_ai.input.messages"] == ("s", sent)


def test_big_values_of_events_links_resource_and_scope_are_referred_to_by_place() -> None:
    big = attribute("big", "x" * 300)
    request = request_of(
        span(
            events=[Span.Event(), Span.Event(attributes=[big])], links=[Span.Link(attributes=[big])]
        ).SerializeToString(),
        resource=Resource(attributes=[big]).SerializeToString(),
        scope=InstrumentationScope(attributes=[big]).SerializeToString(),
    )
    decoded = DECODER.decode([("t", RECEIVED, "traces", request)])
    (found,) = oracle.rows(decoded.spans)
    assert {key for key, _ in references(found)} == {"events[1].big", "links[0].big", "resource.big", "scope.big"}
    assert decoded.content.num_rows == 1


def test_every_span_of_a_group_has_its_own_references_to_a_big_resource_value() -> None:
    decoded = decode(
        span(trace_id=b"\1" * 16),
        span(trace_id=b"\2" * 16),
        resource=Resource(attributes=[attribute("big", "x" * 300)]),
    )
    assert [references(found) for found in oracle.rows(decoded.spans)] == [[("resource.big", "text")]] * 2
    assert decoded.content.num_rows == 2


def test_the_last_of_repeated_keys_wins_at_the_place_of_the_first() -> None:
    for count in (1, 40):
        others = [attribute(f"k{n}", "x") for n in range(count)]
        sent = [attribute("a", "1"), *others, attribute("a", "2"), attribute("b", "3"), attribute("a", "4")]
        found = row(span(attributes=sent))
        assert found["attributes"][0] == ("a", "4")
        assert [key for key, _ in found["attributes"]] == ["a", *(other.key for other in others), "b"]
        assert found["attribute_types"] == "s" * (count + 2)


def test_derived_attributes_follow_the_sent_ones_in_upper_case() -> None:
    sent = {"openinference.span.kind": "TOOL", "tool.name": "find", "tool.description": "finds things"}
    found = row(span(attributes=[attribute(key, value) for key, value in sent.items()]))
    assert found["attributes"] == [*sent.items(), ("gen_ai.tool.description", "finds things")]
    assert found["attribute_types"] == "sssS"


def test_a_sent_attribute_is_never_derived_again() -> None:
    sent = {"openinference.span.kind": "TOOL", "tool.description": "one", "gen_ai.tool.description": "another"}
    found = row(span(attributes=[attribute(key, value) for key, value in sent.items()]))
    assert found["attributes"] == list(sent.items())


@pytest.mark.parametrize(
    ("start", "end", "flag", "day"),
    [
        (RECEIVED - 5, RECEIVED, "", TODAY),
        (RECEIVED - 30 * DAY, RECEIVED, "", date(2026, 10, 22)),
        (0, 0, "zero", TODAY),
        (1_000_000_000, 2_000_000_000, "ancient", TODAY),
        (946_684_800 * 10**9, 946_684_800 * 10**9, "", date(2000, 1, 1)),
        (RECEIVED + DAY, RECEIVED + DAY, "", date(2026, 11, 22)),
        (RECEIVED + DAY + 1, RECEIVED + DAY + 1, "future", TODAY),
        (RECEIVED, RECEIVED - 1, "inverted", TODAY),
        (2**64 - 1, 2**64 - 1, "future", TODAY),
    ],
)
def test_impossible_times_are_flagged_and_partitioned_by_receipt(start: int, end: int, flag: str, day: date) -> None:
    assert datetime.fromtimestamp(RECEIVED // 10**9, UTC).date() == TODAY
    found = row(span(start_time_unix_nano=start, end_time_unix_nano=end))
    assert (found["time_flag"], found["day"]) == (flag, day)
    assert found["duration_ns"] == max(0, end - start)


def test_times_that_do_not_fit_are_kept_as_derived_attributes() -> None:
    found = row(span(start_time_unix_nano=2**64 - 1, end_time_unix_nano=5))
    assert found["start_time"] == 2**63 - 1
    assert dict(found["attributes"]) == {
        "spanwise.start_time_unix_nano": str(2**64 - 1),
        "spanwise.end_time_unix_nano": "5",
    }
    assert found["attribute_types"] == "II"


def test_a_later_end_wins_and_equal_spans_are_equal() -> None:
    first, same, later = (
        row(span(end_time_unix_nano=RECEIVED + more, name=name))["version"]
        for more, name in ((0, "a"), (0, "a"), (1 << 21, "a"))
    )
    assert first == same < later
    assert first >> 23 == RECEIVED >> 20
    assert first & 15 == 0
    other = row(span(end_time_unix_nano=RECEIVED, name="b"))["version"]
    assert other >> 23 == first >> 23
    assert other != first


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trace_id": b""}, "trace_id is 0 bytes long, not 16"),
        ({"trace_id": bytes(16)}, "trace_id is all zero"),
        ({"span_id": b"1234567"}, "span_id is 7 bytes long, not 8"),
        ({"span_id": bytes(8)}, "span_id is all zero"),
        ({"parent_span_id": b"123456789"}, "parent_span_id is 9 bytes long, not 8"),
    ],
)
def test_a_span_with_a_wrong_id_is_rejected_alone(fields: dict[str, bytes], reason: str) -> None:
    decoded = decode(span(), span(**fields), span())
    assert decoded.spans.num_rows == 2
    assert decoded.rejected == 1
    ((frame, item, said),) = decoded.rejects
    assert (frame, item) == (0, 1)
    assert reason in said


def test_a_parent_of_zeros_is_none() -> None:
    assert row(span(parent_span_id=bytes(8)))["parent_span_id"] == ""


def test_a_span_that_is_not_protobuf_is_rejected_alone() -> None:
    good = span().SerializeToString()
    decoded = DECODER.decode([("t", RECEIVED, "traces", request_of(good, good + b"\x4a\x05ab", good))])
    assert decoded.spans.num_rows == 2
    assert [(frame, item) for frame, item, _ in decoded.rejects] == [(0, 1)]


def test_rejects_are_counted_beyond_those_listed() -> None:
    decoded = decode(*[span(trace_id=b"")] * 1_200)
    assert (len(decoded.rejects), decoded.rejected) == (1_000, 1_200)


def test_invalid_utf8_is_replaced_not_rejected() -> None:
    spoiled = span(name="n@me", attributes=[attribute("k@y", "v@lue")]).SerializeToString().replace(b"@", b"\xff")
    decoded = DECODER.decode([("t", RECEIVED, "traces", request_of(spoiled))])
    (found,) = oracle.rows(decoded.spans)
    assert (found["name"], found["attributes"]) == ("n\ufffdme", [("k\ufffdy", "v\ufffdlue")])


def test_a_request_that_unfolds_beyond_all_bounds_loses_spans_not_the_program() -> None:
    resource = Resource(attributes=[attribute("big", "x" * 6_000_000)]).SerializeToString()
    spans = [span(span_id=n.to_bytes(8)).SerializeToString() for n in range(1, 101)]
    request = request_of(*spans, resource=resource)
    decoded = DECODER.decode([("t", RECEIVED, "traces", request)])
    inspection = _native.inspect("traces", request, items_max=10**6, attributes_max=10**6)
    assert decoded.spans.num_rows + decoded.rejected == 100
    assert 0 < decoded.rejected == inspection.rejected < 100
    assert "unfolds" in decoded.rejects[0][2]


def log_request(*records: LogRecord, resource: Resource | None = None) -> bytes:
    encoded = b"" if resource is None else resource.SerializeToString()
    return request_of(*(record.SerializeToString() for record in records), resource=encoded)


def log_record(**fields: Any) -> LogRecord:
    defaults: dict[str, Any] = {
        "trace_id": b"\1" * 16,
        "span_id": b"\2" * 8,
        "time_unix_nano": RECEIVED,
        "event_name": "gen_ai.user.message",
        "attributes": [attribute("gen_ai.system", "openai")],
        "body": AnyValue(kvlist_value=KeyValueList(values=[attribute("content", "hi")])),
    }
    return LogRecord(**(defaults | fields))


def test_a_log_record_with_meaning_is_kept_whole() -> None:
    big = "x" * 1_000
    request = log_request(
        log_record(attributes=[attribute("gen_ai.system", "openai"), attribute("big", big)], severity_number=9),
        resource=Resource(attributes=[attribute("service.name", "checkout")]),
    )
    decoded = DECODER.decode([("t", RECEIVED, "logs", request)])
    (found,) = oracle.rows(decoded.log_events)
    assert dict(found["attributes"])["big"] == big
    assert (found["trace_id"], found["span_id"], found["time"]) == ("01" * 16, "02" * 8, RECEIVED)
    assert (found["event_name"], found["severity"], found["service"]) == ("gen_ai.user.message", 9, "checkout")
    assert found["body"] == '{"content":"hi"}'
    assert found["day"] == TODAY


def test_a_log_record_outside_of_a_span_has_no_ids() -> None:
    decoded = DECODER.decode([("t", RECEIVED, "logs", log_request(log_record(trace_id=b"", span_id=bytes(8))))])
    (found,) = oracle.rows(decoded.log_events)
    assert (found["trace_id"], found["span_id"]) == ("", "")


def test_a_log_record_takes_the_observed_time_and_the_event_name_attribute() -> None:
    record = log_record(
        time_unix_nano=0,
        observed_time_unix_nano=RECEIVED - DAY,
        event_name="",
        attributes=[attribute("event.name", "gen_ai.user.message"), attribute("gen_ai.system", "openai")],
    )
    (found,) = oracle.rows(DECODER.decode([("t", RECEIVED, "logs", log_request(record))]).log_events)
    assert (found["time"], found["event_name"]) == (RECEIVED - DAY, "gen_ai.user.message")


def test_a_repeated_log_record_has_the_same_identity_and_another_has_not() -> None:
    checkout = Resource(attributes=[attribute("service.name", "checkout")])
    ids = [
        oracle.rows(DECODER.decode([("t", RECEIVED, "logs", log_request(record, resource=resource))]).log_events)[0][
            "record_id"
        ]
        for record, resource in (
            (log_record(), checkout),
            (log_record(), checkout),
            (log_record(), None),
            (log_record(severity_number=1), checkout),
        )
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_log_record_without_meaning_is_counted_only() -> None:
    record = log_record(event_name="", attributes=[], body=AnyValue(string_value="started"), trace_id=b"")
    decoded = DECODER.decode([("t", RECEIVED, "logs", log_request(record))])
    assert (decoded.log_events.num_rows, decoded.ignored_logs, decoded.rejected) == (0, 1, 0)


def test_profile_dictionary_references_are_empty_values() -> None:
    sent = KeyValue(key="k", value=AnyValue(string_value_strindex=3))
    array = KeyValue(key="a", value=AnyValue(array_value=ArrayValue(values=[AnyValue(string_value_strindex=3)])))
    found = row(span(attributes=[sent, array]))
    assert (found["attributes"], found["attribute_types"]) == ([("k", ""), ("a", "[null]")], "na")


def test_a_frame_that_cannot_be_read_to_its_end_keeps_what_came_before() -> None:
    request = request_of(span().SerializeToString()) + b"\x0a\x7f"
    decoded = DECODER.decode([("t", RECEIVED, "traces", request), ("t", RECEIVED, "traces", request_of())])
    assert decoded.spans.num_rows == 1
    ((frame, item, reason),) = decoded.rejects
    assert (frame, item) == (0, 1)
    assert "not readable from here on: byte" in reason
