"""Traps seen in real telemetry, as far as one span shows them. Those of whole traces are in tests/reconcile.

Numbers are those of one Anthropic call (input 37, cache read 1024, cache write 211, output 29) and its likes, as
different producers report it.
"""

from __future__ import annotations

import json

import pytest

from tests.normalise.spans import START, decode, log, span, usage

LANGFUSE = "langfuse-sdk"
PYDANTIC = "pydantic-ai"
AI_SDK = "ai"


# 1. token double counting


@pytest.mark.parametrize(
    ("scope", "name", "attributes"),
    [
        ("agent", "run", {"openinference.span.kind": "AGENT", "llm.token_count.prompt": 558}),
        (AI_SDK, "ai.generateText", {"ai.operationId": "ai.generateText", "ai.usage.promptTokens": 350}),
        ("codex_exec", "session_task.turn", {"codex.turn.token_usage.input_tokens": 636}),
        (
            "strands.telemetry.tracer",
            "invoke_agent a",
            {"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 350},
        ),
        ("Experimental.Microsoft.Extensions.AI", "orchestrate_tools", {"gen_ai.usage.input_tokens": 5550}),
    ],
)
def test_1_1_agent_span_repeats_the_sum_of_its_model_spans(
    scope: str, name: str, attributes: dict[str, object]
) -> None:
    row = span(attributes, scope=scope, name=name)
    assert row["usage_scope"] == "aggregate"
    assert row["input_tokens"] is not None


def test_1_2_outer_ai_sdk_span_repeats_only_the_last_step_and_is_never_own() -> None:
    row = span({"ai.operationId": "ai.streamText", "ai.usage.inputTokens": 186}, scope=AI_SDK)
    assert row["usage_scope"] == "aggregate"


def test_1_3_strands_agent_total_over_the_life_of_the_agent_is_aggregate() -> None:
    row = span(
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 700},
        scope="strands.telemetry.tracer",
    )
    assert row["usage_scope"] == "aggregate"
    assert row["usage_scope_reason"] != "tentative"


def test_1_4_adk_call_llm_is_a_chain_that_repeats_its_child() -> None:
    row = span(
        {"gen_ai.request.model": "gemini-2.5-flash", "gen_ai.usage.input_tokens": 204},
        name="call_llm",
        scope="gcp.vertex.agent",
    )
    assert (row["operation"], row["kind"], row["usage_scope"]) == ("", "chain", "aggregate")


def test_1_5_native_anthropic_span_keeps_the_response_id_that_tells_the_duplicate() -> None:
    row = span(
        {"gen_ai.response.id": "msg_1", "gen_ai.provider.name": "anthropic", "gen_ai.usage.input_tokens": 1272},
        scope="com.anthropic.sdk.python",
    )
    assert (row["dialect"], row["operation"], row["response_id"]) == ("anthropic_sdk_native", "chat", "msg_1")


def test_1_6_streaming_usage_on_a_log_like_span_is_own_but_no_call() -> None:
    attributes = {"logfire.span_type": "log", "gen_ai.usage.input_tokens": 1272, "gen_ai.usage.output_tokens": 29}
    row = span(attributes, scope="logfire.anthropic", name="streaming response from {x!r} took {duration:.2f}s")
    assert (row["operation"], row["kind"], row["usage_scope"], row["input_tokens"]) == ("chat", "log", "own", 1272)
    silent = span({"logfire.span_type": "log"}, scope="logfire.anthropic")
    assert (silent["operation"], silent["kind"], silent["usage_scope"]) == ("", "log", "none")


@pytest.mark.parametrize(
    ("name", "kind", "span_kind"),
    [
        ("backend.openai.chat.success-3", "LLM", "log"),
        ("backend.openai.chat.start-3", "LLM", "llm"),
        ("agent.react.update-1", "AGENT", "log"),
        ("tool.weather.finish-1", "TOOL", "log"),
        ("tool.weather.start-1", "TOOL", "tool"),
    ],
)
def test_1_7_start_success_and_finish_spans_count_as_one_call(name: str, kind: str, span_kind: str) -> None:
    row = span({"openinference.span.kind": kind}, name=name, scope="openinference.instrumentation.beeai")
    assert row["kind"] == span_kind


