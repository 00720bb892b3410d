from __future__ import annotations

from processors.detect.tool_error import ToolErrorConfig
from spanwise.testing import Span, found, model, tool

SIGNATURE = ToolErrorConfig().build()


def failing(number: int, name: str = "book") -> Span:
    return tool(name, f"flight {number}", "Error: no seats", error_text="no seats")


def working(number: int, name: str = "book") -> Span:
    return tool(name, f"flight {number}", f"booked {number}")


def test_three_failures_of_one_tool_with_different_arguments_are_a_burst() -> None:
    (burst,) = found(SIGNATURE, failing(1), working(2), failing(3), failing(4))
    assert (burst.kind, burst.severity, burst.count) == ("burst", "warning", 3)
    assert burst.steps == burst.wasted == (0, 2, 3)
    assert burst.evidence == {"errors": 3, "calls": 4, "different_inputs": 3, "different_errors": 1}


def test_two_failures_are_not_a_burst() -> None:
    assert found(SIGNATURE, failing(1), failing(2), working(3)) == []


def test_failures_of_different_tools_do_not_add_up() -> None:
    assert found(SIGNATURE, failing(1), failing(2, "cancel"), failing(3, "refund"), working(4)) == []


def test_the_same_call_failing_again_is_left_to_retry_loop() -> None:
    assert found(SIGNATURE, failing(1), failing(1), failing(1), working(2)) == []


def test_failures_further_apart_than_ten_calls_are_not_a_burst() -> None:
    calls = [failing(n) if n in (0, 5, 10) else working(n) for n in range(12)]
    assert found(SIGNATURE, *calls) == []
    calls = [failing(n) if n in (0, 5, 9) else working(n) for n in range(12)]
    assert [burst.count for burst in found(SIGNATURE, *calls)] == [3]


def test_a_longer_burst_is_one_finding_and_of_high_severity() -> None:
    (burst,) = found(SIGNATURE, *(failing(n) for n in range(6)), working(7))
    assert (burst.count, burst.severity) == (6, "high")


def test_two_bursts_far_apart_are_two_findings() -> None:
    calls = [*(failing(n) for n in range(3)), *(working(n) for n in range(3, 20)), *(failing(n) for n in range(20, 23))]
    assert [burst.steps for burst in found(SIGNATURE, *calls, working(30))] == [(0, 1, 2), (20, 21, 22)]


def test_an_answer_right_after_a_failed_call_ignored_it_as_a_proxy() -> None:
    (ignored,) = found(SIGNATURE, model(flags=32), failing(1), model("All booked!"))
    assert (ignored.kind, ignored.basis, ignored.steps) == ("ignored", "proxy", (1, 2))


def test_a_failure_that_was_followed_by_another_tool_was_not_ignored() -> None:
    assert found(SIGNATURE, failing(1), model(flags=32), working(2, "search"), model("Booked another")) == []


def test_nothing_is_called_ignored_while_the_run_goes_on() -> None:
    assert found(SIGNATURE, failing(1), model("thinking aloud"), ended=False) == []


def test_a_run_that_ends_without_an_answer_did_not_ignore_the_failure() -> None:
    assert found(SIGNATURE, model(flags=32), failing(1)) == []
    assert found(SIGNATURE, failing(1), model(None, failed=True)) == []
