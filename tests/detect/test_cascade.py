from __future__ import annotations

from processors.detect.cascade import CascadeConfig
from spanwise.testing import SECOND, START, Span, agent, found, model, tool

SIGNATURE = CascadeConfig().build()


def lasting(span: Span, first: int, last: int) -> Span:
    return span | {"start": START + first * SECOND, "end": START + last * SECOND}


def test_a_failed_tool_that_takes_its_agent_and_the_caller_down_is_a_cascade() -> None:
    (cascade,) = found(
        SIGNATURE,
        lasting(agent("planner", "go", failed=True, span_id=1), 0, 10),
        lasting(agent("worker", "go", failed=True, span_id=2, parent_id=1), 1, 9),
        lasting(tool("fetch", "url", "boom", error_text="connection refused", span_id=3, parent_id=2), 2, 3),
    )
    assert cascade.steps == (2, 1, 0)
    assert (cascade.count, cascade.severity, cascade.evidence["depth"]) == (2, "high", 2)


def test_a_failed_tool_that_only_fails_its_own_agent_is_none() -> None:
    assert (
        found(
            SIGNATURE,
            lasting(agent("worker", "go", failed=True, span_id=2), 1, 9),
            lasting(tool("fetch", "url", "boom", error_text="refused", span_id=3, parent_id=2), 2, 3),
        )
        == []
    )


def test_a_caller_that_recovers_is_not_dragged_down() -> None:
    assert (
        found(
            SIGNATURE,
            lasting(agent("planner", "go", "done another way", span_id=1), 0, 10),
            lasting(agent("worker", "go", failed=True, span_id=2, parent_id=1), 1, 9),
        )
        == []
    )


def test_an_agent_that_was_given_the_error_and_fails_with_it_is_dragged_down() -> None:
    path = 77
    (cascade,) = found(
        SIGNATURE,
        lasting(agent("coder", "go", failed=True, error_text="no such file", span_id=1), 0, 3),
        lasting(agent("tester", "go", failed=True, error_text="no such file", span_id=2), 4, 6),
        lasting(agent("writer", "go", None, span_id=3, sketches=([], [], [path])), 5, 8),
    )
    assert cascade.steps == (0, 1)
    assert cascade.count == 2


def test_a_long_token_of_the_failed_output_links_agents_too() -> None:
    path = 77
    (cascade,) = found(
        SIGNATURE,
        lasting(
            tool("run", "x", "failed in path", failed=True, span_id=1, sketches=([], [], [path]), agent="coder"), 0, 3
        ),
        lasting(agent("tester", "see path", None, span_id=2, sketches=([], [], [path])), 4, 6),
        lasting(agent("writer", "see path", None, span_id=3, sketches=([], [], [path])), 5, 8),
    )
    assert (cascade.count, cascade.severity) == (3, "critical")


def test_failures_without_a_link_are_not_one_cascade() -> None:
    assert (
        found(
            SIGNATURE,
            lasting(agent("a", "go", failed=True, error_text="no seats", span_id=1), 0, 3),
            lasting(agent("b", "go", failed=True, error_text="bad key", span_id=2), 4, 6),
        )
        == []
    )


def test_silence_of_an_agent_counts_only_once_the_trace_has_ended() -> None:
    spans = (
        lasting(agent("planner", "go", None, span_id=1), 0, 10),
        lasting(agent("worker", "go", failed=True, span_id=2, parent_id=1), 1, 9),
        lasting(model(span_id=3, parent_id=2), 2, 3),
    )
    assert found(SIGNATURE, *spans, ended=False) == []
    assert len(found(SIGNATURE, *spans, ended=True)) == 1


def test_parents_in_a_circle_do_not_hang() -> None:
    found(
        SIGNATURE,
        lasting(agent("a", "go", failed=True, span_id=1, parent_id=2), 0, 3),
        lasting(agent("b", "go", failed=True, span_id=2, parent_id=1), 0, 4),
    )
