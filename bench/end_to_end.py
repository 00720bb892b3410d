"""Whole-process figures: one server, one generator, the same two cores.

For each payload shape: everything is sent as fast as it is acknowledged, then the clock runs until SQL returns every
span. The generator's own CPU is part of the bill. Then acknowledgement latency at half of the rate just reached, idle
CPU, and memory. `rotel`, where its wheel can be had, gets the same requests and throws them away after its own
acknowledgement from memory: the nearest thing to compare with, though it keeps nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa

from bench.load import send
from bench.payloads import Payload, agent, fresh, small
from processors.normalise import plan_json
from spanwise._native import Decoder
from tests.running import RunningServer, free_port

_ROTEL = "rotel==0.0.1a15"


def _requests(make: Callable[[int, int], Payload], count: int) -> list[Payload]:
    rng = random.Random()  # ids of their own in every run: the same ones again would be the same spans
    seeds = [make(seed, time.time_ns()) for seed in range(min(count, 12))]
    return [fresh(seeds[index % len(seeds)], rng) for index in range(count)]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _mib(bytes_: float) -> float:
    return bytes_ / (1 << 20)


def _rss(process: psutil.Process) -> str:
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return f"{_mib(process.memory_info().rss):.0f} MiB, peak {peak / 1024:.0f} MiB"


def _through(name: str, server: RunningServer, payloads: list[Payload]) -> float:
    """Send all, wait until all are queryable, print what it cost; returns the requests a second that took."""
    process, generator = psutil.Process(server.pid), psutil.Process()
    before = server.count("SELECT count() FROM spans")
    spans, bytes_ = sum(p.spans for p in payloads), sum(len(p.body) for p in payloads)
    cpu, generator_cpu, began = _cpu_s(process), _cpu_s(generator), time.monotonic()
    sent = asyncio.run(send(server.grpc, payloads))
    acked_s = time.monotonic() - began
    server.wait_for("SELECT count() FROM spans", before + spans, timeout_s=300)
    seconds = time.monotonic() - began
    cpu, generator_cpu = _cpu_s(process) - cpu, _cpu_s(generator) - generator_cpu
    print(
        f"{name:6} {spans} spans, {bytes_ / 1e6:.0f} MB: acknowledged durable at {spans / acked_s:,.0f} spans/s "
        f"{bytes_ / 1e6 / acked_s:.0f} MB/s; queryable at {spans / seconds:,.0f} spans/s "
        f"{bytes_ / 1e6 / seconds:.0f} MB/s; server CPU {cpu / seconds:.2f} cores, {cpu / spans * 1e5:.2f} s per "
        f"100k spans; generator {generator_cpu / seconds:.2f} cores; refused {sent.refused}; RSS {_rss(process)}"
    )
    return sent.requests / seconds


def _settle(server: RunningServer) -> None:
    """Wait until no trace waits to be decided: half load after a flood is more than half load."""
    while "spanwise_reconcile_dirty_traces 0.0" not in server.metrics():
        time.sleep(0.2)


def _latency(name: str, server: RunningServer, payloads: list[Payload], rate: float) -> None:
    _settle(server)
    before = server.count("SELECT count() FROM spans")
    sent = asyncio.run(send(server.grpc, payloads, connections=8, requests_per_s=rate))
    server.wait_for("SELECT count() FROM spans", before + sent.spans, timeout_s=300)
    print(
        f"{name:6} acknowledgement at half load ({rate:.1f} requests/s): p50 {sent.ack_quantile_ms(0.5):.1f} ms, "
        f"p99 {sent.ack_quantile_ms(0.99):.1f} ms, refused {sent.refused}"
    )


def _idle(server: RunningServer) -> None:
    process = psutil.Process(server.pid)
    time.sleep(15)  # merges and reconciliation of what was just stored
    cpu = _cpu_s(process)
    time.sleep(10)
    print(f"idle   {(_cpu_s(process) - cpu) * 10:.1f} % of one core over 10 s; RSS {_rss(process)}")


_STORE_ALONE = """
import os, sys
import psutil, pyarrow as pa
from pydantic import SecretStr
from spanwise.model import CONTENT, SPANS
from spanwise.store import Store, StoreConfig, open_store
store = open_store(Store(StoreConfig(dsn=SecretStr("chdb://" + sys.argv[1]))))
process = psutil.Process()
opened = process.memory_info().rss
peak = 0
for turn in range(int(sys.argv[4])):
    for table, path in ((CONTENT, sys.argv[2]), (SPANS, sys.argv[3])):
        with pa.memory_map(path) as file:
            store.insert(table, pa.ipc.open_file(file).get_batch(0), f"{table.name}-{turn}")
    peak = max(peak, process.memory_info().rss)
