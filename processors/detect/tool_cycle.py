"""An agent going round in a circle: the same two, three or four tool calls in the same order, over and over.

Each call differs from the one before, so no call is repeated at once, and the results come round with the calls: the
agent undoes what it did, or asks the same questions in turn. Three rounds with nothing new in the last two are a cycle.
Rounds that bring new results are work done in steps, and not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
from pydantic import Field

from processors.detect.signature import Bools, Found, SignatureConfig
from processors.detect.steps import Flag, Kind, Step, Steps, Trace


class ToolCycleConfig(SignatureConfig):
    """How long and how often repeated a circle of calls must be."""

    period_max: int = Field(4, ge=2, le=12, description="Most calls in one round.")
    rounds_min: int = Field(3, ge=2, description="Rounds that are a finding.")
    high_rounds: int = Field(5, ge=2, description="Rounds from which the severity is high.")

    def build(self) -> ToolCycle:
        return ToolCycle(self)


class ToolCycle:
    name: ClassVar[str] = "tool_cycle"
    kinds: ClassVar[tuple[str, ...]] = ("",)
    version: ClassVar[int] = 1

    def __init__(self, config: ToolCycleConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        """Tool calls that equal the ones two rounds before in tool and arguments."""
        found = np.zeros(len(steps.rows), dtype=np.bool_)
        rows = np.flatnonzero(steps.is_kind(Kind.TOOL))
        trace, name, key = (steps[column][rows] for column in ("trace", "name", "input"))
        for period in range(2, self._config.period_max + 1):
            back = period * (self._config.rounds_min - 1)
            if len(rows) <= back:
                break
            same = (trace[back:] == trace[:-back]) & (name[back:] == name[:-back]) & (key[back:] == key[:-back])
            found[rows[back:]] |= same & (key[back:] != 0)
        return found

    def find(self, trace: Trace) -> Iterable[Found]:
        calls = trace.of_kind(Kind.TOOL)
        taken: set[int] = set()
        for period in range(2, self._config.period_max + 1):
            for first, last in self._cycles(calls, period):
                round_ = calls[first : last + 1]
                if taken & {call.index for call in round_}:
                    continue
                taken |= {call.index for call in round_}
                rounds = len(round_) // period
                yield Found(
                    kind="",
                    severity="high" if rounds >= self._config.high_rounds else "warning",
                    steps=tuple(call.index for call in round_),
                    count=rounds,
                    evidence={"rounds": rounds, "calls_in_a_round": period, "calls": len(round_)},
                    quotes=tuple((call.index, "input") for call in round_[:period]),
                    wasted=tuple(call.index for call in round_[period:]),
                )

    def _cycles(self, calls: list[Step], period: int) -> Iterator[tuple[int, int]]:
        """(first, last) of stretches in which every call repeats the one a round before."""
        first = 0
        for position in range(period, len(calls) + 1):
            if position < len(calls) and _repeats(calls[position - period], calls[position]):
                continue
            stretch = calls[first:position]
            turns = len(stretch) // period
            different = len({(call.name, call.input) for call in stretch[:period]})
            if turns >= self._config.rounds_min and different > 1:
                yield first, first + turns * period - 1
            first = position - period + 1


def _repeats(earlier: Step, call: Step) -> bool:
    """The same call with the same outcome."""
    if not call.input or (earlier.name, earlier.input) != (call.name, call.input) or earlier.failed != call.failed:
        return False
    if call.failed:
        return earlier.template == call.template
    if not earlier.flags & call.flags & Flag.HAS_OUTPUT:
        return not (earlier.flags | call.flags) & Flag.HAS_OUTPUT
    return earlier.output_masked == call.output_masked or (earlier.empty and call.empty)
