"""The fleet as an operator meets it: topics, receivers, workers and dead letters, by their commands."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias

import pytest
import trustme
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource
from aiokafka.errors import TopicAuthorizationFailedError
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pydantic import SecretStr, ValidationError

from spanwise.journal import JournalError, KafkaJournalConfig
from spanwise.journal.kafka.config import KafkaSaslConfig, KafkaTlsConfig, TopicsConfig
from spanwise.journal.kafka.journal import check_topics, list_dead_letters
from tests.kafka.broker import PASSWORD, SCRAM, USER, Cluster
from tests.kafka.fleet import environment, journal_config, made, receiver, worker
from tests.kafka.test_journal import append, one, reading, take
from tests.running import ROOT

Mechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


def run(config: KafkaJournalConfig | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spanwise", *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment(config) if config is not None else {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_spans_of_an_sdk_go_through_a_receiver_and_a_worker_into_the_store(cluster: Cluster, tmp_path: Path) -> None:
    config = journal_config(cluster.addresses)
    assert run(config, "topics", "create").returncode == 0
    with receiver(tmp_path / "receiver", config) as front, worker(tmp_path / "worker", config) as back:
        provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{front.http}/v1/traces")))
        tracer = provider.get_tracer("test")
        with tracer.start_as_current_span("invoke_agent"):
            for number in range(9):
                tracer.start_span(f"chat {number}").end()
        provider.shutdown()
        back.wait_for("SELECT count() FROM spans FINAL", 10)
        back.wait_for("SELECT sum(span_count) FROM traces FINAL WHERE root_name = 'invoke_agent'", 10)
        assert back.count("SELECT count() FROM spans FINAL WHERE service = 'shop' AND tenant = 'default'") == 10
        answer = json.loads(front._http.request("GET", f"{front.web}/api/v1/traces").data)
        assert "has no store" in answer["error"]["message"]
        assert front.terminate() == 0
        assert back.terminate() == 0


def test_one_percent_of_poison_blocks_nothing_and_can_be_sent_again(cluster: Cluster, tmp_path: Path) -> None:
    config = made(journal_config(cluster.addresses))
    body = json.dumps(
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "0" * 30 + "%02x", "spanId": "0" * 15 + "1"}]}]}]}
    )

    async def produce() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=cluster.addresses)
        await producer.start()
        for number in range(200):
            value = b"\xffpoison" if number % 100 == 50 else (body % (number + 1)).encode()
            await producer.send(config.traces_topic, value, partition=number % 4)
        await producer.stop()

    asyncio.run(produce())
    with worker(tmp_path / "worker", config) as back:
        back.wait_for("SELECT count() FROM spans FINAL", 198)
        listed = [json.loads(line) for line in run(config, "dead-letters", "list", "--json").stdout.splitlines()]
        assert sorted(letter["bytes"] for letter in listed) == [7, 7]
        assert all(letter["reason"].startswith("unreadable") for letter in listed)
        assert "2 dead letters were sent again" in run(config, "dead-letters", "replay").stdout
        deadline = time.monotonic() + 20
        while not (again := list_dead_letters(config, 10)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(again) <= 2
        deadline = time.monotonic() + 20
        while sum(float(line.rpartition(" ")[2]) for line in back.metrics() if "kafka_lag_records{" in line):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_topics_that_would_lose_data_are_named_one_sentence_each(cluster: Cluster) -> None:
    config = made(journal_config(cluster.addresses))
    wants_more = config.model_copy(
        update={
            "message_bytes_max": 5_000_000,
            "topics": TopicsConfig(replicas=3, in_sync_replicas_min=2, retention_h=1000),
        }
    )
    found = check_topics(wants_more)
    of_one = [sentence for sentence in found if config.traces_topic in sentence]
    assert [sentence.split(" has ")[1].split(",")[0] for sentence in of_one] == [
        "partitions on 1 broker(s)",
        "max.message.bytes = 1001024 bytes",
        "min.insync.replicas = 1 broker(s)",
        "retention.ms = 259200000 ms",
    ]
    checked = run(wants_more, "topics", "check")
    assert checked.returncode == 1
    assert "journal.message_bytes_max" in checked.stderr
    assert run(config, "topics", "check").stdout == "the topics are right\n"


def test_what_an_account_may_not_ask_about_the_topics_is_named(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = made(journal_config(cluster.addresses))
    describe = AIOKafkaAdminClient.describe_topics
    denied = TopicAuthorizationFailedError.errno

    async def describe_configs(_: AIOKafkaAdminClient, asked: list[ConfigResource]) -> list[SimpleNamespace]:
        return [SimpleNamespace(resources=[(denied, "", 2, asked[0].name, [])])]

    async def describe_topics(admin: AIOKafkaAdminClient, names: list[str]) -> list[dict[str, Any]]:
        found = await describe(admin, names)
        return [topic | {"error_code": denied} if topic["topic"] == config.logs_topic else topic for topic in found]

    monkeypatch.setattr(AIOKafkaAdminClient, "describe_configs", describe_configs)
    monkeypatch.setattr(AIOKafkaAdminClient, "describe_topics", describe_topics)
    error = "TopicAuthorizationFailedError: allow this account the operation"
    assert check_topics(config) == [
        f"topic {config.logs_topic} cannot be looked up: {error} Describe on it",
        f"the settings of topic {config.traces_topic} cannot be read: {error} DescribeConfigs on it",
        f"the settings of topic {config.dead_letters_topic} cannot be read: {error} DescribeConfigs on it",
    ]


def test_a_receiver_does_not_start_without_its_topics(cluster: Cluster, tmp_path: Path) -> None:
    config = journal_config(cluster.addresses)
    ended = run(config, "receive", "--data", str(tmp_path), "--web", "127.0.0.1:0")
    assert ended.returncode == 1
    assert f"topic {config.traces_topic} does not exist: `spanwise topics create` makes it" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["receive", "work", "topics check", "dead-letters list"])
def test_the_commands_of_the_fleet_say_that_they_need_kafka(command: str) -> None:
    ended = run(None, *command.split())
    assert ended.returncode == 1
    assert "kafka" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture
def identity(tmp_path: Path, authority: trustme.CA) -> KafkaTlsConfig:
    """The files of a client that the brokers' authority has given a certificate."""
    issued = authority.issue_cert("worker-1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (tmp_path / "cert.pem").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    return KafkaTlsConfig(ca=tmp_path / "ca.pem", cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")


