"""Build batches with the schema of a table: everything empty except what a test is about."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from spanwise.model import CONTENT, FINDINGS, LOG_EVENTS, SPANS, TRACES, Table

NOW_NS = 1_795_219_200_000_000_000
DAY = dt.date(2026, 11, 21)


_EMPTY: dict[str, Any] = {
    "start_time": NOW_NS,
    "time": NOW_NS,
    "received_at": NOW_NS // 1_000_000,
    "day": DAY,
    "cost_usd": None,
    "reported_cost_usd": None,
    "time_to_first_chunk_s": None,
    "wasted_cost_usd": 0,
    "started_at": NOW_NS,
    "detected_at": NOW_NS // 1_000_000,
}


def _empty(field: pa.Field[Any]) -> Any:
    if field.name in _EMPTY:
        return _EMPTY[field.name]
    if pa.types.is_list(field.type) or pa.types.is_map(field.type):
        return []
    if pa.types.is_integer(field.type):
        return None if field.name.endswith("_tokens") else 0
    return ""


def batch(table: Table, rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    """One row a dict; columns not named are empty, 0 or NULL."""
    unknown = {key for row in rows for key in row} - set(table.names)
    assert not unknown, f"{table.name} has no column {unknown}"
    return pa.RecordBatch.from_arrays(
        [pa.array([row.get(field.name, _empty(field)) for row in rows], field.type) for field in table.arrow],
        schema=table.arrow,
    )


def span(number: int, **columns: Any) -> dict[str, Any]:
    return {
        "tenant": "t",
        "trace_id": f"{number // 8:032x}",
        "span_id": f"{number:016x}",
        "start_time": NOW_NS + number,
        "duration_ns": number,
        "name": f"span {number % 7}",
        "span_kind": "internal",
        "status": "unset",
        "version": 1,
        **columns,
    }


def spans(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    return batch(SPANS, rows)


def content(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    return batch(CONTENT, rows)


def log_events(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    return batch(LOG_EVENTS, rows)


def traces(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    return batch(TRACES, rows)


def findings(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    return batch(FINDINGS, rows)
