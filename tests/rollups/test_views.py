"""What the views beside the rollups show, and what they cannot."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from tests.build import START, llm, span
from tests.rollups.conftest import World
from tests.shared import ROOT

SECOND = 10**9


def rows(world: World, view: str, columns: str = "*", order: str = "1") -> list[dict[str, Any]]:
    table = world.store.read_arrow(
        f"SELECT {columns} FROM {view} WHERE tenant = {{tenant:String}} ORDER BY {order}", {"tenant": world.tenant}
    )
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def team() -> list[dict[str, Any]]:
    """A planner that hands over to a writer; only agent spans name agents, as most instrumentations do it."""
    agent: dict[str, Any] = {"kind": "agent", "operation": "invoke_agent"}
    tool: dict[str, Any] = {"kind": "tool", "operation": "execute_tool", "tool_name": "ask_writer"}
    return [
        span(1, agent_name="planner", conversation_id="talk", **agent),
        llm(2, 1),
        span(3, 1, **tool),
        span(4, 3, agent_name="writer", **agent),
        llm(5, 4, usage=(1_000, 100)),
    ]


def test_handoffs_are_edges_between_agents(world: World) -> None:
    for _ in range(2):
        world.deliver(team())
        world.quiet()
    columns = "toString(source) AS source, toString(target) AS target, sum(handoffs) AS n"
    (edge,) = world.store.read_arrow(
        f"SELECT {columns} FROM agent_handoffs WHERE tenant = {{tenant:String}} GROUP BY source, target",
        {"tenant": world.tenant},
    ).to_pylist()
    assert edge == {"source": "planner", "target": "writer", "n": 1}


def test_conversations_add_up_their_traces(world: World) -> None:
    world.deliver(team())
    more = llm(11, trace=2, start=START + 60 * SECOND, duration=SECOND, conversation_id="talk", error_type="timeout")
    world.deliver([more, llm(21, trace=3)])
    world.quiet()
    (talk,) = rows(world, "conversations", "* EXCEPT (first_time, last_time)")
    picked = ("conversation_id", "traces", "failed_traces", "llm_calls", "tool_calls", "input_tokens", "cost_usd")
    assert [talk[name] for name in picked] == ["talk", 2, 1, 3, 1, 1_200, Decimal("0.0042")]
    assert sorted(talk["agents"]) == ["planner", "writer"]
    (times,) = rows(world, "conversations", "date_diff('second', first_time, last_time) AS seconds")
    assert times["seconds"] == 61


def test_retrievals_count_the_documents_they_returned(world: World) -> None:
    reference = {"key": "gen_ai.retrieval.documents", "form": "item", "hash": "0" * 32, "bytes": 9}
    world.deliver(
        [
            span(1, kind="retrieval", operation="retrieval", content=[reference, reference]),
            span(2, kind="rerank", error_type="timeout"),
            llm(3, content=[reference]),
        ]
    )
    found = rows(world, "retrievals", "span_id, toString(kind) AS kind, documents, failed")
    assert [(row["kind"], row["documents"], row["failed"]) for row in found] == [("retrieval", 2, 0), ("rerank", 0, 1)]


def test_escalations_are_waits_for_people_and_tools_named_like_them(world: World) -> None:
    def tool(number: int, name: str) -> dict[str, Any]:
        return span(number, kind="tool", operation="execute_tool", tool_name=name)

    def wait(number: int, source: str) -> dict[str, Any]:
        attributes = {"source": source, "spanwise.metadata.permission_decision": "accept"}
        return span(number, kind="tool_wait", name="blocked", attributes=attributes)

    world.deliver(
        [
            wait(1, "user_temporary"),
            wait(2, "config"),
            *(tool(n, name) for n, name in enumerate(("escalate_to_human", "ask_user", "AskUserQuestion"), 3)),
            *(tool(n, name) for n, name in enumerate(("humanize_number", "search", "deescalated"), 6)),
        ]
    )
    found = rows(world, "escalations", "span_id, basis, what, decision")
    assert [(row["basis"], row["what"], row["decision"]) for row in found] == [
        ("exact", "blocked", "accept"),
        ("proxy", "escalate_to_human", ""),
        ("proxy", "ask_user", ""),
        ("proxy", "AskUserQuestion", ""),
    ]


@pytest.mark.parametrize("page", ["rollups", "budgets"])
def test_every_query_of_the_docs_runs(world: World, page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    queries = [query for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL) for query in block.split(";\n")]
    assert queries
    for query in queries:
        world.store.read_arrow(query)
