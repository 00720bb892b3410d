"""tool_cycle, llm_repetition, delegation_loop."""

from __future__ import annotations

import pytest

from processors.detect.delegation_loop import DelegationLoopConfig
from processors.detect.llm_repetition import LlmRepetitionConfig
from processors.detect.steps import Flag
from processors.detect.tool_cycle import ToolCycleConfig
from spanwise.testing import Span, agent, found, model, tool

CYCLE = ToolCycleConfig().build()
REPETITION = LlmRepetitionConfig().build()
DELEGATION = DelegationLoopConfig().build()


def rounds(count: int, *names: str) -> list[Span]:
    return [tool(name, "same", f"{name} done") for _ in range(count) for name in names]


@pytest.mark.parametrize("names", [("open", "close"), ("a", "b", "c"), ("a", "b", "c", "d")])
def test_three_rounds_of_the_same_calls_are_a_cycle(names: tuple[str, ...]) -> None:
    (cycle,) = found(CYCLE, tool("start", "x", "y"), *rounds(3, *names), tool("end", "x", "y"))
    assert (cycle.count, len(cycle.steps), cycle.severity) == (3, 3 * len(names), "warning")
    assert cycle.evidence == {"rounds": 3, "calls_in_a_round": len(names), "calls": 3 * len(names)}
    assert len(cycle.wasted) == 2 * len(names)


def test_five_rounds_are_of_high_severity() -> None:
    assert [cycle.severity for cycle in found(CYCLE, *rounds(5, "open", "close"))] == ["high"]


@pytest.mark.parametrize(
    "calls",
    [
        rounds(2, "open", "close"),
        rounds(9, "again"),
        [tool(name, f"page {n}", "ok") for n in range(6) for name in ("open", "read")],
        [tool(name, "same", f"{name} {n}") for n in range(6) for name in ("draft", "test")],
        [tool(name) for _ in range(6) for name in ("draft", "test")],
    ],
    ids=["two rounds", "one call", "other arguments", "other results", "nothing recorded"],
)
def test_rounds_that_get_on_are_no_cycle(calls: list[Span]) -> None:
    assert found(CYCLE, *calls) == []


def test_three_equal_answers_in_a_row_are_a_repetition() -> None:
    (run,) = found(REPETITION, model("I will check"), model("I will check"), model("I will check"))
    assert (run.count, run.steps, run.wasted) == (3, (0, 1, 2), (1, 2))


def test_two_empty_answers_in_a_row_are_a_repetition() -> None:
    (run,) = found(REPETITION, model("hello"), model("", empty=True), model("", empty=True))
    assert (run.count, run.evidence["what"]) == (2, "empty answers")


def test_an_answer_that_repeats_one_passage_is_a_repetition() -> None:
    (run,) = found(REPETITION, model("no no no", flags=Flag.CHANTING))
    assert run.evidence["what"] == "one passage repeated"


@pytest.mark.parametrize(
    "calls",
    [
        [model("ok"), model("ok")],
        [model("ok"), tool("a", "1", "2"), model("ok"), tool("b", "1", "2"), model("ok")],
        [model("ok", agent=name) for name in ("a", "b", "c")],
        [model("call", flags=Flag.TOOL_CALLS) for _ in range(3)],
        [model(None), model(None), model(None)],
        [model("", empty=True), model("hello"), model("", empty=True)],
        [model("", empty=True, failed=True) for _ in range(3)],
    ],
    ids=["two", "tools in between", "three agents", "asks for tools", "not recorded", "recovered", "failed"],
)
def test_models_that_get_on_do_not_repeat_themselves(calls: list[Span]) -> None:
    assert found(REPETITION, *calls) == []


def test_the_same_task_given_three_times_to_an_agent_that_says_nothing_is_a_loop() -> None:
    (loop,) = found(DELEGATION, *(agent("helper", "find the report of 2020", None) for _ in range(3)))
    assert (loop.count, loop.steps, loop.severity) == (3, (0, 1, 2), "warning")


def test_what_happened_inside_the_repeated_calls_was_wasted() -> None:
    spans = []
    for number in range(3):
        spans.append(agent("helper", "find the report", "no idea", span_id=10 + number))
        spans.append(model("thinking", span_id=20 + number, parent_id=10 + number))
    (loop,) = found(DELEGATION, *spans)
    assert loop.wasted == (2, 3, 4, 5)


@pytest.mark.parametrize(
    "calls",
    [
        [agent("helper", "find the report", None) for _ in range(2)],
        [agent("helper", f"summarise chapter {n} of the long book", f"chapter {n}") for n in range(5)],
        [agent("helper", task, None) for task in ("find a report", "write the mail", "book two flights")],
        [agent(name, "find the report", None) for name in ("a", "b", "c")],
        [agent("helper", None, None) for _ in range(5)],
    ],
    ids=["twice", "a list worked off", "different tasks", "different agents", "tasks not recorded"],
)
def test_handing_on_work_is_no_loop(calls: list[Span]) -> None:
    assert found(DELEGATION, *calls) == []
