"""Recorded telemetry of many producers against canonical fields and token totals read from its payloads.

`expectations/spans.json` holds at least six spans a file (all, where a file has fewer): `n` is the position in the
file, `usage` input, output, cache read, cache write and reasoning tokens, null where the producer says nothing.
`expectations/own_totals.json` holds what the calls of a file really used: calls with usage, then the sums of the same
five counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from processors.normalise import plan_json
from processors.reconcile import SCOPES, decide, latest, narrow
from spanwise import _native
from tests.normalise.spans import START, Row, usage
from tests.shared import CORPUS

HERE = Path(__file__).parent / "expectations"
SPANS: dict[str, list[dict[str, Any]]] = json.loads((HERE / "spans.json").read_text(encoding="utf-8"))
TOTALS: dict[str, list[int]] = json.loads((HERE / "own_totals.json").read_text(encoding="utf-8"))

pytestmark = pytest.mark.skipif(not CORPUS.exists(), reason="the recorded telemetry is not beside this repository")


@cache
def _batch(file: str) -> pa.RecordBatch:
    requests = (CORPUS / file).read_bytes().splitlines()
    frames = [("t", START, "traces", _native.json_to_protobuf("traces", request)) for request in requests]
    decoded = _native.Decoder(plan_json()).decode(frames)
    assert decoded.rejected == 0
    return decoded.spans


def _checks(row: Row, expected: dict[str, Any]) -> Iterator[tuple[str, object, object]]:
    """(field, wanted, found)"""
    for name, wanted in expected.items():
        if name == "usage":
            counts = ("input", "output", "cache_read", "cache_write", "reasoning")
            yield from zip(counts, wanted, usage(row), strict=True)
        elif name != "n":
            yield name, wanted, row[name]


def test_every_recorded_file_has_expectations() -> None:
    files = {path.name for path in CORPUS.glob("*.jsonl") if ".logs." not in path.name and ".metrics." not in path.name}
    assert files == set(SPANS) == set(TOTALS)


@pytest.mark.parametrize("file", SPANS)
def test_canonical_fields_are_those_of_the_payload(file: str) -> None:
    rows = _batch(file).to_pylist()
    checks = [(span["n"], *check) for span in SPANS[file] for check in _checks(rows[span["n"]], span)]
    wrong = [check for check in checks if check[2] != check[3]]
    assert not wrong, f"{len(checks) - len(wrong)} of {len(checks)} fields are right"


@pytest.mark.parametrize("file", TOTALS)
def test_own_usage_is_what_the_calls_used(file: str) -> None:
    spans = latest(narrow(_batch(file)))
    scopes = [SCOPES[at] for at in decide(spans).scope]
    own = [row for row, scope in zip(spans.to_pylist(), scopes, strict=True) if scope == "own"]
    sums = [sum(counts) for counts in zip(*([n or 0 for n in usage(row)] for row in own), strict=True)] or [0] * 5
    assert [len(own), *sums] == TOTALS[file]


@pytest.mark.parametrize(
    "files",
    [
        ["gen_otel_genai_openai.jsonl", "gen_openinference_openai.jsonl", "gen_logfire_openai.jsonl"],
        ["gen_otel_genai_langchain.jsonl", "gen_openinference_langchain.jsonl"],
        ["gen_vercel_ai_v7.jsonl", "gen_vercel_ai_v7_legacy.jsonl"],
        ["gen_strands.jsonl", "gen_strands_latest.jsonl"],
    ],
)
def test_one_scenario_used_the_same_tokens_whoever_recorded_it(files: list[str]) -> None:
    assert len({tuple(TOTALS[file]) for file in files}) == 1


CALLS = {
    (164, 24), (186, 24), (153, 24), (175, 24), (208, 24), (318, 41), (1272, 29), (204, 53), (16, None), (16, 0),
    (8, None),
}  # fmt: skip
"""Input and output tokens of every answer that the scripted model server of the recordings gives."""
ESTIMATES = {
    ("gen_openlit.jsonl", (36, 19)),  # OpenLIT counts a stream without usage itself
    ("gen_openllmetry_v062.jsonl", (1272, 30)),  # Traceloop counts the end of a stream twice
    ("gen_gemini_cli.jsonl", (204, 22)),  # the thoughts stand in the log
    ("gen_langfuse.jsonl", (1061, 29)),  # reported by hand without the cache write
}


@pytest.mark.parametrize("file", [file for file in SPANS if file.startswith("gen_")])
def test_usage_of_each_call_is_an_answer_of_the_model_server(file: str) -> None:
    calls = {
        (row["input_tokens"], row["output_tokens"])
        for row in _batch(file).to_pylist()
        if row["usage_scope"] == "own" and row["input_tokens"] is not None
    }
    assert calls - CALLS - {call for name, call in ESTIMATES if name == file} == set()


def test_hit_rate(capsys: pytest.CaptureFixture[str]) -> None:
    right = total = 0
    for file, spans in SPANS.items():
        rows = _batch(file).to_pylist()
        checks = [wanted == found for span in spans for _, wanted, found in _checks(rows[span["n"]], span)]
        right, total = right + sum(checks), total + len(checks)
    with capsys.disabled():
        print(f"\ncanonical fields of recorded spans: {right} of {total} right")
    assert right >= 0.97 * total
