"""Traces for tests of signatures, written as what happened: `tool("search", "cats", "no results", empty=True)`.

Hashes are made here from the texts given, so these traces do not prove that the native decoder sees the same in real
spans; tests/detect/test_fingerprint.py and the scored corpora do.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from processors.detect.signature import Found, Signature
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
