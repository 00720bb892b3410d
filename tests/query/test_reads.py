"""What users may ask of the store, and what they may not, on the embedded engine."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from pydantic import SecretStr

from spanwise.model import FINDINGS, SPANS, TRACES
from spanwise.query import (
    ConfinedError,
    FindingFilter,
    ManyTracesError,
    NoSuchTraceError,
    StoreQueries,
    TraceFilter,
)
from spanwise.store import QueryError, Store, StoreConfig, open_store
from tests.store import rows


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    directory = tmp_path_factory.mktemp("store")
    opened = open_store(Store(StoreConfig(dsn=SecretStr(f"chdb://{directory}"))))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def queries(store: Store) -> StoreQueries:
    return StoreQueries(store)


@pytest.fixture(scope="module", autouse=True)
def _rows(store: Store) -> None:
    old, new = "a" * 32, "ab" + "b" * 30
    store.insert(
        SPANS, rows.spans([rows.span(1, trace_id=old), rows.span(2, trace_id=old, parent_span_id=f"{1:016x}")]), "s"
    )
    store.insert(
        TRACES,
        rows.traces(
            [
                {
                    "tenant": "t",
                    "trace_id": old,
                    "services": ["shop"],
                    "cost_usd": Decimal("0.125"),
                    "reported_cost_usd": 0,
                }
                | {"start_time": rows.NOW_NS, "span_count": 2, "version": 1},
                {"tenant": "t", "trace_id": new, "agents": ["triage"], "error_count": 3, "cost_usd": 2}
                | {"reported_cost_usd": 0, "start_time": rows.NOW_NS + 10**9, "version": 1},
            ]
        ),
        "t",
    )


def answer(queries: StoreQueries, statement: str, format_: str = "jsonl", **parameters: str) -> bytes:
    return b"".join(queries.sql(statement, format_, parameters))


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ("jsonl", b'{"number":0,"t":"a\\nb"}\n{"number":1,"t":"a\\nb"}\n'),
        ("json", b'[{"number":0,"t":"a\\nb"},\n{"number":1,"t":"a\\nb"}]\n'),
        ("csv", b'"number","t"\n0,"a\nb"\n1,"a\nb"\n'),
        ("table", b'["number", "t"]\n["UInt64", "String"]\n[0, "a\\nb"]\n[1, "a\\nb"]\n'),
    ],
)
def test_every_format_holds_the_same_rows(queries: StoreQueries, format_: str, expected: bytes) -> None:
    assert answer(queries, "SELECT number, 'a\\nb' AS t FROM numbers(2);", format_) == expected


def test_parquet_can_be_read_by_others(queries: StoreQueries) -> None:
    table = pa.parquet.read_table(pa.BufferReader(answer(queries, "SELECT number FROM numbers(5)", "parquet")))

    assert table.column("number").to_pylist() == [0, 1, 2, 3, 4]


def test_a_long_answer_is_one_valid_array_although_it_comes_in_pieces(queries: StoreQueries) -> None:
    pieces = list(queries.sql("SELECT number FROM numbers(200000)", "json", {}))

    assert len(pieces) > 3
    assert len(json.loads(b"".join(pieces))) == 200_000


def test_an_empty_answer_is_an_empty_array(queries: StoreQueries) -> None:
    assert json.loads(answer(queries, "SELECT 1 WHERE 0", "json")) == []


@pytest.mark.parametrize("statement", ["SHOW TABLES", "DESCRIBE spans", "EXPLAIN SELECT 1", "EXISTS TABLE spans"])
def test_statements_that_describe_are_answered(queries: StoreQueries, statement: str) -> None:
    assert answer(queries, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 INTO OUTFILE '{path}'",
        "SELECT 1 INTO/* */OUTFILE '{path}'",
        "SELECT 1 -- x\n INTO OUTFILE '{path}' FORMAT CSV",
        "select 1 into outfile '{path}' append",
        "SELECT 1 INTO OUTFILE '{path}' AND STDOUT",
        "EXPLAIN SELECT 1 INTO OUTFILE '{path}'",
        "(SELECT 1) UNION ALL (SELECT 2) INTO OUTFILE '{path}'",
        "INSERT INTO FUNCTION file('{path}', 'CSV', 'a Int8') SELECT 1",
        "SELECT * FROM file('{path}', 'CSV', 'a Int8')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a Int8')",
        "SELECT * FROM executable('id', 'TSV', 'a String')",
        "INSERT INTO spans (tenant) VALUES ('x')",
        "CREATE TABLE other (a Int8) ENGINE = Memory",
        "DROP TABLE spans",
        "TRUNCATE TABLE spans",
        "ALTER TABLE spans DELETE WHERE 1",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SYSTEM STOP MERGES",
        "KILL QUERY WHERE 1",
        "SELECT 1; SELECT 2",
        "BACKUP TABLE spans TO File('{path}')",
        "ATTACH TABLE spans",
        "USE default",
        "",
    ],
)
def test_nothing_but_reads_of_the_store_is_answered(queries: StoreQueries, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "written"
    before = answer(queries, "SELECT count() FROM spans")

    with pytest.raises(QueryError):
        answer(queries, statement.format(path=path))

    assert not path.exists()
    assert answer(queries, "SELECT count() FROM spans") == before


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT file('{path}')",
        "SELECT FILE /* */ ('{path}')",
        "SELECT `file`('{path}')",
        "SELECT count() FROM spans WHERE name IN (SELECT file('{path}'))",
        "WITH (SELECT file('{path}')) AS stolen SELECT stolen",
        "SELECT * FROM VALUES('a String', file('{path}'))",
        "DESCRIBE file('{path}')",
        "DESCRIBE (SELECT file('{path}'))",
        "SELECT arrayMap(file, ['{path}'])",
        "SELECT arrayMap(`file`, ['{path}'])",
        "SELECT 1 AS file, arrayMap(file, ['{path}'])",
        "SELECT * APPLY(file) FROM (SELECT '{path}')",
        "SELECT * APPLY file FROM (SELECT '{path}')",
        "SELECT COLUMNS('a') APPLY `file` FROM (SELECT '{path}' AS a)",
        "SELECT * APPLY(path -> file(path)) FROM (SELECT '{path}')",
        "SELECT 1 PARALLEL WITH SELECT file('{path}')",
        "EXPLAIN SELECT file('{path}')",
        "SELECT * FROM default.`{path}`",
        "EXISTS TABLE default.`{path}`",
        "SHOW CREATE TABLE default.`{path}`",
    ],
)
def test_no_file_of_the_machine_can_be_read(queries: StoreQueries, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "secret.csv"
    path.write_text("secret,1\n")

    with pytest.raises(QueryError):
        answer(queries, statement.format(path=path))


@pytest.mark.parametrize(
    "statement",
    [
        "DESCRIBE url('http://{address}/', 'CSV')",
        "DESCRIBE s3('http://{address}/bucket/a.csv')",
        "EXPLAIN SELECT * FROM url('http://{address}/', 'LineAsString')",
        "SELECT * FROM remote('{address}', 'system.one')",
        "SELECT * FROM spans WHERE name IN url('http://{address}/', 'LineAsString')",
        "SELECT hasColumnInTable('{address}', 'user', 'pass', 'db', 'table', 'column')",
        "SELECT aiGenerate('http://{address}/')",
    ],
)
def test_no_other_machine_can_be_asked(queries: StoreQueries, statement: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        address = f"127.0.0.1:{listening.getsockname()[1]}"

        with pytest.raises(QueryError, match="is not allowed"):
            answer(queries, statement.format(address=address))
        with pytest.raises(TimeoutError):
            listening.accept()


def test_functions_that_touch_only_the_store_are_allowed(queries: StoreQueries) -> None:
    statement = (
        "SELECT format('{}', upper(name)) AS file, arrayMap(x -> (x + 1), [1]) "
        "FROM merge(currentDatabase(), '^spans$') "
        "WHERE span_id IN (SELECT span_id FROM spans) AND 1 IN (SELECT number FROM numbers(3))"
    )

    assert answer(queries, statement)


def test_words_that_look_dangerous_are_allowed_inside_quotes(queries: StoreQueries) -> None:
    statement = "SELECT 'it''s INTO OUTFILE \\\\' AS `INTO OUTFILE``x`"

    assert b"OUTFILE" in answer(queries, statement)


def test_parameters_are_bound_by_the_store_and_not_pasted(queries: StoreQueries) -> None:
    evil = "x' OR 1=1 --"

    assert json.loads(answer(queries, "SELECT {v:String} AS v", v=evil)) == {"v": evil}


@pytest.mark.parametrize(
    "statement",
    ["SELECT '%(v)s'", "SELECT {{v:Identifier}}, '%(v)s'", "SELECT '%(v)s' -- {v:String}", "SELECT 1 AS `%(v)s`"],
)
def test_a_parameter_is_never_pasted_into_what_was_checked(
    queries: StoreQueries, tmp_path: Path, statement: str
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("secret,1\n")
    path = ",".join(str(letter) for letter in str(secret).encode())

    with pytest.raises(QueryError):
        answer(queries, statement, v=f", file(char({path})), ")


@pytest.mark.parametrize("type_", ["Identifier", "identifier", " Identifier "])
def test_no_name_can_be_a_parameter(queries: StoreQueries, tmp_path: Path, type_: str) -> None:
    path = tmp_path / "secret.csv"
    path.write_text("secret,1\n")

    with pytest.raises(QueryError):
        answer(queries, f"SELECT arrayMap({{f:{type_}}}, ['{path}'])", f="file")


def test_per_cent_signs_and_parameters_go_together(queries: StoreQueries) -> None:
    statement = "SELECT 5 % 2 AS rest, 'a' LIKE '%a%' AS found, { v : String } AS v"

    assert json.loads(answer(queries, statement, v="100 %")) == {"rest": 1, "found": 1, "v": "100 %"}


def test_a_parameter_the_statement_does_not_have_is_named(queries: StoreQueries) -> None:
    with pytest.raises(QueryError, match="no parameter w"):
        answer(queries, "SELECT {v:String}", v="1", w="2")


def test_whether_a_file_exists_is_not_told(queries: StoreQueries, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("1\n")

    def told(name: str) -> str:
        with pytest.raises(QueryError) as refused:
            answer(queries, f"SELECT * FROM default.`{tmp_path / name}.csv`")
        return str(refused.value)

    assert told("there") == told("not")


def test_an_error_of_the_query_is_told_in_one_line(queries: StoreQueries) -> None:
    with pytest.raises(QueryError, match=r"^[^\n]*nope[^\n]*$"):
        answer(queries, "SELECT nope FROM spans")


def test_traces_come_newest_first_with_exact_money(queries: StoreQueries) -> None:
    newest, oldest = queries.traces(TraceFilter())

    assert newest["trace_id"].startswith("abb")
    assert oldest["cost_usd"] == Decimal("0.125")
    assert oldest["start_time"].endswith("Z")


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (TraceFilter(service="shop"), ["aaa"]),
        (TraceFilter(agent="triage"), ["abb"]),
        (TraceFilter(errors=True), ["abb"]),
        (TraceFilter(cost_min_usd=Decimal(1)), ["abb"]),
        (TraceFilter(since_s=rows.NOW_NS / 1e9 + 0.5), ["abb"]),
        (TraceFilter(before_s=rows.NOW_NS / 1e9 + 0.5), ["aaa"]),
        (TraceFilter(limit=1), ["abb"]),
        (TraceFilter(model="none"), []),
        (TraceFilter(conversation="none"), []),
    ],
)
def test_traces_are_filtered(queries: StoreQueries, chosen: TraceFilter, found: list[str]) -> None:
    assert [row["trace_id"][:3] for row in queries.traces(chosen)] == found


def test_a_trace_is_found_by_the_beginning_of_its_id(queries: StoreQueries) -> None:
    found = queries.trace("AA")

    assert found["trace"]["span_count"] == 2
    assert [span["span_id"] for span in found["spans"]] == [f"{1:016x}", f"{2:016x}"]
    assert "attributes" not in found["spans"][0]


def test_an_ambiguous_beginning_names_the_candidates(queries: StoreQueries) -> None:
    with pytest.raises(ManyTracesError) as raised:
        queries.trace("a")

    assert len(raised.value.trace_ids) == 2


@pytest.mark.parametrize("trace_id", ["f", "f" * 32])
def test_an_unknown_trace_is_said_to_be_unknown(queries: StoreQueries, trace_id: str) -> None:
    with pytest.raises(NoSuchTraceError):
        queries.trace(trace_id)


def test_the_summary_counts_what_is_stored(queries: StoreQueries) -> None:
    summary = queries.summary()

    assert (summary["traces"], summary["spans"]) == (2, 2)


# Tenants


SHARED = "c" * 32
"""Two tenants have a trace of this id."""


@pytest.fixture(scope="module")
def two_tenants(store: Store) -> None:
    for tenant in ("acme", "zeta"):
        store.insert(SPANS, rows.spans([rows.span(7, tenant=tenant, trace_id=SHARED, name=tenant)]), f"s-{tenant}")
        trace = {"tenant": tenant, "trace_id": SHARED, "root_name": tenant, "start_time": rows.NOW_NS, "version": 1}
        store.insert(TRACES, rows.traces([trace | {"cost_usd": 0, "reported_cost_usd": 0}]), f"t-{tenant}")
        finding = {"tenant": tenant, "trace_id": SHARED, "finding_id": f"{tenant}-1", "severity": "high", "version": 1}
        store.insert(FINDINGS, rows.findings([finding]), f"f-{tenant}")


@pytest.mark.usefixtures("two_tenants")
@pytest.mark.parametrize("tenant", ["acme", "zeta"])
def test_reads_within_a_tenant_see_its_rows_only(queries: StoreQueries, tenant: str) -> None:
    within = queries.within(tenant)

    assert {row["tenant"] for row in within.traces(TraceFilter())} == {tenant}
    assert {row["tenant"] for row in within.findings(FindingFilter())} == {tenant}
    assert (within.summary()["traces"], within.summary()["spans"]) == (1, 1)
    for trace_id in (SHARED, SHARED[:4]):
        found = within.trace(trace_id)
        assert found["trace"]["root_name"] == tenant
        assert [span["name"] for span in found["spans"]] == [tenant]
        assert [finding["finding_id"] for finding in found["findings"]] == [f"{tenant}-1"]


@pytest.mark.usefixtures("two_tenants")
def test_traces_of_another_tenant_are_unknown_within_a_tenant(queries: StoreQueries) -> None:
    for trace_id in ("a" * 32, "aa"):
        with pytest.raises(NoSuchTraceError):
            queries.within("acme").trace(trace_id)


@pytest.mark.usefixtures("two_tenants")
def test_spans_of_two_tenants_are_never_shown_as_one_trace(queries: StoreQueries) -> None:
    found = queries.trace(SHARED)

    assert [span["tenant"] for span in found["spans"]] == [found["trace"]["tenant"]]
    assert [finding["tenant"] for finding in found["findings"]] == [found["trace"]["tenant"]]


def test_no_sql_is_answered_within_a_tenant(queries: StoreQueries) -> None:
    with pytest.raises(ConfinedError):
        queries.within("acme").sql("SELECT 1", "json", {})
