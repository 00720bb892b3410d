"""Receivers, workers, topics and a server of ClickHouse's engine for tests."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spanwise.journal import KafkaJournalConfig, SqliteJournalConfig
from spanwise.journal.kafka.config import TopicsConfig
from spanwise.journal.kafka.journal import create_topics
from tests.running import ROOT, RunningServer

SPOOL = {"free_bytes_min": 0, "free_fraction_min": 0.0, "ballast_bytes": 0}


def journal_config(servers: str, **options: Any) -> KafkaJournalConfig:
    """Topics, group and all of their own; one replica unless told otherwise."""
    name = uuid.uuid4().hex[:8]
    topics = {"partitions": 4, "replicas": 1, "in_sync_replicas_min": 1} | options.pop("topics", {})
    spool = options.pop("spool", None)
    return KafkaJournalConfig(
        **{
            "kind": "kafka",
            "servers": tuple(servers.split(",")),
            "traces_topic": f"spans-{name}",
            "logs_topic": f"logs-{name}",
            "dead_letters_topic": f"dead-{name}",
            "group": f"group-{name}",
            "session_timeout_s": 3,
            "topics": TopicsConfig(**topics),
            "spool": None if spool is None else SqliteJournalConfig(**(SPOOL | spool)),
            **options,
        }
    )


def made(config: KafkaJournalConfig) -> KafkaJournalConfig:
    create_topics(config)
    return config


def environment(config: KafkaJournalConfig, **more: str) -> dict[str, str]:
    """The same as variables of a process."""
    found: dict[str, str] = {}

    def put(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, nested in value.items():
                put(f"{path}__{name}", nested)
        elif value is not None:
            found[path.upper()] = value if isinstance(value, str) else json.dumps(value)

    put("SPANWISE_JOURNAL", config.model_dump(mode="json"))
    return found | more


def receiver(directory: Path, config: KafkaJournalConfig, **more: str) -> RunningServer:
    return RunningServer(directory, command="receive", **environment(config, **more))


def worker(directory: Path, config: KafkaJournalConfig, member: str = "", **more: str) -> RunningServer:
    named = config.model_copy(update={"member": member})
    return RunningServer(directory, command="work", **environment(named, **more))


_CLICKHOUSE = """
import sys
from tests.store.clickhouse_http import ClickHouseHTTP

with ClickHouseHTTP(sys.argv[1]) as endpoint:
    print(endpoint.port, flush=True)
    sys.stdin.read()
"""


@contextmanager
def clickhouse(directory: Path) -> Iterator[str]:
    """A store that workers share, in a process apart; its address. What it does not prove: `ClickHouseHTTP`."""
    with subprocess.Popen(
        [sys.executable, "-c", _CLICKHOUSE, str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()
