"""Tool calls that worked and found nothing: the agent goes on without what it asked for.

An answer that says it is empty (`[]`, "no results", exit code 0 without output) is looked for, not silence: tools such
as `think` return '' because there is nothing to say. One such answer is information; it matters when the tool found
nothing several times, or when the run ended in an answer right after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field

from processors.detect.signature import Bools, Found, Severity, SignatureConfig
from processors.detect.steps import Flag, Kind, Step, Steps, Trace


class EmptyResultConfig(SignatureConfig):
    """When results without content are a finding."""

    warning_count: int = Field(
        3, ge=2, description="Empty results of one tool in a trace from which the severity is warning instead of info."
    )

    def build(self) -> EmptyResult:
        return EmptyResult(self)


class EmptyResult:
    name: ClassVar[str] = "empty_result"
    kinds: ClassVar[tuple[str, ...]] = ("",)
    version: ClassVar[int] = 1

    def __init__(self, config: EmptyResultConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        failed = steps.has(Flag.FAILED | Flag.ERROR_RESULT)
        says_so = steps.has(Flag.EMPTY) & (steps["output_bytes"] > 0)
        return steps.is_kind(Kind.TOOL, Kind.RETRIEVAL) & ~failed & says_so

    def find(self, trace: Trace) -> Iterable[Found]:
        calls = trace.of_kind(Kind.TOOL, Kind.RETRIEVAL)
        for name in dict.fromkeys(call.name for call in calls if _says_empty(call)):
            same = [call for call in calls if call.name == name]
            empty = [call for call in same if _says_empty(call)]
            answered_on_it = trace.ended and _says_empty(calls[-1]) and calls[-1].name == name
            severity: Severity = "warning" if answered_on_it or len(empty) >= self._config.warning_count else "info"
            yield Found(
                kind="",
                severity=severity,
                steps=tuple(call.index for call in empty),
                count=len(empty),
                evidence={
                    "empty": len(empty),
                    "calls": len(same),
                    "last_call_before_the_answer": "yes" if answered_on_it else "no",
                },
                quotes=((empty[-1].index, "input"), (empty[-1].index, "output")),
            )


def _says_empty(call: Step) -> bool:
    return call.empty and not call.failed and call.output_bytes > 0
