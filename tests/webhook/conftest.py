"""A real embedded store with webhooks whose time only passes when a test says so."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sinks.clickhouse import ClickHouseSink, ClickHouseSinkConfig
from sinks.webhook import AlertsConfig, WebhookClient, WebhookConfig
from sinks.webhook.deliver import Delivery, DeliveryQueue, Territory
from spanwise.store import Store
from tests.reconcile.conftest import store
from tests.webhook.build import NOW_MS, finding, findings

__all__ = ["store"]

_NUMBERS = itertools.count()


class Everything:
    def owned(self, trace_ids: Sequence[str]) -> Sequence[bool]:
        return [True] * len(trace_ids)

    def term(self) -> int | None:
        return 0


class Silent:
    def stored(self, table: str, *, rows: int, bytes_: int, seconds: float) -> None:
        pass

    def refused(self, table: str, *, rows: int, reason: str) -> None:
        raise AssertionError(f"{table} refused {rows} rows: {reason}")


class World:
    """Findings are written by hand; a `Delivery` sends them over real sockets."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sink = ClickHouseSink(ClickHouseSinkConfig(), store, Silent())
        self.now_s = 0.0
        # each test has a webhook and some days of its own, which is as good as an empty store and quicker
        self.number = next(_NUMBERS)
        self.name = f"hook{self.number}"
        self.written = 0
        self.loop = asyncio.new_event_loop()
        self.clients: list[WebhookClient] = []

    @property
    def now_ms(self) -> int:
        return NOW_MS + self.number * 10**9 + int(self.now_s * 1000)

    def find(self, *numbers: int, **columns: Any) -> None:
        """Write findings as the detector does."""
        self.written += 1
        rows = [finding(number, **{"at_ms": self.now_ms} | columns) for number in numbers]
        self.sink.write_findings(findings(*rows), f"{self.name}-{self.written}")

    def start(self, url: str, *, territory: Territory | None = None, **options: Any) -> Delivery:
        """A webhook as after a start of the program."""
        defaults = {"name": self.name, "url": url, "allow_http": True, "allow_private": True, "timeout_s": 20}
        config = WebhookConfig.model_validate(defaults | {"format": "json"} | options)
        client = WebhookClient(config)
        self.loop.run_until_complete(client.open())
        self.clients.append(client)
        delivery = Delivery(
            config,
            AlertsConfig(),
            queue=DeliveryQueue(config, self.store),
            client=client,
            territory=territory or Everything(),
            clock=lambda: self.now_s,
            wall_ns=lambda: self.now_ms * 10**6,
            jitter=lambda: 1.0,
        )
        self.round(delivery)
        return delivery

    def round(self, delivery: Delivery) -> float:
        """What the loop does each time; returns the pause it asks for."""
        return self.loop.run_until_complete(delivery.round())

    def settle(self, delivery: Delivery, rounds: int = 30) -> None:
        """Rounds with the pauses they ask for, until nothing is waiting."""
        for _ in range(rounds):
            pause_s = self.round(delivery)
            if delivery.stats().waiting == 0:
                return
            self.now_s += max(pause_s, 0.1)
        raise AssertionError(f"never done: {delivery.stats()}")

    def deliveries(self) -> dict[str, str]:
        """Outcome by finding number and severity."""
        table = self.store.read_arrow(f"SELECT * FROM alert_deliveries WHERE webhook = '{self.name}'")
        return {
            f"{int(row['finding_id'], 16)} {row['severity']}": row["outcome"]
            for row in table.to_pylist()
            if row["finding_id"]
        }

    def close(self) -> None:
        for client in self.clients:
            self.loop.run_until_complete(client.close())
        self.loop.close()


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    made = World(store)
    yield made
    made.close()
