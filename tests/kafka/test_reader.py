"""The reading half against a real broker whose client fails in ways that only happen once in a while."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from spanwise.journal.kafka.journal import KafkaJournal, list_dead_letters
from tests.kafka.broker import Cluster
from tests.kafka.fleet import journal_config, made
from tests.kafka.test_journal import append, ids, one, reading, take
from tests.kafka.test_writer import grow


def _reader(journal: KafkaJournal) -> Any:
    assert journal._reader is not None
    return journal._reader


def _takes(journal: KafkaJournal, number: int) -> None:
    """What is appended now arrives."""
    append(journal, one(number))
    found: list[int] = []
    while number not in found:  # what came before may come again where it could not be recorded
        taken = take(journal)
        found += [ids(frame.body)[0][15] for frame in taken.frames]
        journal.done(taken)


def wait_until(reached: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _rejoining(journal: KafkaJournal, attempt: Callable[[Any], Awaitable[bool]]) -> None:
    """Join the group again while no broker answers a fetch; the first attempt ends as told."""
    consumer = _reader(journal)._consumer
    join, fetch = consumer._coordinator._do_rejoin_group, consumer.getmany
    attempted = threading.Event()

    async def nothing(**_: int) -> dict[TopicPartition, list[object]]:
        await asyncio.sleep(0.05)
        return {}

    async def once(subscription: Any) -> bool:
        consumer._coordinator._do_rejoin_group, consumer.getmany = join, fetch
        attempted.set()
        return await attempt(subscription)

    consumer.getmany = nothing
    time.sleep(0.5)  # until the last honest fetch is over
    consumer._coordinator._do_rejoin_group = once

    async def ask() -> None:  # as if another worker came or went
        consumer._coordinator.request_rejoin()

    journal._loop.run(ask(), 5)
    assert attempted.wait(20)


def test_partitions_that_were_on_the_move_for_minutes_come_back(cluster: Cluster, tmp_path: Path) -> None:
    """The client takes who asks for no records for five minutes for idle, and lets them never join again."""
    config = made(journal_config(cluster.addresses))
    with reading(config, tmp_path) as journal:
        _takes(journal, 1)

        async def brokers_away(_: Any) -> bool:
            _reader(journal)._consumer._subscription._last_fetch_ended = time.monotonic() - 400
            return False

        _rejoining(journal, brokers_away)
        _takes(journal, 2)
        assert journal.stats().consumer_rebuilds == 0


def test_a_group_that_fails_while_partitions_move_is_joined_anew(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses))
    with reading(config, tmp_path) as journal:
        _takes(journal, 1)

        async def failing(_: Any) -> bool:
            raise KafkaError("an answer that the client does not know")

        _rejoining(journal, failing)
        _takes(journal, 2)
        assert journal.stats().consumer_rebuilds == 1


def test_plans_and_watermarks_are_not_taken_for_none_while_the_group_is_being_loaded(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that does not have the group answers with an error for all of it, and with no partition."""
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}, flush_s=0.2))
    with reading(config, tmp_path) as journal:
        journal.set_meta("something", "17")
        append(journal, one(1))
        planned = take(journal)
        append(journal, one(2))
    ask = AIOKafkaAdminClient.list_consumer_group_offsets
    answers = 0

    async def loading(admin: AIOKafkaAdminClient, *what: Any, **more: Any) -> dict[TopicPartition, Any]:
        nonlocal answers
        answers += 1
        return {} if answers < 3 else await ask(admin, *what, **more)

    monkeypatch.setattr(AIOKafkaAdminClient, "list_consumer_group_offsets", loading)
    told: list[Mapping[str, int]] = []
    with reading(config, tmp_path, assigned=told.append) as journal:
        assert take(journal).token == planned.token
    assert told == [{"something": 17}]


@pytest.mark.parametrize("error", [AttributeError, asyncio.CancelledError])
def test_a_reader_reads_on_whatever_its_client_raises_while_it_is_given_up(
    cluster: Cluster, tmp_path: Path, error: type[BaseException]
) -> None:
    config = made(journal_config(cluster.addresses))
    with reading(config, tmp_path) as journal:
        _takes(journal, 1)

        async def broken(*_: Any, **__: Any) -> None:
            raise error

        consumer = _reader(journal)._consumer
        consumer.commit = consumer.getmany = broken
        wait_until(lambda: journal.stats().consumer_rebuilds == 1)
        _takes(journal, 2)


def _produce(cluster: Cluster, topic: str, *records: Mapping[str, Any], compression: str | None = None) -> None:
    """As another program would."""

    async def run() -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=cluster.addresses, compression_type=compression, max_request_size=8 << 20
        )
        await producer.start()
        try:
            for record in records:
                await producer.send_and_wait(topic, partition=0, **record)
        finally:
            await producer.stop()

    asyncio.run(run())


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_records_that_others_compress_are_read(cluster: Cluster, tmp_path: Path, codec: str) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}, flush_s=0.2))
    _produce(cluster, config.traces_topic, {"value": one(1, "x" * 10_000)}, compression=codec)
    with reading(config, tmp_path) as journal:
        assert [frame.body for frame in take(journal).frames] == [one(1, "x" * 10_000)]