def test_1_8_same_number_under_several_keys_is_counted_once() -> None:
    both = {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 164,
        "gen_ai.usage.prompt_tokens": 164,
        "gen_ai.usage.output_tokens": 24,
        "gen_ai.usage.completion_tokens": 24,
    }
    assert usage(span(both, scope="strands.telemetry.tracer"))[:2] == (164, 24)
    details = both | {"gen_ai.usage.cache_read.input_tokens": 0, "gen_ai.usage.details.cache_read_tokens": 20}
    assert span(details, scope=PYDANTIC)["cache_read_tokens"] == 0, "the key of the conventions wins even when 0"
    dotted = both | {"gen_ai.usage.cache_read.input_tokens": 0, "gen_ai.usage.cache_read_input_tokens": 20}
    assert span(dotted, scope="strands.telemetry.tracer")["cache_read_tokens"] == 0


def test_1_9_only_the_log_records_that_add_something_are_kept() -> None:
    tokens = {"event.name": "codex.sse_event", "event.kind": "response.completed", "input_token_count": "318"}
    kept = log(tokens, scope="codex_otel.log_only", event="event otel/src/x.rs:1")
    assert kept is not None
    assert kept["input_tokens"] == 318
    assert log({"event.name": "codex.sse_event", "event.kind": "response.created"}, scope="codex_otel.log_only") is None
    assert log({"event.name": "gemini_cli.startup_stats"}, scope="gemini-cli") is None
    assert log({}, body="plain text") is None


def test_1_10_totals_are_kept_as_reported_and_never_become_input_or_output() -> None:
    row = span({"gen_ai.operation.name": "chat", "gen_ai.usage.total_tokens": 359}, scope="x")
    assert usage(row) == (None,) * 5
    assert row["usage_scope"] == "none"
    codex = log({"event.name": "codex.sse_event", "input_token_count": "318", "tool_token_count": "359"})
    assert codex is not None
    assert usage(codex)[:2] == (318, None)


# 2. is input inclusive of cache?

OPENLIT = "openlit.instrumentation.anthropic"
CACHE = {"gen_ai.usage.cache_read.input_tokens": 1024, "gen_ai.usage.cache_creation.input_tokens": 211}
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-sonnet-4-5",
}


@pytest.mark.parametrize("scope", ["opentelemetry.instrumentation.genai.anthropic", PYDANTIC, "litellm", "gen_ai"])
def test_2_1_inclusive_input_stays(scope: str) -> None:
    row = span(CHAT | CACHE | {"gen_ai.usage.input_tokens": 1272, "gen_ai.usage.output_tokens": 29}, scope=scope)
    assert usage(row) == (1272, 29, 1024, 211, None)
    assert row["input_basis"] == "inclusive"


def test_2_2_exclusive_input_gets_the_cache_added() -> None:
    openlit = span(CHAT | CACHE | {"gen_ai.usage.input_tokens": 37, "gen_ai.usage.output_tokens": 29}, scope=OPENLIT)
    assert usage(openlit) == (1272, 29, 1024, 211, None)
    assert openlit["input_basis"] == "exclusive_fixed"
    attributes = {
        "span.type": "llm_request",
        "input_tokens": 37,
        "output_tokens": 29,
        "cache_read_tokens": 1024,
        "cache_creation_tokens": 211,
    }
    claude = span(attributes, scope="com.anthropic.claude_code.tracing")
    assert usage(claude) == (1272, 29, 1024, 211, None)
    assert (claude["input_basis"], claude["usage_scope"]) == ("exclusive_fixed", "own")


@pytest.mark.parametrize("scope", ["claude_agent_sdk", "agno"])
def test_2_3_openinference_is_exclusive_in_two_instrumentations(scope: str) -> None:
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.token_count.prompt": 5000,
        "llm.token_count.completion": 10,
        "llm.token_count.prompt_details.cache_read": 1000,
    }
    assert span(attributes, scope=f"openinference.instrumentation.{scope}")["input_tokens"] == 6000
    assert span(attributes, scope="openinference.instrumentation.anthropic")["input_tokens"] == 5000


def test_2_4_a_cache_larger_than_the_input_is_exclusive_for_certain() -> None:
    row = span(CHAT | CACHE | {"gen_ai.usage.input_tokens": 37, "gen_ai.usage.output_tokens": 29}, scope=PYDANTIC)
    assert (row["input_tokens"], row["input_basis"]) == (1272, "exclusive_fixed")


