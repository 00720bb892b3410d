"""A running server to which runs with every failure were sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.prometheus.plant import FAILURES, Agents
from tests.running import RunningServer

PLANTED = "planted"


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    directory = tmp_path_factory.mktemp("alerts") / "data"
    with RunningServer(directory, SPANWISE_QUALITY_DRIFT__EVERY_S="2") as running:
        for play in FAILURES.values():
            with Agents(running.grpc, PLANTED) as agents:
                play(agents)
        running.wait_for("SELECT uniqExact(signature) FROM findings FINAL", len(FAILURES), timeout_s=60)
        yield running
