"""Dead letters: records that can never be stored, kept in a topic of their own until someone sends them again.

What was sent again is remembered as the committed offset of a consumer group, so that a list shows only what waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from spanwise.journal.kafka import record as names
from spanwise.journal.kafka.config import KafkaJournalConfig
from spanwise.journal.kafka.record import Headers, Record
from spanwise.journal.kafka.writer import discard, new_producer

_OURS: Final = (names.TENANT, names.RECEIVED, names.ITEMS)
_REASON_CHARS_MAX: Final = 300
_STALLED_S: Final = 60.0
"""The brokers are away if a letter takes longer."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that was set aside."""

    number: int
    """Its place among the dead letters of its partition; growing."""
    topic: str
    partition: int
    offset: int
    reason: str
    tenant: str
    received: datetime
    size: int
    value: bytes
    headers: Headers


def as_letter(record: Record, reason: str) -> list[tuple[str, bytes]]:
    """The headers a record gets as a dead letter."""
    kept = {key: value for key, value in record.headers if key in _OURS and len(value or b"") <= names.HEADER_BYTES_MAX}
    kept.setdefault(names.RECEIVED, b"%d" % (record.timestamp_ms * 1_000_000))
    return [
        *kept.items(),
        (names.REASON, reason[:_REASON_CHARS_MAX].encode()),
        (names.TOPIC, record.topic.encode()),
        (names.PARTITION, b"%d" % record.partition),
        (names.OFFSET, b"%d" % record.offset),
    ]


def _letter(message: Any) -> DeadLetter:
    found: Headers = message.headers
    received = names.number(found, names.RECEIVED, message.timestamp * 1_000_000)
    return DeadLetter(
        number=message.offset,
        topic=names.text(found, names.TOPIC),
        partition=names.number(found, names.PARTITION, -1),
        offset=names.number(found, names.OFFSET, -1),
        reason=names.text(found, names.REASON),
        tenant=names.text(found, names.TENANT),
        received=datetime.fromtimestamp(received / 1e9, UTC),
        size=len(message.value or b""),
        value=message.value or b"",
        headers=[(key, value) for key, value in found if key in _OURS],
    )


@asynccontextmanager
async def _reading(config: KafkaJournalConfig, connection: Mapping[str, Any]) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        **connection,
        group_id=f"{config.group}-dead-letters",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=max(4 << 20, 2 * config.message_bytes_max),
    )
    await consumer.start()
    try:
        count = len(await consumer._client._wait_on_metadata(config.dead_letters_topic))
        consumer.assign([TopicPartition(config.dead_letters_topic, number) for number in range(count)])
        yield consumer
    finally:
        await consumer.stop()


async def _waiting(consumer: AIOKafkaConsumer) -> AsyncIterator[tuple[TopicPartition, DeadLetter]]:
    for at, end in (await consumer.end_offsets(list(consumer.assignment()))).items():
        while await consumer.position(at) < end:
            for message in (await consumer.getmany(at, timeout_ms=1000, max_records=100)).get(at, ()):
                yield at, _letter(message)


async def waiting(
    config: KafkaJournalConfig, connection: Mapping[str, Any], most: int, *, values: bool
) -> list[DeadLetter]:
    """The oldest dead letters that were not sent again, `most` of them, their values empty if not wanted.

    Raises KafkaError.
    """
    found: list[DeadLetter] = []
    async with _reading(config, connection) as consumer:
        async for _, letter in _waiting(consumer):
            found.append(letter if values else replace(letter, value=b""))
            if len(found) == most:
                break
    return found


async def replay(config: KafkaJournalConfig, connection: Mapping[str, Any], on_sent: Callable[[], None]) -> None:
    """Send all dead letters to the partitions they came from, and remember that; `on_sent` hears of each one.

    Interrupted, it begins again after the last one that is remembered: one may be sent twice. Raises KafkaError, and
    TimeoutError where one takes longer than a minute.
    """
    producer = new_producer(config, dict(connection))
    try:
        async with asyncio.timeout(_STALLED_S) as limit:
            await producer.start()
            async with _reading(config, connection) as consumer:
                async for at, letter in _waiting(consumer):
                    known = await producer.partitions_for(letter.topic)
                    partition = letter.partition if letter.partition in known else None
                    await producer.send_and_wait(
                        letter.topic, letter.value, partition=partition, headers=list(letter.headers)
                    )
                    await consumer.commit({at: OffsetAndMetadata(letter.number + 1, "")})
                    on_sent()
                    limit.reschedule(asyncio.get_running_loop().time() + _STALLED_S)
    finally:
        await discard(producer)
