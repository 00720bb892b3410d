"""The labelled traces beside the repository, decoded by the real decoder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest

from processors.detect.pack import pack
from processors.detect.steps import Steps
from processors.normalise import plan_json
from processors.reconcile import narrow
from spanwise._native import Decoder, json_to_protobuf
from tests.shared import SHARED

FOLDER: Final = SHARED / "corpus-failures"
RECEIVED: Final = 1_780_000_000 * 10**9


def needs_corpus() -> pytest.MarkDecorator:
    return pytest.mark.skipif(not FOLDER.is_dir(), reason="no folder corpus-failures beside the repository")


@cache
def labels() -> dict[str, dict[str, Any]]:
    """By trace id."""
    rows = map(json.loads, (FOLDER / "labels.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["trace_id"]: row for row in rows}


def files() -> list[Path]:
    return sorted(FOLDER.glob("*.otlp.jsonl.gz"))


def requests(file: Path) -> Iterator[bytes]:
    """One protobuf request a trace."""
    with gzip.open(file) as lines:
        for line in lines:
            yield json_to_protobuf("traces", line.strip())


@cache
def decoded(tenant: str = "default") -> pa.RecordBatch:
    """Spans of all traces."""
    frames = [(tenant, RECEIVED, "traces", body) for file in files() for body in requests(file)]
    return Decoder(plan_json()).decode(frames).spans


def steps_of(spans: pa.RecordBatch) -> tuple[list[str], Steps]:
    """(trace id by number, steps) of ended traces."""
    packed = pack(narrow(spans), lambda _provider, _model: 0)
    ended = np.ones(len(packed.traces), dtype=np.bool_)
    return [trace for _, trace in packed.traces], Steps(packed.rows, packed.sketches, ended)
