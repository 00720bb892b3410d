"""Receivers, Kafka and workers lose processes, partitions and brokers under load: what was acknowledged is stored.

`make test` runs a few rounds, `make chaos` one hundred (SPANWISE_KILLS). An embedded store belongs to one process, so
workers that share partitions have a directory each here and their rows are compared as one deduplicated union: what
dies in between may be stored in two directories, as it would be twice, and then once, in one server.
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
from tests.kafka.fleet import journal_config, made, receiver, worker
from tests.running import RunningServer

KILLS = int(os.environ.get("SPANWISE_KILLS", "3"))
SEED = int(os.environ.get("SPANWISE_SEED", "1"))
OUTAGE_S = float(os.environ.get("SPANWISE_OUTAGE_S", "300" if KILLS >= 100 else "3"))
SETTLE_S = 60 + 3 * KILLS + OUTAGE_S

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
        past = time.time_ns() - PAST_NS
        seeds = [small(number, past), agent(number, past)]
        async with grpc.aio.insecure_channel(
            self.endpoint, options=[("grpc.max_reconnect_backoff_ms", 200), ("grpc.max_send_message_length", -1)]
        ) as channel:
            export: Export = channel.unary_unary(
                METHOD, request_serializer=None, response_deserializer=ExportTraceServiceResponse.FromString
            )
            while not self.stopping:
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


def stored(workers: list[RunningServer]) -> list[bytes]:
    """Ids of all spans of all workers, each once a worker."""
    ids = []
    for one in workers:
        digits = 1 if KILLS < 10 else 2
        for prefix in range(16**digits):  # in parts: users' queries have a limit on rows
            like = f"{prefix:0{digits}x}"
            rows = one.sql(f"SELECT trace_id, span_id FROM spans FINAL WHERE startsWith(trace_id, '{like}')")
            ids += [bytes.fromhex(row["trace_id"]) + bytes.fromhex(row["span_id"]) for row in rows]
    return ids


def lag(one: RunningServer) -> float:
    figures = [line for line in one.metrics() if line.startswith("spanwise_kafka_lag_records{")]
    return sum(float(line.rpartition(" ")[2]) for line in figures)


def settled(workers: list[RunningServer], sent: set[bytes]) -> list[bytes]:
    """Wait until nothing is left to read and everything sent is there; the ids that are there then."""
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        time.sleep(0.3)
        if any(map(lag, workers)) or sum(one.count("SELECT count() FROM spans") for one in workers) < len(sent):
            continue
        ids = stored(workers)
        if sent <= set(ids):
            return ids
    return stored(workers)


def report(what: str, sender: Sender, ids: list[bytes], began: float) -> None:
    missing = sender.acked - set(ids)
    print(
        f"\n{what}: seed={SEED} acked={len(sender.acked)} refused={sender.refused} stored={len(set(ids))} "
        f"missing={len(missing)} in {time.monotonic() - began:.0f} s"
    )
    assert sender.acked, "the harness acknowledged nothing, so it proves nothing"
    assert not missing


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
        ids = settled([back], sender.acked)
        report(f"kill -9 {dict(killed)}", sender, ids, began)
        assert len(ids) == len(set(ids))
        raw = back.count("SELECT count() FROM spans")
        print(f"rows before deduplication: {raw}, after: {len(ids)}")
        back.wait_for("SELECT sum(span_count) FROM traces FINAL", len(ids), SETTLE_S)
        expected = calm_findings(tmp_path / "calm", sender.looping)
        assert_findings_are(back, expected, SETTLE_S)
        assert_rollups_are_a_recount(back, SETTLE_S)
        print(f"findings as in a calm run: {len(expected)}; sums of all minutes as in a recount")
    finally:
        front.kill()
        back.kill()


@dataclass
class Fleet:
    """A receiver and workers that share its partitions."""

    front: RunningServer
    workers: list[RunningServer]


@pytest.fixture(scope="module")
def fleet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    config = made(journal_config(cluster.addresses, topics={"partitions": 12}, session_timeout_s=1))
    found = Fleet(
        receiver(directory / "receiver", config),
        [worker(directory / f"worker-{number}", config) for number in range(3)],
    )
    everyone = [found.front, *found.workers]
    try:
        with ThreadPoolExecutor(len(everyone)) as at_once:
            list(at_once.map(RunningServer.start, everyone))
        yield found
    finally:
        for one in everyone:
            one.kill()


def test_a_storm_of_rebalances_loses_nothing_and_leaves_no_lag(fleet: Fleet) -> None:
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
    for one in fleet.workers:
        if one.process is None:
            one.start()
    ids = settled(fleet.workers, sender.acked)
    report("rebalance storm", sender, ids, began)
    assert [lag(one) for one in fleet.workers] == [0, 0, 0]


def test_a_paused_worker_that_wakes_too_late_changes_no_number(fleet: Fleet) -> None:
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

    before = [rebalances(one) for one in fleet.workers]
    asyncio.run(pauses())
    ids = settled(fleet.workers, sender.acked)
    report("paused workers", sender, ids, began)
    assert [rebalances(one) for one in fleet.workers] > before, "no partition moved, so it proves nothing"


def rebalances(one: RunningServer) -> float:
    return next(float(line.rpartition(" ")[2]) for line in one.metrics() if "rebalances_total " in line)


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
        ids = settled([back], sender.acked)
        report("broker away, spool", sender, ids, began)
        assert sender.refused == 0
        assert any(
            line.startswith("spanwise_kafka_drained_requests_total") and not line.endswith(" 0.0")
            for line in front.metrics()
        )
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
            ids = settled([back], sender.acked)
            report("one of three brokers", sender, ids, began)
        finally:
            front.kill()
            back.kill()