print(opened, peak)
sys.stdout.flush()
os._exit(0)
"""


def _store_alone(payloads: list[Payload], turns: int) -> tuple[float, float]:
    """Resident MiB of a process that does nothing but insert the same rows as often: (opened, peak)."""
    frames = [("default", time.time_ns(), "traces", payload.body) for payload in payloads]
    decoded = Decoder(plan_json()).decode(frames)
    with tempfile.TemporaryDirectory() as directory:
        files = []
        for name, batch in (("content", decoded.content), ("spans", decoded.spans)):
            files.append(f"{directory}/{name}.arrow")
            with pa.ipc.new_file(files[-1], batch.schema) as writer:
                writer.write_batch(batch)
        done = subprocess.run(
            [sys.executable, "-c", _STORE_ALONE, f"{directory}/store", *files, str(turns)],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
    opened, peak = map(float, done.stdout.split()[-2:])
    return _mib(opened), _mib(peak)


@contextmanager
def _rotel(directory: Path) -> Iterator[tuple[str, psutil.Process] | None]:
    """rotel's agent with a blackhole exporter, from a virtual environment of its own."""
    venv = directory / "rotel"
    try:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True, capture_output=True)
        subprocess.run([venv / "bin/pip", "install", "-q", _ROTEL], check=True, capture_output=True)
        binary = next(venv.rglob("rotel-agent"))
    except (subprocess.CalledProcessError, StopIteration):
        print(f"rotel  not compared: {_ROTEL} cannot be installed here")
        yield None
        return
    endpoint = f"127.0.0.1:{free_port()}"
    arguments = ["start", "--otlp-grpc-endpoint", endpoint, "--otlp-http-endpoint", f"127.0.0.1:{free_port()}"]
    arguments += ["--otlp-grpc-max-recv-msg-size-mib", "64", "--exporter", "blackhole", "--batch-max-size", "8192"]
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield endpoint, psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _compare_rotel(directory: Path, shapes: list[tuple[str, list[Payload]]]) -> None:
    with _rotel(directory) as running:
        if running is None:
            return
        endpoint, process = running
        for name, payloads in shapes:
            cpu = _cpu_s(process)
            sent = asyncio.run(send(endpoint, payloads))
            cpu = _cpu_s(process) - cpu
            print(
                f"rotel  {name}: acknowledged from memory, not kept, at {sent.spans / sent.seconds:,.0f} spans/s "
                f"{sent.bytes / 1e6 / sent.seconds:.0f} MB/s; CPU {cpu / sent.spans * 1e5:.2f} s per 100k spans; "
                f"RSS {_rss(process)}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=800, help="small requests of 512 spans")
    parser.add_argument("--agent", type=int, default=400, help="agent requests of 70 spans and 4 MB")
    parser.add_argument("--no-rotel", action="store_true")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="spanwise-bench-"))
    try:
        with RunningServer(directory / "data") as server:
            print(f"ready  {server.ready_s:.2f} s after start")
            small_payloads, agent_payloads = _requests(small, options.small), _requests(agent, options.agent)
            half = _through("small", server, small_payloads) / 2
            _latency("small", server, _requests(small, int(half * 15)), half)
            half = _through("agent", server, agent_payloads) / 2
            _latency("agent", server, _requests(agent, int(half * 15)), half)
            _idle(server)
        opened, peak = _store_alone(small_payloads[:40], options.small // 40)
        print(
            f"store  a process that only inserts the same small rows: {opened:.0f} MiB resident once opened, "
            f"{peak:.0f} MiB at its peak; what the server has beyond that is receiver and pipeline"
        )
        if not options.no_rotel:
            _compare_rotel(directory, [("small", small_payloads), ("agent", agent_payloads)])
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
