"""One ClickHouse, embedded (chDB) or on a server, behind one class.

A `Store` owns every connection: one that writes, one that reads for the program, and a bounded pool that answers
users. They are apart because `readonly = 1` cannot be taken back on a connection, and because a chDB connection does
one thing at a time.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error as DriverError
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from spanwise.model import Table
from spanwise.stage import OverloadedError
from spanwise.store.cluster import DDL_SETTINGS, READ_SETTINGS, SAME_REPLICA_SETTINGS, WRITE_SETTINGS, Cluster
from spanwise.store.errors import QueryError, StoreConfigError, StoreError, code_of
from spanwise.store.ttl import TtlOptions, literal

# clickhouse-connect asks for `version()` and the like when it opens; a server that does not answer stops the start.
_CONNECT_TIMEOUT_S: Final = 5
_DDL_TIMEOUT_S: Final = 90
"""Longer than a cluster may take to answer, `distributed_ddl_task_timeout`."""

DEDUPLICATION_WINDOW: Final = 10_000
"""Blocks a table remembers for `insert_deduplication_token`; a plain MergeTree remembers none by default."""

_ARROW_SETTINGS: Final = {
    # With these a `SELECT *` casts to `Table.arrow` without loss.
    "output_format_arrow_string_as_string": 1,
    "output_format_arrow_low_cardinality_as_dictionary": 1,
    "output_format_arrow_date_as_uint16": 0,
}

_INSERT_SETTINGS: Final = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # Merging inside the new part costs as much as writing it, and `FINAL` needs no help from it.
    "optimize_on_insert": 0,
    # The days of an insert are bounded by whoever makes it, times the classes of retention of its tenants.
    "max_partitions_per_insert_block": 1_000,
}

_DERIVE_SETTINGS: Final = {
    "async_insert": 0,
    "optimize_on_insert": 0,
    # Rows that are equal to those of an earlier count are news: they have a newer version.
    "insert_deduplicate": 0,
    "max_threads": 1,
    "max_insert_threads": 1,
}


class StoreTlsConfig(BaseModel):
    """How the server is known, and how it knows us."""

    model_config = ConfigDict(extra="forbid")

    ca: Path | None = Field(None, description="PEM file with the authorities of the server; else those of the system.")
    cert: Path | None = Field(
        None,
        description="PEM file with our certificate and its chain. Without a password it also says who `store.user` is.",
    )
    key: Path | None = Field(None, description="PEM file with the private key of `cert`.")

    @model_validator(mode="after")
    def _key_of_a_certificate(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("give cert and key together")
        return self


class StoreConfig(TtlOptions):
    """Where rows are kept, for how long, and how much a query may use."""

    dsn: SecretStr = Field(
        SecretStr(""),
        description="`chdb:///directory` for the embedded engine (`?database=name` if not `spanwise`), or "
        "`http(s)://user:password@host:port/database`.",
    )
    user: str = Field("", description="User on the server, if `dsn` names none; `default` if nothing does.")
    password: SecretStr | None = Field(None, description="Its password; better given by a variable or a file.")
    password_file: Path | None = Field(
        None,
        description="File that holds the password, read again for each connection; white space around it is ignored.",
    )
    tls: StoreTlsConfig | None = Field(None, description="Certificates for an `https` server.")
    cluster: str = Field(
        "",
        pattern=r"[A-Za-z0-9_{}-]*",
        description="Name of the cluster in the server's `remote_servers`, or `{cluster}` for its macro: tables are "
        "replicated, sharded by trace and created on every node. Empty: one server.",
    )
    insert_quorum: int = Field(
        0,
        ge=0,
        description="Replicas of a shard that must have a row before its insert is answered; 0 as the server says.",
    )
    migrate: bool = Field(
        True,
        description="Create and change tables at the start. Without it their schema is only checked, so that the user "
        "needs to read and insert, no more: see `spanwise schema`.",
    )
    readers: int = Field(3, ge=1, le=64, description="Queries of users that run at once; the next one waits.")
    reader_wait_s: float = Field(10, ge=0, description="How long a query waits for its turn before it is refused.")
    query_timeout_s: int = Field(30, ge=1, description="Longest run time of a query.")
    query_memory_bytes: int = Field(1 << 30, ge=64 << 20, description="Most memory a query may use.")
    query_rows_max: int = Field(1_000_000, ge=1, description="Most rows a query may answer with.")
    query_bytes_max: int = Field(256 << 20, ge=1 << 20, description="Most bytes a query may answer with.")
    query_threads: int = Field(2, ge=1, description="Threads a query may use.")
    insert_timeout_s: int = Field(60, ge=1, description="Longest wait for a server to answer an insert.")
    embedded_memory_bytes: int = Field(
        4 << 30,
        ge=512 << 20,
        description="Most memory the embedded engine may hold before it refuses work; at most nine tenths of the "
        "memory there is. Under load the rest of the process needs about 1 GiB beside it.",
    )
    embedded_cache_bytes: int = Field(
        64 << 20, ge=1 << 20, description="Size of each index cache of the embedded engine."
    )
    embedded_merge_threads: int = Field(2, ge=1, description="Background merge threads of the embedded engine.")

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password or password_file, not both")
        return self


class _Target:
    """A DSN taken apart: opens clients, and knows how to hand bytes to an insert."""

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        dsn = config.dsn.get_secret_value()
        if not dsn:
            raise StoreConfigError("store.dsn is empty: give chdb:///directory or http(s)://host:port/database")
        try:
            url = urlsplit(dsn)
            _ = url.port
        except ValueError:
            raise StoreConfigError(
                "store.dsn is not a URL: give chdb:///directory or http(s)://host:port/database"
            ) from None
        if url.scheme == "chdb" and not url.netloc and len(url.path) > 1 and url.path.startswith("/"):
            self.embedded = True
            self.database = dict(parse_qsl(url.query)).get("database") or "spanwise"
            self.directory = Path(unquote(url.path)).resolve()
            self.place = str(self.directory)
        elif url.scheme in {"http", "https"} and url.hostname:
            self.embedded = False
            self.database = url.path.strip("/") or "spanwise"
            self.place = f"{url.scheme}://{url.hostname}:{url.port or (8443 if url.scheme == 'https' else 8123)}"
        else:
            raise StoreConfigError(
                f"store.dsn has the scheme {url.scheme!r}: give chdb:///directory or http(s)://host:port/database"
            )
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.database):
            raise StoreConfigError("store.dsn: a database name is letters, digits and '_'")
        self._url = url
        self._check_server_options(config)

    def _check_server_options(self, config: StoreConfig) -> None:
        server_only: dict[str, object] = {
            "user": config.user,
            "password": config.password,
            "password_file": config.password_file,
        }
        server_only |= {"tls": config.tls, "cluster": config.cluster}
        given = [name for name, value in server_only.items() if value]
        if self.embedded and given:
            raise StoreConfigError(f"store.{given[0]} is for a server, and store.dsn is embedded")
        if self._url.password and (config.password or config.password_file):
            raise StoreConfigError("store.dsn has a password already: take it out, or store.password")
        if config.tls is not None and self._url.scheme != "https":
            raise StoreConfigError("store.tls is for https, and store.dsn says http")

    def client(self, settings: Mapping[str, Any], *, database: str | None, timeout_s: int = 30) -> Client:
        """Open a connection. Raises StoreConfigError if the directory is taken, StoreError if nobody answers."""
        try:
            if self.embedded:
                return self._embedded_client(settings, database)
            return self._server_client(settings, database, timeout_s)
        except (DriverError, OSError, RuntimeError) as error:
            raise self._explain(error) from None

    def _embedded_client(self, settings: Mapping[str, Any], database: str | None) -> Client:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreConfigError(f"cannot create the store directory {self.directory}: {error.strerror}") from error
        return clickhouse_connect.get_client(
            interface="chdb",
            path=str(self.directory),
            database=database,
            settings=dict(settings),
            chdb_options=self.engine_options(),
            query_limit=0,
        )

    def _server_client(self, settings: Mapping[str, Any], database: str | None, timeout_s: int) -> Client:
        url, tls = self._url, self.config.tls or StoreTlsConfig()
        password = self._password()
        return clickhouse_connect.get_client(
            interface=url.scheme,
            host=url.hostname,
            port=url.port or (8443 if url.scheme == "https" else 8123),
            username=unquote(url.username or "") or self.config.user or "default",
            password=password,
            database=database or "default",
            settings=dict(settings),
            query_limit=0,
            connect_timeout=_CONNECT_TIMEOUT_S,
            send_receive_timeout=timeout_s,
            query_retries=0,
            autogenerate_session_id=False,
            # compressed by Arrow itself where it pays
            compress=False,
            ca_cert=str(tls.ca) if tls.ca else None,
            client_cert=str(tls.cert) if tls.cert else None,
            client_cert_key=str(tls.key) if tls.key else None,
            # strict: the certificate opens the connection, the password says who we are
            tls_mode="strict" if tls.cert and password else None,
        )

    def _password(self) -> str:
        if self.config.password_file is not None:
            try:
                return self.config.password_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise StoreConfigError(f"cannot read store.password_file: {error.strerror}") from None
        if self.config.password is not None:
            return self.config.password.get_secret_value()
        return unquote(self._url.password or "")

    def engine_options(self) -> dict[str, str]:
        """Server options of the embedded engine, sized for a laptop."""
        cache = str(self.config.embedded_cache_bytes)
        return {
            "background_pool_size": str(self.config.embedded_merge_threads),
            "max_server_memory_usage": str(self.config.embedded_memory_bytes),
            "mark_cache_size": cache,
            "index_mark_cache_size": cache,
            "primary_index_cache_size": cache,
            "query_condition_cache_size": cache,
        }

    def _explain(self, error: Exception) -> Exception:
        code, name = code_of(error)
        text = str(error)
        if self.embedded and "already initialized with path" in text:
            return StoreConfigError(
                f"cannot open the store in {self.place}: this process has another directory open, and the embedded "
                "engine allows one"
            )
        if self.embedded and "Error initializing EmbeddedServer" in text:
            return StoreConfigError(
                f"cannot open the store in {self.place}: another process has it open, or the directory cannot be "
                "written. Stop the other one, or give this one another data directory."
            )
        if code in {192, 193, 194, 497, 516}:
            return StoreConfigError(f"{self.place} refuses the user of store.dsn: ClickHouse error {code} {name}")
        return StoreError(f"cannot connect to {self.place}", code=code, name=name)


class _Inserter(Protocol):
    def insert(self, table: str, columns: tuple[str, ...], batch: pa.RecordBatch, settings: Mapping[str, Any]) -> int:
        """Insert one Arrow batch; returns the bytes sent. Raises StoreError."""

    def close(self) -> None: ...


class _EmbeddedInserter:
    """Hands chDB a batch as a file in memory.

    `send_insert` of chDB 4.4 looks made for this, but returns normally when the write fails behind the parser (a
    constraint, a materialised view, memory); clickhouse-connect writes a temporary file, which a killed process leaves
    behind.
    """

    def __init__(self, target: _Target) -> None:
        self._target = target
        self._client: Client | None = None

    def insert(self, table: str, columns: tuple[str, ...], batch: pa.RecordBatch, settings: Mapping[str, Any]) -> int:
        clause = ", ".join(f"{name} = {literal(value)}" for name, value in settings.items())
        names = ", ".join(f"`{column}`" for column in columns)
        try:
            if self._client is None:
                self._client = self._target.client({}, database=self._target.database)
            with _memory_file() as (file, path):
                _write_ipc(file, batch, None)
                file.flush()
                self._client.command(
                    f"INSERT INTO `{table}` ({names}) FROM INFILE {literal(path)} SETTINGS {clause} FORMAT ArrowStream"
                )
                return file.tell()
        except (DriverError, OSError) as error:
            self.close()
            code, name = code_of(error)
            raise StoreError(f"cannot insert {batch.num_rows} rows into {table}", code=code, name=name) from None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class _ServerInserter:
    def __init__(self, target: _Target) -> None:
        self._target = target
        self._client: Client | None = None

    def insert(self, table: str, columns: tuple[str, ...], batch: pa.RecordBatch, settings: Mapping[str, Any]) -> int:
        buffer = io.BytesIO()
        _write_ipc(buffer, batch, "lz4")
        payload = buffer.getvalue()
        try:
            if self._client is None:
                self._client = self._target.client(
                    {}, database=self._target.database, timeout_s=self._target.config.insert_timeout_s
                )
            self._client.raw_insert(table, columns, payload, settings=dict(settings), fmt="ArrowStream")
        except StoreError:
            raise
        except Exception as error:
            self.close()
            code, name = code_of(error)
            doing = f"cannot insert {batch.num_rows} rows into {table}"
            raise StoreError(
                doing if code else f"{doing}: no answer ({type(error).__name__})", code=code, name=name
            ) from None
        return len(payload)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class Store:
    """All access to one ClickHouse. Methods may be called from any thread; each connection does one thing at a time.

    Raises StoreConfigError from the constructor if the store cannot be used as configured, StoreError if it cannot be
    reached now.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        self._target = _Target(config)
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._derive_lock = threading.Lock()
        self._closed = False
        self.cluster = Cluster(config.cluster, self.database) if config.cluster else None
        if config.migrate:
            self._create_database()
        ddl = {**DDL_SETTINGS, **SAME_REPLICA_SETTINGS} if self.cluster else {}
        self._writer = self._target.client(ddl, database=self.database, timeout_s=_DDL_TIMEOUT_S)
        self._inserter: _Inserter = (
            _EmbeddedInserter(self._target) if self._target.embedded else _ServerInserter(self._target)
        )
        self._reader: Client | None = None
        self._deriver: Client | None = None
        self._readers: queue.LifoQueue[Client | None] = queue.LifoQueue()
        for _ in range(config.readers):
            self._readers.put(None)

    @property
    def embedded(self) -> bool:
        return self._target.embedded

    @property
    def database(self) -> str:
        return self._target.database

    @property
    def place(self) -> str:
        """Where the rows are: a directory, or the address of a server without its password."""
        return self._target.place

    @property
    def engine_options(self) -> dict[str, str]:
        """What every connection to the embedded engine is opened with: the engine wants to hear the same each time."""
        return self._target.engine_options()

    def _create_database(self) -> None:
        with contextlib.closing(self._target.client({}, database=None)) as client:
            try:
                client.command(
                    self.cluster.create_database()
                    if self.cluster
                    else f"CREATE DATABASE IF NOT EXISTS `{self.database}`"
                )
            except DriverError as error:
                code, name = code_of(error)
                raise StoreError(f"cannot create the database {self.database}", code=code, name=name) from None

    # Writing

    def insert(self, table: Table, batch: pa.RecordBatch, token: str) -> int:
        """Insert a batch with the columns of `table` (any order); the same token again stores nothing.

        Returns the bytes sent. Raises StoreError; `permanent` says whether the rows themselves are to blame.
        """
        settings = {**_INSERT_SETTINGS, **self._cluster_insert_settings(), "insert_deduplication_token": token}
        with self._write_lock:
            self._refuse_if_closed()
            return self._inserter.insert(table.name, tuple(batch.schema.names), batch, settings)

    def _cluster_insert_settings(self) -> dict[str, Any]:
        settings = {**WRITE_SETTINGS, **SAME_REPLICA_SETTINGS} if self.cluster else {}
        return settings | ({"insert_quorum": self.config.insert_quorum} if self.config.insert_quorum else {})

    def command(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        """Run a statement of the program itself that returns nothing, for instance DDL. Raises StoreError."""
        with self._write_lock:
            self._refuse_if_closed()
            try:
                self._writer.command(sql, parameters=dict(params or {}))
            except DriverError as error:
                code, name = code_of(error)
                words = " ".join(sql.split(None, 4)[:4])
                raise StoreError(f"cannot run {words!r} in {self.place}", code=code, name=name) from None

    def derive(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        """Run an `INSERT ... SELECT` of the program itself, on a connection of its own and one thread of the engine:
        no insert of what arrives waits for it. Raises StoreError."""
        with self._derive_lock:
            self._refuse_if_closed()
            try:
                if self._deriver is None:
                    settings = {**_DERIVE_SETTINGS, **self._cluster_insert_settings()}
                    settings |= READ_SETTINGS if self.cluster else {}
                    timeout_s = self.config.insert_timeout_s
                    self._deriver = self._target.client(settings, database=self.database, timeout_s=timeout_s)
                self._deriver.command(sql, parameters=dict(params or {}))
            except (DriverError, OSError) as error:
                if self._deriver is not None:
                    self._deriver.close()
                    self._deriver = None
                code, name = code_of(error)
                raise StoreError(f"cannot derive rows in {self.place}", code=code, name=name) from None

    # Reading

    def read_arrow(
        self, sql: str, params: Mapping[str, Any] | None = None, *, schema: pa.Schema | None = None
    ) -> pa.Table:
        """Answer a query of the program itself as Arrow, read-only and without the limits of users' queries.

        With `schema` (say `SPANS.arrow` for whole rows) the answer has exactly that schema, and inserting it again
        changes nothing. Raises StoreError.
        """
        with self._read_lock:
            self._refuse_if_closed()
            try:
                if self._reader is None:
                    self._reader = self._target.client(self._reader_settings(bounded=False), database=self.database)
                raw = self._reader.raw_query(sql, parameters=dict(params or {}), fmt="ArrowStream")
            except (DriverError, OSError) as error:
                self._drop_reader()
                code, name = code_of(error)
                raise StoreError(f"cannot read from {self.place}", code=code, name=name) from error
        if not raw:  # chDB writes no header for an answer without rows
            return (schema or pa.schema([])).empty_table()
        answer = pa.ipc.open_stream(raw).read_all()
        return answer if schema is None else answer.cast(schema)

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @contextlib.contextmanager
    def reader(self) -> Iterator[Client]:
        """Lend a read-only connection with the limits of users' queries.

        Raises OverloadedError if none is free within `reader_wait_s`. A connection that failed is not used again:
        chDB may still hold half an answer.
        """
        self._refuse_if_closed()
        try:
            client = self._readers.get(timeout=self.config.reader_wait_s)
        except queue.Empty:
            raise OverloadedError(
                f"all {self.config.readers} readers are busy: try again, or raise store.readers"
            ) from None
        try:
            if client is None:
                client = self._target.client(
                    self._reader_settings(bounded=True),
                    database=self.database,
                    timeout_s=self.config.query_timeout_s + 5,
                )
            yield client
        except BaseException:
            if client is not None:
                client.close()
                client = None
            raise
        finally:
            if self._closed and client is not None:
                client.close()
                client = None
            self._readers.put(client)

    def _reader_settings(self, *, bounded: bool) -> dict[str, Any]:
        settings: dict[str, Any] = {**_ARROW_SETTINGS, "max_threads": self.config.query_threads}
        if self.cluster:
            settings |= {**SAME_REPLICA_SETTINGS, **READ_SETTINGS}
        if bounded:
            settings |= {
                "max_execution_time": self.config.query_timeout_s,
                "max_memory_usage": self.config.query_memory_bytes,
                "max_result_rows": self.config.query_rows_max,
                "max_result_bytes": self.config.query_bytes_max,
                "result_overflow_mode": "throw",
            }
        # Last: nothing can be set after it. 2 would let a query change settings and read files.
        return {**settings, "readonly": 1}

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")

    def close(self, timeout_s: float = 10) -> None:
        """Refuse new work, wait for what runs (at most `timeout_s` for users' queries), and let go of the store."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout_s
        for _ in range(self.config.readers):
            with contextlib.suppress(queue.Empty):
                client = self._readers.get(timeout=max(0.0, deadline - time.monotonic()))
                if client is not None:
                    client.close()
        with self._read_lock:
            self._drop_reader()
        with self._derive_lock:
            if self._deriver is not None:
                self._deriver.close()
        with self._write_lock:
            self._inserter.close()
            self._writer.close()


@cache
def load_sql(package: str, name: str) -> str:
    """The text of `sql/<name>.sql` in a package."""
    return (resources.files(package) / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@contextlib.contextmanager
def _memory_file() -> Iterator[tuple[io.IOBase, str]]:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("insert")
        with os.fdopen(descriptor, "wb") as file:
            yield file, f"/proc/self/fd/{descriptor}"
    else:
        with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
            yield cast("io.IOBase", file), file.name


def _write_ipc(sink: io.IOBase, batch: pa.RecordBatch, compression: Literal["lz4"] | None) -> None:
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(batch)


__all__ = ["QueryError", "Store", "StoreConfig", "load_sql"]
