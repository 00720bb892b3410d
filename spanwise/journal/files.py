"""One journal file: how it is created, read, closed, checked, and what is saved from a damaged one.

A file is a SQLite database in WAL mode that is never checkpointed: every body is written once, to the WAL, and the
three files (`.db`, `.db-wal`, `.db-shm`) are deleted together when they are drained. The database proper holds no more
than its first page. See docs/adr/0001-journal-on-sqlite.md.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, cast

import pyarrow as pa

from spanwise.model import Signal
from spanwise.stage import Frame

PAGE_SIZE: Final = 16384
PREFIX: Final = "journal-"
SUFFIX: Final = ".db"
_SIDES: Final = ("-wal", "-shm")
_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = struct.Struct(">IIII8x")  # page number, database pages after a commit, salts, checksums
_MAGIC: Final = b"SQLite format 3\0"
_PAGE_HEADER: Final = 72  # of the first page, up to and with the application id
_CHECK: Final = 0x53504A31
_SHM_FRAMES: Final = 16  # offset of mxFrame, the last frame SQLite accepted, in the WAL index header

# Requests made of large items are agent histories, which repeat themselves: zstd -1 shrinks them several times and so
# costs less than writing them. Requests of small spans shrink by half and cost twice the CPU they save.
_ZSTD: Final = pa.Codec("zstd", -1)
_ZSTD_BYTES_MIN: Final = 64 << 10
_ZSTD_ITEM_BYTES_MIN: Final = 4 << 10

_SCHEMA: Final = """
CREATE TABLE frames (
  id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, received_unix_nano INTEGER NOT NULL, signal TEXT NOT NULL,
  items INTEGER NOT NULL, bytes INTEGER NOT NULL, zstd INTEGER NOT NULL, sum INTEGER NOT NULL, body BLOB NOT NULL
)"""
_INSERT: Final = "INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COLUMNS: Final = "id, tenant, received_unix_nano, signal, items, bytes, zstd, sum, body"

Row = tuple[int, str, int, str, int, int, int, int, bytes]


class DamagedError(Exception):
    """A file does not hold what was committed to it."""


@dataclass(eq=False, slots=True)
class JournalFile:
    """What is known of one file. Ids run from 1 without a gap."""

    path: Path
    committed: int = 0
    """Last id that is durable."""
    taken_to: int = 0
    """Last id that was ever part of a sealed range."""
    pending_bytes: int = 0
    """Bytes of the bodies after `taken_to`."""
    open: list[tuple[int, int]] = field(default_factory=list)
    """Sealed ranges (first, last) that are not done."""
    closed: bool = False
    """No more frames will be added."""
    bytes: int = 0
    """Size on disk."""
    reader: sqlite3.Connection | None = None

    @property
    def id(self) -> str:
        return self.path.name.removeprefix(PREFIX).removesuffix(SUFFIX)

    @property
    def drained(self) -> bool:
        return self.closed and self.taken_to >= self.committed and not self.open

    def close_reader(self) -> None:
        if self.reader is not None:
            self.reader.close()
            self.reader = None


def path_of(directory: Path, file_id: str) -> Path:
    return directory / f"{PREFIX}{file_id}{SUFFIX}"


def listed(directory: Path) -> list[Path]:
    """Journal files of a directory in the order they were begun, also those of which only the WAL is left."""
    names = {path.name.removesuffix("-wal") for path in directory.glob(f"{PREFIX}*{SUFFIX}*")}
    return [directory / name for name in sorted(names) if name.endswith(SUFFIX)]


def side(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def disk_bytes(path: Path) -> int:
    total = 0
    for part in (path, *(side(path, suffix) for suffix in _SIDES)):
        with suppress(FileNotFoundError):
            total += part.stat().st_size
    return total


def disk_bytes_proper(path: Path) -> int:
    """Size without the WAL and its index."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def unlink(path: Path) -> None:
    for part in (path, *(side(path, suffix) for suffix in (*_SIDES, "-journal"))):
        part.unlink(missing_ok=True)


