"""Rules without code find what they say, in a whole trace or within some seconds of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from spanwise.detector import DetectConfig
from spanwise.rules import RuleConfig
from tests.detector.conftest import World
from tests.detector.test_detector import agent, chat, rows, tool

TOOLS = {"column": "kind", "value": "tool"}


def with_rule(world: World, **rule: Any) -> None:
    config = DetectConfig.model_validate({"rules": [{"name": "mine", **rule}]})
    world.start(detect=config)
    world.reconciler.tick()


def found(world: World) -> list[tuple[int, list[str]]]:
    mine = [finding for finding in world.findings() if finding["signature"] == "mine"]
    return sorted((finding["count"], [span[-1] for span in finding["span_ids"]]) for finding in mine)


def test_spans_that_meet_the_conditions_are_counted(world: World) -> None:
    with_rule(world, where=[TOOLS, {"column": "tool_name", "value": "search"}], count_min=2, severity="high")
    world.take(rows(world, agent(), tool(2, 1, "a"), chat(3, 2), tool(4, 3, "b"), tool(5, 4, "c")))
    world.settle()
    assert found(world) == [(3, ["2", "4", "5"])]
    (finding,) = [finding for finding in world.findings() if finding["signature"] == "mine"]
    assert (finding["severity"], finding["agent_name"], finding["tool_name"]) == ("high", "buyer", "search")
    assert dict(finding["evidence"]) == {"spans": "3"}


def test_a_sum_must_be_reached_too(world: World) -> None:
    with_rule(world, where=[{"column": "kind", "value": "llm"}], sum_of="input_tokens", sum_min=2_500)
    world.take(rows(world, chat(2, 1), chat(3, 2)))
    world.settle()
    assert found(world) == []
    world.take(rows(world, chat(4, 3)))
    world.settle()
    assert found(world) == [(3, ["2", "3", "4"])]


def test_within_some_seconds_of_the_trace(world: World) -> None:
    with_rule(world, where=[TOOLS], count_min=3, within_s=10)
    world.take(rows(world, *(tool(n, at, f"q{n}") for n, at in enumerate((0, 20, 25, 29, 60, 90, 95, 99), start=2))))
    world.settle()
    assert found(world) == [(3, ["3", "4", "5"]), (3, ["7", "8", "9"])]


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ({"column": "tool_name", "op": "ne", "value": "search"}, 1),
        ({"column": "tool_name", "op": "in", "value": ["search", "read"]}, 2),
        ({"column": "tool_name", "op": "not_in", "value": ["search"]}, 1),
        ({"column": "output_preview", "op": "contains", "value": "QUOTA"}, 2),
        ({"column": "name", "op": "starts_with", "value": "execute"}, 2),
        ({"column": "name", "op": "matches", "value": "^chat"}, 1),
        ({"column": "input_tokens", "op": "gte", "value": 1000}, 1),
        ({"column": "duration_ns", "op": "lt", "value": 1}, 0),
        ({"attribute": "gen_ai.tool.name", "value": "search"}, 2),
        ({"attribute": "no'such\\\\", "value": "it's"}, 0),
    ],
)
def test_every_way_to_compare(world: World, condition: dict[str, Any], count: int) -> None:
    with_rule(world, where=[condition])
    world.take(rows(world, tool(2, 1, "a"), tool(3, 2, "b"), chat(4, 3)))
    world.settle()
    assert sum(number for number, _ in found(world)) == count


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"where": []}, "at least 1 item"),
        ({"where": [{"value": "x"}]}, "give either column or attribute"),
        ({"where": [{"column": "prompt", "value": "x"}]}, "spans have no column 'prompt'"),
        ({"where": [{"column": "input_tokens", "op": "contains", "value": "9"}]}, "input_tokens is a number"),
        ({"where": [{"column": "kind", "value": 3}]}, "kind is text: put the value in quotes"),
        ({"where": [{"column": "kind", "op": "in", "value": "tool"}]}, "take a list"),
        ({"where": [TOOLS], "sum_of": "kind"}, "no column 'kind' with a number"),
        ({"where": [TOOLS], "sum_min": 3}, "sum_min needs sum_of"),
        ({"where": [TOOLS], "name": "Bad Name"}, "should match pattern"),
    ],
)
def test_a_rule_that_makes_no_sense_stops_the_start(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RuleConfig.model_validate({"name": "mine", **rule})
