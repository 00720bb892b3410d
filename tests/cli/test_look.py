# ruff: noqa: E501 - printed lines are compared as they are
from __future__ import annotations

import io
import json
import random
import socket
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot
from rich.text import Text

from spanwise.cli import show
from spanwise.model import SPANS
from spanwise.query.ask import TraceFilter
from spanwise.store import QueryError
from tests.cli.conftest import Run
from tests.web.serving import Reads, Serving

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def span(span_id: str, parent: str = "", **columns: Any) -> dict[str, Any]:
    blank: dict[str, Any] = {
        "name": span_id,
        "kind": "",
        "status": "unset",
        "start_time": f"2026-01-02T03:04:0{len(span_id)}+00:00",
    }
    blank |= dict.fromkeys(
        ("request_model", "response_model", "tool_name", "error_type", "status_message", "tool_status"), ""
    )
    blank |= {"input_tokens": None, "output_tokens": None, "usage_scope": "none", "cost_usd": None}
    return {**blank, "span_id": span_id, "parent_span_id": parent, "duration_ns": 1_500_000, **columns}


SUMMARY: dict[str, Any] = {
    "trace_id": TRACE_ID,
    "start_time": "2026-01-02T03:04:05.678+00:00",
    "duration_ns": 3_214_000_000,
    "root_name": "invoke_agent planner",
    "services": ["shop"],
    "agents": ["buyer", "planner"],
    "span_count": 4,
    "llm_calls": 1,
    "tool_calls": 1,
    "error_count": 1,
    "input_tokens": 1200,
    "output_tokens": 34,
    "cost_usd": Decimal("0.00334"),
    "unpriced_calls": 0,
    "findings": ["tool_error.ignored"],
    "finding_severity": "warning",
    "partial": "",
}
TREE = [
    span("a", kind="agent", name="invoke_agent planner", duration_ns=3_214_000_000, usage_scope="aggregate")
    | {"input_tokens": 1200, "output_tokens": 34},
    span("bb", "a", kind="llm", name="chat", response_model="gpt-4o-2024-08-06", usage_scope="own")
    | {"input_tokens": 1200, "output_tokens": 34, "cost_usd": Decimal("0.00334")},
    span("ccc", "a", kind="tool", name="execute_tool search", tool_name="search", status="error", error_type="Timeout"),
    span("dddd", "gone", name="GET /"),
]


@pytest.fixture
def reads() -> Reads:
    return Reads(traces_found=[{**SUMMARY, "spans": TREE}])


def test_traces_are_a_plain_table_when_not_on_a_terminal(spanwise: Run, api: Serving) -> None:
    done = spanwise("traces", "--web", api.url)

    assert (done.code, done.err) == (0, "")
    assert done.out == snapshot("""\
time                 trace                             root                  severity  findings            services  agents          spans  llm  tools  errors  tokens      cost  duration
2026-01-02 03:04:05  0af7651916cd43dd8448eb211c80319c  invoke_agent planner  warning   tool_error.ignored  shop      buyer, planner      4    1      1       1   1,234  $0.00334    3.21 s
""")


def test_traces_pass_their_filters_on(spanwise: Run, api: Serving) -> None:
    done = spanwise("traces", "-n", "3", "--agent", "buyer", "--errors", "--min-cost", "0.5", SPANWISE_WEB=api.url)

    assert done.code == 0
    assert api.reads.asked == [TraceFilter(limit=3, agent="buyer", errors=True, cost_min_usd=Decimal("0.5"))]


def test_traces_as_json_keep_money_exact(spanwise: Run, api: Serving) -> None:
    done = spanwise("traces", "--json", "--web", api.url)

    assert json.loads(done.out, parse_float=Decimal)[0]["cost_usd"] == Decimal("0.00334")


