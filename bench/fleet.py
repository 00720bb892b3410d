"""The fleet beside the single process: receiver, broker and worker on the same two cores, and what each of them costs.

The same requests go through `spanwise up` with its SQLite journal, then through `spanwise receive`, a real broker and
`spanwise work`. The generator shares the cores, so the CPU time of each process is the figure that carries over.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from bench.end_to_end import _cpu_s, _requests
from bench.load import send
from bench.payloads import Payload, agent, small
from tests.kafka.broker import Cluster, NoKafkaError, jars
from tests.kafka.fleet import journal_config, made, receiver, worker
from tests.running import RunningServer


def _through(
    name: str, endpoint: str, store: RunningServer, parts: Mapping[str, int], payloads: Sequence[Payload]
) -> None:
    """Send all, wait until all are queryable, print what it cost each part."""
    processes = {part: psutil.Process(pid) for part, pid in parts.items()} | {"generator": psutil.Process()}
    before = store.count("SELECT count() FROM spans")
    spans, bytes_ = sum(payload.spans for payload in payloads), sum(len(payload.body) for payload in payloads)
    cpu = {part: _cpu_s(process) for part, process in processes.items()}
    started = time.monotonic()
    sent = asyncio.run(send(endpoint, payloads))
    acked = time.monotonic() - started
    store.wait_for("SELECT count() FROM spans", before + spans, timeout_s=300)
    stored = time.monotonic() - started
    time.sleep(3)  # the reconciler's share of the same spans
    used = {part: (_cpu_s(process) - cpu[part]) / spans * 1e5 for part, process in processes.items()}
    print(
        f"{name}: acknowledged durable {spans / acked:,.0f} spans/s {bytes_ / 1e6 / acked:.0f} MB/s "
        f"(p50 {sent.ack_quantile_ms(0.5):.0f} ms, p99 {sent.ack_quantile_ms(0.99):.0f} ms), "
        f"queryable {spans / stored:,.0f} spans/s; CPU s per 100,000 spans: "
        + ", ".join(f"{part} {seconds:.2f}" for part, seconds in used.items())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=300, help="small requests of 512 spans")
    parser.add_argument("--agent", type=int, default=100, help="agent requests of 70 spans and 4 MB")
    options = parser.parse_args()
    try:
        jars()
    except NoKafkaError as error:
        print(f"fleet  not measured: {error}")
        return
    directory = Path(tempfile.mkdtemp(prefix="spanwise-bench-"))
    try:
        with RunningServer(directory / "single") as server:
            for shape, make, count in (("small", small, options.small), ("agent", agent, options.agent)):
                parts = {"server": server.pid}
                _through(f"single {shape}", server.grpc, server, parts, _requests(make, count))
        with Cluster(directory / "kafka") as cluster:
            config = made(journal_config(cluster.addresses, message_bytes_max=1_000_000))
            broker = cluster.brokers[0].process
            with receiver(directory / "receiver", config) as front, worker(directory / "worker", config) as back:
                parts = {"receiver": front.pid, "worker": back.pid, "broker": broker.pid if broker else 0}
                for shape, make, count in (("small", small, options.small), ("agent", agent, options.agent)):
                    _through(f"fleet  {shape}", front.grpc, back, parts, _requests(make, count))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
