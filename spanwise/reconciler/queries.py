"""What the reconciler reads from the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from processors.columns import arrow, compute, dense, encode, first_rows, numbers, plain, together
from processors.log_join import conversations
from processors.reconcile import CALLS, NARROW
from spanwise.model import CONTENT, LOG_EVENTS, SPANS, TRACES
from spanwise.reconciler.parts import Reader
from spanwise.reconciler.rows import SECOND_NS, TIME_MAX, Key, ids_of, keys_of
from spanwise.store import load_sql

_ANCIENT_NS: Final = 946_684_800 * SECOND_NS
"""2000-01-01: no agent is older."""
_FUTURE_NS: Final = 24 * 3600 * SECOND_NS
_LOG_SLACK_NS: Final = 3600 * SECOND_NS
"""Records are looked for this long before and after the spans of a trace."""
IDS_PER_QUERY: Final = 5_000
"""The text of a query is at most 256 KiB by default."""
_NARROW_SQL: Final = {
    "attribute_count": "toInt32(length(attribute_types)) AS attribute_count",
    "content_count": "toInt32(length(content)) AS content_count",
}
_NOT_ADDED: Final = ("tenant", "trace_id", "work", "findings", "finding_severity", "partial", "version")
"""Columns of `traces` that are no sums."""
_HEX_LIST: Final = re.compile("[0-9a-f,]*")
_WORK_MAX: Final = 10_000
"""Elements of `work` of a trace that the store adds up."""


class Record(NamedTuple):
    """A log record without a trace, by what may tell its trace."""

    tenant: str
    conversation: str
    response: str
    at_ns: int
    received_ms: int


class Range(NamedTuple):
    """A trace to be found in the store."""

    key: Key
    received_ms: int
    low_ns: int
    high_ns: int
    rows: int
    """At least so many of it are there."""


class Known(NamedTuple):
    """A trace that was summarised before."""

    low_ns: int
    high_ns: int
    version: int
    day: int
    spans: int


class Queries:
    """Everything that is read, cut into queries of bounded size."""

    def __init__(self, store: Reader, wall_ns: Callable[[], int]) -> None:
        self._store = store
        self._wall_ns = wall_ns

    def known(self, keys: Iterable[Key]) -> dict[Key, Known]:
        found: dict[Key, Known] = {}
        wanted = set(keys)
        for some in _chunks(sorted(wanted)):
            for row in self._read("reconcile_known", _tenants(some), ids=_traces(some)).to_pylist():
                key = (row["tenant"], row["trace_id"])
                if key in wanted:
                    found[key] = Known(row["low"], row["high"], row["version"], row["day"], row["spans"])
        return found

    def spans(self, ranges: Mapping[Key, tuple[int, int]], most: int) -> Iterator[pa.RecordBatch]:
        """Rows of `NARROW` of some traces, at most so many of each, each looked for in its range of start times."""
        columns = ", ".join(_NARROW_SQL.get(name, name) for name in NARROW.names)
        by_time = sorted(ranges, key=lambda key: ranges[key])
        for some in _chunks(by_time):
            params = _tenants(some) | self._between(ranges[key] for key in some) | {"most": most}
            found = _one(self._read("reconcile_spans", params, columns=columns, schema=NARROW, ids=_traces(some)))
            wanted = pa.array([f"{tenant}\n{trace}" for tenant, trace in some])
            yield found.filter(compute.is_in(ids_of(found), value_set=wanted))

    def whole(self, spans: pa.RecordBatch) -> pa.RecordBatch:
        parts = []
        for start in range(0, spans.num_rows, IDS_PER_QUERY // 2):
            some = spans.slice(start, IDS_PER_QUERY // 2)
            times = numbers(some.column("start_time"))
            keys = list(keys_of(some))
            params = _tenants(keys) | self._between([(int(times.min()), int(times.max()))])
            columns = ", ".join(SPANS.names)
            ids = {**_traces(keys), "spans": _values(some, "span_id")}
            parts.append(_one(self._read("reconcile_rows", params, columns=columns, schema=SPANS.arrow, ids=ids)))
        return together(parts, SPANS.arrow)

    def since(self, received_ms: int, most: int) -> list[Range]:
        return _ranges(self._read("reconcile_since", {"since": received_ms, "most": most}))

    def failed(self, most: int) -> list[Range]:
        """Traces whose summary says that they could not be decided."""
        return _ranges(self._read("reconcile_failed", {"most": most}))

    def sums(self, key: Key, low: int, high: int) -> pa.RecordBatch:
        """A row of `traces`, `version` 0, with what the spans of a trace add up to as they are stored; or none."""
        params = {"tenant": key[0], "trace": key[1], **self._between([(low, high)])}
        added = pa.schema([TRACES.arrow.field(name) for name in TRACES.names if name not in _NOT_ADDED])
        sums = _one(self._read("reconcile_sums", params, schema=added))
        fields = TRACES.arrow.field("work").type.value_type
        work = _one(self._read("reconcile_work", params | {"most": _WORK_MAX}, schema=pa.schema(list(fields))))
        columns = {name: sums.column(name) for name in added.names} | {
            "tenant": pa.array([key[0]]).dictionary_encode(),
            "trace_id": pa.array([key[1]]),
            "work": arrow.ListArray.from_arrays([0, work.num_rows], work.to_struct_array()),
            "findings": pa.array([[]], pa.list_(pa.utf8())),
            "finding_severity": pa.array([""]).dictionary_encode(),
            "partial": pa.array([""]).dictionary_encode(),
            "version": pa.array([0], pa.uint64()),
        }
        found = pa.RecordBatch.from_arrays([columns[name] for name in TRACES.names], schema=TRACES.arrow)
        return found if sums.num_rows else found.slice(0, 0)

    def calls(self, received_ms: int, most: int) -> pa.RecordBatch:
        columns = ", ".join(_NARROW_SQL.get(name, name) for name in NARROW.names)
        params = {"since": received_ms, "most": most, "kinds": list(CALLS)}
        return _one(self._read("reconcile_calls", params, columns=columns, schema=NARROW))

    def has_logs(self) -> tuple[bool, bool]:
        (row,) = self._read("reconcile_has_logs", {}).to_pylist()
        return bool(row["any"]), bool(row["without_trace"])

    def logs(self, spans: pa.RecordBatch, *, loose: bool) -> pa.RecordBatch:
        """Log records that may belong to these spans."""
        start = numbers(spans.column("start_time"))
        high = int((start + np.minimum(numbers(spans.column("duration_ns")), 2**62).astype(np.int64)).max())
        low = int(start.min())
        responses = _values(spans, "response_id") if loose else []
        talks = conversations(spans) if loose else []
        parts = []
        keys = list(keys_of(spans))
        rounds = max(len(keys), len(responses), len(talks))
        for at in range(0, rounds, IDS_PER_QUERY // 10):
            window = slice(at, at + IDS_PER_QUERY // 10)
            params = _tenants(keys) | {
                "conversations": talks[window],
                "responses": responses[window],
                "low": max(low - _LOG_SLACK_NS, 0),
                "high": min(high + _LOG_SLACK_NS, TIME_MAX),
            }
            columns = ", ".join(LOG_EVENTS.names)
            ids = _traces(keys[window])
            parts.append(_one(self._read("reconcile_logs", params, columns=columns, schema=LOG_EVENTS.arrow, ids=ids)))
        found = together(parts, LOG_EVENTS.arrow)
        return found.take(first_rows(dense(encode(ids_of(found, ("tenant", "record_id")))[0])))

    def records_since(self, received_ms: int, most: int) -> list[Record]:
        """Records without a trace, the newest of them if there are more than `most`."""
        rows = self._read("reconcile_records_since", {"since": received_ms, "most": most}).to_pylist()
        return [Record(*(row[name] for name in Record._fields)) for row in rows]

    def of_records(self, records: Sequence[Record], most: int) -> list[Range]:
        found = []
        for some in _chunks(records, IDS_PER_QUERY // 10):
            times = [record.at_ns for record in some]
            params = {
                "tenants": sorted({record.tenant for record in some}),
                "conversations": sorted({record.conversation for record in some if record.conversation}),
                "responses": sorted({record.response for record in some if record.response}),
                "low": max(min(times) - _LOG_SLACK_NS, 0),
                "high": min(max(times) + _LOG_SLACK_NS, TIME_MAX),
                "most": most,
            }
            found += _ranges(self._read("reconcile_of_records", params))
        return found

    def content(self, tenants: list[str], hashes: list[str]) -> pa.RecordBatch:
        parts = []
        for some in _chunks(hashes):
            columns, ids = ", ".join(CONTENT.names), {"hashes": some}
            params = {"tenants": tenants}
            parts.append(_one(self._read("reconcile_content", params, columns=columns, schema=CONTENT.arrow, ids=ids)))
        return together(parts, CONTENT.arrow)

    def content_of(self, spans: pa.RecordBatch) -> dict[tuple[str, str, str], str]:
        """Values that rows of spans refer to, by tenant, trace and hash."""
        content: list[Any] = spans.column("content").to_pylist()
        hashes = {one["hash"] for references in content for one in references}
        if not hashes:
            return {}
        tenants, traces = (list[Any](plain(spans.column(name)).to_pylist()) for name in ("tenant", "trace_id"))
        found = self._read(
            "reconcile_content_of",
            {"tenants": sorted(set(tenants))},
            columns="tenant, trace_id, hash, value",
            ids={"traces": sorted(set(traces)), "hashes": sorted(hashes)},
        )
        return {(row["tenant"], row["trace_id"], row["hash"]): row["value"] for row in found.to_pylist()}

    def _between(self, ranges: Iterable[tuple[int, int]]) -> dict[str, Any]:
        spans = list(ranges)
        return {
            "low": min(low for low, _ in spans),
            "high": max(high for _, high in spans),
            "ancient": _ANCIENT_NS,
            "future": self._wall_ns() + _FUTURE_NS,
        }

    def _read(
        self,
        name: str,
        params: Mapping[str, Any],
        *,
        columns: str = "",
        schema: pa.Schema | None = None,
        ids: Mapping[str, Sequence[str]] | None = None,
    ) -> pa.Table:
        """Run a query. `ids` are lists of hex digits, each written into its text as one literal: quoting and parsing
        thousands of them takes longer than looking them up. Only what is none, written by somebody else, is quoted."""
        sql = load_sql("spanwise", name).replace("{columns}", columns)
        params = dict(params)
        for place, values in (ids or {}).items():
            text = ",".join(values)
            if _HEX_LIST.fullmatch(text):
                list_ = f"splitByChar(',', '{text}')"
            else:
                list_ = f"{{{place}:Array(String)}}"
                params[place] = list(values)
            sql = sql.replace(f"{{{place}}}", f"SELECT arrayJoin({list_})")
        return self._store.read_arrow(sql, params, schema=schema)


def _ranges(table: pa.Table) -> list[Range]:
    return [
        Range((row["tenant"], row["trace_id"]), row["received"], row["low"], row["high"], row["rows"])
        for row in table.to_pylist()
    ]


def _one(table: pa.Table) -> pa.RecordBatch:
    return together(table.to_batches(), table.schema)


def _values(rows: pa.RecordBatch, name: str) -> list[str]:
    return sorted(value for value in compute.unique(plain(rows.column(name))).to_pylist() if value)


def _tenants(keys: Sequence[Key]) -> dict[str, Any]:
    return {"tenants": sorted({tenant for tenant, _ in keys})}


def _traces(keys: Sequence[Key]) -> dict[str, list[str]]:
    return {"traces": sorted({trace for _, trace in keys})}


def _chunks(items: Sequence[Any], size: int = IDS_PER_QUERY) -> Iterator[Any]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
