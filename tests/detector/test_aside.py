"""What cannot be examined keeps nothing else from being found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import pytest

from processors.detect.signature import Bools, Found
from processors.detect.steps import Steps, Trace
from tests.detector.conftest import World
from tests.detector.test_detector import agent, rows, tool


class Wild:
    """A signature of somebody's own that says of every trace what no finding can say."""

    name: ClassVar[str] = "wild"
    kinds: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1

    def __init__(self, **wild: Any) -> None:
        self._wild = wild

    def candidates(self, steps: Steps) -> Bools:
        return np.ones(len(steps.rows), dtype=np.bool_)

    def find(self, trace: Trace) -> Iterable[Found]:
        said: dict[str, Any] = {"kind": "", "severity": "info", "steps": (0,), "count": 1}
        yield Found(**(said | self._wild))


@pytest.mark.parametrize("wild", [{"severity": "urgent"}, {"basis": "guess"}, {"count": -1}, {"steps": ()}])
def test_a_signature_that_finds_nonsense_loses_its_own_findings_only(world: World, wild: dict[str, Any]) -> None:
    world.detector._signatures.append(Wild(**wild))
    world.take(rows(world, tool(2, 1), tool(4, 3), tool(6, 5), agent()))
    world.settle()
    assert [found["signature"] for found in world.findings()] == ["retry_loop"]
    assert set(world.observer.failures) == {"wild"}
    assert len(world.traces()) == 1