def test_an_empty_list_says_what_to_do(spanwise: Run, api: Serving) -> None:
    api.reads.traces_found = []
    done = spanwise("traces", "--web", api.url)

    assert (done.code, done.out) == (0, "")
    assert "spanwise demo" in done.err


def test_a_trace_is_a_tree(spanwise: Run, api: Serving) -> None:
    done = spanwise("trace", TRACE_ID[:6], "--web", api.url)

    assert (done.code, done.err) == (0, "")
    assert done.out == snapshot("""\
trace 0af7651916cd43dd8448eb211c80319c · 2026-01-02 03:04:05 · 3.21 s · 4 spans · 1 model call · 1 tool call · 1 error · 1,200 → 34 tokens · $0.00334
invoke_agent planner  agent  3.21 s  1,200 → 34 tokens (aggregate)
├─ chat  llm  gpt-4o-2024-08-06  2 ms  1,200 → 34 tokens  $0.00334
└─ execute_tool search  tool  2 ms  Timeout
GET /  2 ms  (its parent has not arrived)
""")


def test_a_trace_stops_after_the_spans_asked_for(spanwise: Run, api: Serving) -> None:
    done = spanwise("trace", TRACE_ID, "--max-spans", "1", "--web", api.url)

    assert done.out.splitlines()[-1] == "… and 3 more spans (--max-spans)"


def test_an_unknown_or_wrong_id_is_told_in_a_sentence(spanwise: Run, api: Serving) -> None:
    unknown, wrong = spanwise("trace", "ffff", "--web", api.url), spanwise("trace", "nope", "--web", api.url)

    assert (unknown.code, unknown.out) == (1, "")
    assert unknown.err.startswith("spanwise: there is no such trace; ")
    assert (wrong.code, wrong.err) == (
        1,
        "spanwise: a trace id is up to 32 hex digits; `spanwise traces` lists them\n",
    )


def _answer(*rows: object) -> Iterator[bytes]:
    return iter([json.dumps(row).encode() + b"\n" for row in rows])


def test_sql_prints_a_plain_table_with_numbers_to_the_right(spanwise: Run, api: Serving) -> None:
    api.reads.answer = lambda: _answer(
        ["model", "tokens", "tools"],
        ["String", "UInt64", "Array(String)"],
        ["a", 7, []],
        ["bcd", 12345, ["x"]],
        ["", None, []],
    )
    done = spanwise("sql", "SELECT 1", "--web", api.url)

    assert api.reads.asked == [("SELECT 1", "table", {})]
    assert done.out == snapshot("""\
model  tokens  tools
a           7  []
bcd     12345  ["x"]
               []
""")


@pytest.mark.parametrize("format_", ["json", "jsonl", "csv", "parquet"])
def test_other_formats_pass_through_byte_for_byte(spanwise: Run, api: Serving, format_: str) -> None:
    api.reads.answer = lambda: iter([b"\x00PAR1\xff", b"\r\n\x1b[31m"])
    done = spanwise("sql", "-", "--format", format_, "--web", api.url, stdin="SELECT 2")

    assert (done.code, done.raw) == (0, b"\x00PAR1\xff\r\n\x1b[31m")
    assert api.reads.asked == [("SELECT 2", format_, {})]


def test_sql_writes_to_a_file(spanwise: Run, api: Serving, tmp_path: Path) -> None:
    api.reads.answer = lambda: iter([b"PAR1", b"..."])
    done = spanwise("sql", "SELECT 1", "-f", "parquet", "-o", "out.parquet", "--web", api.url)

    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "out.parquet").read_bytes() == b"PAR1..."
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_a_query_that_is_cut_short_fails_and_leaves_no_file(spanwise: Run, api: Serving, tmp_path: Path) -> None:
    def cut() -> Iterator[bytes]:
        yield b"x" * 1_000_000
        raise QueryError("limit")

    api.reads.answer = cut
    done = spanwise("sql", "SELECT 1", "-f", "csv", "-o", "out.csv", "--web", api.url)

    assert done.code == 1
    assert "was cut short" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_query_is_told_in_the_words_of_the_store(spanwise: Run, api: Serving) -> None:
    def wrong() -> Iterator[bytes]:
        raise QueryError("unknown column `costt`")
        yield b""

    api.reads.answer = wrong
    done = spanwise("sql", "SELECT costt", "--web", api.url)

    assert (done.code, done.out) == (1, "")
    assert done.err == ("spanwise: unknown column `costt`; `spanwise schema` lists the tables and their columns\n")


