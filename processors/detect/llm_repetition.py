"""A model that says the same again: equal answers in a row, empty answers in a row, or one answer that repeats itself.

Three equal answers of one agent without a tool call in between mean that nothing moves any more; so do two answers with
neither text nor a tool call. A long answer that repeats one passage ten times is a model stuck in its own text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
from pydantic import Field

from processors.detect.signature import Bools, Found, SignatureConfig
from processors.detect.steps import Flag, Kind, Step, Steps, Trace


class LlmRepetitionConfig(SignatureConfig):
    """How many equal answers are too many."""

    equal_min: int = Field(3, ge=2, description="Equal answers of one agent in a row, without a tool call in between.")
    empty_min: int = Field(2, ge=2, description="Empty answers of one agent in a row, without a tool call.")
    high_count: int = Field(5, ge=2, description="Answers in a row from which the severity is high.")

    def build(self) -> LlmRepetition:
        return LlmRepetition(self)


class LlmRepetition:
    name: ClassVar[str] = "llm_repetition"
    kinds: ClassVar[tuple[str, ...]] = ("",)
    version: ClassVar[int] = 1

    def __init__(self, config: LlmRepetitionConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        """Answers that repeat themselves, and answers that were given before in the trace."""
        model = steps.is_kind(Kind.MODEL)
        found: Bools = model & steps.has(Flag.CHANTING)
        rows = np.flatnonzero(model & (steps.has(Flag.HAS_OUTPUT) | steps.has(Flag.EMPTY)))
        if len(rows) < 2:
            return found
        empty = steps.has(Flag.EMPTY)[rows]
        answer = np.where(empty, np.uint64(0), steps["output"][rows])
        order = np.lexsort((answer, steps["trace"][rows]))
        trace, answer = steps["trace"][rows][order], answer[order]
        again = (trace[1:] == trace[:-1]) & (answer[1:] == answer[:-1])
        found[rows[order[1:]]] |= again
        return found

    def find(self, trace: Trace) -> Iterable[Found]:
        for run in self._runs(trace):
            empty = run[0].empty
            if len(run) >= (self._config.empty_min if empty else self._config.equal_min):
                yield Found(
                    kind="",
                    severity="high" if len(run) >= self._config.high_count else "warning",
                    steps=tuple(call.index for call in run),
                    count=len(run),
                    evidence={"answers": len(run), "what": "empty answers" if empty else "equal answers"},
                    quotes=() if empty else ((run[-1].index, "output"),),
                    wasted=tuple(call.index for call in run[0 if empty else 1 :]),
                )
        for call in trace.of_kind(Kind.MODEL):
            if call.flags & Flag.CHANTING:
                yield Found(
                    kind="",
                    severity="warning",
                    steps=(call.index,),
                    count=1,
                    evidence={"answers": 1, "what": "one passage repeated", "output_bytes": call.output_bytes},
                    quotes=((call.index, "output"),),
                    wasted=(call.index,),
                )

    def _runs(self, trace: Trace) -> Iterator[list[Step]]:
        """Equal or empty answers of one agent in a row; a tool call of anybody ends them all."""
        runs: dict[int, list[Step]] = {}
        for step in trace.steps:
            if step.kind == Kind.TOOL:
                yield from runs.values()
                runs = {}
            if step.kind != Kind.MODEL or step.failed:
                continue
            agent = trace.agent_of(step)
            run = runs.get(agent)
            if run and _same(run[-1], step):
                run.append(step)
            else:
                if run:
                    yield run
                runs[agent] = [step]
        yield from runs.values()


def _same(earlier: Step, call: Step) -> bool:
    if earlier.empty or call.empty:
        return earlier.empty and call.empty
    said = bool(earlier.flags & call.flags & Flag.HAS_OUTPUT)
    return said and not call.flags & Flag.TOOL_CALLS and earlier.output == call.output
