"""Whose work it is: a trace's figures by agent, where most spans do not name one."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from processors.reconcile import decide, narrow, summarise
from processors.work import nearest
from tests.build import START, batch, llm, span

MINUTE = 60 * 10**9


def work_of(*spans: dict[str, Any]) -> list[dict[str, Any]]:
    rows = narrow(batch(spans))
    (trace,) = summarise(rows, decide(rows)).to_pylist()
    found: list[dict[str, Any]] = trace["work"]
    return found


def agent(number: int, name: str, parent: int | None = None, **columns: Any) -> dict[str, Any]:
    return span(number, parent, kind="agent", operation="invoke_agent", agent_name=name, **columns)


def tool(number: int, parent: int, name: str = "search", **columns: Any) -> dict[str, Any]:
    return span(number, parent, kind="tool", operation="execute_tool", tool_name=name, **columns)


def named(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row[name] for name in names) for row in rows)


def test_a_span_that_names_no_agent_belongs_to_its_nearest_ancestor_that_does() -> None:
    rows = work_of(
        agent(1, "planner"),
        llm(2, 1, usage=(100, 10)),
        span(3, 1, kind="chain"),
        agent(4, "searcher", 3),
        llm(5, 4, usage=(30, 3)),
        tool(6, 4),
    )

    assert named(rows, "agent_name", "kind", "calls", "input_tokens") == [
        ("planner", "agent", 1, 0),
        ("planner", "chain", 1, 0),
        ("planner", "llm", 1, 100),
        ("searcher", "agent", 1, 0),
        ("searcher", "llm", 1, 30),
        ("searcher", "tool", 1, 0),
    ]


def test_a_span_keeps_the_agent_that_it_names() -> None:
    rows = work_of(agent(1, "planner"), llm(2, 1, agent_name="judge"))

    assert named(rows, "agent_name", "kind") == [("judge", "llm"), ("planner", "agent")]


def test_work_outside_any_agent_has_none() -> None:
    assert named(work_of(span(1, kind="chain"), llm(2, 1)), "agent_name", "kind") == [("", "chain"), ("", "llm")]


def test_a_version_is_that_of_the_agent() -> None:
    rows = work_of(
        agent(1, "planner", agent_version="7"),
        llm(2, 1),
        agent(3, "searcher", 1),
        tool(4, 3),
        tool(5, 1, agent_name="planner"),
    )

    assert {(row["agent_name"], row["kind"], row["agent_version"]) for row in rows} == {
        ("planner", "agent", "7"),
        ("planner", "llm", "7"),
        ("planner", "tool", "7"),
        ("searcher", "agent", ""),
        ("searcher", "tool", ""),
    }


def test_an_agent_says_which_agent_called_it() -> None:
    rows = work_of(agent(1, "planner"), tool(2, 1, "ask_searcher"), agent(3, "searcher", 2), llm(4, 3))

    assert named(rows, "agent_name", "kind", "caller") == [
        ("planner", "agent", ""),
        ("planner", "tool", ""),
        ("searcher", "agent", "planner"),
        ("searcher", "llm", ""),
    ]


def test_minutes_are_apart_and_failures_and_repeats_are_counted_as_in_rollups() -> None:
    rows = work_of(
        agent(1, "planner", duration=2 * MINUTE),
        tool(2, 1, status="error", start=START + 5),
        tool(3, 1, status="error", tool_status="success", start=START + MINUTE),
        llm(4, 1, start=START + MINUTE, response_id="r", duration=3),
        llm(5, 1, start=START + MINUTE, response_id="r", scope="other", duration=3),
    )

    assert named(rows, "minute", "kind", "calls", "errors", "tool_errors", "input_tokens", "duration_ns") == [
        (START // 10**9, "agent", 1, 0, 0, 0, 2 * MINUTE),
        (START // 10**9, "tool", 1, 1, 1, 0, 1_000_000),
        (START // 10**9 + 60, "llm", 1, 0, 0, 100, 3),
        (START // 10**9 + 60, "tool", 1, 1, 0, 0, 1_000_000),
    ]


@pytest.mark.parametrize("seed", range(30))
def test_any_order_gives_the_same_work_and_its_sums_are_those_of_the_trace(seed: int) -> None:
    rng = random.Random(seed)
    spans = [agent(1, "a0", cost_usd=None)]
    for number in range(2, 40):
        parent, start = rng.randrange(1, number), START + rng.randrange(5) * MINUTE
        cost = Decimal(rng.randrange(10**6)).scaleb(-9) if rng.random() < 0.7 else None
        spans.append(
            rng.choice(
                [
                    agent(number, f"a{rng.randrange(4)}", parent, start=start),
                    llm(number, parent, start=start, cost_usd=cost),
                    tool(number, parent, start=start),
                ]
            )
        )
    rows = narrow(batch(spans))
    (trace,) = summarise(rows, decide(rows)).to_pylist()

    assert work_of(*rng.sample(spans, len(spans))) == trace["work"]
    for figure in ("cost_usd", "input_tokens", "output_tokens", "unpriced_calls"):
        assert sum(row[figure] for row in trace["work"]) == trace[figure]
    assert sum(row["calls"] for row in trace["work"] if row["kind"] == "tool") == trace["tool_calls"]


@pytest.mark.parametrize("seed", range(30))
def test_nearest_is_what_climbing_finds(seed: int) -> None:
    rng = random.Random(seed)
    parents = [-1, *(rng.randrange(-1, row) for row in range(1, 60))]
    wanted = [rng.random() < 0.2 for _ in parents]

    def climb(row: int) -> int:
        while row >= 0 and not wanted[row]:
            row = parents[row]
        return row

    assert nearest(np.array(parents), np.array(wanted)).tolist() == [climb(row) for row in range(60)]


def test_a_trace_without_genai_spans_did_no_work() -> None:
    assert work_of(span(1), span(2, 1)) == []
