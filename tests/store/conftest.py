"""One engine for the tests of this folder (chDB allows a process one directory at a time), a database a test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import pytest

from spanwise.model import TABLES
from spanwise.store import Store, StoreConfig, TtlDays, open_store
from spanwise.store.migrate import apply_options, migrate
from tests.store.clickhouse_http import ClickHouseHTTP

FOREVER = TtlDays(spans=0, content=0, log_events=0, traces=0)


@pytest.fixture(scope="package")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Keeps the embedded engine open from the first test to the last."""
    store = Store(StoreConfig.model_validate({"dsn": f"chdb://{tmp_path_factory.mktemp('engine')}?database=keeper"}))
    yield store
    store.close()


@pytest.fixture(scope="package")
def endpoint(engine: Store) -> Iterator[ClickHouseHTTP]:
    with ClickHouseHTTP(engine.place) as server:
        yield server


@pytest.fixture(autouse=True)
def no_leftover_faults(endpoint: ClickHouseHTTP) -> None:
    endpoint.faults.clear()


@pytest.fixture(scope="package", params=["chdb", "http"])
def backend(request: pytest.FixtureRequest, engine: Store, endpoint: ClickHouseHTTP) -> Callable[[str], StoreConfig]:
    """Names a database of the engine as a store configuration: in the process, or behind HTTP."""

    def config(database: str) -> StoreConfig:
        if request.param == "chdb":
            dsn = f"chdb://{engine.place}?database={database}"
        else:
            dsn = f"http://default:@127.0.0.1:{endpoint.port}/{database}"
        return StoreConfig.model_validate({"dsn": dsn, "ttl_days": FOREVER, "reader_wait_s": 0.2})

    return config


@pytest.fixture(scope="package")
def shared(backend: Callable[[str], StoreConfig]) -> Iterator[Store]:
    store = open_store(Store(backend("shared")))
    yield store
    store.close()


@pytest.fixture
def store(shared: Store) -> Store:
    """A store with empty tables, for tests that leave the schema alone."""
    for table in TABLES:
        shared.command(f"TRUNCATE TABLE {table.name}")
    return shared


@pytest.fixture
def config(request: pytest.FixtureRequest, backend: Callable[[str], StoreConfig]) -> StoreConfig:
    """Points to a database of the test's own that does not exist yet."""
    return backend("t_" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16])


@pytest.fixture
def open_config(config: StoreConfig) -> Iterator[Callable[..., Store]]:
    """Opens stores on the test's own database, migrated, and closes them after it."""
    opened: list[Store] = []

    def make(**changes: object) -> Store:
        store = Store(config.model_copy(update=changes))
        opened.append(store)
        migrate(store)
        apply_options(store, store.config)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def fresh(open_config: Callable[..., Store]) -> Store:
    """A store of the test's own, for tests that change its schema."""
    return open_config()
