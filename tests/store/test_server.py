"""How a server is reached: certificates, passwords, and many starts at once."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme

from spanwise.store import Store, StoreConfig, StoreConfigError, StoreError, TtlDays, open_store
from spanwise.store.migrate import migrations
from tests.store.clickhouse_http import ClickHouseHTTP

ROOT = Path(__file__).parents[2]


class Server:
    """A ClickHouse behind TLS that asks every client for a certificate but takes those that have none."""

    def __init__(self, endpoint: ClickHouseHTTP, authority: trustme.CA, folder: Path) -> None:
        self.endpoint = endpoint
        self.authority = authority
        self.folder = folder
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))

    def config(self, scheme: str = "https", **options: Any) -> StoreConfig:
        dsn = f"{scheme}://{options.pop('login', '')}localhost:{self.endpoint.port}/keeper"
        return StoreConfig.model_validate({"dsn": dsn, "migrate": False, **options})

    def pair(self, name: str) -> dict[str, str]:
        """Files of a client certificate and its key."""
        issued = self.authority.issue_cert(f"{name}@client", organization_unit_name=name)
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(str(cert))
        issued.private_key_pem.write_to_path(str(key))
        return {"cert": str(cert), "key": str(key)}

    def logins(self, config: StoreConfig) -> set[str]:
        """Who the server was told we are."""
        self.endpoint.seen.logins.clear()
        with closing(Store(config)) as store:
            store.read_arrow("SELECT 1")
        return set(self.endpoint.seen.logins)


@pytest.fixture(scope="module")
def server(engine: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_OPTIONAL
    with ClickHouseHTTP(engine.place, tls) as endpoint:
        yield Server(endpoint, authority, tmp_path_factory.mktemp("tls"))


def test_server_is_known_by_the_authority_of_the_configuration(server: Server) -> None:
    assert server.logins(server.config(tls={"ca": str(server.ca)})) == {"default:"}


def test_server_of_an_unknown_authority_is_not_spoken_to(server: Server) -> None:
    server.endpoint.seen.logins.clear()
    with pytest.raises(StoreError, match="cannot connect to https://localhost"):
        Store(server.config(password="hunter2"))
    assert server.endpoint.seen.logins == set()


def test_certificate_without_a_password_says_who_we_are(server: Server) -> None:
    tls = {"ca": str(server.ca), **server.pair("spanwise_writer")}
    logins = server.logins(server.config(user="spanwise_writer", tls=tls))
    assert logins == {"spanwise_writer by certificate spanwise_writer"}


def test_certificate_with_a_password_only_opens_the_connection(server: Server) -> None:
    tls = {"ca": str(server.ca), **server.pair("gateway")}
    assert server.logins(server.config(user="me", password="hunter2", tls=tls)) == {"me:hunter2"}


def test_password_file_is_read_for_each_connection(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    config = server.config(login="me@", password_file=str(file), tls={"ca": str(server.ca)})
    first = server.logins(config)
    file.write_text("second\n")
    assert (first, server.logins(config)) == ({"me:first"}, {"me:second"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scheme": "http", "tls": {}}, "store.tls is for https"),
        ({"login": "me:secret@", "password": "hunter2"}, "store.dsn has a password already"),
        ({"password_file": "/nowhere/at/all"}, "cannot read store.password_file: No such file"),
    ],
)
def test_options_that_contradict_each_other_are_refused(server: Server, options: dict[str, Any], words: str) -> None:
    with pytest.raises(StoreConfigError, match=words) as caught:
        Store(server.config(**options))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "option", [{"cluster": "agents"}, {"user": "me"}, {"tls": {}}], ids=lambda each: next(iter(each))
)
def test_embedded_store_refuses_options_of_a_server(option: dict[str, Any]) -> None:
    with pytest.raises(StoreConfigError, match=f"store.{next(iter(option))} is for a server"):
        Store(StoreConfig.model_validate({"dsn": "chdb:///nowhere", **option}))


_START = """
import sys
from spanwise.store import Store, StoreConfig, TtlDays, open_store
config = {"dsn": sys.argv[1], "ttl_days": TtlDays(spans=int(sys.argv[2]))}
open_store(Store(StoreConfig.model_validate(config))).close()
"""


def test_processes_that_start_at_once_make_one_schema(engine: Store, endpoint: ClickHouseHTTP) -> None:
    dsn = f"http://127.0.0.1:{endpoint.port}/raced"
    starts = [
        subprocess.Popen([sys.executable, "-c", _START, dsn, "7"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    failed = [error for start in starts if (error := start.communicate(timeout=120)[1])]
    assert failed == []
    tables = engine.read_arrow(
        "SELECT countIf(name LIKE 'probe%') AS probes, countIf(engine_full LIKE '%[90], 7))%') AS with_ttl "
        "FROM system.tables WHERE database = 'raced'"
    ).to_pylist()
    ledger = engine.read_arrow("SELECT count() AS rows FROM raced.schema_migrations FINAL").to_pylist()
    assert (tables, ledger) == ([{"probes": 0, "with_ttl": 1}], [{"rows": len(migrations())}])


def test_start_that_may_not_migrate_refuses_a_store_without_the_schema(config: StoreConfig) -> None:
    Store(config).close()  # makes the database, which an administrator does
    with pytest.raises(StoreConfigError, match="lacks migration 0001_tables and"):
        open_store(Store(config.model_copy(update={"migrate": False})))
    open_store(Store(config)).close()
    open_store(Store(config.model_copy(update={"migrate": False, "ttl_days": TtlDays(spans=3)}))).close()
