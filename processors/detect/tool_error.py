"""Tool errors that mean more than bad luck: one tool failing again and again, or a failure nobody reacted to.

A single failed call is normal; agents try things. `burst`: one tool failed at least three times within ten of its
calls, with different arguments, so the agent is guessing and not repeating (that is `retry_loop`). `ignored`: the last
tool call of a run failed and the run still ended in an answer. Whether the answer admits the failure cannot be seen
without reading it, so that one is a proxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from pydantic import Field

from processors.detect.signature import Bools, Found, SignatureConfig
from processors.detect.steps import Flag, Kind, Step, Steps, Trace


class ToolErrorConfig(SignatureConfig):
    """When failed tool calls are a finding."""

    burst_errors: int = Field(3, ge=2, description="Failed calls of one tool that make a burst.")
    burst_calls: int = Field(10, ge=2, description="Calls of that tool within which they must lie.")
    high_errors: int = Field(5, ge=2, description="Failed calls from which a burst is of severity high.")

    def build(self) -> ToolError:
        return ToolError(self)


class ToolError:
    name: ClassVar[str] = "tool_error"
    kinds: ClassVar[tuple[str, ...]] = ("burst", "ignored")
    version: ClassVar[int] = 1

    def __init__(self, config: ToolErrorConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        return steps.is_kind(Kind.TOOL) & steps.has(Flag.FAILED | Flag.ERROR_RESULT)

    def find(self, trace: Trace) -> Iterable[Found]:
        calls = trace.of_kind(Kind.TOOL)
        for name in dict.fromkeys(call.name for call in calls):
            yield from self._bursts([call for call in calls if call.name == name])
        yield from self._ignored(trace, calls)

    def _bursts(self, calls: list[Step]) -> Iterator[Found]:
        """The longest stretches in which every `burst_errors` neighbouring failures lie within `burst_calls` calls."""
        config = self._config
        failed = [position for position, call in enumerate(calls) if call.failed]
        dense = [
            number
            for number in range(len(failed) - config.burst_errors + 1)
            if failed[number + config.burst_errors - 1] - failed[number] < config.burst_calls
        ]
        for first, last in _stretches(dense):
            stretch = failed[first : last + config.burst_errors]
            errors = [calls[position] for position in stretch]
            inputs = {call.input for call in errors}
            if len(inputs) == 1 and errors[0].input:
                continue
            yield Found(
                kind="burst",
                severity="high" if len(errors) >= config.high_errors else "warning",
                steps=tuple(call.index for call in errors),
                count=len(errors),
                evidence={
                    "errors": len(errors),
                    "calls": stretch[-1] - stretch[0] + 1,
                    "different_inputs": len(inputs),
                    "different_errors": len({call.template for call in errors}),
                },
                quotes=((errors[0].index, "error"), (errors[-1].index, "error")),
                wasted=tuple(call.index for call in errors),
            )

    def _ignored(self, trace: Trace, calls: list[Step]) -> Iterator[Found]:
        if not trace.ended or not calls or not calls[-1].failed:
            return
        error = calls[-1]
        answers = [
            step
            for step in trace.of_kind(Kind.MODEL)
            if step.start >= error.end and step.flags & Flag.HAS_OUTPUT and not step.failed and not step.empty
        ]
        if not answers or any(answer.flags & Flag.TOOL_CALLS for answer in answers):
            return
        yield Found(
            kind="ignored",
            severity="warning",
            steps=(error.index, answers[-1].index),
            count=1,
            evidence={"tool_calls": len(calls), "model_calls_after": len(answers)},
            quotes=((error.index, "error"), (answers[-1].index, "output")),
            basis="proxy",
        )


def _stretches(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of each run of consecutive numbers."""
    for position, number in enumerate(numbers):
        if position == 0 or numbers[position - 1] != number - 1:
            first = number
        if position == len(numbers) - 1 or numbers[position + 1] != number + 1:
            yield first, number
