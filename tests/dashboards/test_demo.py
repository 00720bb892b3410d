"""The dashboards show the demo, sent to a running server as any traffic is, and asked for where Grafana asks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from spanwise.demo import traffic
from tests.dashboards.boards import QUESTIONS, Question
from tests.dashboards.grafana import View, expand
from tests.running import RunningServer

_NO_SUCH_THING = {
    "cost: Models without a price": "every model of the demo has a price",
}


_TELLING = "severity != 'info' AND agent_name != '' AND tool_name != ''"


@dataclass(frozen=True)
class Demo:
    """A server that has seen the demo, and what to choose in dashboards about one thing."""

    server: RunningServer
    chosen: dict[str, str]

    def client(self) -> Client:
        """As the data source connects: ClickHouse over HTTP, answers in Native format."""
        return clickhouse_connect.get_client(
            host="127.0.0.1", port=self.server.clickhouse_port, database="spanwise", autogenerate_session_id=False
        )

    def sql(self, one: Question) -> str:
        until = datetime.now(UTC) + timedelta(minutes=1)
        chosen = self.chosen if one.board in {"agent", "model_tool", "trace"} else {}
        return expand(one.sql, View(until - timedelta(hours=6), until, 60, chosen))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with RunningServer(tmp_path_factory.mktemp("demo") / "data") as server:
        sent = traffic.send(
            grpc_endpoint=server.grpc,
            http_endpoint=server.http,
            now_unix_nano=time.time_ns(),
            progress=lambda _played, _total: None,
        )
        server.wait_for("SELECT sum(span_count) FROM traces FINAL", sent.spans)
        server.wait_for(f"SELECT count() > 0 FROM findings FINAL WHERE {_TELLING}", 1)
        chosen = {
            "trace_id": f"SELECT min(trace_id) FROM findings FINAL WHERE {_TELLING}",
            "agent": f"SELECT min(agent_name) FROM findings FINAL WHERE {_TELLING}",
            "tool": f"SELECT min(tool_name) FROM findings FINAL WHERE {_TELLING}",
            "model": "SELECT min(response_model) FROM spans FINAL WHERE time_to_first_chunk_s > 0",
        }
        yield Demo(server, {name: next(iter(server.sql(sql)[0].values())) for name, sql in chosen.items()})


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
