"""Fingerprints of spans whose content came in log records.

The decoder takes a fingerprint from what a span carries. A span that has got its content from records is written down
again as one that carries it itself, in the conventions of today, and decoded once more; of that the fingerprint is
kept. So detectors see the same whichever way an instrumentation sends its messages. What the span itself showed, its
error, names and ids, stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from processors.columns import replaced
from processors.detect.steps import FINGERPRINT, Flag
from processors.normalise import plan_json
from spanwise._native import Decoder, json_to_protobuf

_OPERATIONS: Final = {"tool": "execute_tool", "embedding": "embeddings", "agent": "invoke_agent"}
_TEXTS: Final = {
    "provider": "gen_ai.provider.name",
    "request_model": "gen_ai.request.model",
    "response_model": "gen_ai.response.model",
    "agent_name": "gen_ai.agent.name",
    "tool_name": "gen_ai.tool.name",
    "tool_call_id": "gen_ai.tool.call.id",
    "error_type": "error.type",
}
_JOINS: Final = {"item": ",", "item_sp": ", "}
_OF_THE_SPAN: Final = ("error", "template", "name", "agent", "call_id", "max_tokens")
"""Fields that do not depend on content, or that the span knew already."""
_COLUMNS: Final = (
    *_TEXTS, "tenant", "trace_id", "parent_span_id", "name", "kind", "operation", "finish_reasons_raw", "content",
    "fingerprint",
)  # fmt: skip

Content = Mapping[tuple[str, str, str], str]
"""Values by tenant, trace and hash."""


class Refingerprint:
    """Takes fingerprints again. Not for several threads at once."""

    @cached_property
    def _decoder(self) -> Decoder:
        return Decoder(plan_json())

    def __call__(self, spans: pa.RecordBatch, content: Content) -> pa.RecordBatch:
        """Whole rows of spans with fingerprints that include their content, if all of it is at hand."""
        rows = spans.select(list(_COLUMNS)).to_pylist()
        written = [_written(row, content, number) for number, row in enumerate(rows) if _is_at_hand(row, content)]
        body = orjson.dumps({"resourceSpans": [{"scopeSpans": [{"spans": written}]}]})
        decoded = self._decoder.decode([("", 1, "traces", json_to_protobuf("traces", body))]).spans
        again: dict[Any, Any] = dict(
            zip(decoded.column("span_id").to_pylist(), decoded.column("fingerprint").to_pylist(), strict=True)
        )
        found = [_merged(row["fingerprint"], again.get(_id(number), b"")) for number, row in enumerate(rows)]
        return replaced(spans, {"fingerprint": pa.array(found, pa.binary())})


def _id(number: int) -> str:
    return f"{number + 1:016x}"


def _is_at_hand(row: Mapping[str, Any], content: Content) -> bool:
    return all((row["tenant"], row["trace_id"], one["hash"]) in content for one in _canonical(row))


def _canonical(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [reference for reference in row["content"] if reference["key"].startswith("gen_ai.")]


def _written(row: Mapping[str, Any], content: Content, number: int) -> dict[str, Any]:
    """A span in OTLP/JSON that says about content what the row and the records say."""
    values: dict[str, list[str]] = {}
    forms: dict[str, str] = {}
    for reference in _canonical(row):
        values.setdefault(reference["key"], []).append(content[row["tenant"], row["trace_id"], reference["hash"]])
        forms[reference["key"]] = reference["form"]
    attributes = {"gen_ai.operation.name": row["operation"] or _OPERATIONS.get(row["kind"], "chat")}
    attributes |= {key: row[name] for name, key in _TEXTS.items() if row[name]}
    for key, parts in values.items():
        join = _JOINS.get(forms[key])
        attributes[key] = parts[0] if join is None else f"[{join.join(parts)}]"
    said = [{"key": key, "value": {"stringValue": text}} for key, text in attributes.items()]
    reasons = [{"stringValue": reason} for reason in row["finish_reasons_raw"]]
    if reasons:
        said.append({"key": "gen_ai.response.finish_reasons", "value": {"arrayValue": {"values": reasons}}})
    return {
        "traceId": "1" * 32,
        "spanId": _id(number),
        "parentSpanId": row["parent_span_id"],
        "name": row["name"],
        "startTimeUnixNano": "1",
        "endTimeUnixNano": "2",
        "attributes": said,
    }


def _merged(before: bytes, after: bytes) -> bytes:
    """The new fingerprint with what the span itself showed; the old one if they are of different kinds."""
    if not before or not after:
        return before
    old = np.frombuffer(before, FINGERPRINT, 1)[0]
    new = np.frombuffer(after, FINGERPRINT, 1).copy()
    if old["kind"] != new[0]["kind"]:
        return before
    for name in _OF_THE_SPAN:
        new[name] = old[name] or new[name]
    new["flags"] |= old["flags"] & int(Flag.FAILED)
    new["finish"] |= old["finish"]
    return new.tobytes() + after[FINGERPRINT.itemsize :]
