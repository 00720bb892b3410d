"""An agent version that fails more often than agents of its name used to is found, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from spanwise.drift import QualityDrift, QualityDriftConfig
from tests.build import START, span
from tests.detector.conftest import World

HOUR = 3600 * 10**9
NOW = START + 30 * HOUR


def calls(first: int, count: int, failed: int, *, at: int, **columns: Any) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        error = "timeout" if number < failed else ""
        defaults = {"kind": "llm", "operation": "chat", "agent_name": "buyer", "agent_version": "1"}
        extra = {"request_model": "gpt-4o", "usage_scope": "own", "error_type": error, **columns}
        rows.append(span(first + number, trace=first + number, start_time=at + number, **defaults | extra))
    return rows


def drift(world: World, **options: Any) -> QualityDrift:
    return QualityDrift(
        QualityDriftConfig(**options),
        store=world.store,
        sink=world.sink,
        observer=world.observer,
        wall_ns=lambda: NOW,
    )


def test_a_new_version_that_fails_more_often_is_found_once(world: World) -> None:
    world.arrive(calls(1, 400, 8, at=NOW - 10 * HOUR))
    world.arrive(calls(1_000, 200, 60, at=NOW - HOUR // 2, agent_version="2"))
    world.arrive(calls(2_000, 200, 4, at=NOW - HOUR // 2, agent_version="1"))
    watching = drift(world)
    assert watching.tick() == 1
    assert watching.tick() == 1
    (found,) = world.findings()
    assert (found["signature"], found["kind"], found["severity"], found["basis"]) == (
        "quality_drift",
        "error_rate",
        "high",
        "proxy",
    )
    assert (found["agent_name"], found["agent_version"], found["model"], found["count"]) == ("buyer", "2", "gpt-4o", 60)
    assert dict(found["evidence"])["rate"] == "0.3000"
    assert dict(found["evidence"])["rate_before"] == "0.0200"
    assert [labels["signature"] for labels in world.observer.labels] == ["quality_drift"]
    assert [labels["kind"] for labels in world.observer.grown] == ["error_rate"]


@pytest.mark.parametrize(
    ("before", "after"),
    [((400, 8), (200, 5)), ((400, 120), (200, 62)), ((50, 0), (200, 60)), ((400, 8), (30, 9)), ((400, 120), (200, 4))],
    ids=["much the same", "always failed", "too little before", "too little now", "got better"],
)
def test_rates_that_are_the_same_or_not_known_are_no_drift(
    world: World, before: tuple[int, int], after: tuple[int, int]
) -> None:
    world.arrive(calls(1, *before, at=NOW - 10 * HOUR))
    world.arrive(calls(1_000, *after, at=NOW - HOUR // 2))
    assert drift(world).tick() == 0


def test_tools_are_compared_with_tools_and_spans_sent_twice_count_once(world: World) -> None:
    tool = {"kind": "tool", "operation": "execute_tool", "tool_name": "search", "usage_scope": "none"}
    world.arrive(calls(1, 300, 3, at=NOW - 5 * HOUR, **tool))
    recent = calls(1_000, 150, 45, at=NOW - HOUR // 2, **tool)
    for _ in range(3):
        world.arrive(recent)
    assert drift(world).tick() == 1
    (found,) = world.findings()
    assert (found["kind"], found["count"], found["model"]) == ("tool_error_rate", 45, "")
