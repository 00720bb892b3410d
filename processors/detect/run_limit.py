"""A run that was stopped because it went on for too long, or should have been.

Frameworks say in the error or the output that a limit of turns, steps, calls or budget was reached; that is exact. A
run that nobody stopped is reported when it makes more model calls or spends more tokens than the limits given here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from pydantic import Field

from processors.detect.signature import Bools, Found, SignatureConfig
from processors.detect.steps import ErrorClass, Flag, Kind, Steps, Trace


class RunLimitConfig(SignatureConfig):
    """How long a run may go on."""

    model_calls_max: int = Field(
        500, ge=1, description="Model calls of one trace; google-adk stops a run at 500, pydantic-ai at 50."
    )
    tokens_max: int = Field(
        20_000_000, ge=1, description="Tokens of all model calls of one trace, input and output together."
    )

    def build(self) -> RunLimit:
        return RunLimit(self)


class RunLimit:
    name: ClassVar[str] = "run_limit"
    kinds: ClassVar[tuple[str, ...]] = ("",)
    version: ClassVar[int] = 1

    def __init__(self, config: RunLimitConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        stopped: Bools = steps.has(Flag.RUN_LIMIT) | (steps["error"] == int(ErrorClass.RUN_LIMIT))
        if len(stopped) == 0:
            return stopped
        model = steps.is_kind(Kind.MODEL)
        trace = steps["trace"]
        tokens = np.maximum(steps["input_tokens"], 0).astype(np.int64) + np.maximum(steps["output_tokens"], 0)
        calls = np.bincount(trace, weights=model)
        spent = np.bincount(trace, weights=np.where(model, tokens, 0))
        over = (calls > self._config.model_calls_max) | (spent > self._config.tokens_max)
        found: Bools = stopped | (over[trace] & model)
        return found

    def find(self, trace: Trace) -> Iterable[Found]:
        stopped = [step for step in trace.steps if step.flags & Flag.RUN_LIMIT or step.error == ErrorClass.RUN_LIMIT]
        if stopped:
            # the error travels up through agent and workflow: the one that ends first is where it was raised
            raised = min(stopped, key=lambda step: (step.end, step.span_id))
            others = tuple(step.index for step in stopped if step is not raised)
            yield Found(
                kind="",
                severity="high",
                steps=(raised.index, *others),
                count=1,
                evidence={"limit": "set by the framework", "model_calls": len(trace.of_kind(Kind.MODEL))},
                quotes=((raised.index, "error"), (raised.index, "output")),
            )
        spent = 0
        for number, call in enumerate(trace.of_kind(Kind.MODEL), start=1):
            spent += max(call.input_tokens, 0) + max(call.output_tokens, 0)
            if number > self._config.model_calls_max or spent > self._config.tokens_max:
                last = trace.of_kind(Kind.MODEL)[-1]
                yield Found(
                    kind="",
                    severity="high",
                    steps=(call.index, last.index) if last is not call else (call.index,),
                    count=len(trace.of_kind(Kind.MODEL)),
                    evidence={
                        "limit": "model calls" if number > self._config.model_calls_max else "tokens",
                        "model_calls": len(trace.of_kind(Kind.MODEL)),
                        "model_calls_max": self._config.model_calls_max,
                        "tokens_max": self._config.tokens_max,
                    },
                )
                return
