"""A real API server in a thread, and the program itself in another process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spanwise.cli import app
from tests.cli.other_server import OtherServer, other_server
from tests.web.serving import Reads, Serving, serving

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """What a finished command left: exit code, standard output as bytes and text, standard error."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()


Run = Callable[..., Done]


@pytest.fixture
def spanwise(tmp_path: Path) -> Run:
    """Runs `spanwise` as its own process, not on a terminal, with only the given SPANWISE_* variables."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> Done:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SPANWISE_")}
        environment |= {"TZ": "UTC", "PYTHONPATH": str(ROOT), **variables}
        done = subprocess.run(
            [sys.executable, "-m", "spanwise", *arguments],
            cwd=tmp_path,
            env=environment,
            input=stdin.encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    return run


def said(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and standard error of a command in this process. An exception that nobody meant is raised."""
    result = CliRunner().invoke(app, arguments, env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


@pytest.fixture
def other() -> Iterator[OtherServer]:
    with other_server() as server:
        yield server


@pytest.fixture
def reads() -> Reads:
    return Reads()


@pytest.fixture
def api(reads: Reads) -> Iterator[Serving]:
    """The API on a port of its own, in a thread of its own."""
    started, stop, found = threading.Event(), threading.Event(), list[Serving]()

    async def serve() -> None:
        async with serving(reads) as server:
            found.append(server)
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(10)
    yield found[0]
    stop.set()
    thread.join(10)
