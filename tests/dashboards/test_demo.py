"""The dashboards show the demo, sent to a running server as any traffic is, and asked for where Grafana asks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from clickhouse_connect.driver.client import Client

from tests.dashboards.boards import QUESTIONS, Question
from tests.dashboards.demo import Demo, demo_server

_NO_SUCH_THING = {
    "cost: Models without a price": "every model of the demo has a price",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with demo_server(tmp_path_factory.mktemp("demo") / "data") as demo:
        yield demo


@pytest.fixture(scope="module")
def client(demo: Demo) -> Iterator[Client]:
    made = demo.client()
    yield made
    made.close()


@pytest.mark.parametrize("one", QUESTIONS, ids=str)
def test_a_dashboard_of_the_demo_has_no_empty_panel(demo: Demo, client: Client, one: Question) -> None:
    answer = client.query(demo.sql(one))

    columns = dict(zip(answer.column_names, answer.result_columns, strict=False))
    shown = [value for name, values in columns.items() if name != "time" for value in values if value is not None]
    assert bool(shown) == (str(one) not in _NO_SUCH_THING)


def test_dashboards_that_several_people_open_at_once_are_answered(demo: Demo) -> None:
    """The data source opens up to 50 connections, whatever the number of browsers behind it."""
    questions = [*QUESTIONS, *QUESTIONS][:50]

    def ask(one: Question) -> bool:
        with contextlib.closing(demo.client()) as client:
            client.query(demo.sql(one))  # a refusal would be raised
        return True

    with ThreadPoolExecutor(len(questions)) as people:
        assert sum(people.map(ask, questions)) == 50
