"""The Kafka journal by itself, against a real broker: what it acknowledges, seals, resumes, refuses and sets aside."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.payloads import agent, small
from spanwise.journal import JournalError, KafkaJournalConfig
from spanwise.journal.kafka.journal import KafkaJournal, list_dead_letters, replay_dead_letters
from spanwise.journal.kafka.quiet import Seldom
from spanwise.stage import OverloadedError, RejectedError, SealedRange
from tests.kafka.broker import Cluster
from tests.kafka.fleet import journal_config, made
from tests.native.requests import attribute, request_of, span

NOW = time.time_ns()


@contextmanager
def reading(config: KafkaJournalConfig, directory: Path, **told: Callable[..., None]) -> Iterator[KafkaJournal]:
    journal = config.build(directory)
    try:
        journal.start_reading(told.get("assigned", lambda _: None), told.get("revoked", lambda: None))
        yield journal
    finally:
        journal.close()


def append(journal: KafkaJournal, *bodies: bytes, tenant: str = "acme") -> None:
    async def send() -> None:
        await asyncio.gather(*(journal.append(tenant, "traces", 1, body) for body in bodies))

    asyncio.run(send())


def take(journal: KafkaJournal, timeout_s: float = 20, bytes_max: int = 1 << 24) -> SealedRange:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        taken = journal.seal(bytes_max=bytes_max, timeout_s=0.5)
        if taken is not None:
            return taken
    raise AssertionError(f"nothing was sealed in {timeout_s} s")


def take_spans(journal: KafkaJournal, count: int, *, forget: bool = True) -> list[SealedRange]:
    """Ranges until they hold `count` spans."""
    ranges: list[SealedRange] = []
    while sum(len(ids(frame.body)) for one in ranges for frame in one.frames) < count:
        ranges.append(take(journal))
        if forget:
            journal.done(ranges[-1])
    return ranges


def ids(body: bytes) -> list[bytes]:
    request = ExportTraceServiceRequest.FromString(body)
    return [
        one.trace_id + one.span_id
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for one in scope.spans
    ]


def one(number: int, name: str = "span") -> bytes:
    return request_of(span(trace_id=number.to_bytes(16, "big"), name=name).SerializeToString())


def produce(servers: str, topic: str, *values: bytes, partition: int = 0) -> None:
    """As another program would, without our headers."""

    async def run() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=servers, max_request_size=8 << 20)
        await producer.start()
        try:
            for value in values:
                await producer.send_and_wait(topic, value, partition=partition)
        finally:
            await producer.stop()

    asyncio.run(run())


def test_what_was_appended_comes_back_with_tenant_and_time_and_each_trace_in_one_partition(
    cluster: Cluster, tmp_path: Path
) -> None:
    config = made(journal_config(cluster.addresses))
    payloads = [small(1, NOW), agent(2, NOW)]
    with reading(config, tmp_path) as journal:
        before = time.time_ns()
        append(journal, *(payload.body for payload in payloads))
        ranges = take_spans(journal, sum(payload.spans for payload in payloads))
    found = [(taken, frame) for taken in ranges for frame in taken.frames]
    spans = [identity for _, frame in found for identity in ids(frame.body)]
    assert sorted(spans) == sorted(identity for payload in payloads for identity in payload.ids)
    assert {frame.tenant for _, frame in found} == {"acme"}
    assert all(before <= frame.received_unix_nano <= time.time_ns() for _, frame in found)
    assert all(len(frame.body) <= config.message_bytes_max for _, frame in found)
    places: dict[bytes, set[str]] = {}
    for taken, frame in found:
        for identity in ids(frame.body):
            places.setdefault(identity[:16], set()).add(taken.token.rsplit(":", 1)[0])
    assert all(len(place) == 1 for place in places.values())


def test_other_programs_can_read_the_messages_as_plain_otlp(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}))
    journal = config.build(tmp_path)
    try:
        append(journal, one(1, "plain"))
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
    assert ExportTraceServiceRequest.FromString(message.value) == ExportTraceServiceRequest.FromString(one(1, "plain"))
    assert dict(message.headers)["spanwise-tenant"] == b"acme"


def test_topics_of_the_collectors_exporter_can_be_read_in_both_encodings(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses, foreign_tenant="fleet"))
    as_json = {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "0" * 31 + "2", "spanId": "0" * 15 + "3"}]}]}]}
    produce(cluster.addresses, config.traces_topic, one(1), json.dumps(as_json).encode())
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add(event_name="e")
    produce(cluster.addresses, config.logs_topic, logs.SerializeToString())
    with reading(config, tmp_path) as journal:
        frames = [frame for _ in range(2) for frame in _taken(journal).frames]
    assert sorted((frame.signal, frame.tenant) for frame in frames) == [
        ("logs", "fleet"),
        ("traces", "fleet"),
        ("traces", "fleet"),
    ]
    traces = [frame.body for frame in frames if frame.signal == "traces"]
    assert [identity[15] for body in traces for identity in ids(body)] == [1, 2]


def _taken(journal: KafkaJournal) -> SealedRange:
    taken = take(journal)
    journal.done(taken)
    return taken


def test_a_range_that_was_begun_is_formed_again_by_whoever_comes_next(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}, flush_s=0.1))
    with reading(config, tmp_path / "first") as journal:
        append(journal, *(one(number) for number in range(1, 21)))
        begun = take(journal, bytes_max=300)
        stored = _stored_after(journal, begun)
        open_ = take(journal, bytes_max=300)
    with reading(config, tmp_path / "second") as journal:
        append(journal, *(one(number) for number in range(21, 41)))
        again = _taken(journal)
        rest = take_spans(journal, 40 - len(stored.frames) - len(again.frames))
    assert (again.token, again.frames) == (open_.token, open_.frames)
    assert len(open_.frames) < 10
    spans = [identity for taken in (stored, again, *rest) for frame in taken.frames for identity in ids(frame.body)]
    assert len(spans) == len(set(spans)) == 40


def _stored_after(journal: KafkaJournal, taken: SealedRange) -> SealedRange:
    journal.done(taken)
    return taken


def test_watermarks_come_back_with_the_partitions(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses))
    with reading(config, tmp_path / "first") as journal:
        journal.set_meta("one", "1234567")
        journal.set_meta("other", "89")
        append(journal, one(1))
        _taken(journal)
    told: list[Mapping[str, int]] = []
    with reading(config, tmp_path / "second", assigned=told.append) as journal:
        append(journal, one(2))
        _taken(journal)
    assert told == [{"one": 1234567, "other": 89}]


def test_traces_belong_to_the_worker_that_reads_their_partition(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses))
    traces = [f"{number:032x}" for number in range(1, 200)]
    with reading(config, tmp_path / "a") as first:
        append(first, one(1))
        _taken(first)
        assert all(first.owned(traces))
        with reading(config, tmp_path / "b") as second:
            deadline = time.monotonic() + 20
            while not (any(second.owned(traces)) and not all(first.owned(traces))) and time.monotonic() < deadline:
                time.sleep(0.05)
            mine, others = first.owned(traces), second.owned(traces)
    assert [a != b for a, b in zip(mine, others, strict=True)] == [True] * len(traces)
    assert any(mine)


def test_a_span_over_the_message_size_is_cut_and_the_sender_told(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses, message_bytes_max=20_000))
    large = request_of(span(attributes=[attribute("prompt", "x" * 100_000)]).SerializeToString())
    with reading(config, tmp_path) as journal:
        changed = asyncio.run(journal.append("t", "traces", 1, large))
        (frame,) = _taken(journal).frames
    assert changed is not None
    assert changed.left_out == 0
    assert "span 0: prompt, 100000 bytes" in changed.message
    assert len(frame.body) <= 20_000


def test_a_span_that_cannot_be_cut_to_size_is_left_out_alone_and_the_sender_told(
    cluster: Cluster, tmp_path: Path
) -> None:
    config = made(journal_config(cluster.addresses, message_bytes_max=20_000))
    many = span(attributes=[attribute(f"key-{number}", "x" * 100) for number in range(500)]).SerializeToString()
    with reading(config, tmp_path) as journal:
        changed = asyncio.run(journal.append("t", "traces", 2, request_of(span().SerializeToString(), many)))
        (frame,) = _taken(journal).frames
    assert changed is not None
    assert changed.left_out == 1
    assert "span 1" in changed.message
    assert len(ids(frame.body)) == 1


def test_what_is_no_request_is_rejected_before_it_is_sent(cluster: Cluster, tmp_path: Path) -> None:
    journal = made(journal_config(cluster.addresses)).build(tmp_path)
    try:
        with pytest.raises(RejectedError, match="not valid protobuf"):
            append(journal, b"\x0a")
        assert journal.stats().messages == 0
    finally:
        journal.close()


def test_poison_goes_to_the_dead_letters_and_the_rest_of_its_range_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}))
    produce(cluster.addresses, config.traces_topic, one(1), b"garbage", one(2), b'{"resourceSpans": 5}', one(3))
    with reading(config, tmp_path) as journal:
        frames = _taken(journal).frames
        assert journal.stats().dead_letters == 2
    assert [ids(frame.body)[0][15] for frame in frames] == [1, 2, 3]
    garbage, broken = list_dead_letters(config, 10)
    assert (garbage.topic, garbage.partition, garbage.offset) == (config.traces_topic, 0, 1)
    assert garbage.value == b"garbage"
    assert garbage.reason.startswith("unreadable: cannot read the request")
    assert (broken.offset, broken.value) == (3, b'{"resourceSpans": 5}')


def test_records_larger_than_a_fetch_or_a_dead_letter_block_nothing(cluster: Cluster, tmp_path: Path) -> None:
    roomy = made(journal_config(cluster.addresses, topics={"partitions": 1}, message_bytes_max=8_000_000))
    config = roomy.model_copy(update={"message_bytes_max": 20_000})
    large = request_of(span(name="x" * 6_000_000).SerializeToString())
    produce(cluster.addresses, config.traces_topic, large, b"\xff" * 6_000_000, one(1))
    with reading(config, tmp_path) as journal:
        frames = [frame for taken in take_spans(journal, 2) for frame in taken.frames]
    assert [len(frame.body) for frame in frames] == [len(large), len(one(1))]
    (letter,) = list_dead_letters(config, 10)
    assert letter.value == b"\xff" * 20_000
    assert letter.reason.endswith("the first 20000 of 6000000 bytes")


def test_dead_letters_are_sent_again_to_where_they_came_from_and_listed_no_more(
    cluster: Cluster, tmp_path: Path
) -> None:
    config = made(journal_config(cluster.addresses))
    with reading(config, tmp_path) as journal:
        append(journal, one(7), tenant="acme")
        taken = _taken(journal)
        journal.put(taken, taken.frames[0], "decode")
        (letter,) = list_dead_letters(config, 10)
        assert (letter.tenant, letter.reason) == ("acme", "decode")
        assert _replayed(config) == 1
        again = _taken(journal)
    assert [frame.body for frame in again.frames] == [frame.body for frame in taken.frames]
    assert again.frames[0].tenant == "acme"
    assert again.frames[0].received_unix_nano == taken.frames[0].received_unix_nano
    assert again.token.rsplit(":", 1)[0] == taken.token.rsplit(":", 1)[0]
    assert list_dead_letters(config, 10) == []
    assert _replayed(config) == 0


def _replayed(config: KafkaJournalConfig) -> int:
    sent: list[None] = []
    replay_dead_letters(config, lambda: sent.append(None))
    return len(sent)


def test_a_record_that_kills_its_process_again_and_again_is_set_aside_alone(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}, member="w", session_timeout_s=1))
    produce(cluster.addresses, config.traces_topic, *(one(number) for number in range(1, 6)))
    stored: list[int] = []
    deaths = 0
    while len(stored) < 4 and deaths < 12:
        journal = config.build(tmp_path / str(deaths))
        try:
            journal.start_reading(lambda _: None, lambda: None)
            while len(stored) < 4:
                taken = take(journal)
                numbers = [ids(frame.body)[0][15] for frame in taken.frames]
                if 3 in numbers:
                    deaths += 1
                    break
                stored += numbers
                journal.done(taken)
        finally:
            _die(journal)
    assert stored == [1, 2, 4, 5]
    assert deaths == 6  # three times with the others, three times alone
    (letter,) = list_dead_letters(config, 10)
    assert (letter.offset, letter.reason.split(":")[0]) == (2, "deadly")


def _die(journal: KafkaJournal) -> None:
    """End the connections as a killed process would: no flush, no commit, no goodbye."""
    assert journal._reader is not None
    journal._reader._partitions = {}
    journal.close()


def test_a_broken_sequence_costs_one_refusal_and_the_next_request_is_taken(cluster: Cluster, tmp_path: Path) -> None:
    """The broker answers OUT_OF_ORDER_SEQUENCE_NUMBER for ever to a producer whose numbers have a gap."""
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}, spool={}))
    with reading(config, tmp_path) as journal:
        append(journal, one(1))
        assert journal._writer is not None
        producer = journal._writer._producer
        assert producer is not None
        producer._txn_manager.increment_sequence_number(TopicPartition(config.traces_topic, 0), 1000)
        append(journal, one(2))
        append(journal, one(3))
        ranges = take_spans(journal, 3)
        assert journal.stats().producer_rebuilds == 1
    assert sorted(ids(frame.body)[0][15] for taken in ranges for frame in taken.frames) == [1, 2, 3]


def test_a_broker_that_hangs_is_refused_in_time_and_taken_up_again(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses, ack_timeout_s=0.5))
    with reading(config, tmp_path) as journal:
        append(journal, one(1))
        cluster.brokers[0].pause()
        try:
            with pytest.raises(OverloadedError, match="do not answer"):
                append(journal, one(2))
            with pytest.raises(OverloadedError, match="do not answer"):
                append(journal, one(2))
            assert journal.refusing() == "the Kafka brokers do not answer"
        finally:
            cluster.brokers[0].resume()
        deadline = time.monotonic() + 20
        while journal.refusing() and time.monotonic() < deadline:
            time.sleep(0.05)
        append(journal, one(3))
        assert journal.stats().refused["away"] == 2
        found: set[int] = set()
        while not {1, 3} <= found:  # 2 may be there as well: it was not acknowledged, and not withdrawn
            found |= {identity[15] for frame in _taken(journal).frames for identity in ids(frame.body)}


@pytest.mark.parametrize("end", [None, asyncio.CancelledError, AttributeError], ids=["well", "cancelled", "broken"])
def test_a_reader_that_is_stuck_connects_anew_however_its_client_ends(
    cluster: Cluster, tmp_path: Path, end: type[BaseException] | None
) -> None:
    config = made(journal_config(cluster.addresses)).model_copy(update={"stalled_s": 0.5})

    async def stuck(**_: int) -> dict[TopicPartition, list[object]]:
        await asyncio.sleep(0.05)
        return {}

    async def stop() -> None:
        await ended()
        if end is not None:  # as it does where brokers were away for a minute
            raise end

    with reading(config, tmp_path) as journal:
        append(journal, one(1))
        _taken(journal)
        assert journal._reader is not None
        assert journal._reader._consumer is not None
        before = journal.stats().consumer_rebuilds
        time.sleep(1)  # idle, which is not stuck
        assert journal.stats().consumer_rebuilds == before
        ended = journal._reader._consumer.stop
        journal._reader._consumer.getmany = stuck
        journal._reader._consumer.stop = stop
        time.sleep(0.3)  # until the last honest question is over
        append(journal, one(2))
        (frame,) = _taken(journal).frames
        assert journal.stats().consumer_rebuilds > before
    assert frame.body == one(2)


def test_brokers_that_are_away_at_the_start_are_named(tmp_path: Path) -> None:
    config = journal_config("127.0.0.1:1")
    with pytest.raises(JournalError, match=r"cannot reach Kafka at 127\.0\.0\.1:1 \(journal\.servers\)"):
        config.build(tmp_path)


def test_the_client_repeats_itself_twice_a_minute_at_most() -> None:
    now = [0.0]
    seldom = Seldom(lambda: now[0])
    told = []
    for second in range(70):
        now[0] = float(second)
        for text in ("cannot reach %s", "no leader for %s"):
            record = logging.LogRecord("aiokafka.conn", logging.ERROR, "", 0, text, (second,), None)
            told += [(second, text)] * seldom.filter(record)
    assert [second for second, text in told if text.startswith("cannot")] == [0, 30, 60]
    assert len(told) == 6
