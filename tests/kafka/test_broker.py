"""The broker of the tests is the real one: it refuses what is too large, which no mock does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import MessageSizeTooLargeError

from tests.kafka.broker import Cluster


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


async def test_a_broker_refuses_a_message_over_the_limit_of_its_topic(
    cluster: Cluster, unused: Callable[[str], str]
) -> None:
    topic = unused("topic")
    await _create(cluster.addresses, topic, **{"max.message.bytes": "1000"})
    with pytest.raises(MessageSizeTooLargeError):
        await _send(cluster.addresses, topic, bytes(5000))
