"""An agent that makes the same tool call again and again and learns nothing from it.

Repetition alone is not a loop: agents poll, page and retry. A call continues a run when it is the same call, or nearly
the same, and its result is *stale*: the same error, the same text, or nothing again. `identical` calls have equal
arguments; `near_identical` ones share most argument values and fail in the same way or return the same. Three in a row
with at most two other calls between neighbours are a run; a success of the tool in between ends a run of failures.

Two calls of one model answer that overlap in time are one step, and attempts of one call, with one call id and no model
call between them, are a retry of the transport: neither is a loop. Where arguments and results are not recorded only
names and errors are left, so then five failures in a row of one tool are reported, as a proxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from processors.detect.signature import Bools, Found, Severity, SignatureConfig
from processors.detect.steps import Flag, Kind, Step, Steps, Trace, share


class RetryLoopConfig(SignatureConfig):
    """What counts as the same call and when repeating it is a loop."""

    calls_min: int = Field(3, ge=2, description="Calls in a run that are a finding. Two find too much, four half.")
    gap_max: int = Field(2, ge=0, le=6, description="Other tool calls allowed between two calls of a run.")
    near_share: float = Field(
        0.6, gt=0, le=1, description="Share of the argument values that nearly identical calls have in common."
    )
    same_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Share of the words two results have in common to be the same answer. It is estimated from at most "
        "64 words of each, so it leaves room for three hundredths of error.",
    )
    words_min: int = Field(
        8, ge=1, description="Words a result needs for that comparison, and an argument for an empty result to count."
    )
    blind_calls_min: int = Field(
        5, ge=2, description="Failures in a row of one tool that are a finding where no content is recorded."
    )
    high_calls: int = Field(5, ge=2, description="Calls from which the severity is high.")
    critical_calls: int = Field(10, ge=2, description="Calls from which the severity is critical.")

    def build(self) -> RetryLoop:
        return RetryLoop(self)


@dataclass(slots=True)
class _Run:
    calls: list[Step]
    near: bool = False


class RetryLoop:
    name: ClassVar[str] = "retry_loop"
    kinds: ClassVar[tuple[str, ...]] = ("identical", "near_identical")
    version: ClassVar[int] = 1

    def __init__(self, config: RetryLoopConfig) -> None:
        self._config = config

    def candidates(self, steps: Steps) -> Bools:
        """Tool calls with enough calls of the same tool before them, close by, that look alike in some way."""
        found = np.zeros(len(steps.rows), dtype=np.bool_)
        rows = np.flatnonzero(steps.is_kind(Kind.TOOL))
        if len(rows) < self._config.calls_min:
            return found
        trace, name, key = (steps[column][rows] for column in ("trace", "name", "input"))
        template, masked = steps["template"][rows], steps["output_masked"][rows]
        failed = steps.has(Flag.FAILED | Flag.ERROR_RESULT)[rows]
        empty = steps.has(Flag.EMPTY)[rows]
        for distance in range(1, self._config.gap_max + 2):
            same = (trace[distance:] == trace[:-distance]) & (name[distance:] == name[:-distance])
            alike = key[distance:] == key[:-distance]
            alike |= failed[distance:] & failed[:-distance] & (template[distance:] == template[:-distance])
            alike |= (masked[distance:] == masked[:-distance]) | (empty[distance:] & empty[:-distance])
            found[rows[distance:]] |= same & alike
        return found

    def find(self, trace: Trace) -> Iterable[Found]:
        calls = _calls(trace)
        linked: set[int] = set()
        for run in [*self._runs(calls, near=False), *self._runs(calls, near=True)]:
            inside = {call.index for call in run.calls}
            # what identical calls explain is not reported again for being alike
            if not inside & linked:
                linked |= inside
                yield self._finding(trace, run)
        yield from self._blind(calls)

    def _runs(self, calls: list[Step], *, near: bool) -> list[_Run]:
        """Maximal runs: each call is linked to the nearest one before it that it repeats."""
        runs: list[_Run] = []
        of: dict[int, _Run] = {}
        for position, call in enumerate(calls):
            for before in range(position - 1, max(-1, position - self._config.gap_max - 2), -1):
                earlier = calls[before]
                if earlier.name != call.name:
                    continue
                if not self._repeats(earlier, call, adjacent=before == position - 1, near=near):
                    if call.failed and not earlier.failed and not earlier.empty:
                        break  # it worked in between
                    continue
                run = of.get(before)
                if run is None:
                    run = _Run([earlier])
                    runs.append(run)
                run.calls.append(call)
                run.near |= earlier.input != call.input
                of[position] = run
                break
        return [run for run in runs if len(run.calls) >= self._config.calls_min]

    def _repeats(self, earlier: Step, call: Step, *, adjacent: bool, near: bool) -> bool:
        if not earlier.input or not call.input or earlier.failed != call.failed:
            return False
        same = earlier.input == call.input
        if not same and (not near or share(earlier.input_sketch, call.input_sketch) < self._config.near_share):
            return False
        if call.failed:
            return earlier.template == call.template
        if earlier.empty and call.empty:
            return same or self._tells_enough(earlier, call)
        if not _has_output(earlier) and not _has_output(call):
            # without results, only what follows immediately is known to be a repetition
            return same and adjacent
        return _has_output(earlier) and _has_output(call) and self._same_answer(earlier, call, exact=not same)

    def _tells_enough(self, earlier: Step, call: Step) -> bool:
        """Different look-ups that find nothing are no loop, unless the question, or the advice that came back, is long
        enough to tell a question that was reworded from the next item of a list."""
        asked = min(len(earlier.input_sketch), len(call.input_sketch))
        told = min(len(earlier.output_sketch), len(call.output_sketch))
        return max(asked, told) >= self._config.words_min

    def _same_answer(self, earlier: Step, call: Step, *, exact: bool) -> bool:
        if earlier.output_masked == call.output_masked:
            return True
        enough = min(len(earlier.output_sketch), len(call.output_sketch)) >= self._config.words_min
        return not exact and enough and share(earlier.output_sketch, call.output_sketch) >= self._config.same_share

    def _finding(self, trace: Trace, run: _Run) -> Found:
        calls = run.calls
        between = [
            step.index
            for step in trace.of_kind(Kind.MODEL)
            if calls[0].end <= step.start and step.end <= calls[-1].start
        ]
        failed = sum(1 for call in calls if call.failed)
        return Found(
            kind="near_identical" if run.near else "identical",
            severity=self._severity(len(calls)),
            steps=tuple(call.index for call in calls),
            count=len(calls),
            evidence={
                "calls": len(calls),
                "different_inputs": len({call.input for call in calls}),
                "failed": failed,
                "empty": sum(1 for call in calls if call.empty),
                "seconds": round((calls[-1].end - calls[0].start) / 1e9, 3),
            },
            quotes=((calls[0].index, "input"), (calls[-1].index, "error" if failed else "output")),
            wasted=tuple(sorted([*(call.index for call in calls[1:]), *between])),
        )

    def _blind(self, calls: list[Step]) -> Iterator[Found]:
        run: list[Step] = []
        for call in [*calls, None]:
            blind = call is not None and call.failed and not call.input and not _has_output(call)
            if blind and call is not None and (not run or run[-1].name == call.name):
                run.append(call)
                continue
            if len(run) >= self._config.blind_calls_min:
                yield Found(
                    kind="identical",
                    severity=self._severity(len(run)),
                    steps=tuple(step.index for step in run),
                    count=len(run),
                    evidence={"calls": len(run), "failed": len(run), "content": "not recorded"},
                    quotes=((run[-1].index, "error"),),
                    wasted=tuple(step.index for step in run[1:]),
                    basis="proxy",
                )
            run = [call] if blind and call is not None else []

    def _severity(self, calls: int) -> Severity:
        if calls >= self._config.critical_calls:
            return "critical"
        return "high" if calls >= self._config.high_calls else "warning"


def _calls(trace: Trace) -> list[Step]:
    """Tool calls one after the other: without transport retries, and parallel equal calls once."""
    calls: list[Step] = []
    for call in trace.of_kind(Kind.TOOL):
        earlier = next((known for known in reversed(calls[-8:]) if known.name == call.name), None)
        if earlier is not None and earlier.input == call.input:
            parallel = call.start < earlier.end and call.parent_id == earlier.parent_id
            attempt = call.call_id != 0 and call.call_id == earlier.call_id and not _model_between(trace, earlier, call)
            if parallel or attempt:
                continue
        calls.append(call)
    return calls


def _model_between(trace: Trace, earlier: Step, call: Step) -> bool:
    return any(step.kind == Kind.MODEL for step in trace.steps[earlier.index + 1 : call.index])


def _has_output(call: Step) -> bool:
    return bool(call.flags & Flag.HAS_OUTPUT)
