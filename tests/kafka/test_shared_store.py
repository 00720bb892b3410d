"""Workers share one ClickHouse server, as every fleet does: here the embedded engine behind HTTP in a process apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load import send
from bench.payloads import small
from tests.kafka.broker import Cluster
from tests.kafka.fleet import clickhouse, journal_config, made, receiver, worker

pytestmark = pytest.mark.timeout(300, func_only=True)


@pytest.fixture
def dsn(tmp_path: Path) -> Iterator[str]:
    with clickhouse(tmp_path / "clickhouse") as address:
        yield address


def test_two_workers_on_one_server_store_all_once_though_one_is_killed_and_comes_back(
    cluster: Cluster, dsn: str, tmp_path: Path
) -> None:
    config = made(journal_config(cluster.addresses))
    payloads = [small(seed, time.time_ns()) for seed in range(8)]
    with (
        receiver(tmp_path / "receiver", config) as front,
        worker(tmp_path / "worker-0", config, "worker-0", SPANWISE_STORE__DSN=dsn) as one,
        worker(tmp_path / "worker-1", config, "worker-1", SPANWISE_STORE__DSN=dsn) as other,
    ):
        sent = asyncio.run(send(front.grpc, payloads[:4])).spans
        while one.count("SELECT count() FROM spans") == 0:
            time.sleep(0.02)
        other.kill()
        sent += asyncio.run(send(front.grpc, payloads[4:])).spans
        other.start()

        one.wait_for("SELECT count() FROM spans FINAL", sent, timeout_s=60)
        one.wait_for("SELECT sum(span_count) FROM traces FINAL", sent, timeout_s=60)
        assert one.terminate() == 0
        assert other.count("SELECT count() FROM spans FINAL") == sent
