"""Clients in other languages: installed once into a cache, and skipped where that cannot be done."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.tools import NotFetchedError, built

CLIENTS = Path(__file__).with_name("clients")
MAKE_S = 240
"""Longest time to get a client ready; a compilation that did not fit goes on where it was at the next run."""


def _made(name: str, *command: str) -> Path:
    """The folder of a client that is ready. Skips the test if it cannot be made so."""
    try:
        # Go needs no C compiler then
        return built(f"{name}-client", CLIENTS / name, command, MAKE_S, CGO_ENABLED="0")
    except NotFetchedError as error:
        pytest.skip(f"cannot get the {name} client: {error}")


def _results(*command: str, cwd: Path) -> dict[str, Any]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def javascript(url: str) -> dict[str, Any]:
    """What `probe.mjs` finds at an endpoint."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("install Node.js 20 or newer with npm to test @clickhouse/client")
    quiet = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--fetch-retries=0")
    folder = _made("javascript", "npm", "install", *quiet)
    return _results("node", "probe.mjs", url, cwd=folder)


def go(address: str) -> dict[str, Any]:
    """What `main.go` finds at an endpoint."""
    if not shutil.which("go"):
        pytest.skip("install Go 1.26 or newer to test clickhouse-go")
    folder = _made("go", "go", "build", "-o", "probe", ".")
    return _results(str(folder / "probe"), address, cwd=folder)
