"""The recorded context cases, decoded by the real decoder, and what the signatures find in them."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from processors.detect import SignaturesConfig
from processors.detect.examine import examine
from processors.detect.pack import pack
from processors.detect.signature import Signature
from processors.detect.steps import Steps
from processors.normalise import plan_json
from processors.price import Price
from processors.reconcile import narrow
from spanwise._native import Decoder
from tests.live.context_cases import CASES, WATCHED, Case
from tests.live.tape import RECORDED, read

FOLDER: Final = RECORDED / "context"
RECEIVED: Final = 1_780_000_000 * 10**9


class Run(NamedTuple):
    """A case as one instrumentation reported it, and what the context signatures found."""

    case: Case
    instrumentation: str
    found: frozenset[str]
    severities: frozenset[str]
    spans: int


def recordings() -> list[Path]:
    return sorted(FOLDER.glob("*.binpb.gz"))


@cache
def runs() -> tuple[Run, ...]:
    """Every case of every instrumentation that can play it."""
    return tuple(run for path in recordings() for run in _runs(path))


def _runs(path: Path) -> list[Run]:
    bodies = read(path)
    spans = Decoder(plan_json()).decode([("default", RECEIVED, "traces", body) for body in bodies]).spans
    names: dict[str, str] = {}
    counts: dict[str, int] = defaultdict(int)
    for row in spans.select(["trace_id", "attributes"]).to_pylist():
        counts[row["trace_id"]] += 1
        name = dict(row["attributes"]).get("test.case")
        if name:
            names[row["trace_id"]] = name
    window = Price().context_window
    packed = pack(narrow(spans), lambda provider, model: window(provider, model) or 0)
    steps = Steps(packed.rows, packed.sketches, np.ones(len(packed.traces), dtype=np.bool_))
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for finding in examine(SignaturesConfig().build(), steps, _raise):
        name = f"{finding.signature}.{finding.found.kind}" if finding.found.kind else finding.signature
        if name in WATCHED:
            found[packed.traces[finding.trace][1]].add((name, finding.found.severity))
    return [
        Run(
            CASES[name],
            path.name.removesuffix(".binpb.gz"),
            frozenset(each for each, _ in found[trace]),
            frozenset(severity for _, severity in found[trace]),
            counts[trace],
        )
        for trace, name in names.items()
    ]


def _raise(_signature: Signature, error: Exception) -> Any:
    raise error
