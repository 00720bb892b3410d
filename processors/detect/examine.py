"""Ask every signature about many traces at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from processors.detect.signature import Basis, Found, Severity, Signature
from processors.detect.steps import Steps, Trace


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding with what names it; spans are numbers as in `STEP`."""

    trace: int
    """Number of the trace in the steps examined."""
    signature: str
    rule_version: int
    found: Found
    span_ids: tuple[int, ...]
    """Of `found.steps`, in order."""
    wasted: tuple[int, ...]
    """Span ids of `found.wasted`."""
    quotes: tuple[tuple[int, str], ...]
    """(span id, part) of `found.quotes`."""
    start: int
    """Start of the first span, Unix nanoseconds."""


def examine(
    signatures: Sequence[Signature], steps: Steps, failed: Callable[[Signature, Exception], None]
) -> list[Finding]:
    """Findings of all traces, in order of trace, signature and appearance.

    A signature that raises finds nothing in that trace, and `failed` is told: what a user added must not stop the rest.
    """
    if len(steps.rows) == 0:
        return []
    traces: dict[int, Trace] = {}
    found: list[tuple[int, int, Finding]] = []
    for place, signature in enumerate(signatures):
        try:
            numbers = list(steps.traces_with(signature.candidates(steps)))
        except Exception as error:
            failed(signature, error)
            continue
        for number in numbers:
            if number not in traces:
                traces[number] = steps.trace(number)
            try:
                here = [_finding(number, signature, traces[number], one) for one in signature.find(traces[number])]
            except Exception as error:
                failed(signature, error)
                continue
            found += [(number, place, one) for one in here]
    found.sort(key=lambda one: one[:2])
    return [finding for _, _, finding in found]


def _finding(number: int, signature: Signature, trace: Trace, found: Found) -> Finding:
    if found.severity not in get_args(Severity) or found.basis not in get_args(Basis) or not 0 <= found.count < 2**32:
        raise ValueError("a finding has a severity, basis or count that is none")
    ids = [step.span_id for step in trace.steps]
    return Finding(
        trace=number,
        signature=signature.name,
        rule_version=signature.version,
        found=found,
        span_ids=tuple(ids[step] for step in found.steps),
        wasted=tuple(ids[step] for step in found.wasted),
        quotes=tuple((ids[step], part) for step, part in found.quotes),
        start=trace.steps[found.steps[0]].start,
    )
