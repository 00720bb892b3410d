"""What docs/disaster-recovery.md promises: a store or a Kafka that is lost comes back, and nothing counts twice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bench.load import send
from bench.payloads import Payload, small
from spanwise.journal import KafkaJournalConfig
from tests.kafka.broker import Cluster
from tests.kafka.fleet import journal_config, made, receiver, worker
from tests.running import RunningServer

COUNTED = "SELECT count(), sum(input_tokens), sum(cost_usd) FROM spans FINAL"


def _send(front: RunningServer, *payloads: Payload) -> int:
    return asyncio.run(send(front.grpc, payloads)).spans


async def _back_to_the_start(config: KafkaJournalConfig) -> None:
    """What `kafka-consumer-groups.sh --reset-offsets --to-earliest` does."""
    consumer = AIOKafkaConsumer(bootstrap_servers=list(config.servers), group_id=config.group, enable_auto_commit=False)
    await consumer.start()
    try:
        found = [TopicPartition(topic, n) for topic in config.signals for n in range(config.topics.partitions)]
        consumer.assign(found)
        await consumer.commit(await consumer.beginning_offsets(found))
    finally:
        await consumer.stop()


async def _delete(config: KafkaJournalConfig) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=list(config.servers))
    await admin.start()
    try:
        await admin.delete_topics([*config.signals, config.dead_letters_topic])
    finally:
        await admin.close()


def test_a_lost_store_is_read_again_from_kafka_and_reading_again_changes_no_sum(
    cluster: Cluster, tmp_path: Path
) -> None:
    config = made(journal_config(cluster.addresses))
    with receiver(tmp_path / "receiver", config) as front:
        with worker(tmp_path / "lost", config) as back:
            sent = _send(front, *(small(seed, time.time_ns()) for seed in range(4)))
            back.wait_for("SELECT count() FROM spans FINAL", sent)
            before = back.sql(COUNTED)
            assert back.terminate() == 0
        for _ in range(2):  # the first time into an empty store, the second over what is there
            asyncio.run(_back_to_the_start(config))
            with worker(tmp_path / "restored", config) as back:
                back.wait_for("SELECT sum(span_count) FROM traces FINAL", sent)
                while any("spanwise_kafka_lag_records" in line and line[-2:] != ".0" for line in back.metrics()):
                    time.sleep(0.05)
                assert back.sql(COUNTED) == before
                assert back.terminate() == 0


def test_topics_made_anew_under_an_old_store_lose_nothing(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses, topics={"partitions": 1}))
    sent = 0
    for seed in range(2):
        with receiver(tmp_path / "receiver", config) as front, worker(tmp_path / "worker", config) as back:
            sent += _send(front, small(seed, time.time_ns()))
            back.wait_for("SELECT count() FROM spans FINAL", sent)
            assert back.terminate() == 0
        asyncio.run(_delete(config))
        made(config)