def test_without_a_server_a_command_says_how_to_start_one(spanwise: Run) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = spanwise("sql", "SELECT 1", "--web", url)

    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"spanwise: no Spanwise server answers at {url}; start one with `spanwise up`, or say where it is with "
        "--web URL or SPANWISE_WEB\n"
    )


@pytest.mark.parametrize("web", ["ftp://x", "http://", "::"])
def test_a_wrong_address_is_told(spanwise: Run, web: str) -> None:
    done = spanwise("traces", "--web", web)

    assert done.code == 1
    assert "is not the address of a server" in done.err


def test_wrong_usage_is_exit_code_2(spanwise: Run) -> None:
    assert spanwise("sql").code == 2
    assert spanwise("traces", "--limit", "0").code == 2
    assert spanwise("nothing").code == 2


@pytest.mark.parametrize("age", ["", "3", "2 weeks", "-1h"])
def test_a_wrong_age_is_told(spanwise: Run, age: str) -> None:
    done = spanwise("traces", f"--since={age or 'x'}")

    assert done.code == 1
    assert "write it like 15m, 2h or 7d" in done.err


def test_schema_lists_tables_columns_and_ddl(spanwise: Run) -> None:
    columns, ddl = spanwise("schema", "spans"), spanwise("schema", "spans", "--ddl")

    assert all(column.name in columns.out and column.doc in columns.out for column in SPANS.columns)
    assert ddl.out.startswith("CREATE TABLE IF NOT EXISTS spans")
    assert "content" in spanwise("schema").out
    assert spanwise("schema", "spam").err.startswith("spanwise: there is no table spam; the tables are spans, ")


def test_schema_prints_what_an_administrator_runs(spanwise: Run) -> None:
    cluster = spanwise("schema", "--cluster", "{cluster}", "--database", "agents").out
    users = spanwise("schema", "--users", "--tenant", "acme").out
    assert "CREATE TABLE IF NOT EXISTS `agents`.`spans_local` ON CLUSTER '{cluster}'" in cluster
    assert "USING tenant = 'acme' TO `spanwise_tenant_acme`;" in users
    refused = spanwise("schema", "--users", "--cluster", "a b")
    assert refused.err == "spanwise: 'a b' is no name of a cluster; it stands in remote_servers of the server\n"


# What is shown


def test_nothing_in_a_span_can_drive_the_terminal(spanwise: Run, api: Serving) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eabc\r\n[red]x[/red]"
    found = {**SUMMARY, "root_name": evil, "services": [evil], "agents": [evil]}
    found["spans"] = [span("a", name=evil, kind=evil, error_type=evil, status="error", tool_name=evil)]
    api.reads.traces_found = [found]
    api.reads.answer = lambda: _answer([evil], ["String"], [evil])

    shown = "".join(spanwise(*command, "--web", api.url).out for command in (["traces"], ["trace", "0a"], ["sql", "S"]))

    assert "owned" in shown
    assert "[red]x[/red]" in shown
    assert not set(shown) & set("\x1b\x07\x9b\u202e\r")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0 µs"), (85_000, "85 µs"), (312_400_000, "312 ms"), (1_240_000_000, "1.24 s"), (125_000_000_000, "2 m 05 s")],
)
def test_durations_are_short(nanoseconds: int, text: str) -> None:
    assert show.duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, ""),
        ("0", "$0.00"),
        ("0.000001234", "$0.00000123"),
        ("0.05", "$0.0500"),
        ("0.5", "$0.500"),
        ("1234.5", "$1,234.50"),
    ],
)
def test_cost_keeps_three_digits_of_small_amounts(amount: str | None, text: str) -> None:
    assert show.cost(None if amount is None else Decimal(amount)) == text


