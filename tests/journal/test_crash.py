"""What was acknowledged survives `kill -9`, and sealed ranges come back as they were.

A killed process says nothing of a lost power supply: that part is the order of `fdatasync` and acknowledgement, see
`test_sync.py`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spanwise.stage import SealedRange
from tests.journal.build import bodies, opened
from tests.journal.crash_child import digest

KILLS = int(os.environ.get("SPANWISE_KILLS", "8"))


@dataclass
class Ledger:
    """What the killed processes said they did, over all of them."""

    acked: set[int] = field(default_factory=set)
    stored: set[int] = field(default_factory=set)
    sealed: dict[str, str] = field(default_factory=dict)
    open: dict[str, list[int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def read(self, log: str) -> None:
        whole, _, _torn = log.rpartition("\n")
        for line in whole.splitlines():
            word, *rest = line.split()
            if word == "acked":
                self.acked.add(int(rest[0]))
            elif word == "sealed":
                self.take(rest[0], rest[1], [int(number) for number in rest[2:]])
            elif word == "storing":  # from here on the journal may have forgotten it
                self.stored.update(self.open.pop(rest[0]))

    def take(self, token: str, sum_: str, numbers: list[int]) -> None:
        if self.sealed.setdefault(token, sum_) != sum_:
            self.problems.append(f"{token} names other frames than before")
        self.open[token] = numbers

    def settle(self, directory: Path) -> None:
        """Read everything back after the last kill and compare."""
        with opened(directory) as journal:
            while taken := journal.seal(bytes_max=1 << 20, timeout_s=0):
                self.take(taken.token, digest(taken), _numbers(taken))
                self.stored.update(self.open.pop(taken.token))
                journal.done(taken)
            if journal.stats().damaged_files:
                self.problems.append("a kill alone damaged a file")
        if missing := self.acked - self.stored:
            self.problems.append(f"{len(missing)} acknowledged requests are lost")
        if self.open:
            self.problems.append(f"{len(self.open)} sealed ranges did not come back")


def _numbers(taken: SealedRange) -> list[int]:
    return [int.from_bytes(body[:8], "big") for body in bodies(taken.frames)]


def killed(directory: Path, kind: str, kills: int, seed: int) -> Ledger:
    """Kill a busy journal again and again on one directory and say what was promised and what was kept."""
    rng = random.Random(seed)
    ledger = Ledger()
    directory.mkdir(exist_ok=True)
    for kill in range(kills):
        log = directory / f"log{kill}"
        log.touch()
        command = (str(directory / "data"), str(log), kind, str(kill * 1_000_000), str(seed + kill))
        child = subprocess.Popen((sys.executable, "-m", "tests.journal.crash_child", *command))
        try:
            deadline = time.monotonic() + 60
            while not log.read_text():
                assert child.poll() is None, "the child did not start"
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(rng.uniform(0.0, 0.4))
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        ledger.read(log.read_text())
    ledger.settle(directory / "data")
    return ledger


def test_no_acknowledged_request_is_lost_and_no_sealed_range_changes_over_random_kills(tmp_path: Path) -> None:
    ledger = killed(tmp_path, "SqliteJournal", KILLS, seed=1)
    assert ledger.problems == []
    assert len(ledger.acked) > KILLS
    assert len(ledger.sealed) > KILLS


@pytest.mark.parametrize(("bug", "found"), [("AckBeforeCommit", "lost"), ("ReturnBeforeSeal", "did not come back")])
def test_the_crash_harness_finds_a_planted_bug(tmp_path: Path, bug: str, found: str) -> None:
    # whether a kill hits the moment is luck, and on a busy machine there is less of it
    ledgers = (killed(tmp_path / str(seed), bug, 2, seed) for seed in range(20))
    assert any(found in " ".join(ledger.problems) for ledger in ledgers)
