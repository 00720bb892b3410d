"""The worker's half: ranges of records, each of one partition, the same ones again after a crash.

What a range is must not depend on who asks: before its first record is handed on, the offset where it ends is written
into the metadata of the partition's committed offset. Whoever owns the partition next reads it there and forms the
identical range, whose token the store already knows if its rows are in. Clean hand-overs finish what was begun.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from spanwise.journal.kafka.config import RECORD_OVERHEAD_BYTES, KafkaJournalConfig
from spanwise.journal.kafka.loop import LoopThread
from spanwise.journal.kafka.record import Record, frame
from spanwise.stage import Frame, SealedRange

TRIES_MAX: Final = 3
"""Deaths of a process with a range in hand before the range is taken apart, and then before a record is set aside."""
_APART: Final = TRIES_MAX + 1
"""Stands for the tries of what is left of a range that is being taken apart."""
_COMMIT_S: Final = 10.0
_POLL_MS: Final = 200
_IDLE_COMMIT_S: Final = 5.0
_FETCH_BYTES: Final = 16 << 20
_PAUSE_S: Final = 1.0
_PAUSE_MAX_S: Final = 8.0
"""Between attempts to reach brokers that are away, each of which leaves a line in the log."""
_END_S: Final = 5.0
_BEGINNINGS_S: Final = 2.0
_MOVING_PAUSE_S: Final = 0.02
_NEVER_MS: Final = 2**31 - 1
_POISON: Final = "unreadable"
_DEADLY: Final = "deadly"

_log = structlog.get_logger(__name__)

SetAside = Callable[[Record, str], Awaitable[None]]


class _Plan(NamedTuple):
    """A range that was sealed by someone who did not finish it."""

    end: int
    tries: int


class _Note(NamedTuple):
    """What is written down in the committed offset of a partition."""

    offset: int | None
    planned: Sequence[_Plan] = ()
    marks: Mapping[str, int] = {}
    partitions: int = 0
    """Of the topic, when the marks were written."""


@dataclass(slots=True)
class _Open:
    first: int
    end: int
    tries: int
    first_ms: int
    """Time of the first record: the offsets of a topic that is deleted and made anew begin at 0 again."""
    done: bool = False

    def token(self, at: TopicPartition) -> str:
        return f"{at.topic}:{at.partition}:{self.first}-{self.end - 1}@{self.first_ms}"


@dataclass(slots=True)
class _Partition:
    """What is known of a partition while it is ours."""

    committed: int | None
    """Offset up to which everything is stored; None before its first record is known."""
    planned: deque[_Plan]
    next: int | None = None
    """Offset at which the next range begins."""
    position: int = 0
    """Offset up to which records were fetched."""
    records: deque[Record] = field(default_factory=deque)
    bytes: int = 0
    open: deque[_Open] = field(default_factory=deque)
    sealed_at: int = 0
    noted: Mapping[str, int] = field(default_factory=dict)
    behind: bool = False
    """The last commit did not work."""

    def ready(self) -> bool:
        if self.planned:
            end = self.planned[0].end
            return self.position >= end or bool(self.records and self.records[-1].offset >= end - 1)
        return bool(self.records)


class _GoneError(Exception):
    """The partition is no longer ours."""


@dataclass(slots=True)
class ReaderCounts:
    """Since the start."""

    rebalances: int = 0
    rebuilds: int = 0
    ranges: int = 0
    resumed: int = 0
    dead_letters: int = 0
    commits: int = 0
    expired: int = 0


class Reader:
    """Implements the reading half of `spanwise.stage.Journal` on a consumer group.

    The consumer and everything that awaits it live on the journal's loop; `seal` and `done` are called from the
    pipeline's threads. `_lock` guards what they share and is never held while anything is awaited.
    """

    def __init__(
        self,
        config: KafkaJournalConfig,
        connection: dict[str, Any],
        loop: LoopThread,
        set_aside: SetAside,
        watermarks: Callable[[], Mapping[str, int]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._connection = connection
        self._loop = loop
        self._put_aside = set_aside
        self._watermarks = watermarks
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._count_of: dict[str, int] = {}
        self._moving = True
        self._generation = 0
        self._closed = False
        self._round = 0
        self._turn = 0
        self._consumer: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._failure: Exception | None = None
        self._again = False
        self._alive_s = monotonic()
        self._proven_s = monotonic()
        """When the brokers last counted us in."""
        self._lapsed = False
        self._pause_s = _PAUSE_S
        self._task: asyncio.Task[None] | None = None
        self._on_assigned: Callable[[Mapping[str, int]], None] = lambda _: None
        self._on_revoked: Callable[[], None] = lambda: None
        self.counts = ReaderCounts()

    # Life, on the loop

    def start(self, on_assigned: Callable[[Mapping[str, int]], None], on_revoked: Callable[[], None]) -> None:
        """Join the group, on the loop; see `KafkaJournal.start_reading`."""
        self._on_assigned, self._on_revoked = on_assigned, on_revoked
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while not self._closed:
            try:
                await self._read()
            except (Exception, asyncio.CancelledError) as error:  # whatever it is: nobody else reads these partitions
                if self._closed:
                    raise
                _log.warning("the reader failed and connects anew", error=type(error).__name__)
                self.counts.rebuilds += 1
                try:
                    await self._let_go(leaving=True)
                except (Exception, asyncio.CancelledError) as worse:
                    if self._closed:
                        raise
                    _log.warning("the reader did not end well", error=type(worse).__name__)
                await asyncio.sleep(self._pause_s)
                self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_S)

    async def _read(self) -> None:
        config = self._config
        self._admin = AIOKafkaAdminClient(**self._connection)
        await self._admin.start()
        self._consumer = AIOKafkaConsumer(
            **self._connection,
            group_id=config.group,
            group_instance_id=config.member or None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # the same partitions of both topics go to one worker: log records meet their spans in its memory
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=int(config.session_timeout_s * 1000),
            heartbeat_interval_ms=int(config.session_timeout_s * 1000 / 4),
            rebalance_timeout_ms=60_000,
            # Whether records are wanted says nothing about us: while partitions move none are, however long that takes,
            # and a client that counts as idle never joins again.
            max_poll_interval_ms=_NEVER_MS,
            max_partition_fetch_bytes=max(4 << 20, config.message_bytes_max + RECORD_OVERHEAD_BYTES),
            fetch_max_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=_POLL_MS,
        )
        self._consumer.subscribe(list(config.signals), listener=_Listener(self._assigned, self._revoked))
        await self._consumer.start()
        self._pause_s = _PAUSE_S
        heard = self._monotonic()
        tidied = heard
        while not self._closed:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise RuntimeError("partitions could not be taken over") from failure
            now = self._monotonic()
            await self._stay_sure(now)
            if self._moving:
                # nobody asks for records meanwhile, and the client ends its wait for the group's answer only when asked
                self._consumer._coordinator.check_errors()
                heard = now
                await asyncio.sleep(_MOVING_PAUSE_S)
                continue
            if self._again:
                self._again = False
                await self._seek_back(self._consumer)
            generation = self._generation
            self._hold_or_go(self._consumer)
            found = await self._consumer.getmany(timeout_ms=_POLL_MS)
            now = self._monotonic()
            if self._moving or generation != self._generation:
                # Partitions moved meanwhile: nobody can tell whose records these are, so they are fetched again.
                self._again = bool(found) or self._again
            elif found:
                self._take_in(found)
                heard = now
            elif self._full():
                heard = now
            elif now - heard > config.stalled_s:
                if await self._is_behind(self._consumer):
                    raise RuntimeError("nothing arrives although there is something")
                heard = now
            if now - tidied > min(_IDLE_COMMIT_S, config.session_timeout_s / 4):
                tidied = now
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._commit_notes(), _IDLE_COMMIT_S)

    async def _stay_sure(self, now: float) -> None:
        """Notice that this process was stopped or cut off for so long that its partitions may be someone else's.

        A commit that is accepted shows that they are not; else the client joins the group again.
        """
        self._lapsed |= self._is_overdue(now)
        self._alive_s = now
        if self._lapsed and not self._moving:
            with self._lock:
                ours = list(self._partitions)
            with suppress(_GoneError, KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(self._commit(ours), self._config.session_timeout_s)
                self._lapsed = False
            self._alive_s = self._monotonic()

    def _is_overdue(self, now: float) -> bool:
        session_s = self._config.session_timeout_s
        return now - self._alive_s > session_s or (bool(self._partitions) and now - self._proven_s > session_s)

    def term(self) -> int | None:
        with self._lock:
            unsure = self._moving or self._lapsed or self._is_overdue(self._monotonic())
            return None if unsure else self._generation

    async def _seek_back(self, consumer: AIOKafkaConsumer) -> None:
        with self._lock:
            places = {at: part.position if part.next is not None else None for at, part in self._partitions.items()}
        for at in places.keys() & consumer.assignment():
            place = places[at]
            if place is None:
                await consumer.seek_to_beginning(at)
            else:
                consumer.seek(at, place)

    def _hold_or_go(self, consumer: AIOKafkaConsumer) -> None:
        """Stop fetching while enough is held, but for the first range that has to be formed as it was before."""
        with self._lock:
            full = sum(part.bytes for part in self._partitions.values()) >= self._config.buffer_bytes_max
            waiting = [at for at, part in self._partitions.items() if part.planned and not part.ready()]
            ours = set(self._partitions)
        held = ours - set(waiting[:1]) if full else set()
        assigned = consumer.assignment()
        paused = consumer.paused()
        consumer.pause(*(held & assigned) - paused)
        consumer.resume(*(paused & assigned) - held)

    async def _is_behind(self, consumer: AIOKafkaConsumer) -> bool:
        """Asked of the brokers: what the client knows comes with the fetches that may be stuck."""
        async with asyncio.timeout(_COMMIT_S):
            ends = await consumer.end_offsets(list(consumer.assignment()))
        with self._lock:
            return any(end > self._partitions[at].position for at, end in ends.items() if at in self._partitions)

    def _full(self) -> bool:
        with self._lock:
            return sum(part.bytes for part in self._partitions.values()) >= self._config.buffer_bytes_max

    def _take_in(self, found: dict[TopicPartition, Sequence[Any]]) -> None:
        with self._lock:
            for at, messages in found.items():
                part = self._partitions.get(at)
                if part is None or not messages:
                    continue
                if part.next is None:
                    part.next = part.committed = messages[0].offset
                elif messages[0].offset < part.position:
                    self._begin_again(at, part, messages[0].offset)
                for message in messages:
                    value = message.value or b""
                    part.records.append(
                        Record(at.topic, at.partition, message.offset, message.timestamp, message.headers, value)
                    )
                    part.bytes += len(value)
                part.position = messages[-1].offset + 1
            self._changed.notify_all()

    def _begin_again(self, at: TopicPartition, part: _Partition, first: int) -> None:
        """The log ends before what was committed: its end was lost, or it is another one. What was planned is gone."""
        _log.error("a topic lost records that were read", topic=at.topic, partition=at.partition, first=first)
        self.counts.expired += len(part.planned)
        part.planned.clear()
        if not part.records:
            part.next = first

    async def _assigned(self, arrived: Iterable[TopicPartition]) -> None:
        try:
            await self._take_over(list(arrived))
        except Exception as error:  # the client would only log it, and read on
            self._failure = error

    async def _take_over(self, arrived: Sequence[TopicPartition]) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        joined_s = self._monotonic()
        counts = {topic: len(consumer.partitions_for_topic(topic) or ()) for topic in self._config.signals}
        notes = {at: _read_metadata(found) for at, found in (await self._committed(arrived)).items()}
        marked = [note.marks for note in notes.values()]
        if any(notes[at].partitions != counts[at.topic] for at in arrived):
            # Some were added: what is undecided of a trace that is ours now may have come by a partition that is not.
            everywhere = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
            marked = [_read_metadata(found).marks for found in (await self._committed(everywhere)).values()]
        lowest: dict[str, int] = {}
        for marks in marked:
            for name, mark in marks.items():
                lowest[name] = min(mark, lowest.get(name, mark))
        unread = await self._beginnings(consumer, [at for at in arrived if notes[at].offset is None])
        parts = {}
        for at in arrived:
            offset, planned, _, _ = notes[at]
            offset = unread.get(at) if offset is None else offset
            parts[at] = _Partition(offset, deque(planned), next=offset, position=offset or 0)
            if offset is not None:
                consumer.seek(at, offset)  # the client asks for it, too, and begins anywhere if it is not answered
        if lowest:
            self._on_assigned(lowest)
        with self._lock:
            self._count_of = counts
            self._partitions = parts
            self._round = 0
            self._generation += 1
            self._proven_s = joined_s
            self._lapsed = False
            self._moving = False
            self.counts.rebalances += 1
            self._changed.notify_all()
        _log.info("partitions assigned", partitions=len(arrived))

    async def _committed(self, arrived: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        if not arrived or self._admin is None:
            return {}
        for attempt in range(5):
            try:
                found: dict[TopicPartition, OffsetAndMetadata] = await self._admin.list_consumer_group_offsets(
                    self._config.group, partitions=list(arrived)
                )
            except (KafkaError, OSError) as error:
                _log.warning("planned ranges cannot be read yet", error=type(error).__name__)
            else:
                # An error that is about the whole group leaves its partitions out, and the client passes it over.
                if found.keys() >= set(arrived):
                    return found
                _log.warning("planned ranges cannot be read yet", error="the group is not known there")
            await asyncio.sleep(0.2 * (attempt + 1))
        raise RuntimeError("planned ranges cannot be read")

    async def _beginnings(
        self, consumer: AIOKafkaConsumer, unread: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """Where partitions begin that nobody has read, so that marks can be written there; as far as brokers say."""
        with suppress(KafkaError, OSError, TimeoutError):
            if unread:
                async with asyncio.timeout(_BEGINNINGS_S):
                    found: dict[TopicPartition, int] = await consumer.beginning_offsets(list(unread))
                    return found
        return {}

    async def _revoked(self, _gone: Iterable[TopicPartition]) -> None:
        await self._finish(self._config.flush_s)
        self._on_revoked()

    async def _finish(self, timeout_s: float) -> None:
        """Take nothing new, wait for what was begun, and leave behind how far that came."""
        with self._lock:
            self._moving = True
            for part in self._partitions.values():
                part.records.clear()
                part.bytes = 0
            self._changed.notify_all()
        deadline = self._monotonic() + timeout_s
        while self._monotonic() < deadline:
            with self._lock:
                if not any(part.open for part in self._partitions.values()):
                    break
            await asyncio.sleep(0.02)
        with self._lock:
            for part in self._partitions.values():
                for opened in part.open:
                    opened.tries = max(0, opened.tries - 1)  # it is handed over, nobody died of it
            ours = list(self._partitions)
        with suppress(KafkaError, OSError, TimeoutError, _GoneError):
            await asyncio.wait_for(self._commit(ours), timeout_s)
        with self._lock:
            self._partitions = {}

    async def _let_go(self, *, leaving: bool) -> None:
        consumer, admin = self._consumer, self._admin
        try:
            if leaving:
                await self._revoked(())
        finally:
            self._consumer = self._admin = None
            await self._end(consumer, admin)

    @staticmethod
    async def _end(consumer: AIOKafkaConsumer | None, admin: AIOKafkaAdminClient | None) -> None:
        # Each on a task of its own: a client whose connections broke may end by being cancelled by its own parts.
        ending = [asyncio.ensure_future(consumer.stop())] if consumer else []
        ending += [asyncio.ensure_future(admin.close())] if admin else []
        if not ending:
            return
        _, hanging = await asyncio.wait(ending, timeout=_END_S)
        for task in hanging:
            task.cancel()
        if hanging:
            await asyncio.wait(hanging, timeout=_END_S)
        for task in ending:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                _log.info("a client of the brokers did not end well", error=type(error).__name__)

    async def close(self) -> None:
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._finish(self._config.flush_s)
        await self._let_go(leaving=False)

    # Commits, on the loop

    async def _commit(self, ours: Iterable[TopicPartition]) -> None:
        """Write down how far partitions are stored and what is planned beyond. Raises _GoneError if one is not ours."""
        consumer = self._consumer
        if consumer is None:
            raise _GoneError
        offsets = {}
        with self._lock:
            marks = self._watermarks()
            for at in ours:
                part = self._partitions.get(at)
                if part is None:
                    raise _GoneError
                if part.committed is None:
                    continue
                ends = [[opened.end, opened.tries] for opened in part.open] + [list(plan) for plan in part.planned]
                note: dict[str, Any] = {"planned": ends} if ends else {}
                if marks:
                    note |= {"watermarks_ms": marks, "partitions": self._count_of.get(at.topic, 0)}
                offsets[at] = OffsetAndMetadata(part.committed, json.dumps(note, separators=(",", ":")))
                part.noted = marks
                part.behind = True
        if not offsets:
            return
        asked_s = self._monotonic()
        try:
            await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            raise _GoneError from error
        with self._lock:
            self._proven_s = max(self._proven_s, asked_s)
            self.counts.commits += 1
            for at in offsets:
                if at in self._partitions:
                    self._partitions[at].behind = False

    async def _commit_notes(self) -> None:
        """Write down what changed; all of it now and then, to hear from the brokers that it is still ours."""
        with self._lock:
            marks = self._watermarks()
            prove = self._monotonic() - self._proven_s > self._config.session_timeout_s / 2
            old = (
                []
                if self._moving
                else [at for at, part in self._partitions.items() if prove or part.behind or part.noted != marks]
            )
        if old:
            with suppress(_GoneError):
                await self._commit(old)

    # Taking ranges, from the pipeline's threads

    def seal(self, *, bytes_max: int, timeout_s: float) -> SealedRange | None:
        """The next range of the partition that has waited longest; planned before it is returned.

        None if nothing came in time or partitions are on the move. Raises KafkaError or TimeoutError if the plan
        cannot be written down; nothing is taken then.
        """
        with self._lock:
            self._changed.wait_for(lambda: self._closed or self._choose() is not None, timeout_s)
            chosen = None if self._closed else self._choose()
            if chosen is None:
                return None
            part = self._partitions[chosen]
            if part.next is None:
                return None
            opened, records, plan = self._cut(chosen, part, part.next, bytes_max)
            self._turn += 1
            part.sealed_at = self._turn
            more = self._next_of_round()
        try:
            frames = self._frames(records, deadly=opened.tries > TRIES_MAX)
            self._loop.run(self._commit([chosen]), _COMMIT_S)
        except _GoneError:
            self._put_back(chosen, part, opened, records, plan)  # else whoever hands the partition over waits for it
            return None
        except BaseException:
            self._put_back(chosen, part, opened, records, plan)
            raise
        self.counts.ranges += 1
        return SealedRange(opened.token(chosen), frames, more)

    def _choose(self) -> TopicPartition | None:
        if self._moving:
            return None
        opened = any(part.open for part in self._partitions.values())
        if any(one.tries > 1 for part in self._partitions.values() for one in part.open):
            return None  # something may die of it again: nothing else must be in hand then
        ready = [at for at, part in self._partitions.items() if part.ready()]
        retried = [at for at in ready if self._partitions[at].planned and self._partitions[at].planned[0].tries]
        if retried:
            return None if opened else min(retried)
        return min(ready, key=lambda at: (self._partitions[at].sealed_at, at), default=None)

    def _next_of_round(self) -> bool:
        """Whether another range belongs to the round of this one."""
        if self._round == 0:
            self._round = self._config.ranges_per_round
        self._round -= 1
        if self._choose() is None:
            self._round = 0
        return self._round > 0

    def _cut(
        self, at: TopicPartition, part: _Partition, first: int, bytes_max: int
    ) -> tuple[_Open, list[Record], _Plan | None]:
        records: list[Record] = []
        plan = part.planned.popleft() if part.planned else None
        if plan is not None:
            while part.records and part.records[0].offset < plan.end:
                records.append(self._popped(part))
            end, tries = plan.end, plan.tries + 1
            self.counts.resumed += 1
            if plan.tries == _APART or (plan.tries == TRIES_MAX and len(records) > 1):
                # Several processes died with it in hand: record by record it will show which one it is.
                tries = 1
                if len(records) > 1:
                    part.planned.appendleft(_Plan(plan.end, _APART))
                    while len(records) > 1:
                        self._unpop(part, records.pop())
                    end = records[0].offset + 1
            elif not records:
                self.counts.expired += 1
                _log.error("records of a planned range are gone", topic=at.topic, partition=at.partition, first=first)
        else:
            size = 0
            while part.records and (not records or size + len(part.records[0].value) <= bytes_max):
                records.append(self._popped(part))
                size += len(records[-1].value)
            end, tries = records[-1].offset + 1, 1
        opened = _Open(first, end, tries, records[0].timestamp_ms if records else 0)
        part.open.append(opened)
        part.next = end
        return opened, records, plan

    @staticmethod
    def _popped(part: _Partition) -> Record:
        record = part.records.popleft()
        part.bytes -= len(record.value)
        return record

    @staticmethod
    def _unpop(part: _Partition, record: Record) -> None:
        part.records.appendleft(record)
        part.bytes += len(record.value)

    def _put_back(
        self, at: TopicPartition, part: _Partition, opened: _Open, records: Sequence[Record], plan: _Plan | None
    ) -> None:
        with self._lock:
            if self._partitions.get(at) is not part or opened not in part.open:
                return
            part.open.remove(opened)
            for record in reversed(records):
                self._unpop(part, record)
            if plan is not None:
                if part.planned and part.planned[0].end == plan.end:
                    part.planned.popleft()  # what was left of it
                part.planned.appendleft(plan)
            part.next = opened.first

    def _frames(self, records: Sequence[Record], *, deadly: bool) -> tuple[Frame, ...]:
        """Requests of records; those that are none go to the dead letters first."""
        frames = []
        for record in records:
            try:
                made = frame(record, self._config.signals[record.topic], self._config.foreign_tenant)
            except ValueError as error:
                _log.error("record_unreadable", topic=record.topic, partition=record.partition, offset=record.offset)
                self._dead(record, f"{_POISON}: {error}")
                continue
            if deadly:
                _log.error("record_deadly", topic=record.topic, partition=record.partition, offset=record.offset)
                self._dead(record, f"{_DEADLY}: processes died with it in hand, {TRIES_MAX} times alone")
                continue
            frames.append(made)
        return tuple(frames)

    def _dead(self, record: Record, reason: str) -> None:
        async def put() -> None:
            await self._put_aside(record, reason)

        self._loop.run(put(), _COMMIT_S)
        self.counts.dead_letters += 1

    def done(self, taken: SealedRange) -> None:
        """Forget a range whose rows are stored. Should that not be recorded, it is formed again with the same token."""
        topic, partition, _ = taken.token.rsplit(":", 2)
        at = TopicPartition(topic, int(partition))
        with self._lock:
            part = self._partitions.get(at)
            opened = next((one for one in part.open if one.token(at) == taken.token), None) if part else None
            if part is None or opened is None:
                return  # it was handed over meanwhile
            opened.done = True
            while part.open and part.open[0].done:
                part.committed = part.open.popleft().end
            self._changed.notify_all()
        self._loop.submit(self._commit_done(at))

    async def _commit_done(self, at: TopicPartition) -> None:
        try:
            await self._commit([at])
        except _GoneError:
            pass
        except (KafkaError, OSError) as error:
            _log.warning("a stored range could not be recorded yet", error=type(error).__name__)

    # Notes and figures

    @property
    def pending_bytes(self) -> int:
        with self._lock:
            if self._choose() is None:
                return 0
            return max(1, sum(part.bytes for part in self._partitions.values() if part.ready()))

    def mine(self) -> tuple[frozenset[int], int]:
        """The partitions of the traces' topic that are ours, and how many it has."""
        with self._lock:
            topic = self._config.traces_topic
            return frozenset(at.partition for at in self._partitions if at.topic == topic), self._count_of.get(topic, 0)

    def lag(self) -> dict[tuple[str, int], int]:
        """Records of each of our partitions that are not stored yet."""
        consumer = self._consumer
        found = {}
        with self._lock:
            for at, part in self._partitions.items():
                high = consumer.highwater(at) if consumer is not None and at in consumer.assignment() else None
                found[at.topic, at.partition] = max(0, (high or 0) - (part.committed or 0))
        return found

    def figures(self) -> tuple[int, int, int, float]:
        """Partitions that are ours, records held, ranges open, and when the oldest of these was received (ms, or 0)."""
        with self._lock:
            parts = self._partitions.values()
            oldest = min((part.records[0].timestamp_ms for part in parts if part.records), default=0)
            return (
                len(parts),
                sum(len(part.records) for part in parts),
                sum(len(part.open) for part in parts),
                oldest,
            )


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(
        self,
        assigned: Callable[[Iterable[TopicPartition]], Awaitable[None]],
        revoked: Callable[[Iterable[TopicPartition]], Awaitable[None]],
    ) -> None:
        self._assigned, self._revoked = assigned, revoked

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._assigned(assigned)


def _read_metadata(found: OffsetAndMetadata | None) -> _Note:
    """What stands in a committed offset; what others wrote there counts as nothing."""
    if found is None or found.offset < 0:
        return _Note(None)
    try:
        note = json.loads(found.metadata or "{}")
        return _Note(
            found.offset,
            [_Plan(int(end), int(tries)) for end, tries in note.get("planned", ())],
            {str(name): int(mark) for name, mark in note.get("watermarks_ms", {}).items()},
            int(note.get("partitions", 0)),
        )
    except (ValueError, TypeError, AttributeError):
        _log.warning("the metadata of a committed offset is not ours")
        return _Note(found.offset)
