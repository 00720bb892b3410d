"""Clients in other languages: installed once into a cache, and skipped where that cannot be done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.tools import CACHE

CLIENTS = Path(__file__).with_name("clients")
MAKE_S = 240
"""Longest time to get a client ready; a compilation that did not fit goes on where it was at the next run."""


def _cache(name: str) -> Path:
    """A folder for one state of one client's files."""
    files = sorted(path for path in (CLIENTS / name).iterdir() if path.is_file())
    state = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]
    return CACHE / f"{name}-client-{state}"


def _made(name: str, result: str, *command: str) -> Path:
    """The folder, where `command` has made `result`. Skips the test if it cannot."""
    folder = _cache(name)
    if not (folder / result).exists():
        shutil.copytree(CLIENTS / name, folder, dirs_exist_ok=True)
        # Go needs no C compiler then
        environment = {**os.environ, "CGO_ENABLED": "0"}
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=MAKE_S, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"the {name} client is not ready after {MAKE_S} s: run `{' '.join(command)}` in {folder} once")
        if done.returncode != 0:
            pytest.skip(f"`{' '.join(command)}` cannot get the {name} client: {done.stderr.strip()[-300:]}")
    return folder


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
    folder = _made("javascript", "node_modules/@clickhouse/client", "npm", "install", *quiet)
    return _results("node", "probe.mjs", url, cwd=folder)


def go(address: str) -> dict[str, Any]:
    """What `main.go` finds at an endpoint."""
    if not shutil.which("go"):
        pytest.skip("install Go 1.26 or newer to test clickhouse-go")
    folder = _made("go", "probe", "go", "build", "-o", "probe", ".")
    return _results(str(folder / "probe"), address, cwd=folder)