def test_2_5_a_small_cache_proves_nothing() -> None:
    attributes = CHAT | {"gen_ai.usage.input_tokens": 5000, "gen_ai.usage.cache_read.input_tokens": 100}
    assert span(attributes, scope=PYDANTIC)["input_tokens"] == 5000
    legacy = {"gen_ai.system": "anthropic", "gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 5000}
    assert span(legacy, scope="own")["input_basis"] == "unknown"


@pytest.mark.parametrize(("reported", "basis"), [(37, "exclusive_fixed"), (1272, "inclusive")])
def test_2_6_ai_sdk_provider_metadata_tells_the_basis(reported: int, basis: str) -> None:
    native = {"input_tokens": 37, "cache_read_input_tokens": 1024, "cache_creation_input_tokens": 211}
    attributes = {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.model.provider": "anthropic.messages",
        "ai.usage.promptTokens": reported,
        "ai.usage.completionTokens": 29,
        "ai.response.providerMetadata": json.dumps({"anthropic": {"usage": native}}),
    }
    row = span(attributes, scope=AI_SDK)
    assert usage(row) == (1272, 29, 1024, 211, None)
    assert row["input_basis"] == basis


def test_2_7_exclusive_input_without_cache_counts_is_marked_and_not_guessed() -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "strands-agents",
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.usage.prompt_tokens": 37,
        "gen_ai.usage.completion_tokens": 29,
    }
    row = span(attributes, scope="strands.telemetry.tracer")
    assert (row["input_tokens"], row["input_basis"]) == (37, "exclusive_unknown")


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        ("opentelemetry.instrumentation.genai.x", "gen_ai.usage.cache_creation.input_tokens"),
        ("opentelemetry.instrumentation.genai.x", "gen_ai.usage.cache_write.input_tokens"),
        ("opentelemetry.instrumentation.anthropic", "gen_ai.usage.cache_creation_input_tokens"),
        ("strands.telemetry.tracer", "gen_ai.usage.cache_write_input_tokens"),
        (PYDANTIC, "gen_ai.usage.details.cache_write_tokens"),
        (OPENLIT, "gen_ai.usage.prompt_tokens_details.cache_creation_tokens"),
    ],
)
def test_2_8_every_spelling_of_a_cache_write_is_one_column(scope: str, key: str) -> None:
    row = span(CHAT | {"gen_ai.usage.input_tokens": 1272, key: 211}, scope=scope)
    assert row["cache_write_tokens"] == 211


def test_2_9_the_split_of_cache_writes_by_lifetime_is_kept() -> None:
    attributes = {
        "gen_ai.usage.input_tokens": 1272,
        "anthropic.usage.cache_creation.ephemeral_5m_input_tokens": 200,
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 11,
    }
    kept = span(attributes, scope="com.anthropic.sdk.python")["attributes"]
    assert kept["spanwise.usage.cache_write_5m.input_tokens"] == "200"
    assert kept["spanwise.usage.cache_write_1h.input_tokens"] == "11"


def test_2_10_absent_is_not_zero() -> None:
    attributes = {"ai.operationId": "ai.generateText.doGenerate", "ai.usage.promptTokens": 164}
    assert span(attributes, scope=AI_SDK)["cache_read_tokens"] is None


def test_2_11_langfuse_buckets_are_disjoint_and_openai_details_are_not() -> None:
    def generation(details: dict[str, object]) -> tuple[int | None, ...]:
        attributes = {
            "langfuse.observation.type": "generation",
            "langfuse.observation.usage_details": json.dumps(details),
        }
        return usage(span(attributes, scope=LANGFUSE))

    assert generation({"input": 37, "cache_read_input_tokens": 1024, "output": 29}) == (1061, 29, 1024, None, None)
    openai = {"prompt_tokens": 153, "completion_tokens": 24, "prompt_tokens_details": {"cached_tokens": 64}}
    assert generation(openai) == (153, 24, 64, None, None)


# 3. reasoning tokens


def test_3_1_gemini_total_reveals_thoughts_outside_the_output() -> None:
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.system": "vertexai",
        "llm.model_name": "gemini-2.5-pro",
        "llm.token_count.prompt": 5,
        "llm.token_count.completion": 845,
        "llm.token_count.total": 2023,
    }
    assert span(attributes, scope="openinference.instrumentation.vertexai")["output_tokens"] == 2018
    included = attributes | {"llm.token_count.completion": 2018}
    assert span(included, scope="openinference.instrumentation.vertexai")["output_tokens"] == 2018


