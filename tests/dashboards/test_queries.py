"""Every query of every dashboard, as Grafana sends it, against a real store."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from tests.dashboards.boards import QUESTIONS, Question, question
from tests.dashboards.conftest import SINCE, UNTIL, Filled
from tests.dashboards.grafana import View, expand


def asked(*kinds: str) -> list[Question]:
    return [one for one in QUESTIONS if not kinds or one.kind in kinds]


@pytest.mark.parametrize("one", QUESTIONS, ids=str)
def test_every_query_answers_with_rows(filled: Filled, one: Question) -> None:
    rows = filled.rows(one)

    assert rows
    if one.kind == "stat":
        (row,) = rows
        (value,) = row.values()
        assert value is not None
        assert math.isfinite(value)


@pytest.mark.parametrize("one", asked("timeseries"), ids=str)
def test_time_series_have_the_shape_that_the_data_source_turns_into_lines(filled: Filled, one: Question) -> None:
    rows = filled.rows(one)

    columns = list(rows[0])
    times = [row["time"] for row in rows]
    assert columns[0] == "time"
    assert times == sorted(times), "the data source refuses rows that are not in order"
    labels = [name for name in columns[1:] if isinstance(rows[0][name], str)]
    if labels:
        assert columns == ["time", *labels, "Value"], "the legend then shows the label alone"
        assert len({(row["time"], row[labels[0]]) for row in rows}) == len(rows)
    for row in rows:
        assert all(row[name] is None or math.isfinite(row[name]) for name in columns[1:] if name not in labels)


# A share or a duration of nothing is unknown. That there was no call, no token, no dollar is known.
_UNKNOWN_OF_NOTHING = {
    "Traces with findings", "Failed model calls", "Tool success", "Cost per trace", "Input from cache", "Failed runs",
    "p95 run", "Cost per run", "Tokens per run", "Failed", "p95", "p95 to first token", "Success", "p50",
}  # fmt: skip


@pytest.mark.parametrize("one", [one for one in asked("stat") if one.board != "trace"], ids=str)
def test_nothing_is_shown_as_zero_only_where_zero_is_the_truth(filled: Filled, one: Question) -> None:
    before = filled.view(one.board, SINCE - timedelta(days=2), SINCE - timedelta(days=1))

    ((value,),) = [tuple(row.values()) for row in filled.rows(one, before)]

    assert value is None if one.title in _UNKNOWN_OF_NOTHING else value == 0


# A trace is shown whenever it was.
_IN_TIME = [one for one in asked("timeseries", "table") if one.board != "trace" or one.title == "Latest traces"]


@pytest.mark.parametrize("one", _IN_TIME, ids=str)
def test_an_empty_time_range_draws_nothing(filled: Filled, one: Question) -> None:
    before = filled.view(one.board, SINCE - timedelta(days=2), SINCE - timedelta(days=1))

    rows = filled.rows(one, before)

    drawn = [value for row in rows for name, value in row.items() if name != "time" and value is not None]
    assert drawn == []


@pytest.mark.parametrize("one", QUESTIONS, ids=str)
def test_no_name_can_leave_its_quotes(filled: Filled, one: Question) -> None:
    odd = 'it\'s), (a "name" -- $x'
    variables: dict[str, Any] = {name: [odd, "b"] for name in ("tenant", "service", "signature", "severity")}
    single = one.board in {"agent", "model_tool"}
    variables |= {name: odd if single else [odd] for name in ("agent", "model", "tool")}
    sql = expand(one.sql, View(SINCE, UNTIL, 60, variables | {"trace_id": odd}))

    filled.store.read_arrow(sql)  # an error of syntax would be raised


def total(filled: Filled, board: str, title: str, column: str, **chosen: Any) -> float:
    one = question(board, title)
    rows = filled.rows(one, filled.view(board, **chosen))
    return math.fsum(row[column] or 0 for row in rows)


@pytest.mark.parametrize("title", ["Cost by agent", "Cost by model", "Cost by service", "Cost by tenant"])
def test_parts_of_the_cost_add_up_to_the_cost(filled: Filled, title: str) -> None:
    cost = total(filled, "fleet", "Cost", "cost")

    assert total(filled, "cost", title, "Value") == pytest.approx(cost, abs=1e-6)
    assert total(filled, "cost", "Spend", "Cost") == pytest.approx(cost, abs=1e-6)
    assert total(filled, "cost", "Most expensive traces", "Cost") < cost


def test_the_cost_is_that_of_the_spans(filled: Filled) -> None:
    sql = "SELECT toFloat64(sum(cost_usd)) AS cost FROM spans FINAL WHERE usage_scope = 'own'"
    (row,) = filled.store.read_arrow(sql).to_pylist()

    assert total(filled, "cost", "Cost", "cost") == pytest.approx(row["cost"], abs=1e-9)


def test_choosing_a_service_shows_that_service_and_nothing_else(filled: Filled) -> None:
    everything = total(filled, "fleet", "Cost", "cost")
    services = [row["service_label"] for row in filled.rows(question("fleet", "$service"))]

    each = [total(filled, "fleet", "Cost", "cost", service=[service]) for service in services]

    assert len(services) == 8
    assert all(0 < cost < everything for cost in each)
    assert math.fsum(each) == pytest.approx(everything, abs=1e-6)
    assert total(filled, "fleet", "Cost", "cost", service=services) == pytest.approx(everything, abs=1e-6)
    chosen = filled.rows(question("fleet", "Agents"), filled.view("fleet", service=["service-3"]))
    assert {row["Service"] for row in chosen} == {"service-3"}


def test_choosing_agents_shows_their_work_although_its_spans_name_no_agent(filled: Filled) -> None:
    everything = total(filled, "cost", "Cost", "cost")
    agents = [row["agent_label"] for row in filled.rows(question("cost", "$agent"))]

    each = {agent: total(filled, "cost", "Cost", "cost", agent=[agent]) for agent in agents}

    shown = filled.rows(question("cost", "Cost by agent"))
    for agent, cost in each.items():
        assert math.fsum(row["Value"] for row in shown if row["shown"] == agent) == pytest.approx(cost, abs=1e-6)
        assert (cost > 0) == (agent != "librarian"), "a librarian calls no model"
    assert math.fsum(each.values()) == pytest.approx(everything, abs=1e-6)


@pytest.mark.parametrize(("agent", "read"), [([], "rollup_1m"), (["writer"], "traces")])
def test_usage_is_read_from_the_rollup_until_an_agent_is_chosen(filled: Filled, agent: list[str], read: str) -> None:
    sql = expand(question("fleet", "Cost").sql, filled.view("fleet", agent=agent))

    estimate = filled.store.read_arrow(f"EXPLAIN ESTIMATE {sql}").to_pylist()

    assert {row["table"] for row in estimate if row["rows"]} == {read}


def test_work_outside_any_agent_can_be_chosen_as_none(filled: Filled) -> None:
    options = [row["agent_label"] for row in filled.rows(question("fleet", "$agent"))]

    assert options == ["buyer", "librarian", "researcher", "writer", "(none)"]
    assert total(filled, "fleet", "Cost", "cost", agent=["(none)"]) > 0


def test_quantiles_are_one_percent_off_at_most(filled: Filled) -> None:
    sql = "SELECT quantileExact(0.95)(duration_ns) AS p95 FROM spans FINAL WHERE response_model = 'gpt-5'"
    (row,) = filled.store.read_arrow(sql).to_pylist()

    ((shown,),) = [tuple(one.values()) for one in filled.rows(question("model_tool", "p95"))]

    assert shown == pytest.approx(row["p95"], rel=0.011)


def plan(filled: Filled, one: Question, words: str) -> list[dict[str, Any]]:
    view = filled.view(one.board, UNTIL - timedelta(minutes=10), UNTIL)
    rows: list[dict[str, Any]] = filled.store.read_arrow(f"EXPLAIN {words} {expand(one.sql, view)}").to_pylist()
    return rows


_ONE_TRACE = {"Spans", "Steps"}


@pytest.mark.parametrize("one", [one for one in QUESTIONS if one.title not in _ONE_TRACE], ids=str)
def test_no_query_reads_spans_of_minutes_that_are_counted(filled: Filled, one: Question) -> None:
    assert sum(row["rows"] for row in plan(filled, one, "ESTIMATE") if row["table"] == "spans") == 0


@pytest.mark.parametrize("title", sorted(_ONE_TRACE))
def test_spans_of_a_trace_are_looked_for_in_its_minutes(filled: Filled, title: str) -> None:
    text = "\n".join(row["explain"] for row in plan(filled, question("trace", title), "indexes = 1"))

    of_spans = text[text.index("spans)") :]
    keys = of_spans[of_spans.index("Keys:") : of_spans.index("Condition: and(")]
    assert {"toStartOfMinute(start_time)", "trace_id"} <= set(keys.split())
