"""A real embedded store with a reconciler and rollups whose time only passes when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pytest

from spanwise.model import CONTENT, LOG_EVENTS, SPANS, TABLES
from spanwise.reconciler import Reconciler, ReconcilerConfig
from spanwise.rollups import Rollups, RollupsConfig
from spanwise.store import Store
from tests.build import START, batch
from tests.reconcile.conftest import Row, store
from tests.reconcile.conftest import World as ReconcilerWorld

__all__ = ["store"]

FIGURES = (
    "spans", "calls", "errors", "tool_errors", "input_tokens", "output_tokens", "cache_read_tokens",
    "cache_write_tokens", "reasoning_tokens", "cost_usd", "unpriced_calls", "duration_buckets", "first_chunk_buckets",
)  # fmt: skip
GROUP = (
    "tenant", "minute", "service", "agent_name", "agent_version", "operation", "kind", "provider", "model", "tool_name",
)  # fmt: skip


class KilledError(Exception):
    """The program ended here."""


class Deadly:
    """A store that ends the program before or after the next count, if a test says so."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.die = ""
        self.read_arrow = store.read_arrow

    def derive(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        die, self.die = self.die, ""
        if die == "before":
            raise KilledError
        self._store.derive(sql, params)
        if die == "after":
            raise KilledError


class World(ReconcilerWorld):
    rollups: Rollups
    deadly: Deadly

    def start(self, rollups: RollupsConfig | None = None, keep_days: int = 0, **options: Any) -> Reconciler:
        """New parts, as after a restart."""
        self.deadly = Deadly(self.store)
        self.rollups = Rollups(
            rollups or RollupsConfig(),
            store=self.deadly,
            journal=self.journal,
            keep_days=keep_days,
            wall_ns=self.wall_ns,
        )
        self.reconciler = Reconciler(
            ReconcilerConfig(**options),
            store=self.store,
            sink=self.sink,
            price=self.price,
            journal=self.journal,
            recount=self.rollups.touched,
            clock=lambda: self.now_s,
            wall_ns=self.wall_ns,
        )
        return self.reconciler

    def wall_ns(self) -> int:
        return START + int(self.now_s * 1e9)

    def deliver(self, spans: Iterable[Row], *, die: str = "") -> None:
        """Store spans as the pipeline does, received now. Die after they are stored, or after they were told."""
        self.stored += 1
        received = self.wall_ns() // 10**6
        rows = self.price(batch(self._mine(row | {"received_at": received} for row in spans), SPANS))
        for _ in range(2 if die else 1):
            self.sink.write(f"{self.tenant}-{self.stored}", rows, batch([], CONTENT), batch([], LOG_EVENTS))
            if die == "stored":
                self.kill()
            self.rollups.touched(rows)
            self.reconciler.touched(rows, batch([], LOG_EVENTS))
            if die == "told":
                self.kill()
            die = ""
        self.journal.range_done()

    def kill(self) -> None:
        """kill -9: what is not durable is gone."""
        self.journal.killed()
        self.start()

    def tick(self, die: str = "") -> None:
        self.deadly.die = die
        try:
            self.reconciler.tick()
            self.rollups.tick()
        except KilledError:
            self.kill()
        self.deadly.die = ""

    def quiet(self) -> None:
        """Let everything be decided and counted."""
        for _ in range(50):
            self.now_s += 40
            if self.reconciler.tick() == 0 and self.reconciler.stats().dirty == 0:
                self.now_s += 2_000
                self.rollups.tick()
                stats = self.rollups.stats()
                if stats.dirty == 0 and not stats.lost:
                    return
        raise AssertionError(f"never quiet: {self.reconciler.stats()} {self.rollups.stats()}")

    def sums(self, table: str = "rollup_1m FINAL", where: str = "spans > 0") -> dict[tuple[Any, ...], dict[str, Any]]:
        """Figures of this test's tenant by group."""
        columns = ", ".join((*GROUP, *FIGURES))
        found: pa.Table = self.store.read_arrow(
            f"SELECT {columns} FROM {table} WHERE {where} AND tenant = {{tenant:String}}", {"tenant": self.tenant}
        )
        return {tuple(row[name] for name in GROUP): {name: row[name] for name in FIGURES} for row in found.to_pylist()}


@pytest.fixture
def world(store: Store) -> World:
    for table in TABLES:
        store.command(f"TRUNCATE TABLE {table.name}")
    return World(store)


@pytest.fixture
def worlds(store: Store) -> Callable[[], World]:
    """Worlds that share a store and know nothing of each other."""
    return lambda: World(store)
