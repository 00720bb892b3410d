"""The unit of a single machine."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spanwise.config import load
from spanwise.server import STOP_S
from tests.deploy.conftest import DEPLOY, tool

UNIT = (DEPLOY / "systemd" / "spanwise.service").read_text(encoding="utf-8")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with programs that are here."""
    placed = tmp_path / "spanwise.service"
    placed.write_text(UNIT.replace("/opt/spanwise/bin/spanwise", sys.executable))
    return placed


def test_systemd_understands_all_of_it(unit: Path) -> None:
    analyze = tool("systemd-analyze", "it comes with systemd")
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_exposed_to_little(unit: Path) -> None:
    analyze = tool("systemd-analyze", "it comes with systemd")
    said = subprocess.run(
        [analyze, "security", "--offline=yes", str(unit)], capture_output=True, text=True, check=False
    )
    level = re.search(r"exposure level for \S+: ([\d.]+)", said.stdout)

    assert level is not None
    assert float(level[1]) <= 2.0


def test_it_waits_for_a_stop_and_keeps_its_data() -> None:
    options = configparser.ConfigParser(strict=False)
    options.read_string(UNIT)
    service = options["Service"]

    assert float(service["TimeoutStopSec"]) > STOP_S
    assert (service["StateDirectory"], service["DynamicUser"]) == ("spanwise", "yes")
    assert "SPANWISE_DATA_DIR=/var/lib/spanwise " in service["Environment"]


def test_the_program_takes_its_options() -> None:
    load(DEPLOY / "systemd" / "spanwise.yaml", environ={})