def test_3_2_gemini_cli_thoughts_stand_beside_the_output_in_its_log() -> None:
    attributes = {
        "event.name": "gemini_cli.api_response",
        "input_token_count": 204,
        "output_token_count": 22,
        "cached_content_token_count": 96,
        "thoughts_token_count": 31,
        "total_token_count": 257,
    }
    row = log(attributes, scope="gemini-cli")
    assert row is not None
    assert usage(row) == (204, 53, 96, None, 31)


def test_3_3_reasoning_larger_than_the_output_underflows_nothing() -> None:
    attributes = {"llm.token_count.completion": 50, "llm.token_count.completion_details.reasoning": 60}
    row = span(attributes, scope="openinference.instrumentation.openai")
    assert (row["output_tokens"], row["reasoning_tokens"]) == (50, 60)


def test_3_4_langfuse_reasoning_bucket_is_outside_the_output() -> None:
    details = json.dumps({"input": 10, "output": 20, "output_reasoning_tokens": 30})
    attributes = {"langfuse.observation.type": "generation", "langfuse.observation.usage_details": details}
    row = span(attributes, scope=LANGFUSE)
    assert (row["output_tokens"], row["reasoning_tokens"]) == (50, 30)


# 4. streaming and time


def test_4_1_zero_tokens_of_a_stream_that_answered_are_unknown() -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 0,
        "gen_ai.usage.output_tokens": 0,
        "llm.is_streaming": "True",
    }
    row = span(attributes, scope="litellm")
    assert usage(row) == (None,) * 5
    assert (row["usage_scope"], row["input_basis"]) == ("none", "")


@pytest.mark.parametrize(
    ("scope", "key", "reported", "seconds"),
    [
        (AI_SDK, "ai.response.msToFirstChunk", 321.5, 0.3215),
        ("com.anthropic.claude_code.tracing", "ttft_ms", 26, 0.026),
        ("strands.telemetry.tracer", "gen_ai.server.time_to_first_token", 363, 0.363),
        (OPENLIT, "gen_ai.server.time_to_first_token", 0.25, 0.25),
        ("gen_ai", "gen_ai.client.operation.time_to_first_chunk", 0.5, 0.5),
    ],
)
def test_4_2_time_to_first_chunk_is_seconds_whatever_the_producer_writes(
    scope: str, key: str, reported: float, seconds: float
) -> None:
    row = span({"gen_ai.operation.name": "chat", key: reported}, scope=scope)
    assert row["time_to_first_chunk_s"] == pytest.approx(seconds)


def test_4_3_langfuse_completion_start_is_json_in_a_string() -> None:
    attributes = {
        "langfuse.observation.type": "generation",
        "langfuse.observation.completion_start_time": '"2026-11-20T23:33:20.250000Z"',
    }
    at = 1_795_217_600_250_000_000
    row = span(attributes, scope=LANGFUSE)
    assert at < START, "the time lies before the span starts"
    assert row["time_to_first_chunk_s"] is None
    later = attributes | {"langfuse.observation.completion_start_time": '"2026-11-21T00:13:20.250000Z"'}
    assert span(later, scope=LANGFUSE)["time_to_first_chunk_s"] == pytest.approx(0.25)


# 5. which span is what


@pytest.mark.parametrize(
    ("scope", "operation", "canonical", "kind"),
    [
        ("gemini-cli", "llm_call", "generate_content", "llm"),
        ("gemini-cli", "tool_call", "execute_tool", "tool"),
        ("gemini-cli", "schedule_tool_calls", "", "chain"),
        ("gemini-cli", "system_prompt", "", "prompt"),
        ("litellm", "embedding", "embeddings", "embedding"),
        ("opentelemetry.instrumentation.langchain", "execute_task", "", "chain"),
        ("opentelemetry.instrumentation.langchain", "vector_db_retrieve", "retrieval", "retrieval"),
        ("gen_ai", "agent_step", "", "agent_step"),
        ("gen_ai", "rerank", "", "rerank"),
        ("strands.telemetry.tracer", "memory.search", "search_memory", "memory"),
        ("x", " Chat ", "chat", "llm"),
    ],
)
def test_5_1_operation_name_is_an_open_enum(scope: str, operation: str, canonical: str, kind: str) -> None:
    row = span({"gen_ai.operation.name": operation}, scope=scope)
    assert (row["operation"], row["kind"]) == (canonical, kind)


