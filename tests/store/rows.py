"""Build batches with the schema of a table: everything empty except what a test is about."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from spanwise.model import CONTENT, LOG_EVENTS, SPANS, TRACES, Table

NOW_NS = 1_763_700_000_000_000_000
DAY = dt.date(2025, 11, 21)


def _empty(column_type: pa.DataType, name: str) -> Any:
    if name in {"start_time", "time"}:
        return NOW_NS
    if name == "received_at":
        return NOW_NS // 1_000_000
    if name == "day":
        return DAY
    if pa.types.is_list(column_type) or pa.types.is_map(column_type):
        return []
    if pa.types.is_decimal(column_type) or pa.types.is_floating(column_type):
        return None
    if pa.types.is_integer(column_type):
        return None if name.endswith("_tokens") else 0
    return ""


def batch(table: Table, rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    """One row a dict; columns not named are empty, 0 or NULL."""
    unknown = {key for row in rows for key in row} - set(table.names)
    assert not unknown, f"{table.name} has no column {unknown}"
    return pa.RecordBatch.from_arrays(
        [
            pa.array([row.get(field.name, _empty(field.type, field.name)) for row in rows], field.type)
            for field in table.arrow
        ],
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
