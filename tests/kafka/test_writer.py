"""The writing half with a client that fails as the real one does once in a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from spanwise.journal import KafkaJournalConfig, SqliteJournal
from spanwise.journal.kafka.journal import KafkaJournal
from spanwise.journal.kafka.writer import Writer
from tests.kafka.broker import Cluster
from tests.kafka.fleet import journal_config, made
from tests.kafka.test_journal import append, ids, one
from tests.native.requests import attribute, request_of, span


class Producer:
    """Takes everything. `fails` is raised by `start`."""

    def __init__(self, partitions: int, fails: type[BaseException] | None = None) -> None:
        self.partitions = partitions
        self.fails = fails
        self.sent: list[tuple[int, bytes]] = []
        cluster = SimpleNamespace(partitions_for_topic=lambda _: set(range(self.partitions)))
        self.client = SimpleNamespace(cluster=cluster, close=self._nothing)
        self._message_accumulator = SimpleNamespace(fail_all=lambda _: None)

    async def _nothing(self) -> None:
        pass

    async def start(self) -> None:
        if self.fails is not None:
            raise self.fails

    async def stop(self) -> None:
        if self.fails is not None:
            raise self.fails

    async def partitions_for(self, _: str) -> set[int]:
        return set(range(self.partitions))

    async def send(self, _: str, value: bytes, *, partition: int, **__: Any) -> asyncio.Future[None]:
        self.sent.append((partition, value))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@asynccontextmanager
async def writing(config: KafkaJournalConfig, directory: Path, *producers: Producer) -> AsyncIterator[Writer]:
    """A writer that is given these producers one after the other."""
    coming = iter(producers)
    spool: SqliteJournal | None = config.spool.build(directory) if config.spool is not None else None
    writer = Writer(config, {}, spool, build=lambda *_: next(coming))
    await writer.start()
    try:
        yield writer
    finally:
        await writer.close()
        if spool is not None:
            await asyncio.to_thread(spool.close)


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached():  # noqa: ASYNC110 - whoever reaches it knows nothing of this test
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("error", [AttributeError, asyncio.CancelledError])
def test_brokers_are_reached_again_whatever_the_client_raised_meanwhile(
    tmp_path: Path, error: type[BaseException]
) -> None:
    async def run() -> None:
        config = journal_config("127.0.0.1:1", spool={})
        well = Producer(4)
        async with writing(config, tmp_path, Producer(4, OSError), Producer(4, error), well) as writer:
            await writer.append("acme", 1, "traces", one(1))
            await until(lambda: len(well.sent) == 1)

    asyncio.run(run())


def test_a_spooled_request_that_no_longer_can_be_split_is_sent_in_one_piece_and_holds_nothing_up(
    tmp_path: Path,
) -> None:
    """While the number of partitions is not known it is kept whole; in parts it may be many times as large."""
    large = Resource(attributes=[attribute("command", "x" * 900_000)]).SerializeToString()
    traces = [span(trace_id=number.to_bytes(16, "big")).SerializeToString() for number in range(1, 65)]
    bodies = [request_of(*traces, resource=large), one(1)]

    async def run() -> None:
        config = journal_config("127.0.0.1:1", spool={})
        well = Producer(64)
        async with writing(config, tmp_path, Producer(64, OSError), well) as writer:
            for body in bodies:
                await writer.append("acme", 1, "traces", body)

            def arrived() -> list[bytes]:
                return sorted(identity for _, body in well.sent for identity in ids(body))

            await until(lambda: arrived() == sorted(identity for body in bodies for identity in ids(body)))
            assert writer.counts.spooled

    asyncio.run(run())


def grow(cluster: Cluster, config: KafkaJournalConfig, partitions: int) -> None:
    """As `kafka-topics.sh --alter --partitions` does, to both topics."""

    async def run() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.addresses)
        await admin.start()
        try:
            await admin.create_partitions({topic: NewPartitions(total_count=partitions) for topic in config.signals})
        finally:
            await admin.close()

    asyncio.run(run())


def test_partitions_that_are_added_are_written_to_without_a_new_connection(cluster: Cluster, tmp_path: Path) -> None:
    """Else receivers that started before and after would send one trace to two workers for ever."""
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}))
    journal = config.build(tmp_path)
    try:
        assert journal._writer is not None
        producer = journal._writer._producer
        assert producer is not None

        async def hear() -> int:
            """As the client does every five minutes."""
            await producer.client.force_metadata_update()
            return len(await producer.partitions_for(config.traces_topic))

        grow(cluster, config, 4)
        while journal._loop.run(hear(), 10) == 1:
            pass
        append(journal, *(one(number) for number in range(1, 20)))
        assert {partition for topic, partition in _ends(cluster, config) if topic == config.traces_topic} == {
            0,
            1,
            2,
            3,
        }
        assert journal.stats().producer_rebuilds == 0
    finally:
        journal.close()


def _ends(cluster: Cluster, config: KafkaJournalConfig) -> dict[tuple[str, int], int]:
    """Records in each partition that has any."""

    async def run() -> dict[tuple[str, int], int]:
        consumer = AIOKafkaConsumer(bootstrap_servers=cluster.addresses)
        await consumer.start()
        try:
            found = [TopicPartition(topic, number) for topic in config.signals for number in range(4)]
            return {(at.topic, at.partition): end for at, end in (await consumer.end_offsets(found)).items() if end}
        finally:
            await consumer.stop()

    return asyncio.run(run())


def test_retention_counts_from_when_a_request_was_written_not_from_when_it_was_received(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Else what a spool held for long would be deleted before a worker that lags has read it."""
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}))
    long_ago = time.time_ns() - 100 * 3600 * 10**9
    journal = KafkaJournal(config, tmp_path, wall_clock_ns=lambda: long_ago)
    try:
        append(journal, one(1))
    finally:
        journal.close()

    async def read() -> Any:
        consumer = AIOKafkaConsumer(bootstrap_servers=cluster.addresses)
        await consumer.start()
        try:
            consumer.assign([TopicPartition(config.traces_topic, 0)])
            await consumer.seek_to_beginning()
            return await consumer.getone()
        finally:
            await consumer.stop()

    message = asyncio.run(read())
    assert abs(message.timestamp / 1000 - time.time()) < 60
    assert dict(message.headers)["spanwise-received-unix-nano"] == b"%d" % long_ago
