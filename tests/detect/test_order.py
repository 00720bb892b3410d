"""The same spans in any order and however often give the same findings."""

from __future__ import annotations

import random
from typing import ClassVar, NoReturn

import numpy as np

from processors.detect import SignaturesConfig
from processors.detect.examine import Finding, examine
from processors.detect.signature import Signature
from processors.detect.steps import Steps
from spanwise.testing import steps, tool
from tests.detect.corpus import decoded, needs_corpus, steps_of

SIGNATURES = SignaturesConfig().build()
SEEDS = 1_000


def fail(_signature: Signature, error: Exception) -> NoReturn:
    raise error


def findings(steps: Steps) -> list[Finding]:
    return examine(SIGNATURES, steps, fail)


@needs_corpus()
def test_all_traces_together_in_any_order_with_spans_twice_give_equal_findings() -> None:
    _, steps = steps_of(decoded())
    calm = repr(findings(steps))
    assert len(findings(steps)) > 100
    for seed in range(SEEDS // 100):
        rng = random.Random(seed)
        rows = len(steps.rows)
        order = [*range(rows), *rng.choices(range(rows), k=rows * 3 // 10)]
        rng.shuffle(order)
        assert repr(findings(Steps(steps.rows[order], steps.sketches, steps.ended))) == calm


@needs_corpus()
def test_each_trace_in_a_thousand_orders_gives_equal_findings() -> None:
    _, steps = steps_of(decoded())
    rng = random.Random(11)
    alone = [Steps(steps.rows[steps.rows["trace"] == n], steps.sketches, steps.ended) for n in range(len(steps.ended))]
    calm = [repr(findings(one)) for one in alone]
    for seed in range(SEEDS):
        number = seed % len(alone)
        rows = alone[number].rows
        order = [*range(len(rows)), *rng.choices(range(len(rows)), k=len(rows) * 3 // 10)]
        rng.shuffle(order)
        assert repr(findings(Steps(rows[order], steps.sketches, steps.ended))) == calm[number]


@needs_corpus()
def test_candidates_are_a_necessary_condition() -> None:
    _, steps = steps_of(decoded())
    for signature in SIGNATURES:
        chosen = set(steps.traces_with(signature.candidates(steps)))
        for number in range(len(steps.ended)):
            if number not in chosen:
                assert list(signature.find(steps.trace(number))) == [], (signature.name, number)


def test_a_signature_that_raises_leaves_the_others_alone() -> None:
    class Broken:
        name: ClassVar[str] = "broken"
        kinds: ClassVar[tuple[str, ...]] = ("",)
        version: ClassVar[int] = 1

        def candidates(self, steps: Steps) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
            return np.ones(len(steps.rows), dtype=np.bool_)

        def find(self, _trace: object) -> NoReturn:
            raise ZeroDivisionError

    looping = steps([tool("search", "cats", "nothing", empty=True) for _ in range(3)])
    told: list[str] = []
    found = examine(
        [Broken(), *SIGNATURES], looping, lambda signature, error: told.append(f"{signature.name} {error!r}")
    )
    assert told == ["broken ZeroDivisionError()"]
    assert [finding.signature for finding in found] == ["empty_result", "retry_loop"]
