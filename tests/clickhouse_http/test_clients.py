"""The clients that people have, unchanged."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from tests.clickhouse_http.serving import Endpoint


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