def fsync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    query = "?mode=ro" if read_only else ""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}{query}", uri=True, isolation_level=None, check_same_thread=False, timeout=5
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = 1")  # macOS: fsync alone does not reach the medium
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def create(path: Path) -> sqlite3.Connection:
    """Begin a file, durable with its directory entry. Leaves nothing behind if that fails."""
    try:
        connection = connect(path)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA cache_size = -8192")
            connection.execute(_SCHEMA)
            fsync_directory(path.parent)
        except BaseException:
            connection.close()
            raise
    except BaseException:
        with suppress(OSError):
            unlink(path)
        raise
    return connection


def close_without_checkpoint(path: Path, connection: sqlite3.Connection) -> None:
    """Close the last writer without the copy of the WAL into the database that SQLite makes then.

    It makes none where the last connection is a read-only one.
    """
    with suppress(sqlite3.Error), closing(connect(path, read_only=True)) as last:
        last.execute("SELECT 1 FROM frames LIMIT 1").fetchall()
        connection.close()
    connection.close()


def row(seq: int, frame: Frame) -> Row:
    """The stored form of a frame, with a checksum over all of it: SQLite itself keeps none for a database page."""
    body, packed = frame.body, False
    if len(body) >= _ZSTD_BYTES_MIN and len(body) >= _ZSTD_ITEM_BYTES_MIN * frame.items:
        body, packed = _ZSTD.compress(body, asbytes=True), True
    head = (seq, frame.tenant, frame.received_unix_nano, frame.signal, frame.items, len(frame.body), int(packed))
    return (*head, _sum(head, body), body)


def insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Commit rows together; on return they are durable. On an error none of them is."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(_INSERT, rows)
        # The last id once more, in the first page, with a check: if a damaged page hides rows, this tells how many.
        connection.execute(f"PRAGMA user_version = {rows[-1][0]}")
        connection.execute(f"PRAGMA application_id = {rows[-1][0] ^ _CHECK}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def frame_of(stored: Row) -> Frame:
    """Raises DamagedError if the row is not what was stored."""
    seq, tenant, received, signal, items, size, packed, checksum, body = stored
    try:
        if _sum(stored[:7], body) != checksum:
            msg = f"checksum of frame {seq} differs"
            raise DamagedError(msg)
        raw = _ZSTD.decompress(body, size, asbytes=True) if packed else body
    except (TypeError, ValueError, OSError, pa.ArrowException) as error:
        msg = f"frame {seq} cannot be read"
        raise DamagedError(msg) from error
    return Frame(seq, tenant, received, cast("Signal", signal), items, raw)


def _sum(head: Sequence[object], body: bytes) -> int:
    return zlib.crc32(repr(tuple(head)).encode(), zlib.crc32(body))


def inspect(file: JournalFile) -> None:
    """Find the end of a file that a crash left without one.

    Raises DamagedError if SQLite cannot read it, if it ends before `file.committed`, or if its WAL holds commits
    that SQLite skipped: recovery silently stops at the first damaged WAL frame.
    """
    wal = _Wal(file.path)
    if not file.committed and not wal.frames and disk_bytes_proper(file.path) <= PAGE_SIZE:
        return  # the crash came before its first commit
    with _naming_damage():
        reader = open_reader(file)
        (last,) = reader.execute("SELECT coalesce(max(id), 0) FROM frames").fetchone()
        if last < (known := max(file.committed, wal.last_id)):
            msg = f"it ends at frame {last}, {known} were committed"
            raise DamagedError(msg)
        readable = _frames_recovered(file.path)
        if wal.last_commit > readable:
            msg = f"its WAL is readable up to frame {readable}, {wal.last_commit} were committed"
            raise DamagedError(msg)
        file.committed = last
        pending = "SELECT coalesce(sum(bytes), 0) FROM frames WHERE id > ?"
        (file.pending_bytes,) = reader.execute(pending, (file.taken_to,)).fetchone()


def open_reader(file: JournalFile) -> sqlite3.Connection:
    if file.reader is None:
        # SQLite deletes the WAL of an empty database: look before it does.
        with file.path.open("rb") as handle:
            head = handle.read(20)
        if not head.startswith(_MAGIC) or head[16:20] != struct.pack(">HBB", PAGE_SIZE, 2, 2):
            msg = "its header is damaged"
            raise DamagedError(msg)
        file.reader = connect(file.path, read_only=True)
    return file.reader


def read(file: JournalFile, first: int, last: int, bytes_max: int | None = None) -> list[Frame]:
    """Frames `first` to `last`, cut to `bytes_max` (at least one). Raises DamagedError if one is missing or changed."""
    with _naming_damage():
        reader = open_reader(file)
        if bytes_max is not None:
            total, end = 0, first
            between = "SELECT id, bytes FROM frames WHERE id BETWEEN ? AND ? ORDER BY id"
            for seq, size in reader.execute(between, (first, last)):
                total += size
                if seq > first and total > bytes_max:
                    break
                end = seq
            last = end
        query = f"SELECT {_COLUMNS} FROM frames WHERE id BETWEEN ? AND ? ORDER BY id"  # noqa: S608
        frames = [frame_of(stored) for stored in reader.execute(query, (first, last))]
        if [frame.seq for frame in frames] != list(range(first, last + 1)):
            msg = f"frames {first} to {last} are not complete"
            raise DamagedError(msg)
        return frames


@contextmanager
def _naming_damage() -> Iterator[None]:
    """Turn what SQLite says about a damaged file into DamagedError; leave alone what may pass, as a full disk."""
    try:
        yield
    except FileNotFoundError as error:
        msg = "it is missing"
        raise DamagedError(msg) from error
    except sqlite3.Error as error:
        if may_pass(error):
            raise
        msg = f"SQLite says: {named(error)}"
        raise DamagedError(msg) from error


def is_full(error: Exception) -> bool:
    """Whether space may be what SQLite lacks; the index of a WAL needs some too, also to read."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code in _NO_SPACE_FOR_INDEX


_NO_SPACE_FOR_INDEX: Final = (sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP)


def named(error: Exception) -> str:
    """An error without the text it quotes: SQLite and codecs cite stored values."""
    detail = getattr(error, "sqlite_errorname", None) or getattr(error, "strerror", None)
    return f"{type(error).__name__} {detail or ''}".strip()


def may_pass(error: Exception) -> bool:
    """Whether an error is about this machine now and not about the file."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # text that is not UTF-8 has no code
    return is_full(error) or code & 0xFF in _ABOUT_THE_MACHINE


_ABOUT_THE_MACHINE: Final = (
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)


def _last_id(page: bytes) -> int:
    """The id that the commit of a first page ended with, 0 for any other page."""
    if not page.startswith(_MAGIC):
        return 0
    seq, check = struct.unpack_from(">I4xI", page, 60)
    return int(seq) if seq ^ _CHECK == check else 0


def _frames_recovered(path: Path) -> int:
    with suppress(FileNotFoundError), side(path, "-shm").open("rb") as handle:
        return int.from_bytes(handle.read(_SHM_FRAMES + 4)[_SHM_FRAMES:], sys.byteorder)
    return 0


class _WalFrame(NamedTuple):
    offset: int
    page: int
    database_pages: int
    """0 unless the frame ends a commit."""
    salt_1: int
    salt_2: int
    last_id: int


class _Wal:
    """The frames of a WAL by their headers alone (https://sqlite.org/fileformat2.html#the_write_ahead_log)."""

    def __init__(self, path: Path) -> None:
        self._path = side(path, "-wal")
        found: list[_WalFrame] = []
        header = b""
        step = _FRAME_HEADER.size + PAGE_SIZE
        with suppress(FileNotFoundError), self._path.open("rb") as handle:
            header = handle.read(_WAL_HEADER)
            size = os.fstat(handle.fileno()).st_size
            for offset in range(_WAL_HEADER, size - step + 1, step):
                head = os.pread(handle.fileno(), _FRAME_HEADER.size + _PAGE_HEADER, offset)
                page, database_pages, salt_1, salt_2 = _FRAME_HEADER.unpack_from(head)
                last_id = _last_id(head[_FRAME_HEADER.size :])
                found.append(_WalFrame(offset, page, database_pages, salt_1, salt_2, last_id))
        salts = Counter((frame.salt_1, frame.salt_2) for frame in found)
        stated = struct.unpack(">II", header[16:24]) if len(header) == _WAL_HEADER else (0, 0)
        salt = stated if stated in salts else max(salts, key=lambda pair: salts[pair], default=(0, 0))

        # The WAL is never begun anew, so foreign salts are damage, perhaps of the frame that ended a commit. Only
        # zeros may be there without having been written, after a power cut.
        ours = [(frame.salt_1, frame.salt_2) == salt for frame in found]
        ends = (
            place
            for place, frame in enumerate(found, 1)
            if (frame.database_pages if ours[place - 1] else frame.salt_1 or frame.salt_2)
        )
        self.last_commit = max(ends, default=0)
        committed = found[: self.last_commit]
        self.frames = [frame for frame, is_ours in zip(committed, ours, strict=False) if is_ours]
        self.last_id = max((frame.last_id for frame in committed), default=0)

    def apply(self, target: Path) -> None:
        """Copy every committed page into the database `target`, whatever the checksums say."""
        if not self.frames:
            return
        with self._path.open("rb") as source, target.open("r+b") as out:
            page_max = len(self.frames) + target.stat().st_size // PAGE_SIZE + 1
            for frame in self.frames:
                if 1 <= frame.page <= page_max:
                    page = os.pread(source.fileno(), PAGE_SIZE, frame.offset + _FRAME_HEADER.size)
                    os.pwrite(out.fileno(), page, (frame.page - 1) * PAGE_SIZE)


_MISSES_MAX: Final = 1000


def salvage(file: JournalFile, scratch: Path) -> Iterator[Frame | int]:
    """Undrained frames that still read cleanly, and the ids of those that do not.

    `scratch` becomes a copy of the database with the WAL applied page by page: SQLite would stop at the first damaged
    one. The checksum of each row tells what is whole.
    """
    file.close_reader()
    with scratch.open("wb") as out, suppress(FileNotFoundError), file.path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            out.write(chunk)
    wal = _Wal(file.path)
    wal.apply(scratch)
    with scratch.open("rb") as handle:
        known = max(file.committed, wal.last_id, _last_id(handle.read(_PAGE_HEADER)))
    uri = f"{scratch.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as database:
        top, seen_top = known, False
        with suppress(sqlite3.Error, TypeError):
            top, seen_top = max(top, database.execute("SELECT max(id) FROM frames").fetchone()[0] or 0), True
        # a damaged id may claim to be anything; more frames than bytes there cannot be
        top = min(top, max(known, scratch.stat().st_size // 16))
        seq, misses, held = 0, 0, list[int]()
        while seq < top or (not seen_top and misses < _MISSES_MAX):
            seq += 1
            if seq <= file.taken_to and not any(first <= seq <= last for first, last in file.open):
                continue
            try:
                stored = database.execute(f"SELECT {_COLUMNS} FROM frames WHERE id = ?", (seq,)).fetchone()  # noqa: S608
                frame = None if stored is None else frame_of(stored)
            except (sqlite3.Error, DamagedError):
                frame = None
            if frame is None:
                misses += 1
                held.append(seq)  # beyond the known end a gap is a loss only if something follows it
                continue
            yield from held
            held.clear()
            misses = 0
            yield frame
        yield from (seq for seq in held if seq <= top)
