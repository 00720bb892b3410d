"""Model answers that were cut off by the output limit, so that what follows works with half an answer.

The finish reason says so. Cut-offs because the context window was full are `context_limit`, a different problem with a
different cure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field

from processors.detect.context_limit import fills_window
from processors.detect.signature import Bools, Found, Severity, SignatureConfig
from processors.detect.steps import Finish, Flag, Kind, Step, Steps, Trace


class OutputTruncatedConfig(SignatureConfig):
    """When answers that were cut off are a finding."""

    warning_count: int = Field(
        2,
        ge=1,
        description="Answers of one agent cut off in a trace from which the severity is warning instead of info. "
        "Cut off tool arguments are always a warning.",
    )

    def build(self) -> OutputTruncated:
        return OutputTruncated(self)


class OutputTruncated:
    name: ClassVar[str] = "output_truncated"
    kinds: ClassVar[tuple[str, ...]] = ("",)
    version: ClassVar[int] = 1

    def __init__(self, config: OutputTruncatedConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        found: Bools = steps.is_kind(Kind.MODEL) & ((steps["finish"] & int(Finish.LENGTH)) != 0)
        return found

    def find(self, trace: Trace) -> Iterable[Found]:
        by_agent: dict[tuple[int, int], list[Step]] = {}
        for call in trace.of_kind(Kind.MODEL):
            if call.finish & Finish.LENGTH and not fills_window(call):
                by_agent.setdefault((trace.agent_of(call), call.name), []).append(call)
        for cut in by_agent.values():
            arguments = sum(1 for call in cut if call.flags & (Flag.TOOL_CALLS | Flag.BAD_ARGUMENTS))
            severity: Severity = "warning" if arguments or len(cut) >= self._config.warning_count else "info"
            yield Found(
                kind="",
                severity=severity,
                steps=tuple(call.index for call in cut),
                count=len(cut),
                evidence={
                    "answers_cut_off": len(cut),
                    "with_tool_calls": arguments,
                    "at_the_requested_limit": sum(1 for call in cut if 0 < call.max_tokens <= call.output_tokens),
                },
                quotes=((cut[0].index, "output"),),
            )