def test_headers_too_large_for_a_dead_letter_block_nothing(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}, flush_s=0.2))
    huge = b"t" * 2_000_000  # compressed it is far below what the topic allows
    _produce(
        cluster,
        config.traces_topic,
        {"value": b"garbage", "headers": [("spanwise-tenant", huge)]},
        {"value": one(1), "headers": [("spanwise-tenant", huge)]},
        {"value": one(2)},
        compression="gzip",
    )
    with reading(config, tmp_path) as journal:
        (frame,) = take(journal).frames
        assert frame.body == one(2)
        assert journal.stats().producer_rebuilds == 0
    garbage, nobodys = list_dead_letters(config, 10)
    assert (garbage.value, garbage.tenant) == (b"garbage", "")
    assert (nobodys.value, nobodys.reason) == (one(1), "unreadable: its tenant is 2000000 bytes long")


def test_a_plan_for_records_that_a_topic_has_lost_does_not_hold_up_the_new_ones(
    cluster: Cluster, tmp_path: Path
) -> None:
    """A broker that came back without its end, or an offset that was set by hand."""
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}, flush_s=0.2))
    at = TopicPartition(config.traces_topic, 0)

    async def plan() -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=cluster.addresses, group_id=config.group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            consumer.assign([at])
            await consumer.commit({at: OffsetAndMetadata(100, '{"planned":[[110,1]]}')})
        finally:
            await consumer.stop()

    asyncio.run(plan())
    _produce(cluster, config.traces_topic, *({"value": one(number)} for number in (1, 2, 3)))
    with reading(config, tmp_path) as journal:
        taken = take(journal)
        assert [ids(frame.body)[0][15] for frame in taken.frames] == [1, 2, 3]
        assert taken.token.startswith(f"{config.traces_topic}:0:0-2@")


def test_a_range_whose_plan_was_refused_is_not_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}, flush_s=0.2))
    with reading(config, tmp_path) as journal:
        _takes(journal, 1)
        consumer = _reader(journal)._consumer
        commit = consumer.commit

        async def gone(_: Any) -> None:
            raise CommitFailedError

        consumer.commit = gone
        append(journal, one(2))
        wait_until(lambda: journal.pending_bytes > 0)
        assert journal.seal(bytes_max=1 << 20, timeout_s=0) is None
        assert journal.stats().ranges_open == 0
        consumer.commit = commit
        assert [ids(frame.body)[0][15] for frame in take(journal).frames] == [2]


def test_workers_hear_of_what_was_undecided_before_partitions_were_added(cluster: Cluster, tmp_path: Path) -> None:
    """A trace that is going on has another owner then, which may have no partition that knows of it."""
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}, flush_s=0.2))
    with reading(config, tmp_path / "before") as journal:
        journal.set_meta("something", "17")
        _takes(journal, 1)
    grow(cluster, config, 2)
    told: dict[str, Mapping[str, int]] = {}

    @contextmanager
    def worker(name: str) -> Iterator[KafkaJournal]:
        def assigned(marks: Mapping[str, int]) -> None:  # they stay as they are until all is found again
            told[name] = marks
            for mark, value in marks.items():
                started[-1].set_meta(mark, str(value))

        started.append(config.build(tmp_path / name))
        try:
            started[-1].start_reading(assigned, lambda: None)
            yield started[-1]
        finally:
            started.pop().close()

    started: list[KafkaJournal] = []
    with worker("a") as first:
        wait_until(lambda: first.stats().partitions == 4)
        told.clear()
        with worker("b") as second:
            wait_until(lambda: first.stats().partitions == second.stats().partitions == 2)
            assert told == {"a": {"something": 17}, "b": {"something": 17}}


def test_a_worker_that_is_cut_off_from_the_brokers_for_a_session_is_not_sure_of_its_partitions(
    cluster: Cluster, tmp_path: Path
) -> None:
    """It runs on and reaches the store, while its partitions may have been given to others."""
    config = made(journal_config(cluster.addresses, session_timeout_s=2, flush_s=0.2))
    with reading(config, tmp_path) as journal:
        wait_until(lambda: journal.term() is not None)
        until = time.monotonic() + 3
        while time.monotonic() < until:  # idle, which is not cut off
            assert journal.term() is not None
            time.sleep(0.05)
        cluster.brokers[0].pause()
        try:
            wait_until(lambda: journal.term() is None, timeout_s=4)
        finally:
            cluster.brokers[0].resume()
        wait_until(lambda: journal.term() is not None)
        _takes(journal, 1)


def test_a_planned_range_whose_records_have_expired_is_counted_and_passed_over(
    cluster: Cluster, tmp_path: Path
) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}, flush_s=0.2))
    with reading(config, tmp_path) as journal:
        append(journal, *(one(number) for number in range(1, 6)))
        take(journal)

    async def expire() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.addresses)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(config.traces_topic, 0): RecordsToDelete(before_offset=5)})
        finally:
            await admin.close()

    asyncio.run(expire())
    with reading(config, tmp_path) as journal:
        append(journal, one(9))
        gone = take(journal)
        journal.done(gone)
        following = take(journal)
        journal.done(following)
        assert journal.stats().expired == 1
    assert gone.frames == ()
    assert [frame.body for frame in following.frames] == [one(9)]
