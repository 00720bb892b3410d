"""Receivers, Kafka and workers lose processes, partitions and brokers under load: what was acknowledged is stored.

`make test` runs a few rounds, `make chaos` one hundred (SPANWISE_KILLS). Workers that share partitions also share a
server of ClickHouse's engine; a single one has an embedded store.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from bench.load import METHOD, Export
from bench.payloads import Payload, agent, fresh, small
from tests.chaos.calm import (
    PAST_NS,
    QUICK_ROLLUPS,
    assert_findings_are,
    assert_rollups_are_a_recount,
    calm_findings,
    looping,
)
from tests.kafka.broker import Broker, Cluster
from tests.kafka.fleet import clickhouse, journal_config, made, receiver, worker
from tests.running import RunningServer

KILLS = int(os.environ.get("SPANWISE_KILLS", "3"))
SEED = int(os.environ.get("SPANWISE_SEED", "1"))
OUTAGE_S = float(os.environ.get("SPANWISE_OUTAGE_S", "300" if KILLS >= 100 else "3"))
SETTLE_S = 60 + 3 * KILLS + OUTAGE_S
SEEDS_S = 10
"""Time goes on in what is sent: spans of an hour in one minute would all be read for each trace of it."""

pytestmark = pytest.mark.timeout(3600)


@dataclass
class Sender:
    """Sends fresh requests on a few connections and keeps each until it is acknowledged, as an exporter does."""

    endpoint: str
    seed: int
    pause_s: float = 0.2 if KILLS >= 10 else 0.6
    acked: set[bytes] = field(default_factory=set)
    looping: list[bytes] = field(default_factory=list)
    """Requests of traces in which something is to be found."""
    refused: int = 0
    stopping: bool = False

    async def _one(self, number: int) -> None:
        rng = random.Random(self.seed * 1000 + number)
        seeds: list[Payload] = []
        made_s = 0.0
        async with grpc.aio.insecure_channel(
            self.endpoint, options=[("grpc.max_reconnect_backoff_ms", 200), ("grpc.max_send_message_length", -1)]
        ) as channel:
            export: Export = channel.unary_unary(
                METHOD, request_serializer=None, response_deserializer=ExportTraceServiceResponse.FromString
            )
            while not self.stopping:
                if time.monotonic() - made_s > SEEDS_S:
                    past, made_s = time.time_ns() - PAST_NS, time.monotonic()
                    seeds = [small(number, past), agent(number, past)]
                payloads = [fresh(seeds[rng.random() < 0.1], rng)]
                if rng.random() < 0.5:
                    payloads += looping(rng)
                    self.looping += [payload.body for payload in payloads[1:]]
                for payload in payloads:
                    await self._send(export, payload)
                await asyncio.sleep(self.pause_s)

    async def _send(self, export: Export, payload: Payload) -> None:
        while True:
            try:
                await export(payload.body, timeout=10)
            except grpc.aio.AioRpcError:
                self.refused += 1
                await asyncio.sleep(0.1)  # not acknowledged: it is kept and sent again, also at the end
            else:
                self.acked.update(payload.ids)
                return

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(self._one(number)) for number in range(3)]
        try:
            yield
        finally:
            self.stopping = True
            await asyncio.wait_for(asyncio.gather(*tasks), SETTLE_S)


def stored(one: RunningServer) -> list[bytes]:
    """Ids of all spans."""
    ids = []
    parts = one.count("SELECT count() FROM spans") // 100_000 + 1  # users' queries have a limit on rows
    for part in range(parts):
        where = f"WHERE cityHash64(trace_id, span_id) % {parts} = {part}"
        rows = one.sql(f"SELECT trace_id, span_id FROM spans FINAL {where}")
        ids += [bytes.fromhex(row["trace_id"]) + bytes.fromhex(row["span_id"]) for row in rows]
    return ids


def metric(one: RunningServer, name: str) -> list[float]:
    """Its values, one of each set of labels."""
    lines = [line for line in one.metrics() if line.partition("{")[0].partition(" ")[0] == name]
    return [float(line.rpartition(" ")[2]) for line in lines]


def settled(one: RunningServer, sent: set[bytes]) -> list[bytes]:
    """Wait until everything sent is there; the ids that are there then."""
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        time.sleep(0.3)
        if one.count("SELECT count() FROM spans") < len(sent):
            continue
        ids = stored(one)
        if sent <= set(ids):
            return ids
    return stored(one)


def report(what: str, sender: Sender, ids: list[bytes], began: float) -> None:
    missing = sender.acked - set(ids)
    print(
        f"\n{what}: seed={SEED} acked={len(sender.acked)} refused={sender.refused} stored={len(set(ids))} "
        f"missing={len(missing)} in {time.monotonic() - began:.0f} s"
    )
    assert sender.acked, "the harness acknowledged nothing, so it proves nothing"
    assert not missing
    assert len(ids) == len(set(ids))


def assert_as_in_a_calm_run(one: RunningServer, sent: list[bytes], spans: int, directory: Path) -> None:
    """Summaries, findings and sums; `sent` are the requests in which something is to be found."""
    one.wait_for("SELECT sum(span_count) FROM traces FINAL", spans, SETTLE_S)
    expected = calm_findings(directory, sent)
    assert_findings_are(one, expected, SETTLE_S)
    assert_rollups_are_a_recount(one, SETTLE_S)
    raw = one.count("SELECT count() FROM spans")
    print(f"rows before deduplication: {raw}, after: {spans}; findings: {len(expected)}; every minute as in a recount")


def test_kill_9_of_receiver_worker_and_broker_loses_and_repeats_no_span_finding_or_sum(
    mortal: Cluster, tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    began = time.monotonic()
    config = made(journal_config(mortal.addresses, ack_timeout_s=1))
    front = receiver(tmp_path / "receiver", config)
    back = worker(tmp_path / "worker", config, member="w", **QUICK_ROLLUPS)
    sender = Sender(front.grpc, SEED)
    killed: Counter[str] = Counter()

    def kill_and_start(victim: RunningServer | Broker) -> None:
        victim.kill()
        victim.start()

    async def chaos() -> None:
        victims: dict[str, RunningServer | Broker] = {
            "receiver": front,
            "worker": back,
            "broker": mortal.brokers[0],
        }
        async with sender.sending():
            for turn in range(KILLS):
                await asyncio.sleep(rng.uniform(0.02, 1.6))
                name = list(victims)[turn % 3]
                killed[name] += 1
                await asyncio.to_thread(kill_and_start, victims[name])

    try:
        back.start()
        front.start()
        asyncio.run(chaos())
        ids = settled(back, sender.acked)
        report(f"kill -9 {dict(killed)}", sender, ids, began)
        assert_as_in_a_calm_run(back, sender.looping, len(ids), tmp_path / "calm")
    finally:
        front.kill()
        back.kill()


@dataclass
class Fleet:
    """A receiver and workers that share its partitions and one store."""

    front: RunningServer
    workers: list[RunningServer]
    partitions: int
    looping: list[bytes] = field(default_factory=list)
    """Of all that was sent, requests of traces in which something is to be found."""

    def lag(self) -> float | None:
        """Records not stored yet, None as long as a partition belongs to nobody."""
        lags = [value for one in self.workers for value in metric(one, "spanwise_kafka_lag_records")]
        return sum(lags) if len(lags) == 2 * self.partitions else None

    def rebalances(self) -> list[float]:
        return [metric(one, "spanwise_kafka_rebalances_total")[0] for one in self.workers]


@pytest.fixture(scope="module")
def fleet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    config = made(journal_config(cluster.addresses, topics={"partitions": 12}, session_timeout_s=1))
    with clickhouse(directory / "clickhouse") as dsn:
        options = {"SPANWISE_STORE__DSN": dsn, **QUICK_ROLLUPS}
        workers = [worker(directory / f"worker-{number}", config, **options) for number in range(3)]
        found = Fleet(receiver(directory / "receiver", config), workers, partitions=12)
        everyone = [found.front, *workers]
        try:
            with ThreadPoolExecutor(len(everyone)) as at_once:
                list(at_once.map(RunningServer.start, everyone))
            yield found
        finally:
            for one in everyone:
                one.kill()


def test_a_storm_of_rebalances_changes_no_number_and_leaves_no_lag(fleet: Fleet, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    began = time.monotonic()
    sender = Sender(fleet.front.grpc, SEED)

    async def storm() -> None:
        async with sender.sending():
            for _ in range(KILLS):
                await asyncio.sleep(rng.uniform(0.5, 1.5))
                one = rng.choice(fleet.workers)
                if one.process is None:
                    await asyncio.to_thread(one.start)
                elif rng.random() < 0.7:
                    await asyncio.to_thread(one.kill)
                else:
                    await asyncio.to_thread(one.terminate)

    asyncio.run(storm())
    fleet.looping += sender.looping
    over = time.monotonic()
    for one in fleet.workers:
        if one.process is None:
            one.start()
    while (lag := fleet.lag()) != 0 and time.monotonic() < over + SETTLE_S:
        time.sleep(0.1)
    print(f"\nlag {lag} after {time.monotonic() - over:.1f} s")
    assert lag == 0
    ids = settled(fleet.workers[0], sender.acked)
    report("rebalance storm", sender, ids, began)
    assert_as_in_a_calm_run(fleet.workers[0], fleet.looping, len(ids), tmp_path / "calm")


def test_a_paused_worker_that_wakes_too_late_changes_no_number(fleet: Fleet, tmp_path: Path) -> None:
    began = time.monotonic()
    sender = Sender(fleet.front.grpc, SEED + 1)

    async def pauses() -> None:
        async with sender.sending():
            for turn in range(max(1, KILLS // 2)):
                paused = fleet.workers[turn % 3]
                await asyncio.sleep(0.5)
                os.kill(paused.pid, signal.SIGSTOP)
                await asyncio.sleep(2.5)
                os.kill(paused.pid, signal.SIGCONT)
                await asyncio.sleep(1)

    before = fleet.rebalances()
    asyncio.run(pauses())
    fleet.looping += sender.looping
    ids = settled(fleet.workers[0], sender.acked)
    report("paused workers", sender, ids, began)
    assert fleet.rebalances() > before, "no partition moved, so it proves nothing"
    assert_as_in_a_calm_run(fleet.workers[0], fleet.looping, len(ids), tmp_path / "calm")


def test_with_a_spool_brokers_away_refuse_and_lose_nothing(mortal: Cluster, tmp_path: Path) -> None:
    began = time.monotonic()
    config = made(journal_config(mortal.addresses, ack_timeout_s=1, spool={}))
    front = receiver(tmp_path / "receiver", config)
    back = worker(tmp_path / "worker", config, member="w")
    sender = Sender(front.grpc, SEED)
    broker = mortal.brokers[0]

    async def outage() -> None:
        async with sender.sending():
            await asyncio.sleep(0.5)
            await asyncio.to_thread(broker.kill)
            await asyncio.sleep(OUTAGE_S)
            await asyncio.to_thread(broker.start)
            await asyncio.sleep(1)

    try:
        back.start()
        front.start()
        asyncio.run(outage())
        ids = settled(back, sender.acked)
        report("broker away, spool", sender, ids, began)
        assert sender.refused == 0
        assert metric(front, "spanwise_kafka_drained_requests_total") > [0]
    finally:
        front.kill()
        back.kill()


@pytest.mark.skipif(KILLS < 10, reason="three brokers are for `make chaos`")
def test_losing_one_of_three_brokers_loses_nothing(kafka_jars: Path, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    began = time.monotonic()
    with Cluster(tmp_path / "kafka", nodes=3) as cluster:
        topics = {"partitions": 4, "replicas": 3, "in_sync_replicas_min": 2}
        config = made(journal_config(cluster.addresses, ack_timeout_s=2, topics=topics))
        front = receiver(tmp_path / "receiver", config)
        back = worker(tmp_path / "worker", config, member="w")
        sender = Sender(front.grpc, SEED)

        async def losses() -> None:
            async with sender.sending():
                for _ in range(max(1, KILLS // 5)):
                    await asyncio.sleep(0.5)
                    lost = rng.choice(cluster.brokers)
                    await asyncio.to_thread(lost.kill)
                    await asyncio.sleep(2)
                    await asyncio.to_thread(lost.start)
                    await asyncio.sleep(1)

        try:
            back.start()
            front.start()
            asyncio.run(losses())
            ids = settled(back, sender.acked)
            report("one of three brokers", sender, ids, began)
        finally:
            front.kill()
            back.kill()
