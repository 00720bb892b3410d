"""Topics as they must be: made so by `spanwise topics create`, checked at every start."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from spanwise.journal.kafka.config import DEAD_LETTER_OVERHEAD_BYTES, RECORD_OVERHEAD_BYTES, KafkaJournalConfig

_HOUR_MS: Final = 3_600_000
_KNOWN_TRIES: Final = 100
_KNOWN_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a topic has to be like."""

    name: str
    partitions: int
    replicas: int
    in_sync_replicas_min: int
    retention_ms: int
    message_bytes: int
    """Size of a batch that must be allowed; `max.message.bytes`."""

    @property
    def settings(self) -> dict[str, str]:
        return {
            "cleanup.policy": "delete",
            "max.message.bytes": str(self.message_bytes),
            "min.insync.replicas": str(self.in_sync_replicas_min),
            "retention.ms": str(self.retention_ms),
        }


def wanted(config: KafkaJournalConfig) -> list[Wanted]:
    topics = config.topics
    size = config.message_bytes_max + RECORD_OVERHEAD_BYTES
    common = {"replicas": topics.replicas, "in_sync_replicas_min": topics.in_sync_replicas_min}
    retention_ms = int(topics.retention_h * _HOUR_MS)
    dead_ms = int(topics.dead_letters_retention_h * _HOUR_MS)
    return [
        *(
            Wanted(name, topics.partitions, retention_ms=retention_ms, message_bytes=size, **common)
            for name in config.signals
        ),
        # a dead letter is a whole record of any topic and says why it is there
        Wanted(
            config.dead_letters_topic,
            1,
            retention_ms=dead_ms,
            message_bytes=size + DEAD_LETTER_OVERHEAD_BYTES,
            **common,
        ),
    ]


async def create(config: KafkaJournalConfig, connection: Mapping[str, Any]) -> list[str]:
    """Create the topics that are missing and return their names. Raises KafkaError."""
    admin = AIOKafkaAdminClient(**connection)
    await admin.start()
    try:
        made = []
        for topic in wanted(config):
            new = NewTopic(topic.name, topic.partitions, topic.replicas, topic_configs=topic.settings)
            answer = await admin.create_topics([new])
            (_, code, *message) = answer.topic_errors[0]
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise error(*filter(None, message))
            if not code:
                made.append(topic.name)
        await _known(admin, made)
        return made
    finally:
        await admin.close()


async def _known(admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    """Wait until brokers know of new topics, which the controller tells them a moment later."""
    for _ in range(_KNOWN_TRIES):
        described = await admin.describe_topics(list(names)) if names else []
        if all(
            not topic["error_code"] and all(partition["leader"] >= 0 for partition in topic["partitions"])
            for topic in described
        ):
            return
        await asyncio.sleep(_KNOWN_PAUSE_S)


async def problems(config: KafkaJournalConfig, connection: Mapping[str, Any]) -> list[str]:
    """A sentence for everything about the topics that would lose data or stop it. Raises KafkaError."""
    admin = AIOKafkaAdminClient(**connection)
    await admin.start()
    try:
        asked = wanted(config)
        described = {topic["topic"]: topic for topic in await admin.describe_topics([topic.name for topic in asked])}
        found = []
        present = [topic for topic in asked if not described[topic.name]["error_code"]]
        for topic in asked:
            error = for_code(described[topic.name]["error_code"])
            if error is UnknownTopicOrPartitionError:
                found.append(f"topic {topic.name} does not exist: `spanwise topics create` makes it")
            elif topic not in present:
                found.append(f"topic {topic.name} cannot be looked up: {error.__name__}{_needs(error, 'Describe')}")
        for topic in present:
            settings = await _settings(admin, topic.name)
            if isinstance(settings, dict):
                found += _differences(topic, described[topic.name]["partitions"], settings)
            else:
                why = f"{settings.__name__}{_needs(settings, 'DescribeConfigs')}"
                found.append(f"the settings of topic {topic.name} cannot be read: {why}")
        counts = {name: len(described[name]["partitions"]) for name in config.signals}
        if len(present) == len(asked) and len(set(counts.values())) > 1:
            text = " and ".join(f"{name} has {count}" for name, count in counts.items())
            found.append(f"topics need equally many partitions, so that log records meet their spans: {text}")
        return found
    finally:
        await admin.close()


async def _settings(admin: AIOKafkaAdminClient, name: str) -> dict[str, str] | type[KafkaError]:
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    (code, _, _, _, entries) = answer.resources[0]
    if code:
        error: type[KafkaError] = for_code(code)
        return error
    return {entry[0]: entry[1] for entry in entries}


def _needs(error: type[KafkaError], operation: str) -> str:
    return f": allow this account the operation {operation} on it" if error is TopicAuthorizationFailedError else ""


def _differences(topic: Wanted, partitions: Sequence[Mapping[str, Any]], settings: Mapping[str, str]) -> list[str]:
    found = []
    replicas = min((len(partition["replicas"]) for partition in partitions), default=0)
    if replicas < topic.replicas:
        found.append(
            f"topic {topic.name} has partitions on {replicas} broker(s), journal.topics.replicas asks for "
            f"{topic.replicas}: reassign them to more brokers, or lower the option"
        )
    for name, unit, option, at_least in (
        ("max.message.bytes", "bytes", "journal.message_bytes_max and its headers need", topic.message_bytes),
        (
            "min.insync.replicas",
            "broker(s)",
            "journal.topics.in_sync_replicas_min asks for",
            topic.in_sync_replicas_min,
        ),
        ("retention.ms", "ms", "journal.topics asks for", topic.retention_ms),
    ):
        have = int(settings[name])
        if have < at_least and not (name == "retention.ms" and have == -1):
            found.append(
                f"topic {topic.name} has {name} = {have} {unit}, {option} {at_least}: "
                f"raise it with `kafka-configs.sh --alter --topic {topic.name} --add-config {name}={at_least}`"
            )
    if "delete" not in settings["cleanup.policy"] or "compact" in settings["cleanup.policy"]:
        found.append(
            f"topic {topic.name} has cleanup.policy = {settings['cleanup.policy']}: records without a key must not be "
            "compacted, set it to `delete`"
        )
    return found
