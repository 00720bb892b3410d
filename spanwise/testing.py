"""For tests of signatures, yours and ours: traces written as what happened, and the contract every signature keeps.

    from spanwise.testing import check_signature, found, model, tool

    def test_my_signature() -> None:
        signature = MySignature()
        check_signature(signature, [tool("search", "cats", "no results", empty=True), model("done")])
        assert found(signature, tool("search", "cats", "[]", empty=True)) == []

Hashes are made here from the texts given, so these traces do not prove that the native decoder sees the same in real
spans; `tests/detect/test_fingerprint.py` and the scored corpora do.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np

from processors.detect.signature import Basis, Found, Part, Severity, Signature
from processors.detect.steps import STEP, ErrorClass, Finish, Flag, Kind, Steps, Trace

SECOND = 10**9
START = 1_760_000_000 * SECOND

Span = dict[str, Any]


def hashed(text: str, bits: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") % (1 << bits) or 1


def sketch(text: str, most: int = 64) -> list[int]:
    return sorted({hashed(token, 32) for token in re.findall(r"\w+", text.casefold())})[:most]


def span(kind: Kind, name: str, input_: str | None, output: str | None, **fields: Any) -> Span:
    flags = Flag(fields.pop("flags", 0))
    if input_ is not None:
        flags |= Flag.HAS_INPUT
    if output is not None:
        flags |= Flag.HAS_OUTPUT
    if fields.pop("failed", False):
        flags |= Flag.FAILED
    if fields.pop("empty", False):
        flags |= Flag.EMPTY
    error = fields.pop("error_text", "")
    agent = fields.pop("agent", "")
    masked = re.sub(r"\d", "0", output) if output and len(output) > 80 else output
    made: Span = {
        "kind": kind,
        "name": hashed(name, 32) if name else 0,
        "agent": hashed(agent, 32) if agent else 0,
        "input": hashed(input_, 64) if input_ is not None else 0,
        "output": hashed(output, 64) if output is not None else 0,
        "output_masked": hashed(masked, 64) if masked is not None else 0,
        "output_bytes": len(output or ""),
        "template": hashed(error, 32) if error else 0,
        "error": ErrorClass.OTHER if error else ErrorClass.NONE,
        "finish": Finish(0),
        "input_tokens": -1,
        "output_tokens": -1,
        "sketches": (sketch(input_ or ""), sketch(output or ""), []),
    }
    return made | fields | {"flags": flags | Flag(fields.get("flags", 0))}


def tool(name: str, args: str | None = None, result: str | None = None, **fields: Any) -> Span:
    """A tool call. `error_text` gives it an error template; it counts as failed unless told otherwise."""
    if "error_text" in fields:
        fields.setdefault("failed", True)
    return span(Kind.TOOL, name, args, result, **fields)


def model(
    output: str | None = "text", *, name: str = "gpt-5", question: str | None = "question", **fields: Any
) -> Span:
    return span(Kind.MODEL, name, question, output, **fields)


def agent(name: str, input_: str | None = None, output: str | None = None, **fields: Any) -> Span:
    return span(Kind.AGENT, name, input_, output, agent=name, **fields)


def steps(*traces: Iterable[Span], ended: bool = True) -> Steps:
    """Spans of several traces, a second apart unless they say `start`; ids count from 1 unless they say `span_id`."""
    rows = []
    sketches: list[int] = []
    for number, spans in enumerate(traces):
        for position, made in zip(itertools.count(1), spans, strict=False):
            input_sketch, output_sketch, long_tokens = made["sketches"]
            start = made.get("start", START + position * SECOND)
            fields = {
                "trace": number,
                "fingerprint_version": 1,
                "span_id": position,
                "start": start,
                "end": start + SECOND // 2,
                "version": 1,
                "input_tokens_count": len(input_sketch),
                "output_tokens_count": len(output_sketch),
                "long_tokens_count": len(long_tokens),
                "sketch": len(sketches),
            } | made
            sketches += [*input_sketch, *output_sketch, *long_tokens]
            rows.append(tuple(int(fields.get(name, 0)) for name in STEP.names or ()))
    packed = np.array(rows, dtype=STEP)
    return Steps(packed, np.array(sketches, dtype=np.uint32), np.full(len(traces), ended))


def trace(*spans: Span, ended: bool = True) -> Trace:
    return steps(spans, ended=ended).trace(0)


def found(signature: Signature, *spans: Span, ended: bool = True) -> list[Found]:
    """What the signature finds in one trace, asked the way the program asks: candidates first."""
    known = steps(spans, ended=ended)
    numbers = list(known.traces_with(signature.candidates(known)))
    return [one for number in numbers for one in signature.find(known.trace(number))]


def check_signature(signature: Signature, *traces: Sequence[Span], seeds: int = 20) -> None:
    """Assert that a signature keeps its contract on these traces, and on degenerate ones made of them.

    It is pure, independent of order and repeats, finds nothing without a candidate, and what it finds is well formed.
    """
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,63}", signature.name), "a name is lower-case words joined by underscores"
    assert signature.version >= 1, "versions count from 1"
    degenerate = [[], [tool("")], [model(None)], *(one[:half] for one in traces for half in (1, len(one) // 2))]
    for spans in [*traces, *degenerate]:
        for ended in (True, False):
            _check(signature, steps(spans, ended=ended), seeds)
    _check(signature, steps(*traces), seeds)


def _check(signature: Signature, known: Steps, seeds: int) -> None:
    calm = _all_found(signature, known)
    assert calm == _all_found(signature, known), f"{signature.name} finds something else when it is asked again"
    rng = random.Random(7)
    rows = range(len(known.rows))
    for _ in range(seeds if calm else 1):
        order = [*rows, *(rng.choices(rows, k=len(rows) // 3) if rows else [])]
        rng.shuffle(order)
        again = Steps(known.rows[order], known.sketches, known.ended)
        assert _all_found(signature, again) == calm, f"{signature.name} depends on the order of spans, or on repeats"
    chosen = set(known.traces_with(signature.candidates(known)))
    for number in range(len(known.ended)):
        if number not in chosen:
            assert not list(signature.find(known.trace(number))), f"{signature.name} finds without a candidate"
    for number, one in calm:
        _well_formed(signature, one, len(known.trace(number)))


def _all_found(signature: Signature, known: Steps) -> list[tuple[int, Found]]:
    numbers = known.traces_with(signature.candidates(known))
    return [(number, one) for number in numbers for one in signature.find(known.trace(number))]


def _well_formed(signature: Signature, one: Found, length: int) -> None:
    name = signature.name
    assert one.kind in signature.kinds, f"{name} does not declare the kind {one.kind!r}"
    assert one.severity in get_args(Severity), f"{name} has the severity {one.severity!r}"
    assert one.basis in get_args(Basis), f"{name} has the basis {one.basis!r}"
    assert one.steps, f"{name} names no step"
    assert len(set(one.steps)) == len(one.steps), f"{name} names a step twice"
    assert one.count >= 1, f"{name} counts {one.count}"
    positions = {*one.steps, *one.wasted, *(position for position, _ in one.quotes)}
    assert positions <= set(range(length)), f"{name} names steps the trace does not have"
    assert {part for _, part in one.quotes} <= set(get_args(Part)), f"{name} quotes a part that does not exist"
