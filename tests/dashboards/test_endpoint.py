"""Every query of every dashboard through the port that Grafana asks, in the form its data source asks for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clickhouse_http.serving import Endpoint, serving
from tests.dashboards.boards import QUESTIONS, Question
from tests.dashboards.conftest import Filled
from tests.dashboards.grafana import expand

DATA_SOURCE = {"default_format": "Native", "client_protocol_version": "54460", "database": "spanwise"}


@pytest.fixture(scope="module")
def endpoint(filled: Filled) -> Iterator[Endpoint]:
    with serving(filled.store) as running:
        yield running


@pytest.mark.parametrize("one", QUESTIONS, ids=str)
def test_the_clickhouse_endpoint_answers_every_query(filled: Filled, endpoint: Endpoint, one: Question) -> None:
    response = endpoint.ask(expand(one.sql, filled.view(one.board)), {"Accept-Encoding": "gzip"}, **DATA_SOURCE)

    assert response.status == 200, response.data
    # an info before the first block, then its columns and rows
    assert response.data[:8] == b"\x01\x00\x02\xff\xff\xff\xff\x00"
    assert response.data[8] >= 1
    assert response.data[9] >= 1
