"""What the endpoint refuses, and what it does to those who would take it for themselves."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from spanwise.store import Store
from tests.clickhouse_http.serving import Endpoint, serving

ENDLESS = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"
WIDE = "SELECT repeat('x', 1000) AS x FROM numbers(200000)"


def code(endpoint: Endpoint, statement: str | bytes, /, **parameters: str) -> str | None:
    return endpoint.ask(statement, **parameters).headers.get("X-ClickHouse-Exception-Code")


def until(holds: Callable[[], bool]) -> None:
    """Wait for what comes soon; the timeout of the test is the limit."""
    while not holds():
        time.sleep(0.02)


def running(endpoint: Endpoint, what: str = "running") -> int:
    return int(endpoint.telemetry.registry.get_sample_value(f"spanwise_clickhouse_queries_{what}") or 0)


def counted(endpoint: Endpoint, name: str, **labels: str) -> float:
    return endpoint.telemetry.registry.get_sample_value(f"spanwise_clickhouse_{name}_total", labels) or 0


@contextmanager
def asking(endpoint: Endpoint, statement: str, **parameters: str) -> Iterator[socket.socket]:
    """A connection on which a query was sent, and nothing is read."""
    address = "&".join(f"{name}={value}" for name, value in parameters.items())
    with closing(socket.create_connection((endpoint.host, endpoint.port), timeout=60)) as connection:
        head = f"POST /?{address} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(statement)}\r\n\r\n"
        connection.sendall((head + statement).encode())
        yield connection


# Settings


@pytest.mark.parametrize(
    "parameters",
    [
        {"readonly": "0"},
        {"readonly": "2"},
        {"allow_ddl": "1"},
        {"output_format_schema": "/tmp/written"},
        {"format_schema": "/etc/passwd"},
        {"format_template_resultset": "/etc/passwd"},
        {"additional_table_filters": "{'spans': 'file(\\'/etc/passwd\\') = 1'}"},
        {"log_queries_probability": "1"},
        {"max_memory_usage_for_user": "1"},
        {"no_such_setting": "1"},
        {"a b": "1"},
        {"max_threads = 1, readonly": "0"},
    ],
)
def test_settings_outside_of_the_list_are_refused(endpoint: Endpoint, parameters: dict[str, str]) -> None:
    ((name, value),) = parameters.items()
    inside = f"SELECT 1 SETTINGS {name} = '{value}'" if name.isidentifier() else "SELECT nope("

    assert code(endpoint, "SELECT 1", **parameters) == "164"
    assert code(endpoint, inside) in {"164", "62"}


@pytest.mark.parametrize(
    ("name", "asked", "given"),
    [
        ("max_execution_time", "3", "3"),
        ("max_execution_time", "0.5", "0.5"),
        ("max_execution_time", "100000", "30"),
        ("max_execution_time", "0", "30"),
        ("max_memory_usage", "0", "536870912"),
        ("max_memory_usage", "100000000", "100000000"),
        ("max_result_rows", "999999999999", "1000000"),
        ("max_threads", "64", "2"),
        ("join_use_nulls", "1", "true"),
        ("session_timezone", "Europe/Berlin", "Europe/Berlin"),
    ],
)
def test_a_query_may_ask_for_less_than_the_limits_and_not_for_more(
    endpoint: Endpoint, name: str, asked: str, given: str
) -> None:
    question = f"SELECT getSetting('{name}')"

    assert endpoint.text(question, **{name: asked}) == f"{given}\n"
    quoted = asked if asked.replace(".", "").isdecimal() else f"'{asked}'"
    assert endpoint.text(f"{question} SETTINGS {name} = {quoted}") == f"{given}\n"
    assert endpoint.text(f"{question} FORMAT TSV SETTINGS {name} = {quoted}") == f"{given}\n"


def test_read_only_stays_in_force_whatever_a_query_says(endpoint: Endpoint) -> None:
    assert endpoint.text("SELECT getSetting('readonly')", readonly="1") == "1\n"
    assert endpoint.text("SELECT getSetting('readonly') SETTINGS readonly = 1") == "1\n"
    for statement in (
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
        "SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 0)",
        "SET readonly = 0",
        "SELECT 1 FORMAT TSV SETTINGS allow_ddl = 1",
        "SELECT 1 SETTINGS max_threads = DEFAULT",
    ):
        assert code(endpoint, statement) in {"164", "62", "72"}, statement


def test_formats_are_shaped_by_settings(endpoint: Endpoint) -> None:
    statement = "SELECT toUInt64(1) AS n FORMAT JSONEachRow"

    assert endpoint.text(statement, output_format_json_quote_64bit_integers="1") == '{"n":"1"}\n'
    assert endpoint.text(f"{statement} SETTINGS output_format_json_quote_64bit_integers = 1") == '{"n":"1"}\n'


def test_what_is_about_the_connection_means_nothing(endpoint: Endpoint) -> None:
    assert endpoint.text(
        "SELECT 1", session_id="s", session_timeout="60", quota_key="k", buffer_size="1", role="r",
        send_progress_in_http_headers="1", cancel_http_readonly_queries_on_client_close="1",
    ) == "1\n"  # fmt: skip


# Statements


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM file('{path}')",
        "SELECT file('{path}')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a Int8')",
        "SELECT * FROM executable('id', 'TSV', 'a String')",
        "SELECT * FROM default.`{path}`",
        "SELECT * FROM merge('default', '.*')",
        "SELECT * FROM merge('default', '{path}')",
        "SELECT 1 INTO OUTFILE '{path}'",
        "SELECT 1; SELECT 2",
        "SELECT 1 /* */; DROP TABLE spans",
        "DROP TABLE spans",
        "INSERT INTO spans SELECT * FROM spans",
        "SYSTEM SHUTDOWN",
        "KILL QUERY WHERE 1",
        "USE system",
        "SELECT {{x:Identifier}}",
    ],
)
def test_a_query_reads_the_store_and_nothing_else(endpoint: Endpoint, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "secret.csv"
    path.write_text("secret,1\n")

    response = endpoint.ask(statement.format(path=path), param_x="file")

    assert response.headers["X-ClickHouse-Exception-Code"] in {"62", "164", "497", "636"}
    assert b"secret,1" not in response.data
    assert path.read_text() == "secret,1\n"


@pytest.mark.parametrize("parameter", ["x'; DROP TABLE spans; --", "1) FROM file('/etc/passwd') --"])
def test_parameters_are_values_and_never_statements(endpoint: Endpoint, parameter: str) -> None:
    assert json.loads(endpoint.text("SELECT {x:String} AS x FORMAT JSONEachRow", param_x=parameter))["x"] == parameter
    assert code(endpoint, "SELECT {x:UInt8}", param_x=parameter) == "457"


def test_a_long_query_is_answered_and_a_longer_one_refused(endpoint: Endpoint) -> None:
    assert endpoint.text(f"SELECT length('{'x' * 700_000}')") == "700000\n"
    for body, headers in (
        (b"SELECT 1 --" + b"x" * (1 << 20), {}),
        (gzip.compress(bytes(10 << 20)), {"Content-Encoding": "gzip"}),
    ):
        response = endpoint.ask(body, headers)
        assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (413, "223")


@pytest.mark.parametrize("body", [b"\xff\xfe", b"SELECT 1\0", gzip.compress(b"SELECT 1", mtime=0)[:-4]])
def test_what_is_no_query_is_refused(endpoint: Endpoint, body: bytes) -> None:
    headers = {"Content-Encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}

    assert endpoint.ask(body, headers).status == 400


def test_pages_of_other_origins_and_rebound_names_get_nothing(endpoint: Endpoint) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        response = endpoint.ask("SELECT 1", headers)
        assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (403, "497")


# Resources


@pytest.mark.parametrize(
    ("options", "statement", "expected"),
    [
        ({"query_timeout_s": 1}, ENDLESS, "159"),
        ({"query_rows_max": 10}, "SELECT number FROM numbers(11)", "396"),
        ({"query_bytes_max": 1 << 20}, WIDE, "396"),
        ({"query_bytes_max": 1 << 20}, "SELECT repeat(toString(number), 1000) FROM numbers(5000)", "396"),
        ({"query_memory_bytes": 64 << 20}, "SELECT groupArray(number) FROM numbers(100000000)", "241"),
    ],
)
def test_a_query_that_takes_too_much_is_stopped_and_told_so(
    store: Store, options: dict[str, Any], statement: str, expected: str
) -> None:
    with serving(store, **options) as limited:
        assert code(limited, statement, wait_end_of_query="1") == expected
        assert limited.text("SELECT 1") == "1\n"


def test_a_query_ends_when_its_client_leaves(endpoint: Endpoint) -> None:
    left = counted(endpoint, "queries", outcome="left")

    with asking(endpoint, ENDLESS):
        until(lambda: running(endpoint) == 1)

    until(lambda: running(endpoint) == 0)
    assert counted(endpoint, "queries", outcome="left") == left + 1
    assert (
        endpoint.text(
            "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64%' AND query NOT LIKE '%processes%'"
        )
        == "0\n"
    )


def test_a_client_that_does_not_take_its_answer_is_cut_off(store: Store) -> None:
    with serving(store, answer_timeout_s=1.0) as hasty, asking(hasty, WIDE) as connection:
        until(lambda: counted(hasty, "refused_connections", reason="slow_answer") == 1)
        until(lambda: running(hasty) == 0)
        with pytest.raises(ConnectionError):  # noqa: PT012 - after what the system has buffered
            while connection.recv(1 << 20):
                pass
            raise ConnectionError


def test_queries_over_the_limit_wait_in_a_short_queue_and_then_are_told_to_come_back(store: Store) -> None:
    with (
        serving(store, queries_concurrent=2, queries_queue=1) as busy,
        asking(busy, ENDLESS),
        asking(busy, ENDLESS) as last,
    ):
        until(lambda: running(busy) == 2)
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(busy.text, "SELECT 'waited'")
            until(lambda: running(busy, "waiting") == 1)
            refused = busy.ask("SELECT 1")
            last.close()

            assert waiting.result() == "waited\n"

    assert (refused.status, refused.headers["X-ClickHouse-Exception-Code"]) == (503, "202")
    assert refused.headers["Retry-After"] == "1"
    assert b"(TOO_MANY_SIMULTANEOUS_QUERIES)" in refused.data


def test_a_query_that_waited_too_long_is_refused(store: Store) -> None:
    with serving(store, queries_concurrent=1, queue_timeout_s=0.1) as busy, asking(busy, ENDLESS):
        until(lambda: running(busy) == 1)

        assert code(busy, "SELECT 1") == "202"


def test_many_clients_at_once_all_get_their_own_answer(endpoint: Endpoint) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda number: endpoint.text(f"SELECT {number}"), range(100)))

    assert answers == [f"{number}\n" for number in range(100)]


def test_connections_over_the_cap_are_turned_away_and_the_others_are_answered(store: Store) -> None:
    with serving(store, connections_max=3) as capped:
        held = [socket.create_connection((capped.host, capped.port), timeout=30) for _ in range(4)]
        received = held[3].recv(1000)
        for connection in held:
            connection.close()

        assert received.startswith(b"HTTP/1.1 503 ")
        assert b"X-ClickHouse-Exception-Code: 202" in received
        until(lambda: capped.ask("SELECT 1").status == 200)


@pytest.mark.parametrize(
    "begun", [b"", b"POST / HTTP/1.1\r\nHo", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nSEL"]
)
def test_a_client_that_is_slow_to_ask_is_cut_off(store: Store, begun: bytes) -> None:
    with (
        serving(store, request_timeout_s=0.3) as hasty,
        closing(socket.create_connection((hasty.host, hasty.port), timeout=30)) as slow,
    ):
        slow.sendall(begun)
        received = b""
        while piece := slow.recv(1 << 16):
            received += piece

    assert received == b"" or b"X-ClickHouse-Exception-Code: 159" in received


@pytest.mark.parametrize(
    "head",
    [
        b"GET /?query=SELECT%201&x=" + b"y" * (1 << 20) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"y" * (1 << 20) + b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_oversized_and_broken_heads_are_refused(endpoint: Endpoint, head: bytes) -> None:
    with closing(socket.create_connection((endpoint.host, endpoint.port), timeout=30)) as connection:
        answer = b""
        try:
            connection.sendall(head)
            answer = connection.recv(1000)
        except ConnectionError:
            pass  # it was refused while it still was being sent

    assert not answer or answer.split(b" ")[1] == b"400"
    assert endpoint.text("SELECT 1") == "1\n"


def test_a_long_query_fits_into_the_address(endpoint: Endpoint) -> None:
    text = "x" * 40_000

    response = endpoint.http.request("GET", f"{endpoint.url}/?query=SELECT%20length('{text}')")

    assert response.data == b"40000\n"


def test_queries_leave_nothing_open_however_they_end(endpoint: Endpoint) -> None:
    def each_ending() -> None:
        endpoint.text("SELECT 1")
        code(endpoint, "SELECT nope")
        code(endpoint, "SELECT throwIf(number = 3) FROM numbers(10)")
        with asking(endpoint, ENDLESS):
            until(lambda: running(endpoint) == 1)
        with asking(endpoint, WIDE) as connection:
            connection.recv(1000)
        until(lambda: running(endpoint) == 0)

    process = psutil.Process()
    each_ending()
    before = process.num_fds()
    for _ in range(2):
        each_ending()

    until(lambda: process.num_fds() <= before)


def test_nothing_of_the_endpoint_is_left_after_it_stopped(store: Store) -> None:
    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("spanwise-")}

    before = threads()
    with serving(store) as stopping, asking(stopping, ENDLESS) as connection:
        until(lambda: running(stopping) == 1)
        connection.setblocking(False)

    until(lambda: threads() == before)
