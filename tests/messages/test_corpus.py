"""Chat content of recorded spans: whatever the dialect, one shape and the same conversation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from processors.normalise.plan import compile_plan
from spanwise._native import Decoder, json_to_protobuf
from tests.messages.canonical import problems
from tests.shared import CORPUS

FILES = sorted(path.name for path in CORPUS.glob("*.jsonl") if not path.name.endswith(".metrics.jsonl"))
needs_corpus = pytest.mark.skipif(not FILES, reason=f"no recorded spans in {CORPUS}: nothing to read them from")

RECEIVED = 1_795_219_200_000_000_000
ASKED = "What is the weather in Paris?"
ANSWER = "It is 18 degrees and sunny in Paris."


@dataclass(frozen=True)
class Row:
    columns: dict[str, Any]
    content: list[tuple[str, str, str]]
    """(key, form, value) in order."""

    @property
    def kind(self) -> str:
        return str(self.columns["kind"])

    def values(self, key: str) -> list[Any]:
        return [json.loads(value) for name, _, value in self.content if name == key]

    def parts(self, key: str, kind: str) -> list[dict[str, Any]]:
        return [part for message in self.values(key) for part in message["parts"] if part["type"] == kind]

    def texts(self, key: str, role: str) -> list[str]:
        return [
            part["content"]
            for message in self.values(key)
            if message["role"] == role
            for part in message["parts"]
            if part["type"] == "text"
        ]


@cache
def _decoder() -> Decoder:
    return Decoder(compile_plan())


@cache
def rows(name: str) -> tuple[Row, ...]:
    """Spans, or log records, of one corpus file."""
    signal = "logs" if name.endswith(".logs.jsonl") else "traces"
    lines = Path(CORPUS / name).read_bytes().splitlines()
    frames = [("test", RECEIVED, signal, json_to_protobuf(signal, line)) for line in lines]
    decoded = _decoder().decode(frames)
    assert decoded.rejected == 0
    stored = {
        (trace, hash_): value
        for trace, hash_, value in zip(
            *(decoded.content.column(column).to_pylist() for column in ("trace_id", "hash", "value")), strict=True
        )
    }
    batch = decoded.log_events if signal == "logs" else decoded.spans
    return tuple(
        Row(row, [(c["key"], c["form"], stored[row["trace_id"], c["hash"]]) for c in row["content"]])
        for row in batch.to_pylist()
    )


@needs_corpus
@pytest.mark.parametrize("name", FILES)
def test_content_of_every_recorded_span_has_the_canonical_shape(name: str) -> None:
    found = {
        (row.columns.get("name"), key, problem)
        for row in rows(name)
        for key, form, value in row.content
        for problem in problems(key, form, value)
    }
    assert not found


# What a producer does not capture, in these files.
NOT_ASKED = {
    "gen_anthropic_sdk_native.jsonl": "no content at all",
    "gen_autogen.jsonl": "model calls are not instrumented",
    "gen_claude_code_content.jsonl": "another prompt",
    "gen_codex.jsonl": "no content on spans",
    "gen_gemini_cli.jsonl": "another prompt",
    "gen_openinference_dspy.jsonl": "another prompt",
    "gen_openinference_smolagents.jsonl": "the task is wrapped in a template",
    "gen_otel_genai_openai_agents.jsonl": "no model spans",
    "gen_otel_genai_v1_28_events.jsonl": "content in log records, which were not recorded",
    "gen_semantic_kernel.jsonl": "content in log records, which were not recorded",
}
ONE_CALL = {
    "gen_laminar.jsonl": "the run ends with the tool call",
    "gen_langfuse.jsonl": "the run ends with the tool call",
    "gen_langsmith.jsonl": "the run ends with the tool call",
    "gen_mlflow.jsonl": "the run ends with the tool call",
}
WEATHER = [
    name for name in FILES if name.startswith("gen_") and not name.endswith(".logs.jsonl") and name not in NOT_ASKED
]


def model_calls(name: str) -> list[Row]:
    return [row for row in rows(name) if row.kind in ("llm", "log")]


@needs_corpus
@pytest.mark.parametrize("name", WEATHER)
def test_the_same_conversation_is_the_same_in_every_dialect(name: str) -> None:
    calls = model_calls(name)
    asked = {text for row in calls for text in row.texts("gen_ai.input.messages", "user")}
    assert ASKED in asked
    requested = [part for row in calls for part in row.parts("gen_ai.output.messages", "tool_call")]
    assert requested
    weather = [part for part in requested if part["name"].endswith("get_weather")]
    assert weather
    assert all(part["arguments"] == {"city": "Paris"} for part in weather)
    if name not in ONE_CALL:
        answers = {text.strip() for row in calls for text in row.texts("gen_ai.output.messages", "assistant")}
        assert ANSWER in answers


NO_IDS = {
    "gen_litellm.jsonl": "the call id is not recorded",
    "gen_openinference_haystack.jsonl": "the call id is not recorded",
    "gen_openinference_dspy.jsonl": "no tool calls",
    "gen_openllmetry_v062.jsonl": "the Responses API's item id stands for the call id there",
}


@needs_corpus
@pytest.mark.parametrize("name", [name for name in WEATHER if name not in ONE_CALL | NO_IDS])
def test_tool_results_answer_the_calls_of_the_conversation(name: str) -> None:
    calls = model_calls(name)
    requested = {part["id"] for row in calls for part in row.parts("gen_ai.output.messages", "tool_call")}
    answered = {part["id"] for row in calls for part in row.parts("gen_ai.input.messages", "tool_call_response")}
    assert answered
    assert answered <= requested


@needs_corpus
@pytest.mark.parametrize("name", WEATHER)
def test_previews_show_the_question_and_the_answer_or_the_call(name: str) -> None:
    previews = [
        (row.columns["input_preview"], row.columns["output_preview"].strip())
        for row in model_calls(name)
        if row.parts("gen_ai.output.messages", "tool_call") and ASKED in row.texts("gen_ai.input.messages", "user")
    ]
    assert previews
    for asked, called in previews:
        assert asked == ASKED
        assert called.endswith(")") or called in ("Let me check.", ANSWER), called


@needs_corpus
@pytest.mark.parametrize("name", FILES)
def test_a_requested_tool_call_shows_in_the_finish_reason(name: str) -> None:
    for row in rows(name):
        outputs = row.values("gen_ai.output.messages")
        if row.kind != "llm" or not outputs or not row.columns["finish_reasons"]:
            continue
        if outputs[-1]["parts"] and outputs[-1]["parts"][-1]["type"] == "tool_call":
            assert "tool_call" in row.columns["finish_reasons"]


@needs_corpus
@pytest.mark.parametrize("name", FILES)
def test_executed_tools_carry_the_arguments_that_were_requested(name: str) -> None:
    requested: dict[tuple[str, str], list[Any]] = {}
    for row in rows(name):
        for part in row.parts("gen_ai.output.messages", "tool_call"):
            if part.get("id") and row.kind == "llm":
                requested.setdefault((row.columns["trace_id"], part["id"]), []).append(part.get("arguments"))
    for row in rows(name):
        call = (row.columns["trace_id"], row.columns.get("tool_call_id"))
        if row.kind != "tool" or call not in requested:
            continue
        for key, _, value in row.content:
            if key == "gen_ai.tool.call.arguments":
                assert json.loads(value) in requested[call]


@needs_corpus
def test_canonical_messages_are_stored_once_with_their_source() -> None:
    """A long attribute that is canonical already is cut into the very elements its messages are."""
    shared = 0
    for name in ("gen_openlit.jsonl", "gen_logfire_openai.jsonl", "gen_google_adk_schema2.jsonl"):
        for row in rows(name):
            source = [value for key, _, value in row.content if key == "attributes.gen_ai.input.messages"]
            messages = [value for key, _, value in row.content if key == "gen_ai.input.messages"]
            if source:
                assert source == messages
                shared += 1
    assert shared
