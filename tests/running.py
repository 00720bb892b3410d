"""A server as a user starts it: its own process, its own directory, free ports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import urllib3

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RunningServer:
    """`spanwise up` as a child process. Use it as a context manager, or `start` and `kill` it repeatedly.

    `command` may also be `receive`, which has no store, or `work`, which does not listen for OTLP.
    """

    def __init__(self, directory: Path, *, command: str = "up", **environment: str) -> None:
        self.directory = directory
        self.command = command
        self.grpc_port, self.http_port, self.web_port = free_port(), free_port(), free_port()
        self.clickhouse_port = free_port()
        self._environment = environment
        self._http = urllib3.PoolManager(retries=False)
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_s = 0.0

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RuntimeError("the server is not running")
        return self.process.pid

    def start(self, timeout_s: float = 90) -> None:
        """Start and wait until `/readyz` says so; `ready_s` is how long that took."""
        self.directory.mkdir(parents=True, exist_ok=True)
        arguments = ["--data", str(self.directory), "--web", f"127.0.0.1:{self.web_port}"]
        if self.command == "up":
            arguments += ["--clickhouse", f"127.0.0.1:{self.clickhouse_port}"]
        if self.command != "work":
            arguments += ["--grpc", self.grpc, "--http", f"127.0.0.1:{self.http_port}"]
        begun = time.monotonic()
        with (self.directory.parent / f"{self.directory.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "spanwise", self.command, *arguments],
                cwd=ROOT,
                env={**os.environ, **self._environment},
                stdout=log,
                stderr=log,
            )
        while not self._ready():
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"spanwise {self.command} ended with {self.process.returncode}: {self.log()[-2000:]}"
                )
            if time.monotonic() - begun > timeout_s:
                raise RuntimeError(f"spanwise {self.command} is not ready after {timeout_s} s: {self.log()[-2000:]}")
            time.sleep(0.02)
        self.ready_s = time.monotonic() - begun

    def _ready(self) -> bool:
        try:
            status: int = self._http.request("GET", f"{self.web}/readyz", timeout=2).status
        except urllib3.exceptions.HTTPError:
            return False
        return status == 200

    def log(self) -> str:
        return (self.directory.parent / f"{self.directory.name}.log").read_text(errors="replace")

    def kill(self) -> None:
        """kill -9, the way a machine loses a process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def terminate(self, timeout_s: float = 30) -> int:
        """SIGTERM; returns the exit code."""
        if self.process is None:
            raise RuntimeError("the server is not running")
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    def sql(self, text: str) -> list[dict[str, Any]]:
        """Rows of a query through the HTTP API."""
        response = self._http.request("POST", f"{self.web}/api/v1/sql?format=jsonl", body=text.encode(), timeout=60)
        if response.status != 200:
            raise RuntimeError(f"query failed with {response.status}: {response.data.decode()}")
        return [json.loads(line) for line in response.data.splitlines() if line]

    def count(self, text: str) -> int:
        """The single number a query returns."""
        return int(next(iter(self.sql(text)[0].values())))

    def exposition(self) -> str:
        """The text of `/metrics`."""
        return self._http.request("GET", f"{self.web}/metrics", timeout=10).data.decode()

    def metrics(self) -> list[str]:
        """Its lines, without those that explain them."""
        return [line for line in self.exposition().splitlines() if not line.startswith("#")]

    def wait_for(self, text: str, expected: int, timeout_s: float = 30) -> None:
        """Wait until the query returns the number, or raise with the last one seen."""
        deadline = time.monotonic() + timeout_s
        seen = self.count(text)
        while seen != expected:
            if time.monotonic() > deadline:
                raise AssertionError(f"expected {expected}, still {seen} after {timeout_s} s: {text}")
            time.sleep(0.1)
            seen = self.count(text)

    def __enter__(self) -> RunningServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
