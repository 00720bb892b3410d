"""Options of the Kafka journal."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from spanwise.journal.config import SqliteJournalConfig
from spanwise.model import Signal

if TYPE_CHECKING:
    from spanwise.journal.kafka.journal import KafkaJournal

_MIB = 1 << 20
RECORD_OVERHEAD_BYTES = 1024
"""A record around its value: headers, lengths, and the batch it travels in."""
DEAD_LETTER_OVERHEAD_BYTES = 16 << 10
"""What a dead letter has beyond that: where it comes from and why it is there."""


class KafkaTlsConfig(BaseModel):
    """How brokers are known, and how they know us."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: Path | None = Field(None, description="PEM file with the authorities of the brokers; else those of the system.")
    cert: Path | None = Field(
        None, description="PEM file with our certificate and its chain, where brokers ask for it."
    )
    key: Path | None = Field(None, description="PEM file with the private key of `cert`.")

    def context(self) -> ssl.SSLContext:
        """Raises OSError or ssl.SSLError if a file cannot be read."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key)
        return context


class KafkaSaslConfig(BaseModel):
    """Name and password for the brokers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How the password is proven; PLAIN sends it and so needs `tls`."
    )
    username: str = Field(min_length=1, description="Name of this program's account.")
    password: SecretStr | None = Field(None, description="Its password; better given by a variable or a file.")
    password_file: Path | None = Field(
        None, description="File that holds the password; white space around it is ignored."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("give exactly one of password or password_file")
        return self

    def secret(self) -> str:
        """Raises OSError if the file cannot be read."""
        if self.password_file is not None:
            return self.password_file.read_text(encoding="utf-8").strip()
        return self.password.get_secret_value() if self.password is not None else ""


class TopicsConfig(BaseModel):
    """What topics are created with, and at least must have at every start."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partitions: int = Field(
        12, ge=1, le=10_000, description="Partitions of a new topic: the most workers that can share the work."
    )
    replicas: int = Field(3, ge=1, le=9, description="Brokers that hold each partition.")
    in_sync_replicas_min: int = Field(
        2, ge=1, le=9, description="Brokers that must have a request before it is acknowledged."
    )
    retention_h: float = Field(
        72, gt=0, description="Hours a request stays readable, stored or not: how long workers may be away."
    )
    dead_letters_retention_h: float = Field(720, gt=0, description="The same for dead letters.")

    @model_validator(mode="after")
    def _replicas_suffice(self) -> Self:
        if self.in_sync_replicas_min > self.replicas:
            raise ValueError(
                f"in_sync_replicas_min ({self.in_sync_replicas_min}) must not exceed replicas ({self.replicas})"
            )
        return self


class KafkaJournalConfig(BaseModel):
    """Keep accepted requests in Kafka: `spanwise receive` writes them, `spanwise work` reads and stores them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["kafka"]
    servers: tuple[str, ...] = Field(("127.0.0.1:9092",), min_length=1, description="HOST:PORT of some brokers.")
    traces_topic: str = Field("otlp_spans", min_length=1, description="Topic of trace requests.")
    logs_topic: str = Field("otlp_logs", min_length=1, description="Topic of log requests.")
    dead_letters_topic: str = Field(
        "spanwise-dead-letters", min_length=1, description="Topic of records that cannot be read or stored."
    )
    group: str = Field("spanwise", min_length=1, description="Consumer group that the workers of one store share.")
    member: str = Field(
        "",
        description="Name of this worker in the group, the same after a restart (the name of its pod, for instance): "
        "its partitions wait for it then for `session_timeout_s`. Empty: they go to the others when it stops.",
    )
    foreign_tenant: str = Field(
        "default", min_length=1, description="Tenant of records that others wrote to the topics, without our headers."
    )
    message_bytes_max: int = Field(
        1_000_000,
        ge=10_000,
        le=64 * _MIB,
        description="Bytes of one message. Requests are split to fit; the longest values of a span or log record that "
        "does not fit alone are cut. The topics must allow 1 KiB more (`max.message.bytes`).",
    )
    linger_ms: int = Field(5, ge=0, le=1000, description="How long messages wait for company on their way.")
    ack_timeout_s: float = Field(
        3, gt=0, le=60, description="After so long without an answer the brokers count as away. Keep it below "
        "`receiver.limits.ack_timeout_s`.",
    )  # fmt: skip
    waiting_bytes_max: int = Field(
        128 * _MIB, gt=0, description="Bytes of requests that may wait for the brokers; more are refused at once."
    )
    spool: SqliteJournalConfig | None = Field(
        None,
        description="Where requests wait on this machine's disk while the brokers are away. Without it they are "
        "refused meanwhile, and senders try again.",
    )
    buffer_bytes_max: int = Field(
        64 * _MIB, ge=_MIB, description="Bytes a worker holds that it has read and not yet begun to store."
    )
    ranges_per_round: int = Field(
        4, ge=1, le=1000, description="Partitions a worker stores from, one after the other, before it gathers again."
    )
    session_timeout_s: float = Field(
        10, ge=1, le=1800, description="A worker that is not heard of so long loses its partitions."
    )
    flush_s: float = Field(
        5, gt=0, le=50, description="Seconds a worker takes to finish what it began when partitions move."
    )
    stalled_s: float = Field(
        60, ge=5, description="A reader that gets nothing so long although there is something connects anew."
    )
    topics: TopicsConfig = Field(
        default_factory=TopicsConfig, description="What the topics must be like; `spanwise topics` creates and checks."
    )
    tls: KafkaTlsConfig | None = Field(None, description="Speak TLS with the brokers.")
    sasl: KafkaSaslConfig | None = Field(None, description="Log in at the brokers.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({self.traces_topic, self.logs_topic, self.dead_letters_topic}) < 3:
            raise ValueError("traces_topic, logs_topic and dead_letters_topic must be three different topics")
        if self.sasl is not None and self.sasl.mechanism == "PLAIN" and self.tls is None:
            raise ValueError("sasl.mechanism PLAIN shows the password to the network: set `tls` too")
        return self

    def topic(self, signal: Signal) -> str:
        return self.traces_topic if signal == "traces" else self.logs_topic

    @property
    def signals(self) -> dict[str, Signal]:
        """Signal by topic."""
        return {self.traces_topic: "traces", self.logs_topic: "logs"}

    def connection(self) -> dict[str, Any]:
        """Arguments that every client has in common. Raises OSError or ssl.SSLError if a file cannot be read."""
        found: dict[str, Any] = {"bootstrap_servers": list(self.servers), "client_id": "spanwise"}
        if self.tls is not None:
            found["ssl_context"] = self.tls.context()
        if self.sasl is not None:
            found["sasl_mechanism"] = self.sasl.mechanism
            found["sasl_plain_username"] = self.sasl.username
            found["sasl_plain_password"] = self.sasl.secret()
        protocol = {
            (False, False): "PLAINTEXT",
            (True, False): "SSL",
            (False, True): "SASL_PLAINTEXT",
            (True, True): "SASL_SSL",
        }
        found["security_protocol"] = protocol[self.tls is not None, self.sasl is not None]
        return found

    def build(self, directory: Path) -> KafkaJournal:
        """Connect and check the topics; the spool, if there is one, is in `directory`. Raises JournalError."""
        from spanwise.journal.kafka.journal import KafkaJournal  # noqa: PLC0415 - only who uses Kafka loads its client

        return KafkaJournal(self, directory)
