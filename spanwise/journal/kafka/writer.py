"""The receiver's half: a request becomes messages for the partitions of its topic, acknowledged when all brokers that
must have them do.

aiokafka numbers the batches of an idempotent producer when it takes them out of its buffer, and never takes a number
back: after one batch was given up every later one is out of order. So sizes are checked before anything is handed over,
and a producer that failed once is thrown away. What was on its way may arrive twice then; the keys of rows absorb that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from spanwise import _native
from spanwise.journal.kafka.config import DEAD_LETTER_OVERHEAD_BYTES, RECORD_OVERHEAD_BYTES, KafkaJournalConfig
from spanwise.journal.kafka.record import Headers, headers
from spanwise.journal.sqlite import SqliteJournal
from spanwise.model import Signal
from spanwise.stage import Changed, OverloadedError, RejectedError, SealedRange

_INLINE_BYTES: Final = 1 << 20
_PAUSE_S: Final = 1.0
_TELL_AGAIN_S: Final = 30.0
_DRAIN_BYTES: Final = 4 << 20
_LISTED_MAX: Final = 5
_KEY_CHARS_MAX: Final = 128

_log = structlog.get_logger(__name__)

Part = tuple[int, int, bytes]
"""Partition, items, request."""


def new_producer(config: KafkaJournalConfig, connection: dict[str, Any]) -> AIOKafkaProducer:
    bytes_max = config.message_bytes_max + RECORD_OVERHEAD_BYTES
    # A batch that the broker refuses would break the sequence, so what is handed over fits; this only lets dead letters
    # through, whose topic allows more.
    request_bytes_max = bytes_max + DEAD_LETTER_OVERHEAD_BYTES
    return AIOKafkaProducer(
        **connection,
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",
        linger_ms=config.linger_ms,
        max_batch_size=bytes_max,
        max_request_size=request_bytes_max,
        request_timeout_ms=max(1000, int(config.ack_timeout_s * 1000)),
    )


async def discard(producer: AIOKafkaProducer) -> None:
    """End a producer without waiting for brokers that do not answer."""
    # its own stop() waits until every batch is delivered, which an idempotent producer tries for ever
    producer._message_accumulator.fail_all(KafkaConnectionError("the producer is given up"))
    with suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.stop(), _PAUSE_S)
    with suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.client.close(), _PAUSE_S)


@dataclass(slots=True)
class WriterCounts:
    """Since the start."""

    requests: int = 0
    bytes: int = 0
    messages: int = 0
    seconds: float = 0.0
    rebuilds: int = 0
    spooled: int = 0
    drained: int = 0
    left_out: int = 0
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("waiting", "away", "closed"), 0))


class Writer:
    """Lives on the journal's loop. Without a producer (`up` is False) requests go to the spool, if there is one."""

    def __init__(
        self,
        config: KafkaJournalConfig,
        connection: dict[str, Any],
        spool: SqliteJournal | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        build: Callable[[KafkaJournalConfig, dict[str, Any]], AIOKafkaProducer] = new_producer,
    ) -> None:
        self._config = config
        self._connection = connection
        self._spool = spool
        self._monotonic = monotonic
        self._build = build
        self._producer: AIOKafkaProducer | None = None
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._partitions: dict[str, int] = {}
        self._closed = False
        self.up = False
        self.waiting_bytes = 0
        self.counts = WriterCounts()

    async def start(self) -> None:
        """Connect. Raises KafkaError or OSError if that fails and there is no spool; else goes on trying."""
        try:
            await self._connect()
        except (KafkaError, OSError, TimeoutError) as error:
            if self._spool is None:
                raise
            _log.warning("brokers do not answer: requests go to the spool", error=type(error).__name__)
            self._wanted.set()
        self._spawn(self._reconnect())
        if self._spool is not None:
            self._spawn(self._drain(self._spool))

    async def append(self, tenant: str, received_unix_nano: int, signal: Signal, body: bytes) -> Changed | None:
        if self._closed:
            raise self._refused("closed", "the journal is closed")
        if self.waiting_bytes and self.waiting_bytes + len(body) > self._config.waiting_bytes_max:
            raise self._refused("waiting", f"{self.waiting_bytes} bytes of requests already wait for the brokers")
        self.waiting_bytes += len(body)
        started = self._monotonic()
        try:
            parts, changed = await self._split(signal, body)
            if not (self.up and await self._send(tenant, received_unix_nano, signal, parts)):
                await self._set_aside(tenant, signal, parts)
        finally:
            self.waiting_bytes -= len(body)
        self.counts.requests += 1
        self.counts.bytes += len(body)
        self.counts.seconds += self._monotonic() - started
        return changed

    def refusing(self) -> str:
        """Why an ordinary request would be refused now, '' if it would not be."""
        if self.up:
            return ""
        return "the Kafka brokers do not answer" if self._spool is None else self._spool.refusing()

    def _refused(self, reason: str, message: str) -> OverloadedError:
        self.counts.refused[reason] += 1
        return OverloadedError(message)

    def _count(self, signal: Signal) -> int:
        """Partitions of the topic as the client knows it; it asks every five minutes, for some may be added."""
        topic = self._config.topic(signal)
        known = self._producer.client.cluster.partitions_for_topic(topic) if self._producer is not None else None
        if known:
            self._partitions[topic] = len(known)
        return self._partitions.get(topic, 1)

    async def _split(
        self, signal: Signal, body: bytes, partitions: int | None = None
    ) -> tuple[Sequence[Part], Changed | None]:
        partitions = partitions or self._count(signal)

        def work() -> tuple[list[Part], list[tuple[int, str, int, str]], list[int]]:
            return _native.split(signal, body, partitions=partitions, bytes_max=self._config.message_bytes_max)

        try:
            if len(body) <= _INLINE_BYTES:
                parts, cuts, too_large = work()
            else:
                parts, cuts, too_large = await asyncio.get_running_loop().run_in_executor(None, work)
        except ValueError as error:
            raise RejectedError(str(error)) from None
        if not cuts and not too_large:
            return parts, None
        self.counts.left_out += len(too_large)
        return parts, Changed(len(too_large), self._explained(signal, cuts, too_large))

    def _explained(self, signal: Signal, cuts: Sequence[tuple[int, str, int, str]], too_large: Sequence[int]) -> str:
        what, limit = ("span" if signal == "traces" else "log record"), self._config.message_bytes_max
        said = []
        if cuts:
            values = [
                f"{what} {index}: {key[:_KEY_CHARS_MAX]}, {size} bytes, xxh3 {xxh3}" for index, key, size, xxh3 in cuts
            ]
            said.append(f"values were cut in {what}s over {limit} bytes (journal.message_bytes_max): {_listed(values)}")
        if too_large:
            indexes = [f"{what} {index}" for index in too_large]
            said.append(f"{what}s over {limit} bytes even when cut (journal.message_bytes_max): {_listed(indexes)}")
        return "; ".join(said)

    # To the brokers

    async def _send(self, tenant: str, received_unix_nano: int, signal: Signal, parts: Sequence[Part]) -> bool:
        topic = self._config.topic(signal)
        records = [
            (topic, partition, body, headers(tenant, received_unix_nano, items)) for partition, items, body in parts
        ]
        return await self.send(records)

    async def send(self, records: Sequence[tuple[str, int | None, bytes, Headers]]) -> bool:
        """Hand (topic, partition, value, headers) over; True once all are acknowledged, False if the brokers are away.

        No value may be longer than `message_bytes_max`. Retention counts from now, however long a spool had it.
        """
        producer = self._producer
        if producer is None:
            return False
        futures: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(self._config.ack_timeout_s):
                for topic, partition, value, around in records:
                    futures.append(await producer.send(topic, value, partition=partition, headers=list(around)))
                await asyncio.gather(*futures)
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            for future in futures:
                future.add_done_callback(_forgotten)
            self._give_up(producer, error)
            return False
        self.counts.messages += len(records)
        return True

    def _give_up(self, producer: AIOKafkaProducer, error: Exception) -> None:
        if self._producer is not producer:
            return  # someone else was quicker
        _log.warning("the producer failed and is built anew", error=type(error).__name__)
        self._producer = None
        self.up = False
        self.counts.rebuilds += 1
        self._wanted.set()
        self._spawn(discard(producer))

    async def _connect(self) -> None:
        producer = self._build(self._config, self._connection)
        try:
            async with asyncio.timeout(2 * self._config.ack_timeout_s):
                await producer.start()
                for topic in self._config.signals:
                    self._partitions[topic] = len(await producer.partitions_for(topic))
        except BaseException:
            await discard(producer)
            raise
        self._producer = producer
        # What waits in the spool goes first and proves that the brokers really take something.
        self.up = self._spool is None or not self._spool.unfinished

    async def _reconnect(self) -> None:
        told_s = float("-inf")
        while not self._closed:
            await self._wanted.wait()
            self._wanted.clear()
            while self._producer is None and not self._closed:
                try:
                    await self._connect()
                except (Exception, asyncio.CancelledError) as error:  # whatever it is: nobody else connects
                    if self._closed:
                        raise
                    if self._monotonic() - told_s > _TELL_AGAIN_S:
                        told_s = self._monotonic()
                        _log.warning("brokers do not answer", error=type(error).__name__)
                    await asyncio.sleep(_PAUSE_S)

    # While they are away

    async def _set_aside(self, tenant: str, signal: Signal, parts: Sequence[Part]) -> None:
        if self._spool is None:
            raise self._refused("away", "the Kafka brokers do not answer")
        spool = self._spool
        await asyncio.gather(*(spool.append(tenant, signal, items, body) for _, items, body in parts))
        self.counts.spooled += 1

    async def _drain(self, spool: SqliteJournal) -> None:
        taken: SealedRange | None = None
        while not self._closed:
            if self._producer is None:
                await asyncio.sleep(0.05)
                continue
            try:
                if taken is None:
                    taken = await asyncio.to_thread(spool.seal, bytes_max=_DRAIN_BYTES, timeout_s=0.5)
                if taken is None:
                    self.up = self._producer is not None
                    continue
                while not await self._send_range(taken):  # noqa: ASYNC110 - tries again, waits for nothing
                    await asyncio.sleep(0.1)
                self.up = True
                await asyncio.to_thread(spool.done, taken)
                self.counts.drained += len(taken.frames)
                taken = None
            except Exception as error:  # a full disk, a damaged file: the spool keeps what it has
                _log.warning("the spool could not be drained", error=type(error).__name__)
                await asyncio.sleep(_PAUSE_S)

    async def _send_range(self, taken: SealedRange) -> bool:
        sent = []
        for frame in taken.frames:
            try:
                parts, _ = await self._split(frame.signal, frame.body)
            except RejectedError:  # too many parts, which nobody knew when it was accepted
                parts, _ = await self._split(frame.signal, frame.body, partitions=1)
            sent.append(self._send(frame.tenant, frame.received_unix_nano, frame.signal, parts))
        return all(await asyncio.gather(*sent))

    async def close(self) -> None:
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._producer is not None:
            producer, self._producer = self._producer, None
            try:
                await asyncio.wait_for(producer.stop(), self._config.ack_timeout_s)
            except (KafkaError, OSError, TimeoutError):
                await discard(producer)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _forgotten(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _listed(items: Sequence[str]) -> str:
    return ", ".join([*items[:_LISTED_MAX], *(["..."] if len(items) > _LISTED_MAX else [])])
