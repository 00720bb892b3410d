"""The journal of a fleet: requests in Kafka, written by receivers and read by workers."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import structlog
from aiokafka.errors import KafkaError

from spanwise import _native
from spanwise.journal.kafka import letters, topics
from spanwise.journal.kafka.config import KafkaJournalConfig
from spanwise.journal.kafka.letters import DeadLetter, as_letter
from spanwise.journal.kafka.loop import LoopThread
from spanwise.journal.kafka.quiet import hush
from spanwise.journal.kafka.reader import Reader
from spanwise.journal.kafka.record import SIGNAL, Record, headers
from spanwise.journal.kafka.writer import Writer
from spanwise.journal.sqlite import JournalError, SqliteJournal
from spanwise.model import Signal
from spanwise.stage import Changed, Frame, SealedRange

_START_S: Final = 60.0
_ADMIN_S: Final = 120.0

T = TypeVar("T")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KafkaStats:
    """State at one moment, and counts since the start."""

    up: bool
    """Whether requests go to the brokers, not to the spool."""
    waiting_bytes: int
    requests: int
    request_bytes: int
    request_seconds: float
    messages: int
    producer_rebuilds: int
    spooled: int
    drained: int
    left_out: int
    refused: dict[str, int]
    """Refused requests by reason: waiting, away, closed."""
    partitions: int
    lag: dict[tuple[str, int], int]
    """Records not stored yet, by topic and partition, as far as they are ours."""
    held_records: int
    ranges_open: int
    oldest_age_s: float
    ranges: int
    ranges_resumed: int
    commits: int
    rebalances: int
    consumer_rebuilds: int
    dead_letters: int
    expired: int


class KafkaJournal:
    """Implements `spanwise.stage.Journal` on two topics; a process uses one half of it, or both.

    `append` may be called from any event loop, everything else from any thread.
    """

    def __init__(
        self, config: KafkaJournalConfig, directory: Path, *, wall_clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        """Raises JournalError if the brokers cannot be reached or a topic is not as it must be.

        With a spool, which is opened in `directory`, brokers may be away at the start.
        """
        hush()
        self._config = config
        self._wall_clock_ns = wall_clock_ns
        self.spool: SqliteJournal | None = config.spool.build(directory) if config.spool is not None else None
        self._loop = LoopThread("spanwise-kafka")
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._watermarks: Mapping[str, int] = {}
        self._watermarks_lock = threading.Lock()
        try:
            self._connection = _connection(config)
            self._check()
            self._writer = self._reach(self._open_writer())
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        try:
            found = self._reach(topics.problems(self._config, self._connection))
        except JournalError:
            if self.spool is None:
                raise
            _log.warning("brokers do not answer: topics are not checked")
            return
        if found:
            raise JournalError("; ".join(found))

    async def _open_writer(self) -> Writer:
        writer = Writer(self._config, self._connection, self.spool)
        await writer.start()
        return writer

    def _reach(self, work: Coroutine[Any, Any, T]) -> T:
        return _reach(self._config, self._loop, work, _START_S)

    # Receivers

    async def append(self, tenant: str, signal: Signal, items: int, body: bytes) -> Changed | None:  # noqa: ARG002
        """Return once every message made of the request is where it must be, or all of it is in the spool.

        Raises OverloadedError where neither is possible now, RejectedError if the request is no message.
        """
        if self._writer is None:
            raise RuntimeError("this journal is closed")
        appended = self._loop.submit(self._writer.append(tenant, self._wall_clock_ns(), signal, body))
        return await asyncio.wrap_future(appended)

    def refusing(self) -> str:
        """Why an ordinary request would be refused now, '' if it would not be."""
        return self._writer.refusing() if self._writer is not None else "the journal is closed"

    # Workers

    def start_reading(self, on_assigned: Callable[[Mapping[str, int]], None], on_revoked: Callable[[], None]) -> None:
        """Join the consumer group.

        When partitions arrive `on_assigned` gets the lowest watermarks (ms by name) committed with them; when
        they go `on_revoked` is called after what was begun is stored. Both come from the journal's thread and must be
        quick.
        """

        async def start() -> Reader:
            reader = Reader(self._config, self._connection, self._loop, self._set_aside, lambda: self._watermarks)
            reader.start(on_assigned, on_revoked)
            return reader

        self._reader = self._reach(start())

    def seal(self, *, bytes_max: int, timeout_s: float) -> SealedRange | None:
        if self._reader is None:
            time.sleep(timeout_s)
            return None
        return self._reader.seal(bytes_max=bytes_max, timeout_s=timeout_s)

    def done(self, taken: SealedRange) -> None:
        if self._reader is not None:
            self._reader.done(taken)

    @property
    def pending_bytes(self) -> int:
        return self._reader.pending_bytes if self._reader is not None else 0

    def get_meta(self, key: str) -> str | None:
        """That watermark of this process; before there is one, now: what is older comes with the partitions."""
        return str(self._watermarks.get(key, self._wall_clock_ns() // 1_000_000))

    def set_meta(self, key: str, value: str) -> None:
        """Keep a watermark; it goes with every commit of every partition."""
        with self._watermarks_lock:
            self._watermarks = {**self._watermarks, key: int(value)}

    def owned(self, trace_ids: Sequence[str]) -> list[bool]:
        """Of each trace (32 hex digits) whether its partition is ours."""
        if self._reader is None:
            return [False] * len(trace_ids)
        ours, count = self._reader.mine()
        if not count:
            return [False] * len(trace_ids)
        return [partition in ours for partition in _native.partitions_of(list(trace_ids), count)]

    def term(self) -> int | None:
        """Changes whenever partitions come or go; None while they move, or while they may be gone unnoticed."""
        return self._reader.term() if self._reader is not None else None

    # Dead letters

    def put(self, taken: SealedRange, frame: Frame, reason: str) -> str:
        """Keep a request of a range as a dead letter, durably. Raises JournalError if that does not work now."""
        topic, partition, _ = taken.token.rsplit(":", 2)
        around = [*headers(frame.tenant, frame.received_unix_nano, frame.items), (SIGNAL, frame.signal.encode())]
        record = Record(topic, int(partition), frame.seq, frame.received_unix_nano // 1_000_000, around, frame.body)
        self._reach(self._set_aside(record, reason))
        return f"{self._config.dead_letters_topic} ({topic}:{partition}:{frame.seq})"

    async def _set_aside(self, record: Record, reason: str) -> None:
        value = record.value[: self._config.message_bytes_max]
        if len(value) < len(record.value):
            reason = f"{reason}; the first {len(value)} of {len(record.value)} bytes"
        letter = (self._config.dead_letters_topic, None, value, as_letter(record, reason))
        writer = self._writer
        if writer is None or not await writer.send([letter]):
            raise JournalError("cannot write a dead letter: the Kafka brokers do not answer")

    # Figures and end

    def stats(self) -> KafkaStats:
        writer, reader = self._writer, self._reader
        counts = writer.counts if writer else None
        partitions, held, opened, oldest_ms = reader.figures() if reader else (0, 0, 0, 0)
        read = reader.counts if reader else None
        return KafkaStats(
            up=bool(writer and writer.up),
            waiting_bytes=writer.waiting_bytes if writer else 0,
            requests=counts.requests if counts else 0,
            request_bytes=counts.bytes if counts else 0,
            request_seconds=counts.seconds if counts else 0.0,
            messages=counts.messages if counts else 0,
            producer_rebuilds=counts.rebuilds if counts else 0,
            spooled=counts.spooled if counts else 0,
            drained=counts.drained if counts else 0,
            left_out=counts.left_out if counts else 0,
            refused=dict(counts.refused) if counts else {},
            partitions=partitions,
            lag=reader.lag() if reader else {},
            held_records=held,
            ranges_open=opened,
            oldest_age_s=max(0.0, self._wall_clock_ns() / 1e9 - oldest_ms / 1e3) if oldest_ms else 0.0,
            ranges=read.ranges if read else 0,
            ranges_resumed=read.resumed if read else 0,
            commits=read.commits if read else 0,
            rebalances=read.rebalances if read else 0,
            consumer_rebuilds=read.rebuilds if read else 0,
            dead_letters=read.dead_letters if read else 0,
            expired=read.expired if read else 0,
        )

    def close(self) -> None:
        """Finish what was begun, leave the group, and end the connections."""
        with suppress(TimeoutError, KafkaError):
            if self._reader is not None:
                self._loop.run(self._reader.close(), self._config.flush_s * 2 + 15)
            if self._writer is not None:
                self._loop.run(self._writer.close(), self._config.ack_timeout_s + 10)
        with suppress(TimeoutError):
            self._loop.close()
        if self.spool is not None:
            self.spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def create_topics(config: KafkaJournalConfig) -> list[str]:
    """Create the topics that are missing and return their names. Raises JournalError."""
    return _once(config, lambda connection: topics.create(config, connection))


def check_topics(config: KafkaJournalConfig) -> list[str]:
    """A sentence for everything that is wrong with the topics. Raises JournalError if they cannot be asked for."""
    return _once(config, lambda connection: topics.problems(config, connection))


def list_dead_letters(config: KafkaJournalConfig, most: int, *, values: bool = True) -> list[DeadLetter]:
    """The oldest `most` dead letters that were not sent again, without their values if not wanted.

    Raises JournalError.
    """
    return _once(config, lambda connection: letters.waiting(config, connection, most, values=values))


def replay_dead_letters(config: KafkaJournalConfig, on_sent: Callable[[], None]) -> None:
    """Send all dead letters again, for as long as they go; `on_sent` is called after each, by another thread.

    Raises JournalError.
    """
    _once(config, lambda connection: letters.replay(config, connection, on_sent), timeout_s=None)


def _once(
    config: KafkaJournalConfig,
    work: Callable[[dict[str, Any]], Coroutine[Any, Any, T]],
    *,
    timeout_s: float | None = _ADMIN_S,
) -> T:
    hush()
    connection = _connection(config)
    loop = LoopThread("spanwise-kafka")
    try:
        return _reach(config, loop, work(connection), timeout_s)
    finally:
        with suppress(TimeoutError):
            loop.close()


def _connection(config: KafkaJournalConfig) -> dict[str, Any]:
    try:
        return config.connection()
    except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or type(error).__name__
        raise JournalError(f"cannot read a file of journal.tls or journal.sasl: {what}") from error


def _reach(config: KafkaJournalConfig, loop: LoopThread, work: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
    try:
        return loop.run(work, timeout_s)
    except (KafkaError, OSError, TimeoutError) as error:
        servers = ", ".join(config.servers)
        raise JournalError(f"cannot reach Kafka at {servers} (journal.servers): {_named(error)}") from error


def _named(error: Exception) -> str:
    said = str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
