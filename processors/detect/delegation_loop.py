"""An agent that keeps handing the same task to the same agent and gets nothing new back.

Similar instructions alone are no loop: a list worked off item by item looks the same. The agent called must have failed
in the same way, said nothing, or said the same, each time, with instructions that share four fifths of their words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from pydantic import Field

from processors.detect.signature import Bools, Found, SignatureConfig
from processors.detect.steps import Flag, Kind, Step, Steps, Trace, share


class DelegationLoopConfig(SignatureConfig):
    """When handing on the same task again is a loop."""

    calls_min: int = Field(3, ge=2, description="Calls of one agent in a run that are a finding.")
    gap_max: int = Field(2, ge=0, le=6, description="Calls of other agents allowed between two of a run.")
    near_share: float = Field(0.8, gt=0, le=1, description="Share of their words the instructions have in common.")
    high_calls: int = Field(5, ge=2, description="Calls from which the severity is high.")

    def build(self) -> DelegationLoop:
        return DelegationLoop(self)


class DelegationLoop:
    name: ClassVar[str] = "delegation_loop"
    kinds: ClassVar[tuple[str, ...]] = ("",)
    version: ClassVar[int] = 1

    def __init__(self, config: DelegationLoopConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        """Agent calls with enough calls of the same agent before them, not far away."""
        found = np.zeros(len(steps.rows), dtype=np.bool_)
        rows = np.flatnonzero(steps.is_kind(Kind.AGENT) & steps.has(Flag.HAS_INPUT))
        reach = (self._config.gap_max + 1) * (self._config.calls_min - 1)
        trace, name = steps["trace"][rows], steps["name"][rows]
        before = np.zeros(len(rows), dtype=np.int64)
        for distance in range(1, reach + 1):
            same = (trace[distance:] == trace[:-distance]) & (name[distance:] == name[:-distance])
            before[distance:] += same & (name[distance:] != 0)
        found[rows] = before >= self._config.calls_min - 1
        return found

    def find(self, trace: Trace) -> Iterable[Found]:
        calls = [step for step in trace.of_kind(Kind.AGENT) if step.name and step.flags & Flag.HAS_INPUT]
        run_of: dict[int, list[Step]] = {}
        runs: list[list[Step]] = []
        for position, call in enumerate(calls):
            for before in range(position - 1, max(-1, position - self._config.gap_max - 2), -1):
                if self._repeats(calls[before], call):
                    run = run_of.get(before)
                    if run is None:
                        run = [calls[before]]
                        runs.append(run)
                    run.append(call)
                    run_of[position] = run
                    break
        for run in runs:
            if len(run) >= self._config.calls_min:
                yield Found(
                    kind="",
                    severity="high" if len(run) >= self._config.high_calls else "warning",
                    steps=tuple(call.index for call in run),
                    count=len(run),
                    evidence={
                        "calls": len(run),
                        "failed": sum(1 for call in run if call.failed),
                        "seconds": round((run[-1].end - run[0].start) / 1e9, 3),
                    },
                    quotes=((run[0].index, "input"), (run[-1].index, "output")),
                    wasted=tuple(step.index for step in trace.steps if _below(trace, step, run[1:])),
                )

    def _repeats(self, earlier: Step, call: Step) -> bool:
        if earlier.name != call.name or call.start < earlier.end:
            return False
        if earlier.input != call.input and share(earlier.input_sketch, call.input_sketch) < self._config.near_share:
            return False
        if earlier.failed or call.failed:
            return earlier.failed and call.failed and earlier.template == call.template
        said = [step.flags & Flag.HAS_OUTPUT and not step.empty for step in (earlier, call)]
        return not any(said) or (all(said) and earlier.output_masked == call.output_masked)


def _below(trace: Trace, step: Step, tops: list[Step]) -> bool:
    """Whether a step is one of these, or happened inside one of them."""
    wanted = {top.index for top in tops}
    seen: set[int] = set()
    at: Step | None = step
    while at is not None and at.index not in seen:
        if at.index in wanted:
            return True
        seen.add(at.index)
        at = trace.parent(at)
    return False
