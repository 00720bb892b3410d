from __future__ import annotations

import pytest

from processors.detect.goal_drift import GoalDriftConfig
from spanwise.testing import Span, agent, found, tool

SIGNATURE = GoalDriftConfig().build()
TASK = agent("planner", "book a flight to Oslo", "done")


def calls(*names: str, words: str = "unrelated") -> list[Span]:
    return [tool(name, f"{words} {number}", "x") for number, name in enumerate(names)]


def test_other_tools_on_other_things_at_the_end_are_drift_as_a_proxy() -> None:
    spans = calls(*["search"] * 4, *["read"] * 4, *["tweet"] * 4)
    (drift,) = found(SIGNATURE, TASK, *spans)
    assert (drift.severity, drift.basis, drift.count) == ("info", "proxy", 4)
    assert drift.evidence == {"tool_calls": 12, "divergence": 1.0, "new_tools": 1.0}


@pytest.mark.parametrize(
    ("task", "spans"),
    [
        (TASK, calls(*["search"] * 12)),
        (TASK, calls(*["search"] * 4, *["read"] * 3, *["tweet"] * 4)),
        (TASK, calls(*["search"] * 8, *["book"] * 4, words="Oslo")),
        (agent("planner", None, "done"), calls(*["search"] * 8, *["tweet"] * 4)),
    ],
    ids=["same tools", "too few calls", "still about the task", "task not recorded"],
)
def test_no_drift_is_claimed(task: Span, spans: list[Span]) -> None:
    assert found(SIGNATURE, task, *spans) == []
