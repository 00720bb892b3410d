"""A model server that plays `context_cases` in the protocols of eight providers.

The path begins with the number of a case: `/12/v1/chat/completions`. `/cases/PROTOCOL` says what there is to play.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from tests.http_server import serving
from tests.live.context_cases import CASES, Case, Refusal, Reply, Request

Body = dict[str, Any]


def _openai(model: str, reply: Reply, number: int) -> Body:
    message = {"role": "assistant", "content": reply.text}
    return {
        "id": f"chatcmpl-{number:04d}",
        "object": "chat.completion",
        "created": 1_795_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish or "stop"}],
        "usage": {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": reply.output_tokens,
            "total_tokens": reply.input_tokens + reply.output_tokens,
        },
    }


def _responses(model: str, reply: Reply, number: int) -> Body:
    text = {"type": "output_text", "text": reply.text, "annotations": []}
    item = {"type": "message", "id": f"msg_{number:04d}", "role": "assistant", "status": "completed", "content": [text]}
    return {
        "id": f"resp_{number:04d}",
        "object": "response",
        "created_at": 1_795_000_000,
        "status": "incomplete" if reply.finish else "completed",
        "incomplete_details": {"reason": reply.finish} if reply.finish else None,
        "model": model,
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": reply.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": reply.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": reply.input_tokens + reply.output_tokens,
        },
    }


def _anthropic(model: str, reply: Reply, number: int) -> Body:
    return {
        "id": f"msg_{number:04d}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": reply.text}],
        "stop_reason": reply.finish or "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": reply.input_tokens - reply.cached_tokens,
            "cache_read_input_tokens": reply.cached_tokens,
            "cache_creation_input_tokens": 0,
            "output_tokens": reply.output_tokens,
        },
    }


def _bedrock(_model: str, reply: Reply, _number: int) -> Body:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": reply.text}]}},
        "stopReason": reply.finish or "end_turn",
        "usage": {
            "inputTokens": reply.input_tokens,
            "outputTokens": reply.output_tokens,
            "totalTokens": reply.input_tokens + reply.output_tokens,
        },
        "metrics": {"latencyMs": 12},
    }


def _gemini(model: str, reply: Reply, number: int) -> Body:
    return {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": reply.text}]},
                "finishReason": reply.finish or "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": reply.input_tokens,
            "candidatesTokenCount": reply.output_tokens,
            "totalTokenCount": reply.input_tokens + reply.output_tokens,
        },
        "modelVersion": model,
        "responseId": f"resp-{number:04d}",
    }


def _cohere(_model: str, reply: Reply, number: int) -> Body:
    tokens = {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
    return {
        "id": f"c-{number:04d}",
        "finish_reason": reply.finish or "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": reply.text}]},
        "usage": {"billed_units": tokens, "tokens": tokens},
    }


def _ollama(model: str, reply: Reply, _number: int) -> Body:
    return {
        "model": model,
        "created_at": "2026-11-18T10:00:00.000000Z",
        "message": {"role": "assistant", "content": reply.text},
        "done": True,
        "done_reason": reply.finish or "stop",
        "total_duration": 9_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": reply.input_tokens,
        "prompt_eval_duration": 2_000_000,
        "eval_count": reply.output_tokens,
        "eval_duration": 6_000_000,
    }


_PROTOCOLS: Final[Mapping[str, Callable[[str, Reply, int], Body]]] = {
    "openai": _openai,
    "mistral": _openai,
    "responses": _responses,
    "anthropic": _anthropic,
    "bedrock": _bedrock,
    "gemini": _gemini,
    "cohere": _cohere,
    "ollama": _ollama,
}


def for_agents(protocol: str) -> str:
    """What the agents of a protocol play, as JSON."""
    return json.dumps(
        [
            {"number": number, "name": case.name, "model": case.model, "steps": case.steps}
            for number, case in enumerate(CASES.values())
            if case.protocol == protocol
        ]
    )


class _Play:
    """Counts the requests of each case; starts again when an agent asks what there is to play."""

    def __init__(self) -> None:
        self._cases = list(CASES.values())
        self._counts: Counter[str] = Counter()
        self._ids = 0

    def begin(self, protocol: str) -> str:
        self._counts.clear()
        return for_agents(protocol)

    def answer(self, number: int, body: Body) -> tuple[int, Body, Mapping[str, str]]:
        case: Case = self._cases[number]
        messages = body.get("messages") or body.get("input") or body.get("contents") or []
        said = json.dumps([messages, body.get("tools"), body.get("system")])
        request = Request(self._counts[case.name], len(said) // 4, len(messages))
        self._counts[case.name] += 1
        self._ids += 1
        answer = case.answer(request)
        if isinstance(answer, Refusal):
            return answer.status, dict(answer.body), answer.headers
        return 200, _PROTOCOLS[case.protocol](case.model, answer, self._ids), {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    play: _Play

    def do_GET(self) -> None:
        self._send(200, self.play.begin(self.path.rsplit("/", 1)[-1]).encode(), {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer, headers = self.play.answer(int(self.path.split("/")[1]), body)
        self._send(status, json.dumps(answer).encode(), headers)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def context_server() -> Iterator[str]:
    """Serve on a free port of the loopback interface; yields the base URL."""
    handler = type("Handler", (_Handler,), {"play": _Play()})
    with serving(handler) as url:
        yield url
