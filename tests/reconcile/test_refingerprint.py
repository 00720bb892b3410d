"""Detectors see the same of a span whether it carries its messages itself or log records do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from processors.detect.steps import Flag
from processors.log_join import assign, join
from processors.normalise import plan_json
from processors.reconcile import narrow
from spanwise._native import Decoder, json_to_protobuf
from spanwise.refingerprint import Refingerprint
from tests.detect.steps_of import call, read, result, text
from tests.detector.conftest import World as DetectorWorld
from tests.normalise.spans import START, attributes
from tests.reconcile.conftest import World

TRACE = "1" * 32
QUESTION, ANSWER = text("user", "Where are the cats?"), text("assistant", "They are asleep " * 40)
CONVERSATION: Mapping[str, object] = {
    "gen_ai.input.messages": json.dumps([QUESTION, call("search", {"q": "cats"}, id="1"), result("[]", id="1")]),
    "gen_ai.output.messages": json.dumps([ANSWER]),
    "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "You find cats."}]),
}
CALL: Mapping[str, object] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-5",
    "gen_ai.request.max_tokens": 500,
    "gen_ai.response.finish_reasons": ["length"],
    "gen_ai.usage.input_tokens": 30,
}


def spans_request(*of: Mapping[str, object], **more: Any) -> bytes:
    spans = [
        {
            "traceId": TRACE,
            "spanId": f"{number:016x}",
            "parentSpanId": "f" * 16,
            "name": "chat gpt-5",
            "startTimeUnixNano": str(START + number * 10**9),
            "endTimeUnixNano": str(START + number * 10**9 + 10**6),
            "attributes": attributes(each),
            **more,
        }
        for number, each in enumerate(of, start=1)
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def logs_request(*of: Mapping[str, object]) -> bytes:
    records = [
        {
            "traceId": TRACE,
            "spanId": f"{number:016x}",
            "timeUnixNano": str(START + number * 10**9 + 10**6),
            "eventName": "gen_ai.client.inference.operation.details",
            "attributes": attributes({"gen_ai.operation.name": "chat", **each}),
        }
        for number, each in enumerate(of, start=1)
    ]
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()


def decode(spans: bytes, logs: bytes | None = None, tenant: str = "t") -> Any:
    frames = [(tenant, START, "traces", json_to_protobuf("traces", spans))]
    if logs is not None:
        frames.append((tenant, START, "logs", json_to_protobuf("logs", logs)))
    return Decoder(plan_json()).decode(frames)


def fingerprint(rows: pa.RecordBatch) -> bytes:
    found: Any = rows.column("fingerprint")[0].as_py()
    return bytes(found)


def joined(spans: bytes, logs: bytes, *, keep: float = 1.0) -> pa.RecordBatch:
    decoded = decode(spans, logs)
    of = assign(narrow(decoded.spans), decoded.log_events)
    assert (of >= 0).all()
    rows, _ = join(decoded.spans, decoded.log_events, of)
    values = decoded.content.to_pylist()
    content = {(row["tenant"], row["trace_id"], row["hash"]): row["value"] for row in values[: int(keep * len(values))]}
    return Refingerprint()(rows, content)


def test_a_span_whose_messages_are_in_a_record_has_the_fingerprint_of_one_that_carries_them() -> None:
    carrying = decode(spans_request({**CALL, **CONVERSATION})).spans
    without = decode(spans_request(CALL)).spans
    assert fingerprint(without) != fingerprint(carrying)
    assert fingerprint(joined(spans_request(CALL), logs_request(CONVERSATION))) == fingerprint(carrying)


def test_an_error_that_only_the_span_knows_stays() -> None:
    events = [
        {
            "timeUnixNano": str(START),
            "name": "exception",
            "attributes": attributes({"exception.type": "BadRequestError", "exception.message": "prompt is too long"}),
        }
    ]
    failing = {"status": {"code": 2}, "events": events}
    carrying = decode(spans_request({**CALL, **CONVERSATION}, **failing)).spans
    again = joined(spans_request(CALL, **failing), logs_request(CONVERSATION))
    assert fingerprint(again) == fingerprint(carrying)
    step = read(fingerprint(again))
    assert step is not None
    assert step.flags & Flag.FAILED


def test_content_that_cannot_be_read_leaves_the_fingerprint_as_it_was() -> None:
    before = decode(spans_request(CALL)).spans
    assert fingerprint(joined(spans_request(CALL), logs_request(CONVERSATION), keep=0.5)) == fingerprint(before)


@pytest.mark.parametrize("logs_first", [True, False])
def test_answers_that_repeat_in_records_are_found_like_answers_in_spans(world: World, logs_first: bool) -> None:
    detecting = DetectorWorld(world.store)
    calls = [
        {
            **CALL,
            "gen_ai.agent.name": "finder",
            "gen_ai.usage.input_tokens": 30 + number,
            "gen_ai.response.finish_reasons": ["stop"],
        }
        for number in range(4)
    ]
    decoded = decode(
        spans_request(*calls),
        logs_request(*([CONVERSATION] * 4)),
        tenant=detecting.tenant,
    )
    nothing = np.zeros(0, dtype=np.int64)
    halves = [
        (decoded.spans, decoded.content.take(nothing), decoded.log_events.take(nothing)),
        (decoded.spans.take(nothing), decoded.content, decoded.log_events),
    ]
    for number, (spans, content, logs) in enumerate(reversed(halves) if logs_first else halves):
        rows = detecting.price(spans)
        detecting.sink.write(f"{detecting.tenant}-refingerprint-{number}", rows, content, logs)
        detecting.reconciler.touched(rows, logs)
        detecting.journal.range_done()
        detecting.settle()
    assert [(found["signature"], found["count"]) for found in detecting.findings()] == [("llm_repetition", 4)]
