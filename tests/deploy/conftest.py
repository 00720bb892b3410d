"""Tools that check what is deployed. None of them is needed to run Spanwise, so who has none gets a notice instead."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running import ROOT

DEPLOY = ROOT / "deploy"


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tool(name: str, how: str) -> str:
    """Where a program is; skips the test where it is not, and says how to get it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no `{name}` here: {how}")
    return found


def go_module(module: str, version: str) -> Path:
    """The folder of a Go module, fetched once into Go's own cache. Skips where there is no Go or no way to fetch."""
    go = tool("go", "install Go 1.24 or newer")
    done = subprocess.run(
        [go, "mod", "download", "-json", f"{module}@{version}"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"{module} cannot be fetched with Go: {done.stdout.strip() or done.stderr.strip()}")
    return Path(json.loads(done.stdout)["Dir"])
