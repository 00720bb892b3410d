"""A store with as many spans as wanted, their summaries, findings and rollups, made inside the store."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from spanwise.rollups import Rollups
from spanwise.store import Store

_SQL = Path(__file__).with_name("sql")


class _Notes:
    def get_meta(self, key: str) -> str | None:
        return None

    def set_meta(self, key: str, value: str) -> None:
        pass


def fill(store: Store, spans: int, since: datetime, until: datetime) -> None:
    """Store runs of 16 spans, evenly over the time, and count their minutes."""
    params = {"spans": spans, "since": since, "until": until}
    for name in ("spans", "traces", "findings"):
        store.command((_SQL / f"{name}.sql").read_text(encoding="utf-8"), params if name == "spans" else None)
    rollups = Rollups(store=store, journal=_Notes())
    rollups.tick()
    while rollups.stats().lost or rollups.stats().dirty:
        rollups.tick()


def singles(store: Store) -> dict[str, dict[str, str]]:
    """What to choose in dashboards about one thing, by dashboard."""
    trace_id = store.read_arrow("SELECT min(trace_id) AS id FROM findings").to_pylist()[0]["id"]
    return {
        "agent": {"agent": "writer"},
        "model_tool": {"model": "gpt-5", "tool": "run_sql"},
        "trace": {"trace_id": trace_id},
    }