def test_5_2_langsmith_labels_retrievers_embeddings() -> None:
    row = span({"langsmith.span.kind": "retriever", "gen_ai.operation.name": "embeddings"}, scope="langsmith")
    assert row["operation"] == "retrieval"


def test_5_3_langchain_workflow_span_says_invoke_agent() -> None:
    attributes = {"gen_ai.operation.name": "invoke_agent", "traceloop.span.kind": "workflow"}
    row = span(attributes, name="RunnableSequence.workflow", scope="opentelemetry.instrumentation.langchain")
    assert row["operation"] == "invoke_workflow"


@pytest.mark.parametrize(
    ("scope", "name", "attributes", "operation"),
    [
        (PYDANTIC, "running tool", {"gen_ai.tool.name": "t"}, "execute_tool"),
        (PYDANTIC, "a run", {"agent_name": "a", "final_result": "x"}, "invoke_agent"),
        ("ai.koog", "tool.weather", {"gen_ai.tool.name": "weather"}, "execute_tool"),
        ("gcp.vertex.agent", "invocation", {}, "invoke_workflow"),
        ("codex_exec", "handle_responses", {"gen_ai.usage.input_tokens": 318}, "chat"),
    ],
)
def test_5_4_missing_operation_is_told_by_the_dialect(
    scope: str, name: str, attributes: dict[str, object], operation: str
) -> None:
    assert span(attributes, name=name, scope=scope)["operation"] == operation


def test_5_5_an_agent_name_makes_no_agent_span() -> None:
    row = span({"gen_ai.agent.name": "a", "gen_ai.request.model": "gpt-4o"}, scope="x")
    assert row["operation"] == "chat"
    alone = span({"gen_ai.agent.name": "a"}, scope="x")
    assert (alone["operation"], alone["kind"]) == ("", "")
    gemini = span({"gen_ai.operation.name": "llm_call", "gen_ai.agent.name": "gemini-cli"}, scope="gemini-cli")
    assert gemini["agent_name"] == ""


def test_5_6_requested_tool_on_a_chat_span_is_no_tool_span() -> None:
    attributes = CHAT | {"gen_ai.tool.name": "get_weather", "gen_ai.tool.call.id": "toolu_1"}
    row = span(attributes, scope=OPENLIT)
    assert (row["kind"], row["tool_name"], row["tool_call_id"]) == ("llm", "", "")


def test_5_7_transport_spans_are_told_from_agent_work() -> None:
    assert span({}, name="receiving", scope="codex_exec")["kind"] == "transport"
    assert span({"messaging.operation": "publish"}, scope="autogen-core")["kind"] == "transport"


def test_5_8_span_names_are_the_last_resort() -> None:
    lost = span({}, name="chat claude-sonnet-4-5", scope=OPENLIT, error=True)
    assert (lost["operation"], lost["kind"]) == ("chat", "llm")
    user_text = span({}, name="chat with me", scope="my.app")
    assert (user_text["dialect"], user_text["operation"]) == ("", "")
    renamed = span({"ai.operationId": "ai.toolCall", "ai.toolCall.name": "getWeather"}, name="getWeather", scope=AI_SDK)
    assert renamed["operation"] == "execute_tool"


def test_5_9_inner_phases_of_a_tool_call_are_not_tool_spans() -> None:
    scope = "com.anthropic.claude_code.tracing"
    ids = {"gen_ai.tool.call.id": "toolu_1"}
    assert span(ids | {"span.type": "tool"}, scope=scope)["kind"] == "tool"
    assert span(ids | {"span.type": "tool.execution"}, scope=scope)["kind"] == "tool_inner"
    assert span(ids | {"span.type": "claude_code.tool.blocked_on_user"}, scope=scope)["kind"] == "tool_wait"


def test_5_10_a_span_without_agent_telemetry_is_passed_through_untouched() -> None:
    row = span({"http.request.method": "GET", "session.id": "s", "user.id": "u"}, scope="http", error=True)
    assert row["dialect"] == row["operation"] == row["kind"] == row["conversation_id"] == row["error_type"] == ""
    assert row["attributes"] == {"http.request.method": "GET", "session.id": "s", "user.id": "u"}


# 6. tools


def test_6_1_call_ids_that_are_placeholders_are_none() -> None:
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.id": "<not specified>"}
    assert span(attributes, scope="gcp.vertex.agent")["tool_call_id"] == ""


