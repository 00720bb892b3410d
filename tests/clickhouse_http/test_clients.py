"""The clients that people have, unchanged."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from tests.clickhouse_http import programs
from tests.clickhouse_http.serving import Endpoint

pytestmark = pytest.mark.timeout(400)
"""The first test of a client waits until it is installed or compiled."""


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> Iterator[Client]:
    made = clickhouse_connect.get_client(host=endpoint.host, port=endpoint.port)
    yield made
    made.close()


def test_clickhouse_connect_reads_rows_frames_and_arrow(client: Client) -> None:
    statement = "SELECT span_id, name, start_time FROM spans FINAL ORDER BY span_id"

    rows = client.query(statement).result_rows

    assert [row[:2] for row in rows] == [(f"{number:016x}", f"span {number}") for number in (1, 2, 3)]
    assert client.query_arrow(statement).column("name").to_pylist() == ["span 1", "span 2", "span 3"]
    assert client.ping()


def test_clickhouse_connect_binds_parameters(client: Client) -> None:
    values = {"s": "q'\\\t\n", "a": ["x'\\", "y"], "d": dt.datetime(2026, 1, 2), "n": None}

    (row,) = client.query(
        "SELECT {s:String}, {a:Array(String)}, {d:DateTime}, {n:Nullable(Int8)}", parameters=values
    ).result_rows

    assert row == tuple(values.values())


def test_clickhouse_connect_streams_blocks(client: Client) -> None:
    with client.query_row_block_stream("SELECT number, toString(number) FROM numbers(300000)") as blocks:
        sizes = [len(block) for block in blocks]

    assert sum(sizes) == 300_000
    assert len(sizes) > 1


def test_clickhouse_connect_raises_what_the_engine_says(client: Client) -> None:
    with pytest.raises(DatabaseError, match=r"code: 47.*Unknown expression identifier `nope`") as raised:
        client.query("SELECT nope FROM spans")

    assert raised.value.code == 47


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_clickhouse_connect_finds_an_error_in_the_middle_of_an_answer(client: Client) -> None:
    with (
        pytest.raises(StreamFailureError, match="throwIf"),
        client.query_row_block_stream("SELECT number, throwIf(number = 900000) FROM numbers(1000000)") as blocks,
    ):
        for _ in blocks:
            pass


async def test_clickhouse_connect_asks_without_blocking_too(endpoint: Endpoint) -> None:
    client = await clickhouse_connect.get_async_client(host=endpoint.host, port=endpoint.port)
    rows = (await client.query("SELECT number, toString(number) FROM numbers(200000)")).result_rows
    with pytest.raises(DatabaseError, match="code: 47"):
        await client.query("SELECT nope")
    await client.close()

    assert len(rows) == 200_000


# @clickhouse/client


@pytest.fixture(scope="module")
def javascript(endpoint: Endpoint) -> dict[str, Any]:
    return programs.javascript(endpoint.url)


def test_the_javascript_client_reads_rows_json_and_streams(javascript: dict[str, Any]) -> None:
    assert javascript["ping"]
    assert javascript["rows"] == [{"span_id": f"{number:016x}", "name": f"span {number}"} for number in (1, 2, 3)]
    assert javascript["json"] == {"meta": [{"name": "n", "type": "UInt64"}], "data": [{"n": 3}], "rows": 1}
    assert javascript["stream"] == 300_000
    assert javascript["plain"] == "1\n"
    assert javascript["query_id"] == {"id": "from-javascript", "format": "CSV"}


def test_the_javascript_client_binds_parameters_and_sets_settings(javascript: dict[str, Any]) -> None:
    assert javascript["parameters"] == [{"s": "q'\\\t\n", "a": ["x'\\", "y"], "n": None, "b": True, "m": {"k": 1}}]
    assert javascript["settings"] == [{"s": 7}]


def test_the_javascript_client_takes_errors_apart(javascript: dict[str, Any]) -> None:
    found = {name: (javascript[name]["code"], javascript[name]["type"]) for name in ("syntax", "insert", "command")}

    assert found == {"syntax": ("62", "SYNTAX_ERROR"), "insert": ("164", "READONLY"), "command": ("164", "READONLY")}


def test_a_query_ends_when_the_javascript_client_aborts_it(endpoint: Endpoint, javascript: dict[str, Any]) -> None:
    assert "abort" in javascript["abort"]["message"]
    assert nothing_runs(endpoint)


# clickhouse-go, which is what the official data source of Grafana uses


@pytest.fixture(scope="module")
def go(endpoint: Endpoint) -> dict[str, Any]:
    return programs.go(f"{endpoint.host}:{endpoint.port}")


ENCODINGS = ("none", "lz4", "zstd", "gzip", "deflate", "br")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_clickhouse_go_reads_columns_of_every_kind(go: dict[str, Any], encoding: str) -> None:
    assert go[f"native_{encoding}"] == {"rows": 20_000, "sum": sum(range(20_000))}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_clickhouse_go_finds_an_error_in_the_middle_of_an_answer(go: dict[str, Any], encoding: str) -> None:
    assert go[f"late_{encoding}"] == 395


def test_clickhouse_go_takes_errors_apart(go: dict[str, Any]) -> None:
    assert (go["syntax"], go["insert"], go["unsendable"]) == (62, 164, 48)


def test_clickhouse_go_binds_parameters(go: dict[str, Any]) -> None:
    assert go["parameters"] == ["it is", 7]


def test_what_the_data_source_of_grafana_asks_is_answered(go: dict[str, Any]) -> None:
    assert go["grafana"] == {
        "limited": ["span 1", "span 2"],
        "database": ["spanwise"],
        "tables": ["spans"],
        "columns": ["tenant"],
        "described": 7,
    }


def test_a_query_ends_when_clickhouse_go_cancels_it(endpoint: Endpoint, go: dict[str, Any]) -> None:
    assert go["cancelled"] == "cancelled"
    assert nothing_runs(endpoint)


def nothing_runs(endpoint: Endpoint) -> bool:
    """Waits for it: the timeout of the test is the limit."""
    while endpoint.telemetry.registry.get_sample_value("spanwise_clickhouse_queries_running"):
        time.sleep(0.02)
    return True
