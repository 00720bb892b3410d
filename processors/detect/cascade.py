"""A failure that drags other agents down: it started in one place and another agent failed because of it.

A failed step is the origin if nothing it depends on failed before it. It cascades when another agent also failed, or
ended without any output, and depends on the origin: it called it, directly or through others, or it was given its error
(the same error text, or a long token such as a path or an id that first appeared in the failed output). An agent that
sees an error and goes on to finish its work is not dragged down, and not counted.

Values that are wrong but plausible travel without leaving such marks: a cascade of those cannot be seen in spans.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from pydantic import Field

from processors.detect.signature import Bools, Found, SignatureConfig
from processors.detect.steps import Flag, Kind, Step, Steps, Trace


class CascadeConfig(SignatureConfig):
    """When failures of several agents are one cascade."""

    agents_min: int = Field(2, ge=2, description="Agents involved, the one where it started included.")
    critical_agents: int = Field(3, ge=2, description="Agents involved from which the severity is critical.")

    def build(self) -> Cascade:
        return Cascade(self)


class Cascade:
    name: ClassVar[str] = "cascade"
    kinds: ClassVar[tuple[str, ...]] = ("",)
    version: ClassVar[int] = 1

    def __init__(self, config: CascadeConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        """Agents that went down, in traces where anything failed."""
        failed = steps.has(Flag.FAILED | Flag.ERROR_RESULT)
        if not failed.any():
            return failed
        down = steps.is_kind(Kind.AGENT) & (failed | steps.has(Flag.EMPTY) | ~steps.has(Flag.HAS_OUTPUT))
        found: Bools = down & (np.bincount(steps["trace"], weights=failed) > 0)[steps["trace"]]
        return found

    def find(self, trace: Trace) -> Iterable[Found]:
        down = [step for step in trace.of_kind(Kind.AGENT) if step.name and _is_down(step, trace)]
        if not down:
            return
        explained: set[int] = set()
        # what ends first was first: errors travel up through spans that end later
        for origin in sorted((step for step in trace.steps if step.failed), key=lambda step: (step.end, step.index)):
            if origin.index in explained:
                continue
            dragged = self._dragged(trace, origin, down)
            explained.update(step.index for step in dragged)
            names = {step.name for step in dragged} | {trace.agent_of(origin)} - {0}
            if len(names) < self._config.agents_min:
                continue
            yield Found(
                kind="",
                severity="critical" if len(names) >= self._config.critical_agents else "high",
                steps=(origin.index, *(step.index for step in dragged if step is not origin)),
                count=len(names),
                evidence={
                    "agents": len(names),
                    "depth": self._depth(trace, origin, dragged),
                    "seconds": round((max(step.end for step in dragged) - origin.start) / 1e9, 3),
                },
                quotes=((origin.index, "error"), (dragged[-1].index, "error")),
                wasted=tuple(step.index for step in dragged),
            )

    def _dragged(self, trace: Trace, origin: Step, down: list[Step]) -> list[Step]:
        """Agents that went down because of the origin, in the order they ended."""
        callers = {step.index for step in _ancestors(trace, origin)}
        marks: set[int] = set(origin.long_tokens)
        templates = {origin.template} - {0}
        dragged = []
        for step in sorted(down, key=lambda step: (step.end, step.index)):
            if step.end < origin.end:
                continue
            given = step.start >= origin.end and (step.template in templates or bool(marks & step.long_tokens))
            if step is origin or step.index in callers or given:
                dragged.append(step)
                callers.update(above.index for above in _ancestors(trace, step))
                marks |= step.long_tokens
                templates |= {step.template} - {0}
        return dragged

    def _depth(self, trace: Trace, origin: Step, dragged: list[Step]) -> int:
        """Agents above the origin that went down with it."""
        above = {step.index for step in _ancestors(trace, origin)}
        return sum(1 for step in dragged if step.index in above)


def _is_down(step: Step, trace: Trace) -> bool:
    """Failed, or ended without a word. An agent span without content says nothing about its output."""
    if step.failed or step.empty:
        return True
    silent = step.flags & Flag.HAS_INPUT and not step.flags & Flag.HAS_OUTPUT
    return bool(trace.ended and silent)


def _ancestors(trace: Trace, step: Step) -> Iterable[Step]:
    seen = {step.index}
    above = trace.parent(step)
    while above is not None and above.index not in seen:
        seen.add(above.index)
        yield above
        above = trace.parent(above)
