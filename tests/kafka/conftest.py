"""One broker for all tests, those that kill it included, and names nobody else uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.kafka.broker import Cluster, NoKafkaError, jars

_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The time limit of a test is for the test: the first one may have to wait for Kafka to be fetched, which has a
    limit of its own."""
    for item in items:
        if "kafka_jars" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(func_only=True))


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """Skips where no broker can be run, and says why."""
    try:
        return jars()
    except NoKafkaError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def cluster(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("kafka")
    certificate = directory / "broker.pem"
    issued = authority.issue_cert("127.0.0.1")
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # the only form Kafka reads
    certificate.write_bytes(pkcs8 + b"".join(part.bytes() for part in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    with Cluster(directory / "nodes", certificate=certificate) as running:
        yield running


@pytest.fixture
def mortal(cluster: Cluster) -> Iterator[Cluster]:
    """The same for tests that kill it: it runs again afterwards."""
    yield cluster
    for broker in cluster.brokers:
        if broker.process is None:
            broker.start()


@pytest.fixture
def unused() -> Callable[[str], str]:
    """A name for a topic or group that no other test has used."""
    return lambda kind: f"{kind}-{next(_numbers)}"
