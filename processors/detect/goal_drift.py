"""An agent that may have left its task: its last tool calls have little to do with its first ones.

Intent is not in spans. What can be seen is a change of tools: most tools of the last third of the calls are new, the
mix is far from that of the first third, and the new arguments share no word with what the user asked. Agents that work
in phases (search, then write) change tools too, so this is a proxy: a column to look at and calibrate, not an alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import log2
from typing import ClassVar

import numpy as np
from pydantic import Field

from processors.detect.signature import Bools, Found, SignatureConfig
from processors.detect.steps import Kind, Steps, Tokens, Trace


class GoalDriftConfig(SignatureConfig):
    """How different the end of a run must be from its beginning."""

    calls_min: int = Field(12, ge=6, description="Tool calls a trace needs before thirds of it can be compared.")
    divergence_min: float = Field(
        0.6, gt=0, le=1, description="Jensen-Shannon divergence, in bits, of the tools of the first and the last third."
    )
    new_tools_min: float = Field(
        0.7, gt=0, le=1, description="Share of the tools of the last third that the first third did not use."
    )

    def build(self) -> GoalDrift:
        return GoalDrift(self)


class GoalDrift:
    name: ClassVar[str] = "goal_drift"
    kinds: ClassVar[tuple[str, ...]] = ("",)
    version: ClassVar[int] = 1

    def __init__(self, config: GoalDriftConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        tool = steps.is_kind(Kind.TOOL)
        if len(tool) == 0:
            return tool
        calls = np.bincount(steps["trace"], weights=tool)
        found: Bools = tool & (calls >= self._config.calls_min)[steps["trace"]]
        return found

    def find(self, trace: Trace) -> Iterable[Found]:
        calls = trace.of_kind(Kind.TOOL)
        if len(calls) < self._config.calls_min:
            return
        third = len(calls) // 3
        first, last = calls[:third], calls[-third:]
        before, after = Counter(call.name for call in first), Counter(call.name for call in last)
        divergence = _divergence(before, after)
        new = sum(1 for name in after if name not in before) / len(after)
        if divergence < self._config.divergence_min or new < self._config.new_tools_min:
            return
        asked = _asked(trace)
        words: Tokens = frozenset().union(*(call.input_sketch for call in last))
        if not asked or asked & words:
            return
        yield Found(
            kind="",
            severity="info",
            steps=tuple(call.index for call in last),
            count=len(last),
            evidence={
                "tool_calls": len(calls),
                "divergence": round(divergence, 3),
                "new_tools": round(new, 3),
            },
            quotes=((last[0].index, "input"), (last[-1].index, "input")),
            basis="proxy",
        )


def _asked(trace: Trace) -> Tokens:
    """Words of the first agent input that is known: nothing can be said about a task that was not recorded."""
    return next((step.input_sketch for step in trace.of_kind(Kind.AGENT) if step.input_sketch), frozenset())


def _divergence(left: Counter[int], right: Counter[int]) -> float:
    """Jensen-Shannon divergence of two counts, 0 (alike) to 1 (nothing in common)."""
    shares = [_shares(side) for side in (left, right)]
    middle = {name: sum(share.get(name, 0.0) for share in shares) / 2 for share in shares for name in share}
    return sum(part * log2(part / middle[name]) for share in shares for name, part in sorted(share.items())) / 2


def _shares(counts: Counter[int]) -> dict[int, float]:
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()}
