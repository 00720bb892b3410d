"""The two payload shapes every bench uses, as serialised `ExportTraceServiceRequest`s.

small: 512 spans a request, 12 GenAI attributes, about 800 bytes a span: what a busy fleet of short calls sends.
agent: one trace a request, 70 spans, about 4.2 MB: model calls that repeat system prompt, tool schemas and a growing
history, so that about two thirds of the attribute bytes occur earlier in the same trace.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SMALL_SPANS = 512
AGENT_SPANS = 70
_PROSE = (
    "the agent looks up an order and reads its state then asks the payment service whether a refund was booked "
    "before it answers with a short sentence about delivery customer warehouse carrier invoice amount account region"
)
_WORDS = _PROSE.split()


@dataclass(frozen=True)
class Payload:
    """One request: its bytes, its spans and their ids as 24-byte strings (trace id, span id)."""

    body: bytes
    spans: int
    ids: tuple[bytes, ...]


def fresh(payload: Payload, rng: random.Random) -> Payload:
    """The same request with new trace ids: new spans for the price of a copy."""
    body, renamed = payload.body, {}
    for trace_id in dict.fromkeys(span_id[:16] for span_id in payload.ids):
        renamed[trace_id] = rng.randbytes(16)
        body = body.replace(trace_id, renamed[trace_id])
    ids = [renamed[span_id[:16]] + span_id[16:] for span_id in payload.ids]
    return Payload(body, payload.spans, tuple(ids))


def _set(span: Span, key: str, value: object) -> None:
    attribute = span.attributes.add(key=key).value
    if isinstance(value, str):
        attribute.string_value = value
    elif isinstance(value, int):
        attribute.int_value = value
    elif isinstance(value, float):
        attribute.double_value = value
    elif isinstance(value, list):
        for item in value:
            attribute.array_value.values.add(string_value=item)


def _request(service: str) -> tuple[ExportTraceServiceRequest, Any]:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    for key, value in {
        "service.name": service,
        "service.version": "1.4.2",
        "deployment.environment.name": "bench",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
    }.items():
        resource_spans.resource.attributes.add(key=key).value.string_value = value
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "opentelemetry.instrumentation.genai.openai"
    scope_spans.scope.version = "1.3b0"
    return request, scope_spans


def _span(scope_spans: Any, rng: random.Random, trace_id: bytes, name: str, start: int, seconds: float) -> Span:
    span: Span = scope_spans.spans.add()
    span.trace_id = trace_id
    span.span_id = rng.randbytes(8)
    span.name = name
    span.kind = Span.SPAN_KIND_CLIENT
    span.start_time_unix_nano = start
    span.end_time_unix_nano = start + int(seconds * 1e9)
    return span


def small(seed: int, now_unix_nano: int) -> Payload:
    """512 model-call spans in 64 traces."""
    rng = random.Random(seed)
    request, scope_spans = _request(f"fleet-{seed % 8}")
    trace_ids = [rng.randbytes(16) for _ in range(SMALL_SPANS // 8)]
    ids = []
    for index in range(SMALL_SPANS):
        start = now_unix_nano - rng.randrange(5_000_000_000)
        span = _span(scope_spans, rng, trace_ids[index // 8], "chat gpt-4o-mini", start, rng.uniform(0.2, 3))
        input_tokens = rng.randrange(200, 8000)
        for key, value in {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
            "gen_ai.response.id": f"chatcmpl-{rng.getrandbits(96):024x}",
            "gen_ai.conversation.id": f"conversation-{rng.getrandbits(48):012x}",
            "gen_ai.agent.name": f"agent-{rng.randrange(20)}",
            "gen_ai.request.temperature": 0.2,
            "app.request.context": _prose(rng, 215),
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.usage.input_tokens": input_tokens,
            "gen_ai.usage.output_tokens": rng.randrange(10, 900),
        }.items():
            _set(span, key, value)
        ids.append(span.trace_id + span.span_id)
    return Payload(request.SerializeToString(), SMALL_SPANS, tuple(ids))


def _prose(rng: random.Random, characters: int) -> str:
    words = []
    length = 0
    while length < characters:
        word = rng.choice(_WORDS)
        words.append(word)
        length += len(word) + 1
    return " ".join(words)[:characters]


def _text(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def agent(seed: int, now_unix_nano: int) -> Payload:
    """One agent trace: a root, 23 model calls with growing history, 46 tool calls."""
    rng = random.Random(seed)
    request, scope_spans = _request(f"agents-{seed % 4}")
    trace_id = rng.randbytes(16)
    start = now_unix_nano - 120_000_000_000
    root = _span(scope_spans, rng, trace_id, "invoke_agent researcher", start, 110)
    _set(root, "gen_ai.operation.name", "invoke_agent")
    _set(root, "gen_ai.agent.name", "researcher")
    instructions = json.dumps([{"type": "text", "content": _prose(rng, 12_000)}])
    tools = json.dumps(
        [
            {
                "type": "function",
                "name": f"tool_{index}",
                "description": _prose(rng, 300),
                "parameters": {"type": "object"},
            }
            for index in range(20)
        ]
    )
    history = [_text("user", _prose(rng, 2_000))]
    ids = [root.trace_id + root.span_id]
    for step in range(23):
        at = start + step * 4_500_000_000
        call = _span(scope_spans, rng, trace_id, "chat gpt-4o", at, 2.5)
        call.parent_span_id = root.span_id
        answer = _text("assistant", _prose(rng, 1_500))
        for key, value in {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.response.model": "gpt-4o-2024-08-06",
            "gen_ai.response.id": f"chatcmpl-{rng.getrandbits(96):024x}",
            "gen_ai.usage.input_tokens": 4_000 + step * 3_000,
            "gen_ai.usage.output_tokens": 380,
            "gen_ai.response.finish_reasons": ["tool_calls"],
            "gen_ai.system_instructions": instructions,
            "gen_ai.tool.definitions": tools,
            "gen_ai.input.messages": json.dumps(history),
            "gen_ai.output.messages": json.dumps([answer]),
        }.items():
            _set(call, key, value)
        history.append(answer)
        ids.append(call.trace_id + call.span_id)
        for index in range(2):
            tool = _span(scope_spans, rng, trace_id, "execute_tool fetch", at + 2_600_000_000 + index, 0.8)
            tool.parent_span_id = root.span_id
            result = _prose(rng, 5_650)
            for key, value in {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "fetch",
                "gen_ai.tool.call.id": f"call_{step}_{index}",
                "gen_ai.tool.call.arguments": json.dumps({"url": f"https://example.org/{step}/{index}"}),
                "gen_ai.tool.call.result": result,
            }.items():
                _set(tool, key, value)
            response = {"type": "tool_call_response", "id": f"call_{step}_{index}", "response": result}
            history.append({"role": "tool", "parts": [response]})
            ids.append(tool.trace_id + tool.span_id)
    return Payload(request.SerializeToString(), AGENT_SPANS, tuple(ids))
