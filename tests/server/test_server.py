"""Starting and stopping as an operator sees it: real processes, real signals."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from spanwise.server import allow_open_files
from tests.running import ROOT, RunningServer

FREE_PORTS = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--web", "127.0.0.1:0", "--clickhouse", "off")


def _up(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spanwise", "up", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def server(tmp_path: Path) -> RunningServer:
    return RunningServer(tmp_path / "data")


def test_a_second_server_on_one_directory_is_told_who_has_it(server: RunningServer) -> None:
    with server:
        ended = _up("--data", str(server.directory), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")

        assert ended.returncode == 1
        assert f"process {server.pid} has it open" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_port_in_use_is_named(server: RunningServer, tmp_path: Path) -> None:
    with server:
        ended = _up(
            "--data", str(tmp_path / "other"), "--grpc", "127.0.0.1:0", "--http", server.http.removeprefix("http://")
        )

    assert ended.returncode == 1
    assert str(server.http_port) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_listening_beyond_this_machine_needs_a_guard(tmp_path: Path) -> None:
    ended = _up("--data", str(tmp_path / "data"), "--grpc", "0.0.0.0:0")

    assert ended.returncode == 1
    assert "--insecure" in ended.stderr


def test_a_token_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = tmp_path / "spanwise.yaml"
    config.write_text("web: {tokens: [{name: grafana, env: NO_SUCH_VARIABLE}]}")

    ended = _up("--config", str(config), "--data", str(tmp_path / "data"), *FREE_PORTS)

    assert ended.returncode == 1
    assert "reader 'grafana'" in ended.stderr
    assert "NO_SUCH_VARIABLE" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_sigterm_ends_it_in_good_order_and_everything_is_there_after_a_restart(server: RunningServer) -> None:
    from spanwise.demo import traffic

    server.start()
    sent = traffic.send(
        grpc_endpoint=server.grpc,
        http_endpoint=server.http,
        now_unix_nano=1_795_219_200_000_000_000,
        progress=lambda _played, _total: None,
    )
    assert server.terminate() == 0

    with server:
        server.wait_for("SELECT count() FROM spans FINAL", sent.spans)
        server.wait_for("SELECT count() FROM traces FINAL", sent.traces)

        assert server.count("SELECT uniqExact(trace_id, span_id) FROM spans") == sent.spans


def test_it_opens_as_many_files_as_its_connections_need() -> None:
    """Containers begin with a soft limit of 1,024, and the receiver allows 2,000 connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        allow_open_files()

        allowed = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (allowed, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
