"""Failed traces outlive the others, in a real store with real merges."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest

from spanwise.model import CONTENT, LOG_EVENTS, SPANS, TABLES, TRACES
from spanwise.retention import Retention
from spanwise.store import Store, StoreConfig, TtlOptions, open_store
from tests.store.rows import batch, span

DAY_S = 86_400
OPTIONS = TtlOptions.model_validate(
    {
        "ttl_days": {"spans": 30, "content": 14, "log_events": 0, "traces": 90},
        "ttl_failed": {"severity": "high", "days": {"spans": 90, "content": 60, "log_events": 60}},
        "ttl_classes": [
            {"name": "trial", "tenants": ["sandbox"], "days": {"spans": 7, "content": 7}},
            {"name": "audit", "tenants": ["bank"], "failed_days": {"spans": 3000}},
        ],
    }
)


class World:
    """A store in which time stands at noon of a day of today's year."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = int(self.rows("SELECT toUnixTimestamp(now()) AS s")[0]["s"]) // DAY_S * DAY_S + DAY_S // 2
        self.retention = Retention(OPTIONS, store=store, wall=lambda: self.now)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return [dict(row) for row in self.store.read_arrow(sql).to_pylist()]

    def trace(self, number: int, *, days_old: int, severity: str = "", tenant: str = "common", spans: int = 2) -> None:
        """A trace of some spans, a value and a log record."""
        at = self.now - days_old * DAY_S
        day = dt.date(1970, 1, 1) + dt.timedelta(days=at // DAY_S)
        common = {"tenant": tenant, "trace_id": f"{number:032x}", "day": day, "received_at": at * 1000}
        rows = [span(number * 100 + n, **common, start_time=at * 10**9 + n, duration_ns=10) for n in range(spans)]
        for table, its in (
            (SPANS, rows),
            (CONTENT, [{**common, "hash": f"{number}", "value": "a prompt"}]),
            (LOG_EVENTS, [{**common, "record_id": f"{number}", "time": at * 10**9}]),
            (TRACES, [{**common, "start_time": at * 10**9, "duration_ns": 10, "finding_severity": severity}]),
        ):
            self.store.insert(table, batch(table, its), f"{number}:{spans}")

    def left(self, table: str) -> dict[int, int]:
        """Rows by trace after ClickHouse has dropped what is too old, duplicates of one key counted once."""
        self.store.command(f"OPTIMIZE TABLE {table} FINAL")
        rows = self.rows(f"SELECT trace_id, count() AS rows FROM {table} FINAL GROUP BY trace_id ORDER BY trace_id")
        return {int(row["trace_id"], 16): row["rows"] for row in rows}

    def classes(self, table: str) -> list[str]:
        return [row["r"] for row in self.rows(f"SELECT DISTINCT toString(retention) AS r FROM {table} ORDER BY r")]

    def stored(self, table: str) -> int:
        return int(self.rows(f"SELECT count() AS rows FROM {table}")[0]["rows"])


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    dsn = f"chdb://{tmp_path_factory.mktemp('retention')}"
    store = open_store(Store(StoreConfig.model_validate({"dsn": dsn, **OPTIONS.model_dump()})))
    for table in TABLES:
        # a part that is too old goes when a test merges, not while it still arranges
        store.command(f"SYSTEM STOP TTL MERGES {table.name}")
        store.command(f"SYSTEM STOP MERGES {table.name}")
    yield store
    store.close()


@pytest.fixture
def world(opened: Store) -> World:
    for table in TABLES:
        opened.command(f"SYSTEM STOP MERGES {table.name}")
        opened.command(f"TRUNCATE TABLE {table.name}")
    return World(opened)


def merge(world: World) -> None:
    for table in TABLES:
        world.store.command(f"SYSTEM START MERGES {table.name}")
        world.store.command(f"SYSTEM START TTL MERGES {table.name}")


def test_spans_and_content_of_a_failed_trace_outlive_those_of_the_others(world: World) -> None:
    world.trace(1, days_old=31, severity="high")
    world.trace(2, days_old=31, severity="warning")
    world.trace(3, days_old=31)
    world.trace(4, days_old=10)
    world.retention.tick()
    merge(world)
    assert world.left("spans") == {1: 2, 4: 2}
    assert world.left("content") == {1: 1, 4: 1}


def test_failed_traces_go_when_their_own_days_are_over(world: World) -> None:
    world.trace(1, days_old=61, severity="critical")
    world.trace(2, days_old=91, severity="critical")
    world.retention.tick()
    merge(world)
    assert (world.left("spans"), world.left("content")) == ({1: 2}, {})


def test_copying_twice_or_in_two_processes_adds_nothing(world: World) -> None:
    world.trace(1, days_old=29, severity="high")
    assert world.retention.tick() > 0
    stored = world.stored("spans")
    assert world.retention.tick() == 0
    assert Retention(OPTIONS, store=world.store, wall=lambda: world.now).tick() > 0
    assert (stored, world.stored("spans")) == (4, 4)


def test_rows_that_come_late_are_copied_too(world: World) -> None:
    world.trace(1, days_old=29, severity="high")
    world.retention.tick()
    world.trace(1, days_old=29, severity="high", spans=3)
    world.retention.tick()
    assert world.rows("SELECT count() AS rows FROM spans WHERE retention = 'failed'") == [{"rows": 3}]


def test_rows_far_from_their_end_are_left_alone(world: World) -> None:
    world.trace(1, days_old=26, severity="high")
    world.retention.tick()
    assert world.classes("spans") == [""]


def test_class_without_days_for_failed_traces_keeps_none(world: World) -> None:
    world.trace(1, days_old=8, severity="critical", tenant="sandbox")
    world.retention.tick()
    merge(world)
    assert (world.left("spans"), world.left("content")) == ({}, {})


def test_class_with_days_of_its_own_keeps_by_them(world: World) -> None:
    world.trace(1, days_old=29, severity="high", tenant="bank")
    world.retention.tick()
    assert (world.classes("spans"), world.classes("content")) == (["audit", "audit_failed"], ["audit"])


def test_table_that_keeps_everything_for_ever_is_never_copied(world: World) -> None:
    world.trace(1, days_old=400, severity="high")
    world.retention.tick()
    assert world.classes("log_events") == [""]


def test_kept_rows_are_the_rows_they_copy(world: World) -> None:
    world.trace(1, days_old=29, severity="high")
    world.retention.tick()
    columns = ", ".join(f"toString({name})" for name in SPANS.names)
    rows = world.rows(f"SELECT count() AS copies FROM spans GROUP BY {columns}")
    assert [row["copies"] for row in rows] == [2, 2]


def test_thread_starts_only_where_failed_traces_are_kept_longer(world: World) -> None:
    never = TtlOptions.model_validate({"ttl_failed": {"days": {}}})
    for options, alive in ((OPTIONS, True), (never, False)):
        retention = Retention(options, store=world.store)
        retention.start()
        assert retention._rounds.running == alive
        assert retention.stop(5)
