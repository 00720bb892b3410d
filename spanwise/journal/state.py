"""What the reader has taken from which file, and the journal's key-value notes, in one small database.

It is apart from the frames so that each of their files has one writer, and so that it needs no new space: rows are
updated in place and its WAL is allocated in advance, which is what lets a full disk be drained.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from spanwise.journal.files import JournalFile, connect, fsync_directory, side

NAME: Final = "state.db"
_RESERVE_BYTES: Final = 1 << 20
_CHECKPOINT_PAGES: Final = 64  # of 4 KiB: the WAL starts over long before the reserve ends
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS files (
  id TEXT PRIMARY KEY, committed INTEGER NOT NULL, closed INTEGER NOT NULL, taken_to INTEGER NOT NULL,
  pending_bytes INTEGER NOT NULL, open TEXT NOT NULL, sum INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, sum INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS reserve (body BLOB);
"""

FileRow = tuple[int, bool, int, int, list[tuple[int, int]]]
"""committed, closed, taken_to, pending_bytes, open ranges"""


class State:
    """One row a file, open ranges included: a range and the mark it moves can only be lost together."""

    def __init__(self, directory: Path) -> None:
        """Raises sqlite3.DatabaseError if the database or one of its rows is damaged."""
        self._database = connect(directory / NAME)
        try:
            self._load()
            fsync_directory(directory)
        except BaseException:
            self._database.close()
            raise
        self._reserve()

    def _load(self) -> None:
        execute = self._database.execute
        execute("PRAGMA journal_mode = WAL")
        execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        self._database.executescript(_SCHEMA)
        (verdict,) = execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        self.files: dict[str, FileRow] = {}
        for name, committed, closed, taken_to, pending, ranges, total in execute("SELECT * FROM files"):
            if _sum(name, committed, closed, taken_to, pending, ranges) != total:
                msg = "checksum of a row of `files` differs"
                raise sqlite3.DatabaseError(msg)
            self.files[name] = (committed, bool(closed), taken_to, pending, [(a, b) for a, b in json.loads(ranges)])
        self.meta: dict[str, str] = {}
        for key, value, total in execute("SELECT * FROM meta"):
            if _sum(key, value) != total:
                msg = "checksum of a row of `meta` differs"
                raise sqlite3.DatabaseError(msg)
            self.meta[key] = value

    def _reserve(self) -> None:
        with suppress(sqlite3.Error):  # a disk that is full at the start
            self._database.execute("BEGIN")
            self._database.execute("INSERT INTO reserve VALUES (zeroblob(?))", (_RESERVE_BYTES,))
            self._database.execute("DELETE FROM reserve")
            self._database.execute("COMMIT")
            self._database.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def commit(
        self, files: Iterable[JournalFile] = (), *, dropped: Iterable[str] = (), meta: Mapping[str, str] | None = None
    ) -> None:
        """Write rows together; on return they are durable. On an error none of them is."""
        execute = self._database.execute
        execute("BEGIN IMMEDIATE")
        try:
            for file in files:
                row = (
                    file.id, file.committed, int(file.closed), file.taken_to, file.pending_bytes, json.dumps(file.open),
                )  # fmt: skip
                execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, _sum(*row)))
            for name in dropped:
                execute("DELETE FROM files WHERE id = ?", (name,))
            for key, value in (meta or {}).items():
                execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, value, _sum(key, value)))
            execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._database.close()


def set_aside(directory: Path) -> None:
    """Rename a damaged state database: everything still in the journal will be delivered again."""
    path = directory / NAME
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            side(path, suffix).replace(directory / f"{NAME}.damaged{suffix}")
    side(path, "-shm").unlink(missing_ok=True)
    fsync_directory(directory)


def _sum(*values: object) -> int:
    return zlib.crc32(repr(values).encode())
