"""One store for the tests of this folder: chDB allows a process one directory at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from spanwise.model import SPANS
from spanwise.store import Store, StoreConfig, open_store
from tests.clickhouse_http.serving import Endpoint, serving
from tests.store import rows


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_store(Store(StoreConfig(dsn=SecretStr(f"chdb://{tmp_path_factory.mktemp('store')}"))))
    opened.insert(SPANS, rows.spans([rows.span(number, name=f"span {number}") for number in range(1, 4)]), "s")
    yield opened
    opened.close()


@pytest.fixture(scope="package")
def endpoint(store: Store) -> Iterator[Endpoint]:
    with serving(store) as running:
        yield running
