"""What eight real instrumentations sent, through the whole program: every call counted once.

The scripted model server answers with constants (`tests/live/model_server.py`), so the truth is known whatever an
instrumentation reports, and however often.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import urllib3
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.live.model_server import ANTHROPIC_USAGE, OPENAI_USAGE
from tests.live.tape import RECORDED, read
from tests.running import RunningServer

TAPES = sorted(RECORDED.glob("*.binpb"))
_IN, _OUT = 150, 30
_ANTHROPIC_IN = sum(ANTHROPIC_USAGE[key] for key in ANTHROPIC_USAGE if key != "output_tokens")
_EMBEDDING = 7
# (model calls with usage, input tokens, output tokens) of what each script does
OPENAI_SCRIPT = (4, 3 * _IN + _EMBEDDING, 3 * _OUT)
ANTHROPIC_SCRIPT = (2, 2 * _ANTHROPIC_IN, 2 * _OUT)
AGENT_SCRIPT = (2, 2 * _IN, 2 * _OUT)
TRUTH = {
    "openinference_anthropic": ANTHROPIC_SCRIPT,
    "openinference_langgraph": AGENT_SCRIPT,
    "openinference_openai": OPENAI_SCRIPT,
    "openinference_openai_agents": AGENT_SCRIPT,
    "otel_genai_openai": OPENAI_SCRIPT,
    "pydantic_ai_agent": AGENT_SCRIPT,
    "traceloop_anthropic": ANTHROPIC_SCRIPT,
    "traceloop_openai": OPENAI_SCRIPT,
}


@pytest.fixture(scope="module")
def trace_ids(server: RunningServer) -> dict[str, list[str]]:
    """Send every tape; the trace ids of each."""
    found: dict[str, list[str]] = {}
    spans = 0
    for tape in TAPES:
        ids = set()
        for body in read(tape):
            answer = urllib3.request(
                "POST", f"{server.http}/v1/traces", body=body, headers={"Content-Type": "application/x-protobuf"}
            )
            assert answer.status == 200
            for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope_spans in resource_spans.scope_spans:
                    spans += len(scope_spans.spans)
                    ids |= {span.trace_id.hex() for span in scope_spans.spans}
        found[tape.stem] = sorted(ids)
    server.wait_for("SELECT count() FROM spans FINAL", spans)
    server.wait_for("SELECT count() FROM traces FINAL", sum(map(len, found.values())))
    return found


def _rows(server: RunningServer, ids: list[str], what: str) -> list[dict[str, object]]:
    listed = ", ".join(f"'{trace_id}'" for trace_id in ids)
    return server.sql(f"SELECT {what} FROM spans FINAL WHERE trace_id IN ({listed})")


def test_there_is_a_recording_of_each_script() -> None:
    assert {tape.stem for tape in TAPES} == set(TRUTH)
    assert OPENAI_USAGE["prompt_tokens"] == _IN


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_tokens_are_counted_once_whoever_reports_them(
    server: RunningServer, trace_ids: dict[str, list[str]], name: str
) -> None:
    (row,) = _rows(
        server,
        trace_ids[name],
        "countIf(usage_scope = 'own') AS calls, "
        "toUInt64(sumIf(ifNull(input_tokens, 0), usage_scope = 'own')) AS input, "
        "toUInt64(sumIf(ifNull(output_tokens, 0), usage_scope = 'own')) AS output",
    )

    assert (row["calls"], row["input"], row["output"]) == TRUTH[name]


@pytest.mark.parametrize("name", sorted(name for name in TRUTH if "openai" in name and "agents" not in name))
def test_a_refused_call_is_an_error_with_a_type(
    server: RunningServer, trace_ids: dict[str, list[str]], name: str
) -> None:
    rows = _rows(server, trace_ids[name], "error_type, status")

    assert [row["error_type"] for row in rows if row["error_type"]] in (
        ["openai.RateLimitError"],
        ["RateLimitError"],
    )


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_the_question_reads_the_same_in_every_dialect(
    server: RunningServer, trace_ids: dict[str, list[str]], name: str
) -> None:
    rows = _rows(server, trace_ids[name], "input_preview, finish_reasons, kind, status")
    calls = [row for row in rows if row["kind"] == "llm" and row["status"] != "error"]

    assert any("What is the weather in Paris?" in str(row["input_preview"]) for row in calls)
    if "traceloop_openai" not in name or "stop" in str(calls):
        assert {"tool_call", "stop"} <= {reason for row in calls for reason in row["finish_reasons"]}  # type: ignore[attr-defined]


def test_names_of_files_are_names_of_scripts() -> None:
    scripts = {path.stem for path in (Path(RECORDED).parent / "agents").glob("*.py")} - {"common"}

    assert scripts == set(TRUTH)
