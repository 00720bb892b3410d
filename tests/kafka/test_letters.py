"""Dead letters that are many, and brokers that are slow to take them back."""

from __future__ import annotations

import asyncio
import io
import itertools
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from spanwise.cli import kafka
from spanwise.journal import JournalError
from spanwise.journal.kafka import journal as journals
from spanwise.journal.kafka import letters
from spanwise.journal.kafka.journal import list_dead_letters, replay_dead_letters
from tests.kafka.broker import Cluster
from tests.kafka.fleet import environment, journal_config, made
from tests.kafka.test_journal import one, produce, reading, take


@pytest.mark.parametrize("seconds", [0.4, 5])
def test_sending_letters_again_takes_as_long_as_it_needs_and_ends_where_nothing_moves(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}))
    produce(cluster.addresses, config.traces_topic, *[b"garbage"] * 5, one(1))
    with reading(config, tmp_path) as journal:
        journal.done(take(journal))
    send = AIOKafkaProducer.send_and_wait

    async def slowly(*what: Any, **more: Any) -> Any:
        await asyncio.sleep(seconds)
        return await send(*what, **more)

    monkeypatch.setattr(AIOKafkaProducer, "send_and_wait", slowly)
    monkeypatch.setattr(journals, "_ADMIN_S", 1.5)
    monkeypatch.setattr(letters, "_STALLED_S", 1.5)
    sent: list[None] = []
    if seconds < 1:
        replay_dead_letters(config, lambda: sent.append(None))
        assert len(sent) == 5
        assert list_dead_letters(config, 10) == []
    else:
        with pytest.raises(JournalError, match=r"cannot reach Kafka .*: TimeoutError"):
            replay_dead_letters(config, lambda: sent.append(None))
        assert sent == []


def test_whoever_interrupts_it_is_told_how_many_were_sent_and_it_goes_on_from_there(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}))
    produce(cluster.addresses, config.traces_topic, *[b"garbage"] * 5, one(1))
    with reading(config, tmp_path) as journal:
        journal.done(take(journal))
    for name, value in environment(config).items():
        monkeypatch.setenv(name, value)
    send = AIOKafkaProducer.send_and_wait
    numbers = itertools.count()

    async def interrupted(*what: Any, **more: Any) -> Any:
        if next(numbers) == 3:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.sleep(60)
        return await send(*what, **more)

    first, second = io.StringIO(), io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(AIOKafkaProducer, "send_and_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kafka.replay_dead_letters(None, first)
    kafka.replay_dead_letters(None, second)
    assert first.getvalue() == "3 dead letters were sent again\n"
    assert second.getvalue() == "2 dead letters were sent again\n"


def test_a_letter_that_others_wrote_keeps_the_time_it_was_received(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}))
    produce(cluster.addresses, config.traces_topic, b"garbage", one(1))
    time.sleep(0.1)
    read = datetime.now(UTC)
    with reading(config, tmp_path) as journal:
        journal.done(take(journal))
    (letter,) = list_dead_letters(config, 10)
    assert letter.received < read
