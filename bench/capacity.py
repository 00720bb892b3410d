"""What a span costs in each part of a fleet: CPU of receiver, broker, worker, ClickHouse, and bytes of disk.

One broker, one receiver and one worker, and a ClickHouse of its own: the embedded engine behind an HTTP endpoint in a
process apart, so that its CPU is told from the worker's. Every request is made of its own seed, because the same text
again would compress better than any real traffic. Disk is counted after merging everything, which is what a table comes
to within hours; deltas of CPU are from before the first request until the traces are reconciled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import urllib3

from bench.end_to_end import _cpu_s
from bench.load import send
from bench.payloads import Payload, agent, fresh, small
from spanwise.demo import traffic
from spanwise.journal import KafkaJournalConfig
from tests.kafka.broker import Cluster, NoKafkaError, jars
from tests.kafka.fleet import journal_config, made, receiver, worker
from tests.running import ROOT, RunningServer

_ENDPOINT = """
import sys
from tests.store.clickhouse_http import ClickHouseHTTP

with ClickHouseHTTP(sys.argv[1]) as endpoint:
    print(endpoint.port, flush=True)
    sys.stdin.read()
"""
_TABLES = """SELECT table, sum(bytes_on_disk) AS bytes FROM system.parts
WHERE active AND database = 'spanwise' GROUP BY table HAVING bytes > 0 ORDER BY bytes DESC FORMAT JSONEachRow"""

_SENT = "spanwise_kafka_request_bytes_total"
_WARM = 20
_SETTLE_S = 4.0

Play = Callable[[RunningServer], int]


@contextmanager
def _clickhouse(directory: Path) -> Iterator[tuple[str, int]]:
    """(address, process id) of a ClickHouse endpoint."""
    with subprocess.Popen(
        [sys.executable, "-c", _ENDPOINT, str(directory)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None  # noqa: S101
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid
        finally:
            process.kill()


def _ask(address: str, statement: str) -> list[dict[str, str]]:
    answer = urllib3.request("POST", address, body=statement.encode(), timeout=300)
    if answer.status != 200:
        raise RuntimeError(answer.data.decode())
    return [json.loads(line) for line in answer.data.splitlines() if line]


def _sent(make: Callable[[int, int], Payload], count: int, first: int = _WARM) -> Play:
    rng = random.Random()  # traces of their own in every call
    payloads = [fresh(make(seed, time.time_ns()), rng) for seed in range(first, first + count)]

    def play(front: RunningServer) -> int:
        asyncio.run(send(front.grpc, payloads))
        return sum(payload.spans for payload in payloads)

    return play


def _demo(times: int) -> Play:
    def play(front: RunningServer) -> int:
        spans = 0
        for seed in range(times):
            now = time.time_ns() - seed * 3_600_000_000_000
            spans += traffic.send(
                grpc_endpoint=front.grpc,
                http_endpoint=front.http,
                now_unix_nano=now,
                seed=seed,
                progress=lambda _played, _all: None,
            ).spans
        return spans

    return play


def _metric(server: RunningServer, name: str, label: str = "") -> float:
    lines = [line for line in server.metrics() if line.split("{")[0].split(" ")[0] == name and label in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def _measure(shape: str, play: Play, directory: Path) -> None:
    with (
        Cluster(directory / "kafka") as cluster,
        _clickhouse(directory / "clickhouse") as (address, clickhouse),
    ):
        config = made(journal_config(cluster.addresses))
        broker = cluster.brokers[0].process
        with (
            receiver(directory / "receiver", config) as front,
            worker(directory / "worker", config, SPANWISE_STORE__DSN=address) as back,
        ):
            parts = {
                "receiver": front.pid,
                "broker": broker.pid if broker else 0,
                "worker": back.pid,
                "clickhouse": clickhouse,
            }
            processes = {part: psutil.Process(pid) for part, pid in parts.items()}
            warm = _sent(small, _WARM, first=0)(front)  # every part has done its work once before it is watched
            back.wait_for("SELECT count() FROM spans FINAL", warm, timeout_s=600)
            time.sleep(_SETTLE_S)
            before = {part: _cpu_s(process) for part, process in processes.items()}
            sent, inserts = _metric(front, _SENT), _inserts(back)
            kept = _kept(directory, config)
            disk = _disk(address)
            started = time.monotonic()
            spans = play(front)
            back.wait_for("SELECT count() FROM spans FINAL", warm + spans, timeout_s=600)
            seconds = time.monotonic() - started
            time.sleep(_SETTLE_S)  # the traces of the last requests are reconciled
            cpu = {part: (_cpu_s(process) - before[part]) / spans * 1e5 for part, process in processes.items()}
            peak = {part: _peak_mib(pid) for part, pid in parts.items()}
            sent, inserts = _metric(front, _SENT) - sent, _inserts(back) - inserts
            kept = _kept(directory, config) - kept
            disk = {table: after - disk.get(table, 0) for table, after in _disk(address).items()}
    print(
        f"{shape}: {spans} spans of {sent / spans:,.0f} bytes in {seconds:.1f} s, "
        f"{kept / spans:,.0f} bytes a span in Kafka"
    )
    print("  CPU s per 100,000 spans: " + ", ".join(f"{part} {used:.2f}" for part, used in cpu.items()))
    print("  memory peak MiB: " + ", ".join(f"{part} {mib:,.0f}" for part, mib in peak.items()))
    print(f"  inserts into spans: {inserts:.0f}, {inserts / seconds:.1f} a second")
    print(f"  disk, merged: {sum(disk.values()) / spans:,.0f} bytes a span; ", end="")
    print(", ".join(f"{table} {bytes_ / spans:,.0f}" for table, bytes_ in disk.items() if bytes_ >= spans))


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def _inserts(worker_: RunningServer) -> float:
    return _metric(worker_, "spanwise_insert_seconds_count", 'table="spans"')


def _kept(directory: Path, config: KafkaJournalConfig) -> int:
    logs = directory.glob(f"kafka/node-1/data/{config.traces_topic}-*/*.log")
    return sum(path.stat().st_size for path in logs)


def _disk(address: str) -> dict[str, int]:
    """Bytes of each table once everything in it is merged."""
    for row in _ask(address, _TABLES):
        _ask(address, f"OPTIMIZE TABLE spanwise.{row['table']} FINAL")
    return {row["table"]: int(row["bytes"]) for row in _ask(address, _TABLES)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=120, help="small requests of 512 spans")
    parser.add_argument("--agent", type=int, default=60, help="agent requests of 70 spans and 4 MB")
    parser.add_argument("--demo", type=int, default=10, help="runs of the demo's traffic")
    options = parser.parse_args()
    try:
        jars()
    except NoKafkaError as error:
        print(f"capacity  not measured: {error}")
        return
    counts = {"small": options.small, "agent": options.agent, "demo": options.demo}
    for shape, count in counts.items():
        if count:
            play = _demo(count) if shape == "demo" else _sent(small if shape == "small" else agent, count)
            with tempfile.TemporaryDirectory(prefix="spanwise-bench-") as directory:
                _measure(shape, play, Path(directory))


if __name__ == "__main__":
    main()
