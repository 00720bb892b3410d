"""Rows for tests: every column has a default, a keyword sets it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from spanwise.model import LOG_EVENTS, SPANS, Table

START = int(datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()) * 10**9
"""Start of spans that say nothing else, ns."""
TENANT = "t"


def span_id(number: int) -> str:
    return f"{number:016x}"


def trace_id(number: int) -> str:
    return f"{number:032x}"


def version(end_ns: int, content_hash: int = 1, corrections: int = 0) -> int:
    """As the native core makes it, see the column `version`."""
    return (((end_ns >> 20) & (2**41 - 1)) << 23) | ((content_hash & (2**19 - 1)) << 4) | corrections


def span(number: int, parent: int | None = None, *, trace: int = 1, **columns: Any) -> dict[str, Any]:
    """One row of `spans`. Times are nanoseconds, attributes a dict, money a Decimal."""
    start = columns.pop("start", START + number * 1_000_000)
    duration = columns.pop("duration", 1_000_000)
    attributes = columns.pop("attributes", {})
    row: dict[str, Any] = {
        "tenant": TENANT,
        "trace_id": trace_id(trace),
        "span_id": span_id(number),
        "parent_span_id": "" if parent is None else span_id(parent),
        "start_time": start,
        "duration_ns": duration,
        "service": "svc",
        "name": f"span {number}",
        "span_kind": "internal",
        "status": "unset",
        "usage_scope": "none",
        "attributes": list(attributes.items()),
        "attribute_types": "s" * len(attributes),
        "day": start // (86_400 * 10**9),
        "received_at": start // 10**6,
        "version": version(start + duration, number),
    }
    return row | columns


def llm(
    number: int, parent: int | None = None, *, usage: tuple[int, int] = (100, 10), **columns: Any
) -> dict[str, Any]:
    """A model call of OpenAI's gpt-4o with (input, output) tokens that are its own."""
    defaults: dict[str, Any] = {
        "kind": "llm",
        "operation": "chat",
        "provider": "openai",
        "request_model": "gpt-4o",
        "response_model": "gpt-4o-2024-08-06",
        "input_tokens": usage[0],
        "output_tokens": usage[1],
        "usage_scope": "own",
        "input_basis": "inclusive",
    }
    return span(number, parent, **(defaults | columns))


def log(number: int, of: int | None = None, *, trace: int | None = 1, **columns: Any) -> dict[str, Any]:
    """One row of `log_events`, of span `of` of trace `trace`."""
    time = columns.pop("time", START + number * 1_000_000)
    attributes = columns.pop("attributes", {})
    row: dict[str, Any] = {
        "tenant": TENANT,
        "trace_id": "" if trace is None else trace_id(trace),
        "span_id": "" if of is None else span_id(of),
        "time": time,
        "event_name": "gen_ai.client.inference.operation.details",
        "attributes": list(attributes.items()),
        "attribute_types": "s" * len(attributes),
        "record_id": f"{number:032x}",
        "day": time // (86_400 * 10**9),
        "received_at": time // 10**6,
    }
    return row | columns


def batch(rows: Iterable[Mapping[str, Any]], table: Table = SPANS) -> pa.RecordBatch:
    """Rows of a table as one RecordBatch with its schema; columns that no row sets are empty."""
    rows = list(rows)
    for row in rows:
        if unknown := row.keys() - set(table.names):
            raise KeyError(f"no column {sorted(unknown)} in {table.name}")
    arrays: list[pa.Array[Any]] = []
    for column in table.columns:
        values = [row.get(column.name) for row in rows]
        if not column.type.startswith("Nullable"):
            values = [_empty(column.arrow) if value is None else value for value in values]
        if pa.types.is_dictionary(column.arrow):
            arrays.append(pa.array(values, pa.utf8()).dictionary_encode())
        elif pa.types.is_timestamp(column.arrow) or pa.types.is_date32(column.arrow):
            wide = pa.int32() if pa.types.is_date32(column.arrow) else pa.int64()
            arrays.append(pa.array(values, wide).cast(column.arrow))
        else:
            arrays.append(pa.array(values, column.arrow))
    return pa.RecordBatch.from_arrays(arrays, schema=table.arrow)


def logs(rows: Iterable[Mapping[str, Any]]) -> pa.RecordBatch:
    return batch(rows, LOG_EVENTS)


def _empty(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        return []
    if pa.types.is_binary(kind):
        return b""
    return "" if pa.types.is_string(kind) or pa.types.is_dictionary(kind) else 0
