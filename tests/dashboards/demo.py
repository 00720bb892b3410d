"""A server that has seen the demo, sent as any traffic is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from spanwise.demo import traffic
from tests.dashboards.boards import Question
from tests.dashboards.grafana import View, expand
from tests.running import RunningServer

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


@contextmanager
def demo_server(directory: Path) -> Iterator[Demo]:
    """Start, send the demo and wait until all of it is found."""
    with RunningServer(directory) as server:
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
