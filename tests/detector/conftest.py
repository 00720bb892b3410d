"""A real embedded store with a reconciler and a detector whose time only passes when a test says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from spanwise.detector import DetectConfig, Detector
from spanwise.model import CONTENT, LOG_EVENTS, TABLES
from spanwise.reconciler import Reconciler, ReconcilerConfig, Territory
from spanwise.store import Store
from tests.build import START, batch
from tests.reconcile.conftest import World as ReconcilerWorld
from tests.reconcile.conftest import store

__all__ = ["store"]


class Observer:
    def __init__(self) -> None:
        self.labels: list[Mapping[str, str]] = []
        self.grown: list[Mapping[str, str]] = []
        self.wastes: list[Mapping[str, Any]] = []
        self.failures: list[str] = []

    def found(self, **labels: str) -> None:
        self.labels.append(labels)

    def grew(self, **labels: str) -> None:
        self.grown.append(labels)

    def wasted(self, **amounts: Any) -> None:
        self.wastes.append(amounts)

    def signature_failed(self, signature: str) -> None:
        self.failures.append(signature)


class World(ReconcilerWorld):
    observer: Observer
    detector: Detector

    def start(
        self, territory: Territory | None = None, detect: DetectConfig | None = None, **options: Any
    ) -> Reconciler:
        """A new reconciler and detector, as after a restart."""
        self.observer = Observer()
        self.detector = Detector(
            detect or DetectConfig(),
            store=self.store,
            sink=self.sink,
            window=self.price.context_window,
            observer=self.observer,
            clock=lambda: self.now_s,
            wall_ns=self.wall_ns,
        )
        self.reconciler = Reconciler(
            ReconcilerConfig(**options),
            store=self.store,
            sink=self.sink,
            price=self.price,
            journal=self.journal,
            detector=self.detector,
            territory=territory,
            clock=lambda: self.now_s,
            wall_ns=self.wall_ns,
        )
        return self.reconciler

    def wall_ns(self) -> int:
        return START + int(self.now_s * 1e9)

    def take(self, rows: pa.RecordBatch) -> None:
        """Store decoded spans as the pipeline does."""
        self.stored += 1
        rows = self.price(rows)
        self.sink.write(f"{self.tenant}-{self.stored}", rows, batch([], CONTENT), batch([], LOG_EVENTS))
        self.reconciler.touched(rows, batch([], LOG_EVENTS))
        self.journal.range_done()

    def findings(self) -> list[dict[str, Any]]:
        table = self.store.read_arrow("SELECT * FROM findings FINAL ORDER BY trace_id, finding_id")
        return [dict(row) for row in table.to_pylist()]


@pytest.fixture
def world(store: Store) -> World:
    for table in TABLES:
        store.command(f"TRUNCATE TABLE {table.name}")
    return World(store)
