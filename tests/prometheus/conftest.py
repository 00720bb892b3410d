"""A running server to which runs with every failure were sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.prometheus.plant import FAILURES, Agents, retry_loop
from tests.running import RunningServer

PLANTED = "planted"
OPTIONS = {
    "SPANWISE_QUALITY_DRIFT__EVERY_S": "2",
    "SPANWISE_ROLLUPS__CLOSE_S": "0",
    "SPANWISE_ROLLUPS__LATE_S": "0",
    "SPANWISE_BUDGETS": json.dumps([{"name": "pocket-money", "limit_usd": 0.001}]),
}


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("alerts") / "data", **OPTIONS)
    # budgets are looked at when the server starts, and then once a minute
    running.start()
    with Agents(running.grpc, PLANTED) as agents:
        month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        agents.now = max(agents.now, int(month.timestamp()) * 10**9)
        retry_loop(agents)
    running.wait_for("SELECT count() > 0 FROM rollup_1m FINAL WHERE cost_usd > 0", 1, timeout_s=90)
    running.terminate()
    with running:
        for play in FAILURES.values():
            with Agents(running.grpc, PLANTED) as agents:
                play(agents)
        running.wait_for("SELECT uniqExact(signature) FROM findings FINAL", len(FAILURES) + 1, timeout_s=60)
        yield running
