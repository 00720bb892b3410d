"""The broker of the tests is the real one: what it acknowledged survives kill -9, and it refuses what is too large."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import MessageSizeTooLargeError

from tests.kafka.broker import Broker, Cluster


async def _create(address: str, topic: str, **options: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=options)])
    finally:
        await admin.close()


async def _send(address: str, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", max_request_size=8 << 20)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def _read(address: str, topic: str) -> bytes | None:
    consumer = AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        value: bytes | None = (await consumer.getone()).value
        return value
    finally:
        await consumer.stop()


async def test_a_broker_keeps_what_it_acknowledged_through_kill_9(
    kafka_jars: Path, tmp_path: Path, unused: Callable[[str], str]
) -> None:
    broker = Broker(tmp_path / "broker")
    try:
        broker.start()
        topic = unused("topic")
        await _create(broker.address, topic)
        await _send(broker.address, topic, b"kept")
        broker.kill()
        broker.start()
        assert await _read(broker.address, topic) == b"kept"
    finally:
        broker.kill()


async def test_a_broker_refuses_a_message_over_the_limit_of_its_topic(
    cluster: Cluster, unused: Callable[[str], str]
) -> None:
    topic = unused("topic")
    await _create(cluster.addresses, topic, **{"max.message.bytes": "1000"})
    with pytest.raises(MessageSizeTooLargeError):
        await _send(cluster.addresses, topic, bytes(5000))