def test_6_2_call_id_with_an_underscore_is_read() -> None:
    attributes = {"gen_ai.operation.name": "tool_call", "gen_ai.tool.call_id": "run_shell_command__fcall_1"}
    assert span(attributes, scope="gemini-cli")["tool_call_id"] == "run_shell_command__fcall_1"


def test_6_3_a_failed_tool_without_error_status_says_so() -> None:
    attributes = {"gen_ai.operation.name": "execute_tool", "tool.status": "error"}
    row = span(attributes, scope="strands.telemetry.tracer")
    assert (row["status"], row["error_type"], row["tool_status"]) == ("unset", "", "error")


def test_6_4_merged_parallel_calls_of_adk_are_no_call_of_their_own() -> None:
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "(merged tools)"}
    assert span(attributes, scope="gcp.vertex.agent")["kind"] == "tool_inner"


def test_6_5_deferred_tool_of_pydantic_ai_is_no_error() -> None:
    attributes = {"gen_ai.tool.name": "t", "pydantic_ai.tool.deferral.name": "ApprovalRequired"}
    row = span(attributes, scope=PYDANTIC)
    assert (row["tool_status"], row["error_type"]) == ("deferred", "")


# 7. finish reasons


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("tool_use", "tool_call"),
        ("tool_calls", "tool_call"),
        ("tool-calls", "tool_call"),
        ("STOP", "stop"),
        ("FinishReason.TOOL_CALLS", "tool_call"),
        ("end_turn", "stop"),
        ("MAX_TOKENS", "length"),
    ],
)
def test_7_1_every_spelling_of_a_finish_reason_has_one_name_and_stays_readable(raw: str, canonical: str) -> None:
    row = span({"gen_ai.operation.name": "chat", "gen_ai.response.finish_reasons": [raw]}, scope="x")
    assert (row["finish_reasons"], row["finish_reasons_raw"]) == ([canonical], [raw])


@pytest.mark.parametrize(
    ("scope", "attributes"),
    [
        ("agent_framework", {"gen_ai.response.finish_reasons": '["tool_calls"]'}),
        ("semantic_kernel.x", {"gen_ai.response.finish_reason": "tool_calls"}),
        ("openinference.instrumentation.x", {"llm.finish_reason": "tool_calls"}),
        (
            "openinference.instrumentation.openai",
            {"output.value": '{"choices": [{"index": 0, "finish_reason": "tool_calls"}]}'},
        ),
        ("com.anthropic.sdk.python", {"anthropic.message.stop_reason": "tool_use"}),
        ("opentelemetry.instrumentation.openai.v1", {"gen_ai.completion.0.finish_reason": "tool_calls"}),
    ],
)
def test_7_2_finish_reasons_are_found_in_every_container(scope: str, attributes: dict[str, object]) -> None:
    extra = {"gen_ai.operation.name": "chat", "openinference.span.kind": "LLM"}
    if "openinference" not in scope:
        del extra["openinference.span.kind"]
    assert span(extra | attributes, scope=scope)["finish_reasons"] == ["tool_call"]


def test_7_3_stop_with_a_tool_call_in_the_output_is_a_tool_call() -> None:
    output = [{"role": "assistant", "parts": [{"type": "tool_call", "id": "1", "name": "t", "arguments": {}}]}]
    attributes = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.response.finish_reasons": ["STOP"],
        "gen_ai.output.messages": json.dumps(output),
    }
    row = span(attributes, scope="x")
    assert (row["finish_reasons"], row["finish_reasons_raw"]) == (["tool_call"], ["STOP"])
    cut = attributes | {"gen_ai.response.finish_reasons": ["length"]}
    assert span(cut, scope="x")["finish_reasons"] == ["length"]


def test_7_4_a_reason_without_a_canonical_name_stays_raw_only() -> None:
    row = span({"gen_ai.operation.name": "chat", "gen_ai.response.finish_reasons": ["pause_turn"]}, scope="x")
    assert (row["finish_reasons"], row["finish_reasons_raw"]) == ([], ["pause_turn"])


# 8. errors

EXCEPTIONS = [
    ("exception", {"exception.type": "FirstError"}),
    ("exception", {"exception.type": "openai.RateLimitError"}),
]


