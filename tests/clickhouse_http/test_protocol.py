"""The HTTP interface of ClickHouse as its clients use it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import socket
import zlib
from collections.abc import Callable

import cramjam
import pyarrow as pa
import pyarrow.parquet
import pytest

from spanwise.query.embedded import FORMATS
from spanwise.store import Store
from spanwise.web import ReaderConfig
from tests.clickhouse_http.serving import Endpoint, serving


@pytest.mark.parametrize("path", ["/ping", "/replicas_status", "/"])
def test_health_checks_are_answered(endpoint: Endpoint, path: str) -> None:
    response = endpoint.http.request("GET", endpoint.url + path)

    assert (response.status, response.data) == (200, b"Ok.\n")


def test_a_query_may_be_in_the_address_in_the_body_or_in_both(endpoint: Endpoint) -> None:
    got = endpoint.http.request("GET", f"{endpoint.url}/?query=SELECT%201%2B1")

    assert got.data == b"2\n"
    assert endpoint.text("SELECT 1+1") == "2\n"
    assert endpoint.text("1+1", query="SELECT") == "2\n"


def test_a_query_may_come_as_a_form_with_its_parameters(endpoint: Endpoint) -> None:
    fields = {"query": "SELECT {x:String}", "param_x": "a\\tb"}

    response = endpoint.http.request("POST", endpoint.url, fields=fields)

    assert (response.status, response.data) == (200, b"a\\tb\n")


def test_a_client_that_waits_to_be_asked_for_its_query_is_asked(endpoint: Endpoint) -> None:
    with socket.create_connection((endpoint.host, endpoint.port), timeout=30) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n")
        asked = connection.recv(1000)
        connection.sendall(b"SELECT 1")
        answer = connection.recv(10_000)

    assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_a_query_may_be_compressed(endpoint: Endpoint) -> None:
    response = endpoint.ask(gzip.compress(b"SELECT 'pressed'"), {"Content-Encoding": "gzip"})

    assert response.data == b"pressed\n"


@pytest.mark.parametrize(
    ("statement", "parameters", "headers", "answered"),
    [
        ("SELECT 1 AS n", {}, {}, "TabSeparated"),
        ("SELECT 1 AS n", {"default_format": "JSONCompact"}, {}, "JSONCompact"),
        ("SELECT 1 AS n", {"default_format": "JSON"}, {"X-ClickHouse-Format": "CSV"}, "CSV"),
        (
            "SELECT 1 AS n FORMAT CSVWithNames",
            {"default_format": "JSON"},
            {"X-ClickHouse-Format": "XML"},
            "CSVWithNames",
        ),
        ("SELECT 1 AS n format jsoneachrow", {}, {}, "JSONEachRow"),
        ("SHOW TABLES FORMAT JSON", {}, {}, "JSON"),
        ("DESCRIBE spans FORMAT TSVWithNames", {}, {}, "TSVWithNames"),
        ("EXPLAIN SELECT 1", {}, {}, "TabSeparated"),
    ],
)
def test_the_statement_says_the_format_before_the_header_and_the_address(
    endpoint: Endpoint, statement: str, parameters: dict[str, str], headers: dict[str, str], answered: str
) -> None:
    response = endpoint.ask(statement, headers, **parameters)

    assert (response.status, response.headers["X-ClickHouse-Format"]) == (200, answered)


ROWS = "SELECT number AS n, toString(number) AS s FROM numbers(2)"


NATIVE = b"\x02\x02\x01n\x06UInt64" + bytes(8) + b"\x01" + bytes(7) + b"\x01s\x06String\x010\x011"


@pytest.mark.parametrize(
    ("format_", "content_type", "body"),
    [
        ("TabSeparated", "text/tab-separated-values; charset=UTF-8", b"0\t0\n1\t1\n"),
        ("CSVWithNames", "text/csv; charset=UTF-8", b'"n","s"\n0,"0"\n1,"1"\n'),
        ("JSONEachRow", "application/x-ndjson; charset=UTF-8", b'{"n":0,"s":"0"}\n{"n":1,"s":"1"}\n'),
        ("JSONCompactEachRowWithNames", "application/x-ndjson; charset=UTF-8", b'["n", "s"]\n[0, "0"]\n[1, "1"]\n'),
        ("RowBinary", "application/octet-stream", b"".join(bytes([n] + [0] * 7 + [1, 48 + n]) for n in range(2))),
        ("Native", "application/octet-stream", NATIVE),
    ],
)
def test_formats_are_those_of_clickhouse(endpoint: Endpoint, format_: str, content_type: str, body: bytes) -> None:
    response = endpoint.ask(ROWS, default_format=format_)

    assert (response.headers["Content-Type"], response.data) == (content_type, body)


def test_arrow_and_parquet_can_be_read_by_others(endpoint: Endpoint) -> None:
    stream = endpoint.ask(ROWS, default_format="ArrowStream").data
    file = endpoint.ask(ROWS, default_format="Parquet").data

    assert pa.ipc.open_stream(stream).read_all().column("n").to_pylist() == [0, 1]
    assert pa.parquet.read_table(io.BytesIO(file)).column("n").to_pylist() == [0, 1]


def test_json_says_how_many_rows_there_are_and_of_what_type(endpoint: Endpoint) -> None:
    answer = json.loads(endpoint.text(f"{ROWS} FORMAT JSONCompact"))

    assert answer["meta"] == [{"name": "n", "type": "UInt64"}, {"name": "s", "type": "String"}]
    assert (answer["data"], answer["rows"]) == ([[0, "0"], [1, "1"]], 2)


def test_a_format_that_is_not_offered_is_refused_as_unknown(endpoint: Endpoint) -> None:
    for format_ in ("Nope", "Template", "Protobuf"):
        response = endpoint.ask(f"SELECT 1 FORMAT {format_}")

        assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (404, "73")


def test_parameters_are_bound_by_their_type(endpoint: Endpoint) -> None:
    statement = "SELECT {s:String}, {a:Array(String)}, {n:Nullable(Int8)}, {d:DateTime('UTC')}"

    answer = endpoint.text(
        statement, param_s="x' OR 1=1 --\\t", param_a="['q\\'x','b']", param_n="\\N", param_d="2026-01-01 00:00:00"
    )

    assert answer == "x\\' OR 1=1 --\\t\t['q\\'x','b']\t\\N\t2026-01-01 00:00:00\n"


def test_every_answer_has_the_headers_that_clients_read(endpoint: Endpoint) -> None:
    response = endpoint.ask("SELECT count() FROM spans", query_id="mine-1")
    summary = json.loads(response.headers["X-ClickHouse-Summary"])

    assert response.headers["X-ClickHouse-Query-Id"] == "mine-1"
    assert response.headers["X-ClickHouse-Timezone"] == endpoint.text("SELECT timezone()").strip()
    assert response.headers["X-ClickHouse-Server-Display-Name"] == "spanwise"
    assert int(summary["read_rows"]) >= 1
    assert int(summary["elapsed_ns"]) > 0


def test_a_query_without_an_id_gets_one_of_its_own(endpoint: Endpoint) -> None:
    ids = {endpoint.ask("SELECT 1", query_id=given).headers["X-ClickHouse-Query-Id"] for given in ("", "a b", "\r\nx")}

    assert len(ids) == 3
    assert all(len(found) == 36 for found in ids)


@pytest.mark.parametrize(
    ("statement", "status", "code", "name"),
    [
        ("SELEC 1", 400, 62, "SYNTAX_ERROR"),
        ("", 400, 62, "SYNTAX_ERROR"),
        ("SELECT nope FROM spans", 404, 47, "UNKNOWN_IDENTIFIER"),
        ("SELECT 1 FROM nope", 404, 60, "UNKNOWN_TABLE"),
        ("SELECT nope(1)", 404, 46, "UNKNOWN_FUNCTION"),
        ("SELECT throwIf(1)", 500, 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("INSERT INTO spans (tenant) VALUES ('x')", 403, 164, "READONLY"),
        ("SELECT file('/etc/hostname')", 403, 497, "ACCESS_DENIED"),
        ("SELECT {x:String}", 400, 456, "UNKNOWN_QUERY_PARAMETER"),
    ],
)
def test_errors_have_the_shape_that_clients_take_apart(
    endpoint: Endpoint, statement: str, status: int, code: int, name: str
) -> None:
    response = endpoint.ask(statement)
    text = response.data.decode()

    assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert text.startswith(f"Code: {code}. DB::Exception: ")
    assert f" ({name}) (version " in text
    assert text.count("DB::Exception") == 1
    assert "OUTFILE" not in text


def test_an_error_after_the_beginning_of_an_answer_is_told_inside_it_and_the_answer_has_no_end(
    endpoint: Endpoint,
) -> None:
    response = endpoint.http.request(
        "POST", endpoint.url, body="SELECT throwIf(number = 900000) FROM numbers(1000000)", preload_content=False
    )
    received = bytearray()
    with pytest.raises(Exception, match=r"ended prematurely|IncompleteRead"):  # noqa: PT012 - up to the cut
        for piece in response.stream(1 << 16):
            received += piece
    tag = response.headers["X-ClickHouse-Exception-Tag"]

    assert response.status == 200
    assert f"\r\n__exception__\r\n{tag}\r\nCode: 395. DB::Exception: ".encode() in received
    assert received.endswith(f" {tag}\r\n__exception__\r\n".encode())


LONG = "SELECT number, 'padding' FROM numbers(300000)"


@pytest.mark.parametrize(
    ("accepted", "encoding", "decode"),
    [
        ("gzip", "gzip", gzip.decompress),
        ("deflate, gzip;q=0", "deflate", zlib.decompress),
        ("br", "br", cramjam.brotli.decompress),
        ("lz4", "lz4", cramjam.lz4.decompress),
        ("gzip, deflate, zstd", "zstd", cramjam.zstd.decompress),
        ("nonsense", None, bytes),
    ],
)
@pytest.mark.parametrize("statement", ["SELECT 'short'", LONG])
def test_answers_come_in_the_best_encoding_the_client_accepts(
    endpoint: Endpoint, statement: str, accepted: str, encoding: str | None, decode: Callable[[bytes], bytes]
) -> None:
    plain = endpoint.text(statement)

    response = endpoint.http.request(
        "POST", endpoint.url, body=statement, headers={"Accept-Encoding": accepted}, decode_content=False
    )

    assert response.headers.get("Content-Encoding") == encoding
    assert bytes(decode(response.data)).decode() == plain


def test_a_client_may_ask_for_a_plain_answer(endpoint: Endpoint) -> None:
    response = endpoint.ask(LONG, {"Accept-Encoding": "gzip"}, enable_http_compression="0")

    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize("database", ["", "default", "spanwise"])
def test_clients_that_were_told_no_database_find_the_tables(endpoint: Endpoint, database: str) -> None:
    assert endpoint.text("SELECT uniq(span_id) FROM spans", database=database) == "3\n"


def test_a_database_can_be_chosen_and_an_unknown_one_is_refused(endpoint: Endpoint) -> None:
    assert endpoint.text("SELECT dummy FROM one", database="system") == "0\n"
    assert endpoint.ask("SELECT dummy FROM one", {"X-ClickHouse-Database": "system"}).data == b"0\n"
    for database in ("nope", "x`; DROP TABLE spans; --"):
        response = endpoint.ask("SELECT 1", database=database)
        assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (404, "81")


# Tokens


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


READERS = (
    ReaderConfig(name="grafana", sha256=digest("all")),
    ReaderConfig(name="acme", sha256=digest("one"), tenant="acme"),
)


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "parameters", "code"),
    [
        ({"Authorization": "Bearer all"}, {}, None),
        (basic("all"), {}, None),
        ({"X-ClickHouse-User": "anybody", "X-ClickHouse-Key": "all"}, {}, None),
        ({}, {"user": "anybody", "password": "all"}, None),
        ({}, {}, "194"),
        (basic(""), {}, "194"),
        (basic("wrong"), {}, "516"),
        ({"Authorization": "Bearer wrong"}, {}, "516"),
        ({"Authorization": "Basic nonsense!"}, {}, "194"),
        ({"X-ClickHouse-Key": "wrong"}, {}, "516"),
        ({"Authorization": "Bearer one"}, {}, "497"),
        (basic("one"), {}, "497"),
    ],
)
def test_a_token_is_the_password_of_any_user(
    store: Store, headers: dict[str, str], parameters: dict[str, str], code: str | None
) -> None:
    with serving(store, READERS) as guarded:
        response = guarded.ask("SELECT 1", headers, **parameters)

    assert response.headers.get("X-ClickHouse-Exception-Code") == code
    assert (response.status == 200) == (code is None)


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_that_is_offered_is_answered(endpoint: Endpoint, format_: str) -> None:
    response = endpoint.ask("SELECT 'x' AS s", default_format=format_)

    assert (response.status, response.headers["X-ClickHouse-Format"]) == (200, format_)
    assert (b"x" in response.data) == (format_ != "Null")


def test_an_answer_without_rows_has_its_header_where_the_format_has_one(endpoint: Endpoint) -> None:
    statement = "SELECT 1 AS n WHERE 0"

    assert endpoint.ask(statement, default_format="Native").data == b""
    assert endpoint.text(statement, default_format="CSVWithNames") == '"n"\n'
    assert pa.ipc.open_stream(endpoint.ask(statement, default_format="ArrowStream").data).schema.names == ["n"]
    assert json.loads(endpoint.text(statement, default_format="JSON"))["rows"] == 0
