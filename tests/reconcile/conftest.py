"""A real embedded store, and everything around a `Reconciler` with clocks that tests move."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr

from processors.price import Price
from sinks.clickhouse import ClickHouseSink, ClickHouseSinkConfig
from spanwise.model import CONTENT, LOG_EVENTS, SPANS, TABLES
from spanwise.reconciler import Reconciler, ReconcilerConfig, Territory
from spanwise.store import Store, StoreConfig, TtlDays, open_store
from tests.build import START, batch

Row = dict[str, Any]


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    directory: Path = tmp_path_factory.mktemp("store")
    for_ever = TtlDays(
        spans=0, content=0, log_events=0, traces=0, findings=0, alert_deliveries=0, rollup_1m=0
    )  # the rows of these tests are from last June
    opened = open_store(Store(StoreConfig(dsn=SecretStr(f"chdb://{directory}"), ttl_days=for_ever)))
    yield opened
    opened.close()


_TENANTS = itertools.count()


class Journal:
    """Notes as the journal keeps them: durable with the next range that is done."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self.durable: dict[str, str] = {}

    def get_meta(self, key: str) -> str | None:
        return self.notes.get(key)

    def set_meta(self, key: str, value: str) -> None:
        self.notes[key] = value

    def range_done(self) -> None:
        self.durable = dict(self.notes)

    def killed(self) -> None:
        self.notes = dict(self.durable)


class World:
    """One store with a reconciler whose time only passes when a test says so."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.journal = Journal()
        self.now_s = 1_000.0
        self.sink = ClickHouseSink(ClickHouseSinkConfig(), store, _Silent())
        self.price = Price()
        self.stored = 0
        # a truncated table still remembers the tokens of its inserts, and tokens are made of tenants and ids
        self.tenant = f"t{next(_TENANTS)}"
        self.reconciler = self.start()

    def start(self, **options: Any) -> Reconciler:
        """A new reconciler, as after a restart, or with a `territory` one of several."""
        territory: Territory | None = options.pop("territory", None)
        self.reconciler = Reconciler(
            ReconcilerConfig(**options),
            store=self.store,
            sink=self.sink,
            price=self.price,
            journal=self.journal,
            territory=territory,
            clock=lambda: self.now_s,
            wall_ns=lambda: START + int(self.now_s * 1e9),
        )
        return self.reconciler

    def arrive(
        self, spans: Iterable[Row] = (), logs: Iterable[Row] = (), content: Iterable[Row] = (), *, touch: bool = True
    ) -> None:
        """Store rows as the pipeline does. Without `touch`, die between the store and the reconciler."""
        self.stored += 1
        rows = self.price(batch(self._mine(spans), SPANS))
        records = batch(self._mine(logs), LOG_EVENTS)
        self.sink.write(f"{self.tenant}-{self.stored}", rows, batch(self._mine(content), CONTENT), records)
        if touch:
            self.reconciler.touched(rows, records)
            self.journal.range_done()

    def _mine(self, rows: Iterable[Row]) -> list[Row]:
        return [row | {"tenant": self.tenant} for row in rows]

    def settle(self) -> None:
        """Let everything go quiet and be decided."""
        for _ in range(50):
            self.now_s += 20
            if self.reconciler.tick() == 0 and self.reconciler.stats().dirty == 0:
                return
        raise AssertionError(f"never quiet: {self.reconciler.stats()}")

    def spans(self) -> dict[int, Row]:
        """Stored rows by span number."""
        table = self.store.read_arrow(f"SELECT {', '.join(SPANS.names)} FROM spans FINAL", schema=SPANS.arrow)
        return {int(str(row["span_id"]), 16): row for row in table.to_pylist()}

    def traces(self) -> dict[str, Mapping[str, Any]]:
        table: pa.Table = self.store.read_arrow("SELECT * FROM traces FINAL ORDER BY trace_id")
        return {str(row["trace_id"]): row for row in table.to_pylist()}


class _Silent:
    def stored(self, table: str, *, rows: int, bytes_: int, seconds: float) -> None:
        pass

    def refused(self, table: str, *, rows: int, reason: str) -> None:
        raise AssertionError(f"{table} refused {rows} rows: {reason}")


@pytest.fixture
def world(store: Store) -> World:
    for table in TABLES:
        store.command(f"TRUNCATE TABLE {table.name}")
    return World(store)