def test_8_1_error_type_falls_back_to_the_last_exception_and_then_to_other() -> None:
    chat = {"gen_ai.operation.name": "chat"}
    assert span(chat, error=True, events=EXCEPTIONS)["error_type"] == "openai.RateLimitError"
    assert span(chat, error=True)["error_type"] == "_OTHER"
    assert span(chat | {"error.type": "429"}, error=True, events=EXCEPTIONS)["error_type"] == "429"


def test_8_2_an_exception_that_did_not_fail_the_span_is_no_error() -> None:
    assert span({"gen_ai.operation.name": "execute_tool"}, events=EXCEPTIONS)["error_type"] == ""


def test_8_3_class_reprs_are_cleaned() -> None:
    attributes = {"gen_ai.operation.name": "chat", "error.type": "<class 'a.b.ServiceError'>"}
    assert span(attributes, scope="semantic_kernel.x", error=True)["error_type"] == "a.b.ServiceError"
    assert span(attributes, error=True)["error_type"] == "a.b.ServiceError"


def test_8_4_a_context_overflow_keeps_the_class_of_claude_code() -> None:
    attributes = {"span.type": "llm_request", "error_class": "prompt_too_long", "status_code": 400, "success": False}
    row = span(attributes, scope="com.anthropic.claude_code.tracing", error=True)
    assert row["error_type"] == "prompt_too_long"


def test_8_5_retries_inside_one_span_are_counted() -> None:
    row = span({"span.type": "llm_request", "attempt": 3}, scope="com.anthropic.claude_code.tracing")
    assert row["attributes"]["spanwise.retry.attempt"] == "3"


def test_8_6_on_a_failed_call_the_openinference_model_is_the_requested_one() -> None:
    attributes = {"openinference.span.kind": "LLM", "llm.model_name": "gpt-4o"}
    failed = span(attributes, error=True)
    assert (failed["request_model"], failed["response_model"]) == ("gpt-4o", "")
    assert span(attributes)["response_model"] == "gpt-4o"


# 9. sessions and identity


def test_9_1_no_conversation_is_invented() -> None:
    assert span(CHAT, scope="x")["conversation_id"] == ""


def test_9_2_the_langsmith_session_is_a_project() -> None:
    attributes = {"langsmith.span.kind": "llm", "langsmith.trace.session_id": "p", "langsmith.metadata.thread_id": "c"}
    assert span(attributes, scope="langsmith")["conversation_id"] == "c"


def test_9_3_a_previous_response_id_is_no_conversation() -> None:
    row = span(CHAT | {"gen_ai.conversation.id": "resp_1"}, scope="agent_framework")
    assert row["conversation_id"] == ""
    assert row["attributes"]["gen_ai.request.previous_response.id"] == "resp_1"
    assert span(CHAT | {"gen_ai.conversation.id": "thread_1"}, scope="agent_framework")["conversation_id"] == "thread_1"


def test_9_4_of_two_ids_the_dialects_own_wins_and_both_stay() -> None:
    row = span({"langfuse.session.id": "a", "gen_ai.conversation.id": "b"}, scope="x")
    assert row["conversation_id"] == "a"
    assert row["attributes"]["gen_ai.conversation.id"] == "b"


@pytest.mark.parametrize("scope", ["opentelemetry.instrumentation.langchain", "agent_framework", "autogen-core"])
def test_9_5_run_and_object_ids_are_no_agent_ids(scope: str) -> None:
    attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.id": "0b1c", "traceloop.span.kind": "agent"}
    assert span(attributes, scope=scope)["agent_id"] == ""


def test_9_6_an_os_thread_number_is_no_conversation() -> None:
    row = span({"thread.id": 3, "gen_ai.usage.input_tokens": 1}, name="handle_responses", scope="codex_exec")
    assert row["conversation_id"] == ""


@pytest.mark.parametrize(
    ("stated", "provider"),
    [
        ("openai.responses", "openai"),
        ("OpenAI", "openai"),
        ("strands-agents", ""),
        ("langchain", ""),
        ("microsoft.agent_framework", ""),
        ("AWS", "aws.bedrock"),
        ("Ollama", "ollama"),
        ("my-gateway", "my-gateway"),
    ],
)
def test_9_7_frameworks_and_api_surfaces_are_no_providers(stated: str, provider: str) -> None:
    assert span({"gen_ai.operation.name": "chat", "gen_ai.provider.name": stated}, scope="x")["provider"] == provider


