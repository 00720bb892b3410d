"""Apache Kafka in KRaft mode, from its released jars: brokers as plain `java` processes on free ports.

Nothing is installed: Maven fetches the jars once into the user's cache folder, a broker lives in a folder of the test.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from tests.running import free_port
from tests.tools import CACHE, NotFetchedError, cached, run

VERSION: Final = "4.4.0"
USER: Final = "spanwise"
PASSWORD: Final = "of-the-test-broker"  # noqa: S105 - it guards a broker on loopback for the length of a test
SCRAM: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512")
_READY_S: Final = 60
_CLUSTER_ID: Final = "c3Bhbndpc2UtdGVzdHMhIQ"
_JAVA: Final = (
    "java",
    "-Xmx256m",
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
# kafka-tools-api is named by the broker's pom, used by its command line tools only, and was never published.
_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>spanwise</groupId><artifactId>test-broker</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
      <exclusions>
        <exclusion><groupId>org.apache.kafka</groupId><artifactId>kafka-tools-api</artifactId></exclusion>
      </exclusions>
    </dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


class NoKafkaError(Exception):
    """No broker can be run here; the sentence says what is missing."""


@cache
def jars() -> Path:
    """The folder of the broker's jars, fetched at the first call on this machine. Raises NoKafkaError."""
    if shutil.which("java") is None:
        raise NoKafkaError("Kafka tests need Java 17 or newer: there is no `java` here")
    name = f"kafka-{VERSION}"
    if not (CACHE / name).is_dir() and shutil.which("mvn") is None:
        raise NoKafkaError(f"Kafka tests need Maven to fetch Kafka {VERSION} once: there is no `mvn` here")

    def fetch(folder: Path) -> None:
        pom = folder / "pom.xml"
        pom.write_text(_POM)
        copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        run(["mvn", "-q", "-B", *copy], folder)
        pom.unlink()

    try:
        return cached(name, fetch)
    except NotFetchedError as error:
        raise NoKafkaError(f"Kafka {VERSION} could not be fetched with Maven: {error}") from error


class Broker:
    """One node, broker and controller in one. `kill` and `start` it as often as you like: its data stays."""

    def __init__(
        self,
        directory: Path,
        *,
        node: int = 1,
        voters: Mapping[int, int] | None = None,
        certificate: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """`voters` are the controller ports by node. `certificate` is a PEM file with key (PKCS 8) and chain, beside
        `ca.pem`. With it there are two more listeners: TLS with a password (PLAIN or SCRAM), and the same for clients
        that show a certificate of that authority."""
        self.directory = directory
        self.port, self.secure_port, self.mutual_port = free_port(), free_port(), free_port()
        voters = voters or {node: free_port()}
        listeners = {"PLAINTEXT": self.port, "CONTROLLER": voters[node]}
        if certificate is not None:
            listeners |= {"SASL_SSL": self.secure_port, "MUTUAL": self.mutual_port}
        self._ports = [port for name, port in listeners.items() if name != "CONTROLLER"]
        replicas = str(min(3, len(voters)))
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": ",".join(f"{voter}@127.0.0.1:{port}" for voter, port in voters.items()),
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(
                ("PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT", "SASL_SSL:SASL_SSL", "MUTUAL:SASL_SSL")
            ),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(directory / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": "3",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "2000",
            "controller.quorum.fetch.timeout.ms": "1000",
            "controller.quorum.election.timeout.ms": "500",
        }
        if certificate is not None:
            security = "org.apache.kafka.common.security"
            settings |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(certificate),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(certificate.with_name("ca.pem")),
                "sasl.enabled.mechanisms": ",".join(("PLAIN", *SCRAM)),
                "listener.name.mutual.ssl.client.auth": "required",
            }
            for listener in ("sasl_ssl", "mutual"):
                name = f"listener.name.{listener}"
                plain = f'{security}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
                settings[f"{name}.plain.sasl.jaas.config"] = plain
                for mechanism in SCRAM:
                    scram = f"{security}.scram.ScramLoginModule required;"
                    settings[f"{name}.{mechanism.lower()}.sasl.jaas.config"] = scram
        directory.mkdir(parents=True)
        lines = [f"{name}={value}" for name, value in (settings | dict(options or {})).items()]
        self._properties = directory / "server.properties"
        self._properties.write_text("\n".join([*lines, ""]))
        self._formatted = False
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Start the process; `wait` tells when it answers."""
        classes = f"{jars()}/*"
        if not self._formatted:
            storage = [*_JAVA, "-cp", classes, "kafka.tools.StorageTool", "format"]
            arguments = ["-t", _CLUSTER_ID, "-c", str(self._properties)]
            for mechanism in SCRAM:
                arguments += ["--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]"]
            subprocess.run([*storage, *arguments], check=True, capture_output=True, timeout=_READY_S)
            self._formatted = True
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*_JAVA, "-cp", classes, "kafka.Kafka", str(self._properties)], stdout=log, stderr=log
            )

    def wait(self) -> None:
        deadline = time.monotonic() + _READY_S
        waiting = list(self._ports)
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", waiting[-1]), timeout=1):
                waiting.pop()
            if not waiting:
                return
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.directory / "log").read_text(errors="replace")
                raise RuntimeError(f"the broker in {self.directory} does not answer: {log[-2000:]}")
            time.sleep(0.05)

    def start(self) -> None:
        self.begin()
        self.wait()

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)


class Cluster:
    """Brokers that know each other, as many as wanted."""

    def __init__(self, directory: Path, nodes: int = 1, *, certificate: Path | None = None) -> None:
        voters = {node: free_port() for node in range(1, nodes + 1)}
        self.brokers: Sequence[Broker] = [
            Broker(directory / f"node-{node}", node=node, voters=voters, certificate=certificate) for node in voters
        ]

    @property
    def addresses(self) -> str:
        return ",".join(broker.address for broker in self.brokers)

    def __enter__(self) -> Cluster:
        for broker in self.brokers:
            broker.begin()
        for broker in self.brokers:
            broker.wait()
        return self

    def __exit__(self, *_: object) -> None:
        for broker in self.brokers:
            broker.kill()
