"""Small journals and requests for the tests of this folder."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spanwise.journal import SqliteJournal, SqliteJournalConfig
from spanwise.journal.sqlite import Limits
from spanwise.stage import Frame, SealedRange

KIB = 1 << 10
MIB = 1 << 20


MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where syncs cost nothing, for tests that restart a journal hundreds of times; None is the usual place."""


def config(**options: Any) -> SqliteJournalConfig:
    """As delivered, but free of the machine's own disk and quick to acknowledge."""
    small = {"free_bytes_min": 0, "free_fraction_min": 0.0, "ballast_bytes": 0, "group_ms": 0}
    return SqliteJournalConfig(**(small | options))


@dataclass
class Clock:
    """A clock that stands still until it is told otherwise."""

    unix_nano: int = 1_763_000_000_000_000_000
    seconds: float = 0.0

    def wall(self) -> int:
        return self.unix_nano

    def monotonic(self) -> float:
        return self.seconds

    def pass_s(self, seconds: float) -> None:
        self.seconds += seconds
        self.unix_nano += int(seconds * 1e9)


def opened(
    directory: Path, clock: Clock | None = None, *, kind: type[SqliteJournal] = SqliteJournal, **options: Any
) -> SqliteJournal:
    limits = Limits(**config(**options).model_dump(exclude={"kind"}))
    if clock is None:
        return kind(directory, limits)
    return kind(directory, limits, wall_clock_ns=clock.wall, monotonic=clock.monotonic)


def body(number: int, size: int = 200) -> bytes:
    """A request body that no other number has."""
    return number.to_bytes(8, "big") + random.Random(number).randbytes(max(0, size - 8))


def append(journal: SqliteJournal, *bodies: bytes) -> None:
    """All at once, as concurrent senders do; raises the first refusal."""

    async def send() -> None:
        await asyncio.gather(*(journal.append("default", "traces", 1, each) for each in bodies))

    asyncio.run(send())


def take(journal: SqliteJournal, bytes_max: int = 1 << 30) -> SealedRange:
    taken = journal.seal(bytes_max=bytes_max, timeout_s=1)
    assert taken is not None, "the journal has nothing to take"
    return taken


def drain(journal: SqliteJournal, bytes_max: int = 1 << 30) -> list[Frame]:
    """Everything that is left, in order, taken and done."""
    frames: list[Frame] = []
    while taken := journal.seal(bytes_max=bytes_max, timeout_s=0):
        frames += taken.frames
        journal.done(taken)
    return frames


def bodies(frames: Iterable[Frame]) -> list[bytes]:
    return [frame.body for frame in frames]


def data_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("journal-*.db"))


def crash_copy(journal: SqliteJournal, directory: Path, copy: Path) -> None:
    """What a killed process would leave: a copy of the running journal's files, taken between two changes of them."""
    with journal._reading:
        shutil.copytree(directory, copy)
