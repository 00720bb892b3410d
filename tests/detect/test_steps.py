"""Steps in any order, with repeats, are the same steps."""

from __future__ import annotations

import random

import numpy as np

from processors.detect.steps import Kind, Steps
from spanwise.testing import SECOND, START, agent, model, steps, tool


def test_order_and_repeats_of_rows_do_not_matter() -> None:
    known = steps([tool("a", "1", "x"), model(), tool("b", "2", "y")], [tool("c", "3", "z"), agent("planner", "go")])
    rng = random.Random(5)
    for _ in range(50):
        order = [rng.randrange(len(known.rows)) for _ in range(3)] + rng.sample(range(len(known.rows)), len(known.rows))
        again = Steps(known.rows[order], known.sketches, known.ended)
        assert again.rows.tobytes() == known.rows.tobytes()


def test_the_newest_version_of_a_span_wins() -> None:
    known = steps([tool("a", "1", "old", span_id=7), tool("a", "1", "new", span_id=7, version=2)])
    assert [row["version"] for row in known.rows] == [2]


def test_a_trace_is_in_order_of_start_with_sketches_of_its_own() -> None:
    known = steps(
        [tool("late", "one two", "three", start=START + 9 * SECOND), tool("early", "four", None, start=START)],
        [model("five six")],
    )
    first = known.trace(0)
    assert [step.start for step in first.steps] == [START, START + 9 * SECOND]
    assert [len(step.input_sketch) for step in first.steps] == [1, 2]
    assert [len(step.output_sketch) for step in known.trace(1).steps] == [2]


def test_only_traces_with_a_candidate_are_walked() -> None:
    known = steps([tool("a")], [model()], [tool("b"), tool("b")])
    assert list(known.traces_with(known["kind"] == int(Kind.TOOL))) == [0, 2]
    assert list(known.traces_with(np.zeros(len(known.rows), dtype=np.bool_))) == []
