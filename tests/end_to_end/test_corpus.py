"""Recorded telemetry of many producers, sent over OTLP/HTTP JSON as one stream: nothing lost, nothing summed twice."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import urllib3

from tests.running import RunningServer
from tests.shared import CORPUS, ROOT

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no recorded telemetry in {CORPUS}")

ALONE: dict[str, list[int]] = json.loads((ROOT / "tests/normalise/expectations/own_totals.json").read_text())
TOGETHER = ALONE | {
    # Cached and thought tokens of this producer are only in its log records, which are sent here too.
    "gen_gemini_cli.jsonl": [2, 408, 106, 192, 0, 62],
    # The same calls in the same traces as gen_anthropic_sdk_native.jsonl, which counts them.
    "gen_openinference_anthropic.jsonl": [0, 0, 0, 0, 0, 0],
}
"""Per file: calls with usage, then the sums of input, output, cache read, cache write and reasoning tokens."""


def _requests(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines() if line.strip()]


def _span_ids(body: bytes) -> list[tuple[str, str]]:
    request = json.loads(body)
    return [
        (span["traceId"].lower(), span["spanId"].lower())
        for resource_spans in request.get("resourceSpans", [])
        for scope_spans in resource_spans.get("scopeSpans", [])
        for span in scope_spans.get("spans", [])
    ]


@pytest.fixture(scope="module")
def files(server: RunningServer) -> dict[str, set[tuple[str, str]]]:
    """Send everything, logs first where there are any; the distinct span ids of each file."""
    sent: dict[str, set[tuple[str, str]]] = {}
    for path in sorted(CORPUS.glob("*.jsonl"), key=lambda path: (not path.name.endswith(".logs.jsonl"), path.name)):
        signal = "logs" if path.name.endswith(".logs.jsonl") else "metrics" if ".metrics." in path.name else "traces"
        for body in _requests(path):
            answer = urllib3.request(
                "POST", f"{server.http}/v1/{signal}", body=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status == 200, (path.name, answer.data)
            if signal == "traces":
                sent.setdefault(path.name, set()).update(_span_ids(body))
    server.wait_for("SELECT uniqExact(trace_id, span_id) FROM spans", len(set().union(*sent.values())), timeout_s=60)
    server.wait_for("SELECT count() FROM traces FINAL", len({ids[0] for ids in set().union(*sent.values())}), 60)
    time.sleep(3)  # corrections across traces come with the round after the last summary
    return sent


def test_every_span_of_every_file_is_there(server: RunningServer, files: dict[str, set[tuple[str, str]]]) -> None:
    rows = server.sql("SELECT trace_id, span_id FROM spans FINAL")

    assert {(row["trace_id"], row["span_id"]) for row in rows} == set().union(*files.values())


def test_own_totals_are_what_the_calls_used(server: RunningServer, files: dict[str, set[tuple[str, str]]]) -> None:
    rows = server.sql(
        "SELECT trace_id, span_id, ifNull(input_tokens, 0) AS i, ifNull(output_tokens, 0) AS o, "
        "ifNull(cache_read_tokens, 0) AS r, ifNull(cache_write_tokens, 0) AS w, ifNull(reasoning_tokens, 0) AS t "
        "FROM spans FINAL WHERE usage_scope = 'own'"
    )
    own = {(row["trace_id"], row["span_id"]): [1, *(row[key] for key in "iorwt")] for row in rows}
    wrong = {}
    for name, expected in TOGETHER.items():
        if name not in files:
            continue
        got = [sum(column) for column in zip(*(own[ids] for ids in files[name] if ids in own), strict=True)] or [0] * 6
        if got != expected:
            wrong[name] = (got, expected)

    print(f"\nown totals: {len(TOGETHER) - len(wrong)} of {len(TOGETHER)} files right")
    assert wrong == {}
