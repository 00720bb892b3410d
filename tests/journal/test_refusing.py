from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from spanwise.journal import SqliteJournalConfig
from spanwise.stage import OverloadedError


async def test_a_full_journal_says_why_it_refuses_and_stops_saying_so_once_it_is_drained(tmp_path: Path) -> None:
    config = SqliteJournalConfig(bytes_max=4 << 20, file_bytes_max=1 << 20, free_bytes_min=0, free_fraction_min=0)
    journal = config.build(tmp_path)
    try:
        before = journal.refusing()
        with suppress(OverloadedError):
            for _ in range(1000):
                await journal.append("default", "traces", 1, bytes(10_000))
        full = journal.refusing()
        while (taken := journal.seal(bytes_max=1 << 20, timeout_s=0.1)) is not None:
            journal.done(taken)
        drained = journal.refusing()
    finally:
        journal.close()

    assert before == ""
    assert full.startswith("the journal is full")
    assert drained == ""
    assert journal.refusing() == "the journal is closed"
