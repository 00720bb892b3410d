"""Tool calls a model should not have been able to make: unknown tools, arguments that do not fit, ids without match.

Everything is decided inside one model call, from its own tool definitions and messages: a tool that is not among the
definitions, arguments that are not JSON, a required property that is missing or of another type, a result for a call
nobody made, two calls with one id and different arguments, or a finish reason that says the call was malformed. Without
tool definitions on the span the first three cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from pydantic import Field

from processors.detect.signature import Bools, Found, SignatureConfig
from processors.detect.steps import ErrorClass, Finish, Flag, Kind, Step, Steps, Trace

_REASONS: Final = {
    Flag.UNKNOWN_TOOL: "unknown_tool",
    Flag.BAD_ARGUMENTS: "arguments_not_json",
    Flag.SCHEMA_MISMATCH: "arguments_against_schema",
    Flag.ORPHAN_RESULT: "result_without_call",
    Flag.DUPLICATE_CALL_ID: "one_id_for_two_calls",
}
_IN_HISTORY: Final = Flag.ORPHAN_RESULT | Flag.DUPLICATE_CALL_ID
"""Seen in the messages that went in, so every later call of the conversation shows them again."""
_ALL: Final = Flag.UNKNOWN_TOOL | Flag.BAD_ARGUMENTS | Flag.SCHEMA_MISMATCH | _IN_HISTORY


class InvalidToolCallConfig(SignatureConfig):
    """When invalid tool calls are more than a slip."""

    high_count: int = Field(
        3, ge=2, description="Invalid calls of one agent from which the severity is high instead of warning."
    )

    def build(self) -> InvalidToolCall:
        return InvalidToolCall(self)


class InvalidToolCall:
    name: ClassVar[str] = "invalid_tool_call"
    kinds: ClassVar[tuple[str, ...]] = ("",)
    version: ClassVar[int] = 1

    def __init__(self, config: InvalidToolCallConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        malformed = (steps["finish"] & int(Finish.MALFORMED)) != 0
        rejected = steps["error"] == int(ErrorClass.MALFORMED_HISTORY)
        found: Bools = steps.is_kind(Kind.MODEL) & (steps.has(_ALL) | malformed | rejected)
        return found

    def find(self, trace: Trace) -> Iterable[Found]:
        by_agent: dict[int, list[tuple[Step, list[str]]]] = {}
        inherited: dict[tuple[int, int], Flag] = {}
        for call in trace.of_kind(Kind.MODEL):
            agent = trace.agent_of(call)
            before = inherited.get((agent, call.first_input), Flag(0))
            inherited[agent, call.first_input] = before | (call.flags & _IN_HISTORY)
            reasons = _reasons(call, before)
            if reasons:
                by_agent.setdefault(agent, []).append((call, reasons))
        for invalid in by_agent.values():
            counts: dict[str, int] = {}
            for _, reasons in invalid:
                for reason in reasons:
                    counts[reason] = counts.get(reason, 0) + 1
            yield Found(
                kind="",
                severity="high" if len(invalid) >= self._config.high_count else "warning",
                steps=tuple(call.index for call, _ in invalid),
                count=len(invalid),
                evidence=dict(sorted(counts.items())),
                quotes=((invalid[0][0].index, "output"),),
                wasted=tuple(call.index for call, _ in invalid),
            )


def _reasons(call: Step, before: Flag) -> list[str]:
    flags = call.flags & ~(before & _IN_HISTORY)
    reasons = [reason for flag, reason in _REASONS.items() if flags & flag]
    if call.finish & Finish.MALFORMED:
        reasons.append("malformed_by_finish_reason")
    if call.error == ErrorClass.MALFORMED_HISTORY:
        reasons.append("history_rejected_by_provider")
    return reasons
