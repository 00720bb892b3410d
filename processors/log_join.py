"""What log records add to the spans they belong to.

Conventions before 2025 put messages into log events, Claude Code puts cost there and Gemini CLI its thoughts. A record
fills only what its span lacks. Joining again, or with more records, gives what joining all at once gives: a value
that came from a record is recognised by being one of the records' values, and the earliest record wins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa

from processors.columns import Ints, encode, is_known, is_one_of, numbers, replaced
from processors.reconcile import CALLS
from spanwise.model import SPANS

Row: TypeAlias = dict[str, Any]

NEAR_NS: Final = 2 * 10**9
"""How far from the end of its span a record without span id may lie: exporters stamp it when they report the call."""

_TEXTS: Final = (
    "provider",
    "request_model",
    "response_model",
    "response_id",
    "agent_name",
    "conversation_id",
    "user_id",
    "tool_name",
    "tool_call_id",
    "error_type",
    "tool_status",
    "input_preview",
    "output_preview",
)
_LISTS: Final = ("finish_reasons", "finish_reasons_raw")
_NUMBERS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "reported_cost_usd",
)
_USAGE: Final = ("usage_scope", "input_basis")
JOINED: Final = (*_TEXTS, *_LISTS, *_NUMBERS, *_USAGE, "content")
"""Columns of `spans` that a join may change. Whoever stores the rows takes their `fingerprint` again, for which it
takes the text of the content (`spanwise.refingerprint`)."""


def assign(spans: pa.RecordBatch, logs: pa.RecordBatch) -> Ints:
    """The row of `spans` (columns of `NARROW`, one row a span) that each record belongs to, -1 where none is certain.

    A record belongs to the span it names; if that is not the model or tool call that the record reports (Claude Code
    names the span around it), to the one in the trace with that tool call id, or with the same model and usage ending
    nearest to it. A record without ids belongs to the call with its response id, or with the same conversation, model
    and usage ending nearest to it. Nearest has to be mutual and within `NEAR_NS`.
    """
    if logs.num_rows == 0 or spans.num_rows == 0:
        return np.full(logs.num_rows, -1, dtype=np.int64)
    return _Matcher(spans, logs).assign()


class _Matcher:
    def __init__(self, spans: pa.RecordBatch, logs: pa.RecordBatch) -> None:
        self._spans = _rows(spans, _SPAN_KEYS)
        self._logs = _rows(logs, _LOG_KEYS)
        duration = np.minimum(numbers(spans.column("duration_ns")), np.uint64(2**62)).astype(np.int64)
        self._end = (numbers(spans.column("start_time")) + duration).tolist()
        self._time = numbers(logs.column("time")).tolist()
        self._is_call = is_one_of(spans.column("kind"), CALLS).tolist()

    def assign(self) -> Ints:
        by_id: dict[Any, int] = {}
        by_tool_call: dict[Any, list[int]] = defaultdict(list)
        by_response: dict[Any, list[int]] = defaultdict(list)
        by_usage: dict[Any, list[int]] = defaultdict(list)
        for row, span in enumerate(self._spans):
            by_id[span["tenant"], span["trace_id"], span["span_id"]] = row
            if span["kind"] == "tool" and span["tool_call_id"]:
                by_tool_call[span["tenant"], span["trace_id"], span["tool_call_id"]].append(row)
            if self._is_call[row]:
                if span["response_id"]:
                    by_response[span["tenant"], span["response_id"]].append(row)
                for key in _usage_keys(span):
                    by_usage[key].append(row)

        found = np.full(len(self._logs), -1, dtype=np.int64)
        unsure: dict[Any, list[int]] = defaultdict(list)
        for number, record in enumerate(self._logs):
            named = by_id.get((record["tenant"], record["trace_id"], record["span_id"]), -1)
            reports_call = record["kind"] in CALLS or record["input_tokens"] is not None
            if record["tool_call_id"] and not reports_call:
                if named < 0 or self._spans[named]["kind"] not in ("tool", "tool_inner", "tool_wait"):
                    tools = by_tool_call[record["tenant"], record["trace_id"], record["tool_call_id"]]
                    named = tools[0] if len(tools) == 1 else named
                found[number] = named
            elif named >= 0 and (self._is_call[named] or not reports_call):
                found[number] = named
            elif len(answers := by_response[record["tenant"], record["response_id"]]) == 1:
                found[number] = answers[0]
            elif record["input_tokens"] is not None:
                unsure[record["event_name"], _usage_key(record)].append(number)
        for (_, key), records in unsure.items():
            self._pair_nearest(by_usage.get(key, []), records, found)
        return found

    def _pair_nearest(self, calls: list[int], records: list[int], found: Ints) -> None:
        if not calls:
            return

        def nearest(time: int, rows: list[int], times: list[int]) -> int:
            return min(rows, key=lambda row: (abs(times[row] - time), row))

        back = {call: nearest(self._end[call], records, self._time) for call in calls}
        for record in records:
            call = nearest(self._time[record], calls, self._end)
            if back[call] == record and abs(self._end[call] - self._time[record]) <= NEAR_NS:
                found[record] = call


_SPAN_KEYS: Final = (
    "tenant",
    "trace_id",
    "span_id",
    "kind",
    "tool_call_id",
    "response_id",
    "conversation_id",
    "request_model",
    "response_model",
    "input_tokens",
    "output_tokens",
    "reasoning_tokens",
)
_LOG_KEYS: Final = (*_SPAN_KEYS, "event_name")


def _usage_key(row: Row) -> tuple[Any, ...]:
    """What a call and its record have in common: the trace where there is one, else the conversation."""
    place = row["trace_id"] or ("conversation", row["conversation_id"])
    # Gemini CLI reports thoughts in the record only
    output = (row["output_tokens"] or 0) - (row["reasoning_tokens"] or 0)
    return row["tenant"], place, row["request_model"] or row["response_model"], row["input_tokens"], output


def _usage_keys(span: Row) -> list[tuple[Any, ...]]:
    keys = [_usage_key(span)]
    if span["conversation_id"]:
        keys.append(_usage_key(span | {"trace_id": ""}))
    return keys


def join(spans: pa.RecordBatch, logs: pa.RecordBatch, of: Ints) -> tuple[pa.RecordBatch, Ints]:
    """Whole rows of spans with what the records add, and the rows that changed.

    `of` gives the row of `spans` for each record, -1 for none.
    """
    records: dict[int, list[Row]] = defaultdict(list)
    logs_rows = logs.select([*_TEXTS, *_LISTS, *_NUMBERS, "content", "kind", "input_basis", "record_id"])
    ordered = sorted(
        (time, row["record_id"], number, row)
        for number, (time, row) in enumerate(
            zip(numbers(logs.column("time")).tolist(), logs_rows.to_pylist(), strict=True)
        )
        if of[number] >= 0
    )
    for _, _, number, row in ordered:
        records[int(of[number])].append(row)
    columns = [*JOINED, "kind"]
    taken = sorted(records)
    before = spans.select(columns).take(np.array(taken, dtype=np.int64)).to_pylist()
    after = [_filled(dict(row), records[number]) for number, row in zip(taken, before, strict=True)]
    changed = [number for number, old, new in zip(taken, before, after, strict=True) if old != new]
    new_rows = dict(zip(taken, after, strict=True))
    rows = np.array(changed, dtype=np.int64)
    result = spans.take(rows)
    return replaced(result, {name: _column(name, [new_rows[n][name] for n in changed]) for name in JOINED}), rows


def _filled(span: Row, records: Sequence[Row]) -> Row:
    if span["kind"] in CALLS:
        _fill_output(span, records)
    for name in (*_TEXTS, "input_basis"):
        _fill(span, records, name, bool)
    for name in _LISTS:
        _fill(span, records, name, bool)
    had_usage = span["input_tokens"] is not None or span["output_tokens"] is not None
    for name in _NUMBERS:
        if span["kind"] in CALLS or name == "reported_cost_usd":
            _fill(span, records, name, lambda value: value is not None)
    has_usage = span["input_tokens"] is not None or span["output_tokens"] is not None
    if has_usage and not had_usage and span["usage_scope"] == "none":
        span["usage_scope"] = "own"
    _fill_content(span, records)
    return span


def _fill(span: Row, records: Sequence[Row], name: str, has: Callable[[Any], bool]) -> None:
    values = [row[name] for row in records if has(row[name])]
    if values and (not has(span[name]) or span[name] in values):
        span[name] = values[0]


def _fill_output(span: Row, records: Sequence[Row]) -> None:
    """Thoughts that only the record knows belong to the output: Gemini's own count leaves them out."""
    if span["reasoning_tokens"] is not None or span["output_tokens"] is None:
        return
    for row in records:
        if row["reasoning_tokens"] and row["output_tokens"] == span["output_tokens"] + row["reasoning_tokens"]:
            span["output_tokens"], span["reasoning_tokens"] = row["output_tokens"], row["reasoning_tokens"]
            return


