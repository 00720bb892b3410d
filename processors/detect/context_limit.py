"""Agents that run out of context: refused, cut off, nearly full, silently cut, or compacted in time.

`overflow_error`: the provider refused the request because it was too long. `window_reached`: an answer ended because
the window was full. `pressure`: the input fills most of the window. `silent_truncation`: the conversation grows but the
counted input shrinks or stands still, which happens when a server (Ollama) drops the oldest messages without a word. It
takes an agent that sent no less than before, as far as the input is recorded, and more text than the counted tokens can
hold: clearing old results, or leaving the tools out of the last call, loses nothing. `compaction`: history was
summarised on purpose; information, and the reason why a falling input is not taken for truncation.

A window that is not known is never guessed: then only the error, the finish reason and the counts are used. Errors of
tools are not read: one that takes 5,000 characters refuses longer ones in the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

import numpy as np
from pydantic import Field

from processors.detect.signature import Bools, Found, SignatureConfig
from processors.detect.steps import ErrorClass, Finish, Flag, Kind, Step, Steps, Trace

_WINDOW_FULL: Final = 0.98
"""Share of the window from which `length` means that the window was full and not the output limit reached."""
_BYTES_PER_TOKEN: Final = 6
"""More than English prose needs with the JSON around it, of which tokenizers make the least."""
_VISIBLE_BYTES_PER_TOKEN: Final = 8
"""More than any tokenizer needs for prose, so that growth expected from visible output is underestimated."""


def fills_window(call: Step) -> bool:
    """Whether a call ended because its window was full, by what the provider says or by the counts."""
    if call.finish & Finish.CONTEXT_WINDOW:
        return True
    used = max(call.input_tokens, 0) + max(call.output_tokens, 0)
    return bool(call.finish & Finish.LENGTH) and call.window > 0 and used >= _WINDOW_FULL * call.window


class ContextLimitConfig(SignatureConfig):
    """When a full context is a finding."""

    pressure_warning: float = Field(0.8, gt=0, le=1, description="Share of the window for `pressure`, warning.")
    pressure_high: float = Field(0.95, gt=0, le=1, description="Share of the window for `pressure`, high.")
    truncation_drop: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="Share of the input tokens lost from one call to the next although messages were added.",
    )
    frozen_share: float = Field(
        0.01, ge=0, lt=1, description="Input tokens that stay within this share while messages are added."
    )
    frozen_calls: int = Field(3, ge=2, description="Calls in a row for which they must.")
    tokens_min: int = Field(
        1_000, ge=0, description="Inputs below this many tokens are too small to conclude anything from their change."
    )

    def build(self) -> ContextLimit:
        return ContextLimit(self)


class ContextLimit:
    name: ClassVar[str] = "context_limit"
    kinds: ClassVar[tuple[str, ...]] = (
        "overflow_error",
        "window_reached",
        "pressure",
        "silent_truncation",
        "compaction",
    )
    version: ClassVar[int] = 1

    def __init__(self, config: ContextLimitConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        model = steps.is_kind(Kind.MODEL)
        window = steps["window"].astype(np.int64)
        tokens = steps["input_tokens"].astype(np.int64)
        output = np.maximum(steps["output_tokens"], 0)
        pressed = (window > 0) & (tokens >= self._config.pressure_warning * window)
        full = ((steps["finish"] & int(Finish.LENGTH)) != 0) & (window > 0)
        full &= np.maximum(tokens, 0) + output >= _WINDOW_FULL * window
        told = (steps["finish"] & int(Finish.CONTEXT_WINDOW | Finish.COMPACTION)) != 0
        overflow = (steps["error"] == int(ErrorClass.CONTEXT)) & ~steps.is_kind(Kind.TOOL)
        found: Bools = overflow | (model & (pressed | full | told | steps.has(Flag.COMPACTION)))
        return found | self._growing_without_tokens(steps, model)

    def _growing_without_tokens(self, steps: Steps, model: Bools) -> Bools:
        """Model calls with no more input tokens than the call before them that began in the same way.

        Agents are not told apart: where calls of several take turns, one that shrinks still follows a larger one.
        """
        found = np.zeros(len(model), dtype=np.bool_)
        rows = np.flatnonzero(model & (steps["input_tokens"] >= 0))
        if len(rows) < 2:
            return found
        keys = [steps[name][rows] for name in ("name", "first_input", "trace")]
        order = rows[np.lexsort((rows, *keys))]
        before, after = order[:-1], order[1:]
        same = np.ones(len(before), dtype=np.bool_)
        for name in ("trace", "first_input", "name"):
            same &= steps[name][before] == steps[name][after]
        shrunk = steps["input_tokens"][after] <= steps["input_tokens"][before] * (1 + self._config.frozen_share)
        # an input of which no message was recorded was not seen to grow
        seen = steps["input_items"][after] > 0
        found[after] = same & shrunk & seen & (steps["input_tokens"][before] >= self._config.tokens_min)
        return found

    def find(self, trace: Trace) -> Iterable[Found]:
        yield from self._overflow(trace)
        for calls in _conversations(trace):
            yield from self._window_reached(calls)
            yield from self._pressure(calls)
            yield from self._truncation(calls)
            yield from self._compaction(calls)

    def _overflow(self, trace: Trace) -> Iterator[Found]:
        failed = [step for step in trace.steps if step.error == ErrorClass.CONTEXT and step.kind != Kind.TOOL]
        # the error travels up through agents and workflows: count it where it was raised
        above = {step.parent_id for step in failed}
        by_agent: dict[int, list[Step]] = {}
        for step in failed:
            if step.span_id not in above:
                by_agent.setdefault(trace.agent_of(step), []).append(step)
        for raised in by_agent.values():
            window = max(step.window for step in raised)
            evidence: dict[str, str | int | float] = {"errors": len(raised)}
            if window:
                evidence["window_tokens"] = window
            yield Found(
                kind="overflow_error",
                severity="critical" if len(raised) > 1 else "high",
                steps=tuple(step.index for step in raised),
                count=len(raised),
                evidence=evidence,
                quotes=((raised[0].index, "error"),),
                wasted=tuple(step.index for step in raised),
            )

    def _window_reached(self, calls: list[Step]) -> Iterator[Found]:
        full = [call for call in calls if fills_window(call)]
        if full:
            yield Found(
                kind="window_reached",
                severity="high",
                steps=tuple(call.index for call in full),
                count=len(full),
                evidence=_tokens(full[-1]),
                quotes=((full[-1].index, "output"),),
            )

    def _pressure(self, calls: list[Step]) -> Iterator[Found]:
        config = self._config
        pressed = [call for call in calls if call.window and call.input_tokens >= config.pressure_warning * call.window]
        if not pressed:
            return
        fullest = max(pressed, key=lambda call: (call.input_tokens / call.window, -call.index))
        share = fullest.input_tokens / fullest.window
        yield Found(
            kind="pressure",
            severity="high" if share >= config.pressure_high else "warning",
            steps=tuple(call.index for call in pressed),
            count=len(pressed),
            evidence={**_tokens(fullest), "share_of_window": round(share, 3)},
        )

    def _truncation(self, calls: list[Step]) -> Iterator[Found]:
        counted = [call for call in calls if call.input_tokens >= 0 and not call.failed]
        cut: list[Step] = []
        start = 0
        for position in range(1, len(counted)):
            before, after = counted[position - 1], counted[position]
            if _compacted(before, after) or after.input_items <= before.input_items or _sent_less(before, after):
                start = position
                continue
            if _is_whole(after):
                continue
            if self._dropped(before, after) or self._frozen(counted[start : position + 1]):
                cut.append(after)
        if cut:
            first = cut[0]
            before = counted[counted.index(first) - 1]
            yield Found(
                kind="silent_truncation",
                severity="high",
                steps=tuple(call.index for call in cut),
                count=len(cut),
                evidence={
                    "input_tokens_before": before.input_tokens,
                    "input_tokens_after": first.input_tokens,
                    "messages_before": before.input_items,
                    "messages_after": first.input_items,
                },
            )

    def _dropped(self, before: Step, after: Step) -> bool:
        lost = before.input_tokens - after.input_tokens
        return before.input_tokens >= self._config.tokens_min and lost >= self._config.truncation_drop * (
            before.input_tokens
        )

    def _frozen(self, growing: list[Step]) -> bool:
        """The last calls stand still although visible output was added between them."""
        last = growing[-self._config.frozen_calls :]
        if len(last) < self._config.frozen_calls or last[0].input_tokens < self._config.tokens_min:
            return False
        change = max(call.input_tokens for call in last) - min(call.input_tokens for call in last)
        added = sum(call.output_bytes for call in last[:-1]) / _VISIBLE_BYTES_PER_TOKEN
        allowed = self._config.frozen_share * last[0].input_tokens
        return change <= allowed and added > 2 * max(change, allowed)

    def _compaction(self, calls: list[Step]) -> Iterator[Found]:
        compacted = [call for before, call in zip([None, *calls], calls, strict=False) if _compacted(before, call)]
        if compacted:
            yield Found(
                kind="compaction",
                severity="info",
                steps=tuple(call.index for call in compacted),
                count=len(compacted),
                evidence={"compactions": len(compacted)},
            )


def _conversations(trace: Trace) -> Iterator[list[Step]]:
    """Model calls that continue one another: of one agent and model, with the same beginning."""
    found: dict[tuple[int, int, int], list[Step]] = {}
    for call in trace.of_kind(Kind.MODEL):
        found.setdefault((trace.agent_of(call), call.name, call.first_input), []).append(call)
    yield from found.values()


def _compacted(before: Step | None, call: Step) -> bool:
    """Whether history was summarised just here: the summary stays among the messages of all calls after it."""
    if call.finish & Finish.COMPACTION:
        return True
    if not call.flags & Flag.COMPACTION:
        return False
    return before is None or not before.flags & Flag.COMPACTION or call.input_items < before.input_items


def _sent_less(before: Step, after: Step) -> bool:
    """Whether the recorded input shrank, by more than the 9 % in which its size is known."""
    return 0 < after.input_size < before.input_size - 1


def _is_whole(call: Step) -> bool:
    """Whether all that was recorded of the input may be among the tokens that were counted."""
    recorded: float = 2 ** (call.input_size / 8) if call.input_size else 0.0
    return 0 < recorded <= call.input_tokens * _BYTES_PER_TOKEN


def _tokens(call: Step) -> dict[str, str | int | float]:
    known: dict[str, str | int | float] = {}
    if call.input_tokens >= 0:
        known["input_tokens"] = call.input_tokens
    if call.output_tokens >= 0:
        known["output_tokens"] = call.output_tokens
    if call.window:
        known["window_tokens"] = call.window
    return known