def test_a_tree_shows_every_span_once_whatever_the_parents_say() -> None:
    rng = random.Random(7)
    for _ in range(200):
        ids = [f"{n:04x}" for n in range(rng.randint(1, 30))]
        spans = [span(each, rng.choice([*ids, "", "gone"])) for each in ids]
        shown = [row["span_id"] for _, row, _ in show.trace_tree(spans)]
        assert sorted(shown) == ids


def test_a_very_deep_trace_does_not_exhaust_the_stack() -> None:
    spans = [span(f"{n}", f"{n - 1}" if n else "") for n in range(5_000)]

    assert sum(1 for _ in show.trace_tree(spans)) == 5_000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_drawn_table_that_fits() -> None:
    out = Terminal()
    show.write_table(out, ("name", "n"), [("x" * 300, "1")], right=("n",))

    assert "━" in out.getvalue() or "─" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 120


@pytest.mark.parametrize(
    ("width", "left_out"), [(200, ""), (120, "services, llm, tools, spans"), (80, "agents, findings")]
)
def test_a_narrow_terminal_gets_fewer_columns_and_whole_words(
    monkeypatch: pytest.MonkeyPatch, width: int, left_out: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = Terminal()
    show.write_table(
        out,
        show.TRACE_COLUMNS,
        [show.trace_row(SUMMARY)] * 2,
        right=show.TRACE_NUMBERS,
        expendable=show.TRACE_EXPENDABLE,
        short=show.TRACE_SHORT,
    )

    lines = Text.from_ansi(out.getvalue()).plain.splitlines()
    assert max(map(len, lines)) <= width
    assert all(line.startswith("01-02 03:04:05  0af76519  invoke_agent planner") for line in lines[2:4])
    below = " ".join(map(str.strip, lines[4:]))
    assert below.startswith("not shown") is bool(left_out)
    assert left_out in below


def test_the_spans_of_a_finding_are_marked_in_the_tree() -> None:
    loop = {"signature": "retry_loop", "kind": "identical", "span_ids": ["bb", "ccc"]}
    context = {"signature": "context_limit", "kind": "", "span_ids": ["bb", "bb"]}
    found = show.found_in([loop, context, loop])

    assert found == {"bb": ["retry_loop.identical", "context_limit"], "ccc": ["retry_loop.identical"]}
    assert show.span_line("", TREE[1], orphan=False, found=found["bb"]).plain.endswith(
        "  ◄ retry_loop.identical, context_limit"
    )


def test_a_filter_that_matches_nothing_is_not_called_an_empty_store(spanwise: Run, api: Serving) -> None:
    api.reads.traces_found = []
    done = spanwise("traces", "--service", "shpo", "--web", api.url)

    assert (done.code, done.out) == (0, "")
    assert done.err == "no trace is like that; `spanwise traces` without options lists the newest\n"


@pytest.mark.parametrize(
    ("partial", "end"), [("", "$0.500"), ("oversized", "$0.500 · not decided as a whole: oversized")]
)
def test_heading_of_a_trace_says_if_its_sums_are_partial(partial: str, end: str) -> None:
    names = "duration_ns span_count llm_calls tool_calls error_count input_tokens output_tokens unpriced_calls"
    trace = dict.fromkeys(names.split(), 1) | {"trace_id": "a" * 32, "start_time": "2026-06-01T12:00:00Z"}
    heading = show.trace_heading(trace | {"cost_usd": Decimal("0.5"), "unpriced_calls": 0, "partial": partial})
    assert heading.endswith(f" tokens · {end}")
