"""The process that the crash tests kill: appends from several coroutines, seals, finishes, and writes down what it did.

Each line of the log is one `write` call, made after the fact it states: `acked N`, `sealed TOKEN SUM`, `storing`,
`done TOKEN`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from spanwise.journal import SqliteJournal
from spanwise.journal.sqlite import _Waiting
from spanwise.stage import OverloadedError, SealedRange
from tests.journal.build import KIB, body, opened

_SENDERS = 16


class AckBeforeCommit(SqliteJournal):
    """The planted bug: senders are woken when their group is formed."""

    def _store(self, group: Sequence[_Waiting]) -> None:
        self._wake(group, None)
        threading.Event().wait(0.02)
        super()._store(group)


class ReturnBeforeSeal(SqliteJournal):
    """The planted bug: a range is handed out without being recorded."""

    def _record(self, file: object, frames: object) -> None:
        record = super()._record
        state, self._state = self._state, _Forgets()  # type: ignore[assignment]
        record(file, frames)  # type: ignore[arg-type]
        self._state = state

    def done(self, taken: SealedRange) -> None: ...


class _Forgets:
    meta: dict[str, str] = {}  # noqa: RUF012

    def commit(self, *_: object, **__: object) -> None: ...


KINDS = {kind.__name__: kind for kind in (SqliteJournal, AckBeforeCommit, ReturnBeforeSeal)}


def digest(taken: SealedRange) -> str:
    return hashlib.sha256(repr(taken.frames).encode()).hexdigest()


def main(directory: Path, log_path: Path, kind: str, first: int, seed: int) -> None:
    rng = random.Random(seed)
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(line: str) -> None:
        os.write(log, line.encode() + b"\n")

    journal = opened(
        directory, kind=KINDS[kind], file_bytes_max=300 * KIB, cache_bytes_max=rng.choice([0, 1 << 20]), group_ms=1
    )
    say("ready")
    numbers = iter(range(first, first + 10_000_000))

    async def sender() -> None:
        while True:
            number = next(numbers)
            try:
                await journal.append("default", "traces", 1, body(number, rng.choice([50, 900, 5000, 70_000])))
            except OverloadedError:
                await asyncio.sleep(0.01)
                continue
            say(f"acked {number}")

    async def send() -> None:
        await asyncio.gather(*(sender() for _ in range(_SENDERS)))

    def read() -> None:
        held: list[SealedRange] = []
        while True:
            taken = journal.seal(bytes_max=rng.choice([1, 20_000, 400_000]), timeout_s=0.01)
            if taken is not None:
                say(f"sealed {taken.token} {digest(taken)} {' '.join(str(_number(f.body)) for f in taken.frames)}")
                held.append(taken)
            if held and (len(held) > 4 or rng.random() < 0.4):
                stored = held.pop(rng.randrange(len(held)))
                say(f"storing {stored.token}")
                journal.done(stored)

    threading.Thread(target=read, daemon=True).start()
    asyncio.run(send())


def _number(payload: bytes) -> int:
    return int.from_bytes(payload[:8], "big")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
