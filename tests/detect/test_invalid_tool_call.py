from __future__ import annotations

import pytest

from processors.detect.invalid_tool_call import InvalidToolCallConfig
from processors.detect.steps import ErrorClass, Finish, Flag
from spanwise.testing import Span, found, model, tool

SIGNATURE = InvalidToolCallConfig().build()


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (model(flags=Flag.UNKNOWN_TOOL), "unknown_tool"),
        (model(flags=Flag.BAD_ARGUMENTS), "arguments_not_json"),
        (model(flags=Flag.SCHEMA_MISMATCH), "arguments_against_schema"),
        (model(flags=Flag.ORPHAN_RESULT), "result_without_call"),
        (model(flags=Flag.DUPLICATE_CALL_ID), "one_id_for_two_calls"),
        (model(finish=Finish.MALFORMED), "malformed_by_finish_reason"),
        (model(None, error=ErrorClass.MALFORMED_HISTORY, failed=True), "history_rejected_by_provider"),
    ],
)
def test_each_way_to_be_invalid_is_found_and_named(call: Span, reason: str) -> None:
    (finding,) = found(SIGNATURE, model(), call, tool("search", "a", "b"))
    assert (finding.severity, finding.steps, finding.evidence) == ("warning", (1,), {reason: 1})


def test_what_stays_in_the_history_is_reported_once() -> None:
    calls = [model(flags=Flag.ORPHAN_RESULT, first_input=9) for _ in range(4)]
    assert [f.steps for f in found(SIGNATURE, *calls)] == [(0,)]


def test_another_conversation_with_the_same_fault_counts_again() -> None:
    calls = [model(flags=Flag.ORPHAN_RESULT, first_input=n) for n in (1, 2)]
    assert [f.count for f in found(SIGNATURE, *calls)] == [2]


def test_three_invalid_calls_of_one_agent_are_of_high_severity() -> None:
    (finding,) = found(SIGNATURE, *(model(flags=Flag.UNKNOWN_TOOL) for _ in range(3)))
    assert (finding.severity, finding.count, finding.evidence) == ("high", 3, {"unknown_tool": 3})


def test_agents_are_told_apart() -> None:
    calls = [model(flags=Flag.UNKNOWN_TOOL, agent=name) for name in ("planner", "writer", "planner")]
    assert [f.steps for f in found(SIGNATURE, *calls)] == [(0, 2), (1,)]
