"""A stop ends in time whatever hangs, and as the first process of a container too."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import urllib3

from tests.running import ROOT, RunningServer

UP = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--web", "127.0.0.1:0")
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")
IMPATIENT = """
import asyncio, sys
from pathlib import Path
from spanwise.config import load
from spanwise.server import serve
from spanwise.telemetry import configure_logging

config = load(Path(sys.argv[1]))
configure_logging(config.telemetry)
asyncio.run(serve(config, announce=lambda started: print(started.http, flush=True), stop_s=1.0))
"""
CLICKHOUSE = """
import sys
from tests.store.clickhouse_http import ClickHouseHTTP

with ClickHouseHTTP(sys.argv[1]) as endpoint:
    print(endpoint.port, flush=True)
    sys.stdin.read()
"""
SPAN = json.dumps(
    {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "5b" * 16, "spanId": "aa" * 8, "name": "chat"}]}]}]}
)


@pytest.fixture
def silent() -> Iterator[str]:
    """HOST:PORT of something that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A ClickHouse endpoint in a process of its own; its first line is its port."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLICKHOUSE, str(tmp_path / "store")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        yield process
        process.kill()


def test_a_store_that_hangs_does_not_hold_a_stop_beyond_its_limit(
    clickhouse: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert clickhouse.stdout is not None
    config = tmp_path / "spanwise.yaml"
    config.write_text(
        f"data_dir: {tmp_path / 'data'}\n"
        f"store: {{dsn: 'http://127.0.0.1:{int(clickhouse.stdout.readline())}'}}\n"
        "receiver: {grpc: '127.0.0.1:0', http: '127.0.0.1:0'}\nweb: {address: '127.0.0.1:0'}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, str(config)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    http = process.stdout.readline().decode().strip()
    clickhouse.send_signal(signal.SIGSTOP)
    answer = urllib3.request(
        "POST", f"http://{http}/v1/traces", body=SPAN, headers={"Content-Type": "application/json"}
    )
    time.sleep(0.5)  # the span is on its way to the store now
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=40)

    assert (answer.status, process.returncode) == (200, 1)
    assert b"the rest is stored after the next start" in said
    with RunningServer(tmp_path / "data") as server:
        server.wait_for("SELECT count() FROM spans FINAL", 1)


def test_sigterm_ends_a_start_that_waits_for_its_store(silent: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "spanwise", "up", "--data", str(tmp_path / "data"), *UP],
        cwd=ROOT,
        env={**os.environ, "SPANWISE_STORE__DSN": f"http://{silent}"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    while not psutil.Process(process.pid).net_connections("tcp"):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=40)

    assert b"stopping before everything was started" in said
    assert b"Traceback" not in said


@pytest.mark.skipif(
    shutil.which("unshare") is None or os.geteuid() != 0, reason="needs root and unshare for a process namespace"
)
def test_the_first_process_of_a_container_ends_on_sigterm(tmp_path: Path) -> None:
    outer = subprocess.Popen(
        [*NAMESPACE, sys.executable, "-m", "spanwise", "up", "--data", str(tmp_path / "data"), *UP],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert outer.stdout is not None
    while not outer.stdout.readline().startswith(b"stop"):
        pass
    (inner,) = psutil.Process(outer.pid).children()
    inner.send_signal(signal.SIGTERM)
    outer.stdout.close()

    assert outer.wait(40) == 0
