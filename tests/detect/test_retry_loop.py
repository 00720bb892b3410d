from __future__ import annotations

import pytest

from processors.detect.retry_loop import RetryLoopConfig
from spanwise.testing import SECOND, START, Span, agent, found, model, sketch, tool

SIGNATURE = RetryLoopConfig().build()
ADVICE = "could not find it, did you mean one of these: cats, dogs, birds, fish or horses"
PAGE = " ".join(f"word{n}" for n in range(60))


def failing(args: str = "cats", error: str = "quota exceeded", **fields: object) -> Span:
    return tool("search", args, f"Error: {error}", error_text=error, **fields)


def other(number: int = 0, name: str = "read") -> Span:
    return tool(name, f"page {number}", f"text {number}")


def test_three_equal_calls_with_the_same_error_are_a_loop() -> None:
    (loop,) = found(SIGNATURE, failing(), model(), failing(), model(), failing())
    assert (loop.kind, loop.severity, loop.basis, loop.count) == ("identical", "warning", "exact", 3)
    assert (loop.steps, loop.wasted) == ((0, 2, 4), (1, 2, 3, 4))
    assert loop.evidence["failed"] == 3


@pytest.mark.parametrize(("calls", "severity"), [(3, "warning"), (5, "high"), (10, "critical")])
def test_severity_rises_with_the_number_of_calls(calls: int, severity: str) -> None:
    (loop,) = found(SIGNATURE, *(failing() for _ in range(calls)))
    assert (loop.severity, loop.count) == (severity, calls)


@pytest.mark.parametrize(
    "result",
    [("0 of 3 replicas ready",) * 3, ("",) * 3, (None,) * 3, tuple(f"{PAGE} {n}" for n in range(3))],
    ids=["same text", "silence", "not recorded", "nearly the same page"],
)
def test_equal_calls_that_bring_nothing_new_are_a_loop(result: tuple[str | None, ...]) -> None:
    (loop,) = found(SIGNATURE, *(tool("status", "checkout", text) for text in result))
    assert loop.kind == "identical"


def test_digits_of_a_long_result_do_not_make_it_new_but_those_of_a_short_one_do() -> None:
    long = [tool("status", "x", f"{PAGE} at 12:0{n}:17") for n in range(3)]
    short = [tool("status", "x", f"{n} of 9 ready") for n in range(3)]
    assert len(found(SIGNATURE, *long)) == 1
    assert found(SIGNATURE, *short) == []


def test_two_other_calls_may_lie_between_but_not_three() -> None:
    near = [failing(), other(1), other(2, "write"), failing(), other(3), other(4, "write"), failing()]
    far = [failing(), other(1), other(2), other(3), failing(), other(4), other(5), other(6), failing()]
    assert [loop.count for loop in found(SIGNATURE, *near)] == [3]
    assert found(SIGNATURE, *far) == []


def test_reworded_questions_that_fail_alike_are_nearly_identical() -> None:
    questions = ("cats in Oslo", "the cats in Oslo", "cats in Oslo today")
    (loop,) = found(SIGNATURE, *(failing(question) for question in questions))
    assert (loop.kind, loop.count, loop.evidence["different_inputs"]) == ("near_identical", 3, 3)


def test_reworded_questions_that_get_advice_and_ignore_it_are_nearly_identical() -> None:
    questions = ("cats in Oslo", "the cats in Oslo", "cats in Oslo today")
    (loop,) = found(SIGNATURE, *(tool("search", q, f"{ADVICE} {q}", empty=True) for q in questions))
    assert loop.kind == "near_identical"


@pytest.mark.parametrize(
    "calls",
    [
        [failing(), failing()],
        [tool("status", "job 7", f"{n} % done") for n in (10, 40, 90)],
        [tool("list", f"page {n}", f"items of page {n}") for n in range(6)],
        [tool("flights", f"JFK SEA 2026-05-{n}", "[]", empty=True) for n in (20, 21, 22)],
        [failing("cats"), failing("dogs"), failing("birds")],
        [failing(error="quota exceeded"), failing(error="bad key"), failing(error="timeout")],
        [failing(), failing(), tool("search", "cats", "3 cats"), failing(), failing()],
        [tool("search", "cats", "3 cats"), failing(), tool("search", "cats", "3 cats"), failing()],
        [agent("helper", "same task", "same answer") for _ in range(3)],
    ],
    ids=[
        "only two",
        "polling a job that moves",
        "paging",
        "a list of dates without flights",
        "different questions",
        "different errors",
        "a success in between",
        "works every other time",
        "agents, not tools",
    ],
)
def test_work_is_not_called_a_loop(calls: list[Span]) -> None:
    assert found(SIGNATURE, *calls) == []


def test_parallel_calls_of_one_answer_are_one_step() -> None:
    together = [failing(start=START, end=START + 5 * SECOND) for _ in range(3)]
    assert found(SIGNATURE, *together) == []


def test_attempts_of_one_call_are_the_transports_business() -> None:
    assert found(SIGNATURE, *(failing(call_id=9) for _ in range(5))) == []
    asked_again = [step for _ in range(3) for step in (model(), failing(call_id=9))]
    assert len(found(SIGNATURE, *asked_again)) == 1


def test_without_content_five_failures_in_a_row_are_a_loop_as_a_proxy() -> None:
    blind = [tool("search", failed=True) for _ in range(5)]
    (loop,) = found(SIGNATURE, *blind)
    assert (loop.basis, loop.count, loop.evidence["content"]) == ("proxy", 5, "not recorded")
    assert found(SIGNATURE, *blind[:4]) == []
    assert found(SIGNATURE, *blind[:3], tool("search"), *blind[:3]) == []


def test_a_loop_is_found_before_the_trace_ends() -> None:
    assert len(found(SIGNATURE, *(failing() for _ in range(3)), ended=False)) == 1


def test_a_run_of_equal_calls_is_not_reported_twice() -> None:
    calls = [*(failing("cats in Oslo") for _ in range(3)), *(failing("the cats in Oslo") for _ in range(3))]
    loops = found(SIGNATURE, *calls)
    steps = [step for loop in loops for step in loop.steps]
    assert len(steps) == len(set(steps))


def test_sketches_that_are_full_are_compared_where_both_are_complete() -> None:
    words = [f"word{n}" for n in range(400)]
    first, second = " ".join(words), " ".join([*words[:396], "a", "b", "c", "d"])
    calls = [
        tool("read", "page", text, sketches=(sketch("page"), sketch(text), []), output_masked=n)
        for n, text in enumerate((first, second, first), start=1)
    ]
    assert len(found(SIGNATURE, *calls)) == 1