def _secure(port: int, tls: KafkaTlsConfig, mechanism: Mechanism, password: str = PASSWORD) -> KafkaJournalConfig:
    sasl = KafkaSaslConfig(mechanism=mechanism, username=USER, password=SecretStr(password))
    return journal_config(f"127.0.0.1:{port}", tls=tls, sasl=sasl)


def test_brokers_are_spoken_to_over_tls_with_a_password(
    cluster: Cluster, tmp_path: Path, identity: KafkaTlsConfig
) -> None:
    tls = KafkaTlsConfig(ca=identity.ca)
    journal = made(_secure(cluster.brokers[0].secure_port, tls, "PLAIN")).build(tmp_path)
    journal.close()


@pytest.mark.parametrize("mechanism", SCRAM)
def test_requests_go_and_come_over_tls_with_a_client_certificate_and_a_proven_password(
    cluster: Cluster, tmp_path: Path, identity: KafkaTlsConfig, mechanism: Mechanism
) -> None:
    config = made(_secure(cluster.brokers[0].mutual_port, identity, mechanism))
    with reading(config, tmp_path) as journal:
        append(journal, one(1))
        (frame,) = take(journal).frames
    assert frame.body == one(1)


def test_processes_find_their_password_and_certificate_in_files(
    cluster: Cluster, tmp_path: Path, identity: KafkaTlsConfig
) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    config = _secure(cluster.brokers[0].mutual_port, identity, "SCRAM-SHA-512")
    config = config.model_copy(update={"sasl": KafkaSaslConfig(username=USER, password_file=secret)})
    assert run(made(config), "topics", "check").stdout == "the topics are right\n"


def test_without_a_client_certificate_a_broker_that_asks_for_one_is_not_reached(
    cluster: Cluster, tmp_path: Path, identity: KafkaTlsConfig
) -> None:
    with pytest.raises(JournalError, match="cannot reach Kafka"):
        _secure(cluster.brokers[0].mutual_port, KafkaTlsConfig(ca=identity.ca), "SCRAM-SHA-512").build(tmp_path)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_is_refused_and_not_shown(
    cluster: Cluster, tmp_path: Path, identity: KafkaTlsConfig, mechanism: Mechanism
) -> None:
    config = _secure(cluster.brokers[0].secure_port, KafkaTlsConfig(ca=identity.ca), mechanism, "not-the-password")
    with pytest.raises(JournalError, match="cannot reach Kafka") as refused:
        config.build(tmp_path)
    assert "not-the-password" not in str(refused.value)


def test_brokers_of_another_authority_are_not_trusted(cluster: Cluster, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    with pytest.raises(JournalError, match="cannot reach Kafka"):
        _secure(cluster.brokers[0].secure_port, KafkaTlsConfig(ca=ca), "PLAIN").build(tmp_path)


def test_a_password_does_not_go_over_the_network_in_the_clear() -> None:
    with pytest.raises(ValidationError, match="set `tls` too"):
        journal_config(
            "127.0.0.1:1", sasl=KafkaSaslConfig(mechanism="PLAIN", username=USER, password=SecretStr(PASSWORD))
        )
