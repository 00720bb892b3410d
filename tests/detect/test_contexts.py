"""Context signatures on conversations that real clients had, as real instrumentations exported them."""

from __future__ import annotations

import pytest

from bench.score import score_contexts
from tests.detect.contexts import Run, runs
from tests.live.context_cases import CASES, OVERFLOW

BAR = 0.95

HEALTHY = [run for run in runs() if run.case.healthy]
FAILING = [run for run in runs() if not run.case.healthy]


def name(run: Run) -> str:
    return f"{run.case.name}, {run.instrumentation}"


def test_every_case_was_played_and_every_recording_is_of_a_case() -> None:
    assert {run.case.name for run in runs()} == set(CASES)


def test_overflow_errors_are_those_of_more_than_eight_providers() -> None:
    refused = {run.case.name.partition(":")[2].split(",")[0] for run in FAILING if OVERFLOW in run.found}
    assert len(refused) >= 20
    assert len({run.case.protocol for run in FAILING if OVERFLOW in run.found}) == 8


@pytest.mark.parametrize("run", HEALTHY, ids=name)
def test_a_healthy_conversation_raises_no_alarm(run: Run) -> None:
    assert run.found == run.case.wants
    assert run.severities <= {"info"}


@pytest.mark.parametrize("run", [run for run in FAILING if run.instrumentation not in run.case.untold], ids=name)
def test_a_conversation_that_ran_out_of_context_is_found_and_nothing_else_is_said_of_it(run: Run) -> None:
    assert run.found == run.case.wants


@pytest.mark.parametrize("run", [run for run in FAILING if run.instrumentation in run.case.untold], ids=name)
def test_what_the_spans_do_not_say_is_not_guessed(run: Run) -> None:
    assert run.found == frozenset()


def test_each_kind_is_found_on_most_and_invented_on_few() -> None:
    for kind, groups in score_contexts().items():
        assert groups[""].precision >= BAR, kind
        assert groups[""].recall >= BAR, kind
