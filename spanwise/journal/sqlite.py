"""The journal of one machine: accepted requests in SQLite files, acknowledged by the commit that holds them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Final, NamedTuple, Self

import structlog

from spanwise.journal import files
from spanwise.journal import state as state_db
from spanwise.journal.files import DamagedError, JournalFile
from spanwise.journal.space import Space
from spanwise.journal.state import State
from spanwise.model import Signal
from spanwise.stage import Frame, OverloadedError, SealedRange

_GATHERED_BYTES: Final = 1 << 20  # a group this large does not wait for company
_PAUSE_S: Final = 1.0  # after a failed commit, before the disk is tried again: what senders are told to wait
_ORDINARY_REQUEST_BYTES: Final = 64 << 10
_FRAME_OVERHEAD: Final = 64  # of a stored row; keeps empty requests from being free
_SALVAGE_ROWS_BYTES: Final = 4 << 20

_log = structlog.get_logger(__name__)


class JournalError(Exception):
    """The journal cannot be opened as configured."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Ends of everything that grows; SqliteJournalConfig describes them."""

    bytes_max: int
    file_bytes_max: int
    free_bytes_min: int
    free_fraction_min: float
    ballast_bytes: int
    waiting_bytes_max: int
    cache_bytes_max: int
    group_bytes_max: int
    group_ms: float
    damaged_files_max: int


@dataclass(frozen=True, slots=True)
class JournalStats:
    """What the journal holds now, and counters since it was opened."""

    files: int
    bytes: int
    """Disk used by the files, damaged ones included."""
    bytes_max: int
    disk_free_bytes: int
    disk_floor_bytes: int
    """Free space below which requests are refused."""
    frames_pending: int
    """Committed and not yet part of a sealed range."""
    ranges_open: int
    """Sealed and not done."""
    oldest_age_s: float
    """Time since the oldest frame that is not done was received; 0 if there is none."""
    waiting_bytes: int
    commits: int
    commit_seconds: float
    frames_committed: int
    bytes_committed: int
    cache_misses: int
    """Ranges that were read back from disk."""
    refused: dict[str, int]
    """Refused requests by reason: cap, disk, waiting, failing, closed."""
    damaged_files: int
    frames_salvaged: int
    frames_lost: int


class _Waiting(NamedTuple):
    """A request on its way to a commit; `frame.seq` is not yet known."""

    frame: Frame
    loop: asyncio.AbstractEventLoop
    acked: asyncio.Future[None]


@dataclass(slots=True)
class _Counters:
    commits: int = 0
    commit_seconds: float = 0.0
    frames: int = 0
    bytes: int = 0
    cache_misses: int = 0
    damaged: int = 0
    salvaged: int = 0
    lost: int = 0
    refused: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("cap", "disk", "waiting", "failing", "closed"), 0)
    )