def test_9_8_a_framework_beside_a_provider_does_not_hide_it() -> None:
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "strands-agents", "gen_ai.system": "openai"}
    assert span(attributes, scope="x")["provider"] == "openai"


def test_9_9_host_comes_before_api_family() -> None:
    attributes = {"openinference.span.kind": "LLM", "llm.provider": "azure", "llm.system": "openai"}
    assert span(attributes)["provider"] == "azure.ai.openai"


# 10. encoding


def test_10_1_numbers_and_placeholders_as_text_are_read() -> None:
    attributes = {
        "spring.ai.kind": "chat_model",
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.usage.input_tokens": "164",
        "gen_ai.usage.output_tokens": "24",
        "gen_ai.response.finish_reasons": '["STOP"]',
        "gen_ai.response.model": "none",
    }
    row = span(attributes, scope="org.springframework.ai")
    assert usage(row)[:2] == (164, 24)
    assert (row["response_model"], row["finish_reasons"]) == ("", ["stop"])


def test_10_2_every_mlflow_value_is_a_json_document() -> None:
    attributes = {
        "mlflow.spanType": '"CHAT_MODEL"',
        "mlflow.llm.model": '"gpt-4o"',
        "mlflow.chat.tokenUsage": '{"input_tokens": 153, "output_tokens": 24, "cache_read_input_tokens": 64}',
    }
    row = span(attributes, scope="mlflow.tracing.provider")
    assert (row["operation"], row["response_model"]) == ("chat", "gpt-4o")
    assert usage(row) == (153, 24, 64, None, None)


def test_10_3_langsmith_details_are_python_reprs() -> None:
    attributes = {
        "langsmith.span.kind": "llm",
        "gen_ai.usage.input_tokens": 153,
        "gen_ai.usage.input_token_details": "{'audio': None, 'cache_read': 64}",
    }
    assert span(attributes, scope="langsmith")["cache_read_tokens"] == 64


def test_10_4_a_negative_or_fractional_count_is_no_count() -> None:
    attributes = CHAT | {"gen_ai.usage.input_tokens": -1, "gen_ai.usage.output_tokens": 1.5}
    assert usage(span(attributes, scope="x"))[:2] == (None, None)


def test_10_5_repeated_keys_take_the_last_value() -> None:
    request = {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": "1" * 32,
                                "spanId": "2" * 16,
                                "name": "x",
                                "attributes": [
                                    {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
                                    {"key": "gen_ai.request.model", "value": {"stringValue": "a"}},
                                    {"key": "gen_ai.request.model", "value": {"stringValue": "b"}},
                                ],
                            }
                        ]
                    }
                ]
            }
        ]
    }
    [row] = decode("traces", [json.dumps(request).encode()])
    assert row["request_model"] == "b"


# 12. cost


@pytest.mark.parametrize(
    ("scope", "attributes"),
    [
        (PYDANTIC, {"operation.cost": 0.0016}),
        (OPENLIT, {"gen_ai.usage.cost": 0.0016}),
        ("openinference.instrumentation.x", {"llm.cost.total": 0.0016, "openinference.span.kind": "LLM"}),
        (LANGFUSE, {"langfuse.observation.cost_details": '{"input": 0.001, "total": 0.0016}'}),
        ("litellm", {"gen_ai.cost.total_cost": "0.0016"}),
        ("mlflow.x", {"mlflow.spanType": '"LLM"', "mlflow.llm.cost": '{"total_cost": 0.0016}'}),
    ],
)
def test_12_1_reported_cost_is_found_under_every_name(scope: str, attributes: dict[str, object]) -> None:
    row = span({"gen_ai.operation.name": "chat"} | attributes, scope=scope)
    assert str(row["reported_cost_usd"]) == "0.001600000"


def test_12_2_a_cost_of_zero_is_no_price() -> None:
    assert span(CHAT | {"gen_ai.usage.cost": 0}, scope=OPENLIT)["reported_cost_usd"] is None


def test_12_3_claude_code_states_its_cost_in_the_log_only() -> None:
    attributes = {"model": "claude-sonnet-4-5", "input_tokens": 37, "cost_usd": 0.00164445, "cost_usd_micros": 1644}
    row = log(attributes, body="claude_code.api_request", scope="com.anthropic.claude_code.events")
    assert row is not None
    assert str(row["reported_cost_usd"]) == "0.001644450"