def _fill_content(span: Row, records: Sequence[Row]) -> None:
    added: dict[str, list[Row]] = {}
    for row in records:
        for reference in row["content"] or ():
            kept = added.setdefault(reference["key"], [])
            if reference not in kept:
                kept.append(reference)
    stated: dict[str, list[Row]] = {}
    for reference in span["content"]:
        stated.setdefault(reference["key"], []).append(reference)
    for key in sorted(added):
        if all(reference in added[key] for reference in stated.get(key, ())):
            stated[key] = added[key]
    span["content"] = [reference for references in stated.values() for reference in references]


def _column(name: str, values: list[Any]) -> pa.Array[Any]:
    kind = SPANS.arrow.field(name).type
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.utf8()).dictionary_encode()
    found: pa.Array[Any] = pa.array(values, kind)
    return found


def _rows(batch: pa.RecordBatch, names: Sequence[str]) -> list[Row]:
    return batch.select(list(names)).to_pylist()


def conversations(spans: pa.RecordBatch) -> list[str]:
    """Conversations of model calls, whose records may name no trace."""
    codes, values = encode(spans.column("conversation_id"))
    rows = is_one_of(spans.column("kind"), CALLS) & (is_known(spans.column("input_tokens")))
    return sorted({values[code] for code in set(codes[rows].tolist())} - {""})