class SqliteJournal:
    """Implements `spanwise.stage.Journal` on one directory, which it owns for as long as it is open.

    Three parties: event loops hand requests over and wait, one writer thread commits them in groups, and whoever
    calls `seal` and `done` reads. `_lock` guards what they share and is never held during I/O; `_reading` makes
    sealing one at a time and owns the state database.
    """

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        *,
        wall_clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Raises JournalError if another process has the directory open."""
        self._directory = directory
        self._limits = limits
        self._wall_clock_ns = wall_clock_ns
        self._monotonic = monotonic
        self._random_bytes = random_bytes
        directory.mkdir(parents=True, exist_ok=True)
        self._held = _hold(directory)
        self._space = Space(
            directory,
            free_bytes_min=limits.free_bytes_min,
            free_fraction_min=limits.free_fraction_min,
            ballast_bytes=limits.ballast_bytes,
            monotonic=monotonic,
        )

        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._committed = threading.Condition(self._lock)
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._files: list[JournalFile] = []
        self._recent: deque[tuple[JournalFile, Frame]] = deque()
        self._recent_bytes = 0
        self._closed = False
        self._cut_wanted = False
        self._not_before = float("-inf")
        self._count = _Counters()
        self._damaged_bytes = 0

        self._active: tuple[JournalFile, sqlite3.Connection] | None = None  # of the writer thread alone

        self._reading = threading.RLock()
        self._open: dict[str, tuple[JournalFile, int, int, int]] = {}
        self._again: deque[tuple[JournalFile, int, int]] = deque()
        self._notes: dict[str, str] = {}
        self._dropped: list[str] = []
        self._unsaved: list[JournalFile] = []
        """Files whose row in the state database is older than they are: written with the next commit."""
        self._last_ms = 0
        try:
            self._start()
        except BaseException:
            self._held.close()
            raise
        self._writer = threading.Thread(target=self._write_groups, name="journal-writer", daemon=True)
        self._writer.start()

    # Appending

    async def append(self, tenant: str, signal: Signal, items: int, body: bytes) -> None:
        """Return once the request is durable.

        Raises OverloadedError at once where there is no room (cap, disk, waiting) or the last commit failed, and
        after the attempt if its own commit fails.
        """
        loop = asyncio.get_running_loop()
        frame = Frame(0, tenant, self._wall_clock_ns(), signal, items, body)
        size = len(body) + _FRAME_OVERHEAD
        above_floor = self._space.free_above_floor()
        with self._lock:
            reason = self._why_not(size, above_floor)
            if reason is not None:
                self._count.refused[reason[0]] += 1
                if reason[0] in ("cap", "disk") and not self._cut_wanted:
                    self._cut_wanted = True  # only a whole file can be deleted: let this one end
                    self._work.notify()
                raise OverloadedError(reason[1])
            waiting = _Waiting(frame, loop, loop.create_future())
            self._waiting.append(waiting)
            before, self._waiting_bytes = self._waiting_bytes, self._waiting_bytes + size
            if before == 0 or before < _GATHERED_BYTES <= self._waiting_bytes:
                self._work.notify()
        await waiting.acked

    def _why_not(self, size: int, above_floor: int) -> tuple[str, str] | None:
        if self._closed:
            return "closed", "the journal is closed"
        if self._monotonic() < self._not_before:
            return "failing", "the journal could not write to its disk a moment ago"
        if self._waiting and self._waiting_bytes + size > self._limits.waiting_bytes_max:
            return "waiting", f"{self._waiting_bytes} bytes of requests already wait to be written"
        coming = self._waiting_bytes + size
        if self._bytes_used() + coming > self._limits.bytes_max:
            return "cap", f"the journal is full: {self._limits.bytes_max} bytes wait to be stored"
        if above_floor < coming:
            return "disk", "the disk of the journal is nearly full"
        return None

    def refusing(self) -> str:
        """Why an ordinary request would be refused now, '' if it would not be."""
        above_floor = self._space.free_above_floor()
        with self._lock:
            reason = self._why_not(_ORDINARY_REQUEST_BYTES, above_floor)
        return reason[1] if reason else ""

    def _bytes_used(self) -> int:
        return self._damaged_bytes + sum(file.bytes for file in self._files)

    # Writing

    def _write_groups(self) -> None:
        while True:
            group = self._gather()
            if group:
                self._store(group)
            with self._lock:
                active = self._active
                cut, self._cut_wanted = self._cut_wanted, False
                ended = self._closed and not self._waiting
            if active is not None and (ended or cut or active[0].bytes >= self._limits.file_bytes_max):
                self._end_file()
            with suppress(OSError):
                self._space.keep_ballast()
            if ended:
                return

    def _gather(self) -> list[_Waiting]:
        """The next group: what arrived while the last commit ran, or what arrives within `group_ms` of the first."""
        with self._lock:
            self._work.wait_for(lambda: self._waiting or self._closed or self._cut_wanted)
            if self._waiting_bytes < _GATHERED_BYTES and not self._closed and self._limits.group_ms:
                self._work.wait(self._limits.group_ms / 1000)
            group: list[_Waiting] = []
            size = 0
            while self._waiting:
                size += len(self._waiting[0].frame.body)
                if group and size > self._limits.group_bytes_max:
                    break
                group.append(self._waiting.popleft())
            return group

    def _store(self, group: Sequence[_Waiting]) -> None:
        """Commit a group, then wake its senders; on any failure tell them so and leave the file."""
        started = self._monotonic()
        try:
            if self._active is None:
                self._active = self._begin_file()
            file, connection = self._active
            first = file.committed + 1
            frames = [waiting.frame._replace(seq=seq) for seq, waiting in enumerate(group, first)]
            self._commit(connection, [files.row(frame.seq, frame) for frame in frames])
            size = files.disk_bytes(file.path)
        except Exception as error:  # whatever it is, the senders must hear and the thread must live
            try:
                self._commit_failed(error)
            finally:
                self._wake(group, OverloadedError("the journal could not write to its disk"))
            return
        self._space.wrote(size - file.bytes)
        with self._lock:
            file.committed = frames[-1].seq
            file.pending_bytes += sum(len(frame.body) for frame in frames)
            file.bytes = size
            self._forget_waiting(group)
            self._remember(file, frames)
            self._count.commits += 1
            self._count.commit_seconds += self._monotonic() - started
            self._count.frames += len(frames)
            self._count.bytes += sum(len(frame.body) for frame in frames)
            self._committed.notify_all()
        self._wake(group, None)

    def _commit(self, connection: sqlite3.Connection, rows: Sequence[files.Row]) -> None:
        files.insert(connection, rows)

    def _commit_failed(self, error: Exception) -> None:
        # After a failed fsync the kernel may have dropped the pages and will report success next time, so nothing
        # more goes into this file. What was committed to it before is durable and stays readable.
        _log.error("journal commit failed", error=files.named(error))
        if files.is_full(error):
            self._space.drop_ballast()
        with self._lock:
            self._not_before = self._monotonic() + _PAUSE_S
        self._end_file()

    def _forget_waiting(self, group: Sequence[_Waiting]) -> None:
        self._waiting_bytes -= sum(len(waiting.frame.body) + _FRAME_OVERHEAD for waiting in group)

    def _wake(self, group: Sequence[_Waiting], error: OverloadedError | None) -> None:
        if error is not None:
            with self._lock:
                self._forget_waiting(group)
                self._count.refused["failing"] += len(group)
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for waiting in group:
            by_loop.setdefault(waiting.loop, []).append(waiting.acked)
        for loop, futures in by_loop.items():
            with suppress(RuntimeError):  # the loop is gone, and with it everyone who waited
                loop.call_soon_threadsafe(_resolve, futures, error)

    def _begin_file(self) -> tuple[JournalFile, sqlite3.Connection]:
        path = files.path_of(self._directory, self._new_id())
        connection = files.create(path)
        file = JournalFile(path, bytes=files.disk_bytes(path))
        with self._lock:
            self._files.append(file)
        return file, connection

    def _end_file(self) -> None:
        """Close the active file, and record where it ends so that a later loss at its end is noticed."""
        if self._active is None:
            return
        file, connection = self._active
        self._active = None
        files.close_without_checkpoint(file.path, connection)
        with self._lock:
            file.closed = True
            self._committed.notify_all()
        with self._reading:
            # else found damaged meanwhile
            if file in self._files and self._save([file]):
                self._drop_drained()

    def _remember(self, file: JournalFile, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._recent.append((file, frame))
            self._recent_bytes += len(frame.body) + _FRAME_OVERHEAD
        while self._recent_bytes > self._limits.cache_bytes_max:
            self._forget_recent()

    def _forget_recent(self) -> Frame:
        _, frame = self._recent.popleft()
        self._recent_bytes -= len(frame.body) + _FRAME_OVERHEAD
        return frame

    def _new_id(self) -> str:
        """A UUID of version 7: names sort by the time their files were begun."""
        self._last_ms = max(self._last_ms + 1, self._wall_clock_ns() // 1_000_000)
        low = int.from_bytes(self._random_bytes(10), "big")
        value = self._last_ms << 80 | 7 << 76 | (low >> 62 & 0xFFF) << 64 | 2 << 62 | low & ((1 << 62) - 1)
        digits = f"{value:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    # Reading

    def seal(self, *, bytes_max: int, timeout_s: float) -> SealedRange | None:
        """Take the next frames of one file, up to `bytes_max` (at least one), waiting up to `timeout_s` for the first.

        The range is durable before it is returned. Ranges left open by a crash come first, unchanged. None if nothing
        came in time, another caller was quicker, or the journal is closed. Raises sqlite3.Error or OSError if the
        range cannot be recorded; nothing is taken then.
        """
        with self._lock:
            self._committed.wait_for(lambda: self._closed or self._again or self._next() is not None, timeout_s)
            if self._closed:
                return None
        with self._reading:
            while not self._closed:
                if self._again:
                    file, first, last = self._again[0]
                    frames = self._read(file, partial(files.read, file, first, last))
                    if frames:
                        self._again.popleft()
                        return self._taken(file, frames)
                    continue
                with self._lock:
                    upcoming = self._next()
                if upcoming is None:
                    return None
                frames = self._read(upcoming, partial(self._next_frames, upcoming, bytes_max))
                if frames:
                    self._record(upcoming, frames)
                    return self._taken(upcoming, frames)
        return None

    def _read(self, file: JournalFile, frames: Callable[[], list[Frame]]) -> list[Frame]:
        """Nothing if the file was damaged and had to be replaced."""
        try:
            try:
                return frames()
            except sqlite3.Error as error:
                if not (files.is_full(error) and self._space.drop_ballast()):
                    raise
                return frames()
        except DamagedError as error:
            with self._lock:
                if not file.closed and self._writer.is_alive():
                    self._cut_wanted = True
                    self._work.notify()
                    self._committed.wait_for(lambda: file.closed or not self._writer.is_alive(), timeout=10)
            self._repair(file, error)
            return []

    def _next(self) -> JournalFile | None:
        return next((file for file in self._files if file.taken_to < file.committed), None)

    def _next_frames(self, file: JournalFile, bytes_max: int) -> list[Frame]:
        frames: list[Frame] = []
        first, size = file.taken_to + 1, 0
        with self._lock:
            last = file.committed
            while self._recent and self._recent[0][0] is file and self._recent[0][1].seq < first:
                self._forget_recent()
            if self._recent and self._recent[0][0] is file:
                last = self._recent[0][1].seq
                while self._recent and self._recent[0][0] is file and last == first + len(frames):
                    size += len(self._recent[0][1].body)
                    if frames and size > bytes_max:
                        break
                    frames.append(self._forget_recent())
                    last += 1
                last -= 1  # else what was evicted is read back, up to what was not
            if not frames:
                self._count.cache_misses += 1
        return frames or files.read(file, first, last, bytes_max)

    def _record(self, file: JournalFile, frames: Sequence[Frame]) -> None:
        before = file.taken_to
        span = (frames[0].seq, frames[-1].seq)
        size = sum(len(frame.body) for frame in frames)
        with self._lock:
            file.taken_to = span[1]
            file.pending_bytes -= size
            file.open.append(span)
        try:
            self._commit_state([file])
        except (sqlite3.Error, OSError):
            with self._lock:
                file.taken_to = before
                file.pending_bytes += size
                file.open.remove(span)
            raise

    def _taken(self, file: JournalFile, frames: Sequence[Frame]) -> SealedRange:
        first, last = frames[0].seq, frames[-1].seq
        token = f"{file.id}:{first}-{last}"
        with self._lock:
            self._open[token] = (file, first, last, frames[0].received_unix_nano)
        return SealedRange(token, tuple(frames))

    def done(self, taken: SealedRange) -> None:
        """Forget a range whose rows are stored, and delete its file if nothing else in it is needed.

        If that cannot be recorded now it is with the next range; a crash before then delivers the range again with
        the same token.
        """
        with self._reading:
            with self._lock:
                file, first, last, _ = self._open.pop(taken.token, (None, 0, 0, 0))
                if file is None:
                    return
                file.open.remove((first, last))
            if self._save([file]):
                self._drop_drained()

    def _drop_drained(self) -> None:
        with self._lock:
            drained = [file for file in self._files if file.drained]
            self._files = [file for file in self._files if not file.drained]
        if not drained:
            return
        for file in drained:
            file.close_reader()
            with suppress(OSError):
                files.unlink(file.path)
        try:
            files.fsync_directory(self._directory)
        except OSError as error:  # their rows stay: they say that nothing is missing
            _log.warning("journal files may come back after a power cut", error=files.named(error))
            return
        # The row goes after the files, in a later commit: a file without a row would be delivered again.
        self._dropped += [file.id for file in drained]

    def _save(self, changed: Sequence[JournalFile]) -> bool:
        try:
            self._commit_state(changed)
        except (sqlite3.Error, OSError) as error:
            _log.warning("journal state could not be recorded yet", error=files.named(error))
            self._unsaved += [file for file in changed if file not in self._unsaved]
            return False
        return True

    def _commit_state(self, changed: Sequence[JournalFile]) -> None:
        with self._lock:
            notes = dict(self._notes)
        dropped = list(self._dropped)
        changed = [*self._unsaved, *(file for file in changed if file not in self._unsaved)]
        try:
            self._state.commit(changed, dropped=dropped, meta=notes)
        except sqlite3.Error as error:
            if not (files.is_full(error) and self._space.drop_ballast()):
                raise
            self._state.commit(changed, dropped=dropped, meta=notes)
        del self._dropped[: len(dropped)]
        self._unsaved.clear()
        with self._lock:
            self._state.meta.update(notes)
            self._notes = {key: value for key, value in self._notes.items() if notes.get(key) != value}

    # Notes and figures

    @property
    def unfinished(self) -> bool:
        """Whether it holds frames that are not done."""
        with self._lock:
            return bool(self._waiting or self._again or self._open) or self._next() is not None

    @property
    def pending_bytes(self) -> int:
        with self._lock:
            return sum(file.pending_bytes for file in self._files)

    def get_meta(self, key: str) -> str | None:
        with self._lock:
            return self._notes.get(key, self._state.meta.get(key))

    def set_meta(self, key: str, value: str) -> None:
        """Keep a note across restarts; durable with the next sealed or finished range, or on close."""
        with self._lock:
            self._notes[key] = value

    def stats(self) -> JournalStats:
        free, floor = self._space.free_and_floor()
        with self._lock:
            oldest = min((received for *_, received in self._open.values()), default=None)
            file = self._next() if oldest is None else None
            if file is not None and self._recent and self._recent[0][0] is file:
                oldest = self._recent[0][1].received_unix_nano
            elif file is not None:
                oldest = int(file.id.replace("-", "")[:12], 16) * 1_000_000  # read from disk: when its file was begun
            count = self._count
            return JournalStats(
                files=len(self._files),
                bytes=self._bytes_used(),
                bytes_max=self._limits.bytes_max,
                disk_free_bytes=free,
                disk_floor_bytes=floor,
                frames_pending=sum(file.committed - file.taken_to for file in self._files),
                ranges_open=sum(len(file.open) for file in self._files),
                oldest_age_s=0.0 if oldest is None else max(0.0, (self._wall_clock_ns() - oldest) / 1e9),
                waiting_bytes=self._waiting_bytes,
                commits=count.commits,
                commit_seconds=count.commit_seconds,
                frames_committed=count.frames,
                bytes_committed=count.bytes,
                cache_misses=count.cache_misses,
                refused=dict(count.refused),
                damaged_files=count.damaged,
                frames_salvaged=count.salvaged,
                frames_lost=count.lost,
            )

    # Start and end

    def _start(self) -> None:
        self._state = self._open_state()
        paths = files.listed(self._directory)
        for path in paths:
            file = JournalFile(path, bytes=files.disk_bytes(path))
            known = self._state.files.get(file.id)
            if known is not None:
                file.committed, file.closed, file.taken_to, file.pending_bytes, file.open = known
            self._files.append(file)
        found = {file.id for file in self._files}
        for name, (committed, _, taken_to, _, ranges) in self._state.files.items():
            if name not in found:
                self._dropped.append(name)
                lost = committed - taken_to + sum(last - first + 1 for first, last in ranges)
                if lost:
                    self._count.damaged += 1
                    self._count.lost += lost
                    _log.error("journal file is missing", file=name, frames_lost=lost)
        self._last_ms = max((int(name.replace("-", "")[:12], 16) for name in found if _is_uuid(name)), default=0)
        for path in self._directory.glob("salvage*"):
            path.unlink()
        self._count_damaged_bytes()
        for file in list(self._files):
            if file.closed:
                continue
            try:
                files.inspect(file)
                file.closed = True
            except DamagedError as error:
                self._repair(file, error)
        self._again.extend((file, first, last) for file in self._files for first, last in file.open)
        self._drop_drained()
        self._save(self._files)
        with suppress(OSError):
            self._space.keep_ballast()

    def _open_state(self) -> State:
        try:
            return State(self._directory)
        except (sqlite3.Error, ValueError, TypeError) as error:
            if files.is_full(error) and self._space.drop_ballast():
                return State(self._directory)
            if files.may_pass(error):
                msg = f"cannot open journal state in {self._directory}: {error}"
                raise JournalError(msg) from error
            _log.error("journal state is damaged and set aside: pending requests are stored again", error=str(error))
            state_db.set_aside(self._directory)
            self._count.damaged += 1
            return State(self._directory)

    def _repair(self, file: JournalFile, error: DamagedError) -> None:
        """Copy what still reads cleanly into a fresh file and set the damaged one aside.

        The copies are new frames with new tokens, so that no token ever names other frames than before; what was
        already stored is recognised by its keys.
        """
        scratch = self._directory / "salvage.db"
        fresh: JournalFile | None = None
        lost = salvaged = size = 0
        try:
            rows: list[Frame] = []
            path = files.path_of(self._directory, self._new_id())
            connection = files.create(path)
            fresh = JournalFile(path, closed=True)
            try:
                for entry in files.salvage(file, scratch):
                    if isinstance(entry, int):
                        lost += 1
                        continue
                    salvaged += 1
                    fresh.pending_bytes += len(entry.body)
                    rows.append(entry._replace(seq=salvaged))
                    size += len(entry.body)
                    if size >= _SALVAGE_ROWS_BYTES:
                        files.insert(connection, [files.row(frame.seq, frame) for frame in rows])
                        rows.clear()
                        size = 0
                if rows:
                    files.insert(connection, [files.row(frame.seq, frame) for frame in rows])
            finally:
                files.close_without_checkpoint(path, connection)
            fresh.committed = salvaged
            fresh.bytes = files.disk_bytes(path)
        except (sqlite3.Error, OSError) as failure:
            # No room for the copy, most likely: leave the file as it is for the next start.
            if fresh is not None:
                files.unlink(fresh.path)
            _log.error(
                "journal file is damaged and cannot be salvaged now; it is tried again at the next start",
                file=file.id,
                damage=str(error),
                error=files.named(failure),
            )
            fresh = None
        finally:
            scratch.unlink(missing_ok=True)
        self._replace(file, fresh)
        if fresh is None:
            return
        self._count.damaged += 1
        self._count.salvaged += salvaged
        self._count.lost += lost
        _log.error(
            "journal file is damaged and set aside",
            file=file.id,
            damage=str(error),
            frames_salvaged=salvaged,
            frames_lost=lost,
        )

    def _replace(self, file: JournalFile, fresh: JournalFile | None) -> None:
        file.close_reader()
        self._again = deque(entry for entry in self._again if entry[0] is not file)
        with self._lock:
            at = self._files.index(file)
            self._files[at : at + 1] = [fresh] if fresh is not None and fresh.committed else []
            self._recent = deque(entry for entry in self._recent if entry[0] is not file)
            self._recent_bytes = sum(len(frame.body) + _FRAME_OVERHEAD for _, frame in self._recent)
            self._open = {token: entry for token, entry in self._open.items() if entry[0] is not file}
        if fresh is None:
            return
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                files.side(file.path, suffix).replace(file.path.with_name(f"{file.path.name}.damaged{suffix}"))
        files.side(file.path, "-shm").unlink(missing_ok=True)
        if not fresh.committed:
            files.unlink(fresh.path)
        files.fsync_directory(self._directory)
        self._dropped.append(file.id)
        self._count_damaged_bytes()
        self._save([fresh] if fresh.committed else [])

    def _count_damaged_bytes(self) -> None:
        kept = sorted(self._directory.glob("*.damaged"))
        for path in kept[: -self._limits.damaged_files_max]:
            files.unlink(path)
        self._damaged_bytes = sum(files.disk_bytes(path) for path in kept[-self._limits.damaged_files_max :])

    def close(self) -> None:
        """Commit what waits, refuse what comes after, and give the directory free. What is not done stays in it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._work.notify()
            self._committed.notify_all()
        self._writer.join()
        with self._reading:
            self._save([])
            for file in self._files:
                file.close_reader()
            self._state.close()
            self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _hold(directory: Path) -> IO[str]:
    held = (directory / "lock").open("a+")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.seek(0)
        owner = held.read().strip() or "unknown"
        held.close()
        msg = f"cannot open journal in {directory}: process {owner} has it open; stop it or choose another directory"
        raise JournalError(msg) from error
    held.truncate(0)
    held.write(str(os.getpid()))
    held.flush()
    return held


def _resolve(futures: Sequence[asyncio.Future[None]], error: OverloadedError | None) -> None:
    for future in futures:
        if future.done():
            continue  # its sender went away
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _is_uuid(name: str) -> bool:
    return len(name.replace("-", "")) == 32 and all(letter in "0123456789abcdef-" for letter in name)
