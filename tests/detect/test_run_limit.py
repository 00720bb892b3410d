from __future__ import annotations

from processors.detect.run_limit import RunLimitConfig
from processors.detect.steps import ErrorClass, Flag
from spanwise.testing import SECOND, START, agent, found, model

SIGNATURE = RunLimitConfig(model_calls_max=5, tokens_max=1_000).build()


def test_a_run_stopped_by_its_framework_is_reported_where_it_was_raised() -> None:
    outer = agent("planner", "go", failed=True, error=ErrorClass.RUN_LIMIT, start=START, end=START + 90 * SECOND)
    inner = agent(
        "worker", "go", failed=True, error=ErrorClass.RUN_LIMIT, start=START + SECOND, end=START + 80 * SECOND
    )
    (finding,) = found(SIGNATURE, outer, inner, model(start=START + 2 * SECOND))
    assert finding.steps == (1, 0)
    assert finding.evidence == {"limit": "set by the framework", "model_calls": 1}


def test_an_output_that_says_so_is_enough() -> None:
    assert len(found(SIGNATURE, agent("worker", "go", "stopped", flags=Flag.RUN_LIMIT))) == 1


def test_more_model_calls_than_allowed_are_found_while_the_run_goes_on() -> None:
    assert found(SIGNATURE, *(model() for _ in range(5)), ended=False) == []
    (finding,) = found(SIGNATURE, *(model() for _ in range(7)), ended=False)
    assert (finding.steps, finding.count, finding.evidence["limit"]) == ((5, 6), 7, "model calls")


def test_tokens_are_limited_too() -> None:
    assert found(SIGNATURE, model(input_tokens=400, output_tokens=100), model(input_tokens=500, output_tokens=0)) == []
    (finding,) = found(SIGNATURE, model(input_tokens=900, output_tokens=100), model(input_tokens=1))
    assert (finding.steps, finding.evidence["limit"]) == ((1,), "tokens")


def test_unknown_token_counts_are_not_negative_ones() -> None:
    assert found(SIGNATURE, *(model() for _ in range(4)), model(input_tokens=1_000, output_tokens=0)) == []
