"""A store with as many spans as wanted, and what the program makes of them: summaries, findings and rollups."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa

from processors.columns import numbers, replaced
from processors.reconcile import NARROW, decide, summarise
from spanwise.model import TRACES
from spanwise.rollups import Rollups
from spanwise.store import Store

_SQL = Path(__file__).with_name("sql")
_PART_SPANS = 200_000
_COUNTS = {"attribute_count": "attribute_types", "content_count": "content"}


class _Notes:
    def get_meta(self, key: str) -> str | None:
        return None

    def set_meta(self, key: str, value: str) -> None:
        pass


def fill(store: Store, spans: int, since: datetime, until: datetime) -> None:
    """Store runs of 16 spans, evenly over the time, summarise their traces and count their minutes."""
    store.command(_sql("spans"), {"spans": spans, "since": since, "until": until})
    store.command(_sql("findings"))
    columns = ", ".join(f"toInt32(length({_COUNTS[one]})) AS {one}" if one in _COUNTS else one for one in NARROW.names)
    parts = spans // _PART_SPANS + 1
    for part in range(parts):
        sql = _sql("narrow").replace("{columns}", columns)
        (rows,) = store.read_arrow(sql, {"parts": parts, "part": part}, schema=NARROW).combine_chunks().to_batches()
        store.insert(TRACES, _found(summarise(rows, decide(rows))), f"part {part} of {spans}")
    rollups = Rollups(store=store, journal=_Notes())
    rollups.tick()
    while rollups.stats().lost or rollups.stats().dirty:
        rollups.tick()


def _sql(name: str) -> str:
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8")


def _found(traces: pa.RecordBatch) -> pa.RecordBatch:
    """As detection would have left the summaries: something in every trace with an error, worse if it has more."""
    errors = numbers(traces.column("error_count")).tolist()
    severity = pa.array([("", "warning")[count] if count < 2 else "high" for count in errors], pa.utf8())
    return replaced(
        traces,
        {
            "findings": pa.array([["tool_error.ignored"] if count else [] for count in errors], pa.list_(pa.utf8())),
            "finding_severity": severity.dictionary_encode(),
        },
    )


def singles(store: Store) -> dict[str, dict[str, str]]:
    """What to choose in dashboards about one thing, by dashboard."""
    trace_id = store.read_arrow("SELECT min(trace_id) AS id FROM findings").to_pylist()[0]["id"]
    return {
        "agent": {"agent": "writer"},
        "model_tool": {"model": "gpt-5", "tool": "run_sql"},
        "trace": {"trace_id": trace_id},
    }
