"""A scripted model server: OpenAI chat, responses and embeddings, Anthropic messages, JSON and streaming.

It stands where the providers stand, so that real client libraries and real instrumentation packages run unchanged. It
plays one conversation: the first answer asks for the tool `get_weather`, the answer after a tool result is text. The
token counts are constants, so a test knows what every instrumentation should report. It proves nothing about the
providers themselves.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.http_server import serving

ANSWER = "It is 18 degrees and sunny in Paris."
TOOL = "get_weather"
ARGUMENTS = {"city": "Paris"}

OPENAI_USAGE = {
    "prompt_tokens": 150,
    "completion_tokens": 30,
    "total_tokens": 180,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 8},
}
RESPONSES_USAGE = {
    "input_tokens": 150,
    "input_tokens_details": {"cached_tokens": 64},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 8},
    "total_tokens": 180,
}
ANTHROPIC_USAGE = {
    "input_tokens": 40,
    "cache_read_input_tokens": 1000,
    "cache_creation_input_tokens": 200,
    "output_tokens": 30,
}

_ids = itertools.count(1)


def _wants_tool(body: dict[str, Any]) -> bool:
    """Ask for the tool while the conversation offers tools and holds no result yet."""
    text = json.dumps(body.get("messages") or body.get("input"))
    answered = '"role": "tool"' in text or "tool_result" in text or "function_call_output" in text
    return bool(body.get("tools")) and not answered


def _openai_chat(body: dict[str, Any]) -> dict[str, Any]:
    tool = _wants_tool(body)
    message: dict[str, Any] = {"role": "assistant", "content": None if tool else ANSWER}
    if tool:
        function = {"name": TOOL, "arguments": json.dumps(ARGUMENTS)}
        message["tool_calls"] = [{"id": f"call_{next(_ids):04d}", "type": "function", "function": function}]
    return {
        "id": f"chatcmpl-{next(_ids):04d}",
        "object": "chat.completion",
        "created": 1_795_000_000,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if tool else "stop"}],
        "usage": OPENAI_USAGE,
    }


def _openai_chat_stream(body: dict[str, Any]) -> Iterator[str]:
    whole = _openai_chat(body)
    message = whole["choices"][0]["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if message["content"]:
        deltas += [{"content": piece} for piece in (ANSWER[:10], ANSWER[10:])]
    else:
        deltas.append({"tool_calls": [{"index": 0, **message["tool_calls"][0]}]})
    head = {key: whole[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    for delta in deltas:
        yield json.dumps(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    finish = whole["choices"][0]["finish_reason"]
    yield json.dumps(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield json.dumps(head | {"choices": [], "usage": OPENAI_USAGE})
    yield "[DONE]"


def _openai_responses(body: dict[str, Any]) -> dict[str, Any]:
    output: dict[str, Any]
    if _wants_tool(body):
        output = {
            "type": "function_call",
            "id": f"fc_{next(_ids):04d}",
            "call_id": f"call_{next(_ids):04d}",
            "name": TOOL,
            "arguments": json.dumps(ARGUMENTS),
            "status": "completed",
        }
    else:
        text = {"type": "output_text", "text": ANSWER, "annotations": []}
        output = {
            "type": "message",
            "id": f"msg_{next(_ids):04d}",
            "role": "assistant",
            "status": "completed",
            "content": [text],
        }
    return {
        "id": f"resp_{next(_ids):04d}",
        "object": "response",
        "created_at": 1_795_000_000,
        "status": "completed",
        "model": body["model"],
        "output": [output],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "usage": RESPONSES_USAGE,
    }


def _openai_embeddings(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "object": "list",
        "model": body["model"],
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2, 0.3]}],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def _anthropic(body: dict[str, Any]) -> dict[str, Any]:
    tool = _wants_tool(body)
    content: list[dict[str, Any]] = [{"type": "text", "text": "Let me check." if tool else ANSWER}]
    if tool:
        content.append({"type": "tool_use", "id": f"toolu_{next(_ids):04d}", "name": TOOL, "input": ARGUMENTS})
    return {
        "id": f"msg_{next(_ids):04d}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": "tool_use" if tool else "end_turn",
        "stop_sequence": None,
        "usage": ANTHROPIC_USAGE,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path.split("?")[0]
        if "please fail" in json.dumps(body):
            self._json(
                429, {"error": {"type": "rate_limit_error", "code": "rate_limit", "message": "too many requests"}}
            )
        elif path.endswith("/chat/completions"):
            if body.get("stream"):
                self._stream(_openai_chat_stream(body))
            else:
                self._json(200, _openai_chat(body))
        elif path.endswith("/responses"):
            self._json(200, _openai_responses(body))
        elif path.endswith("/embeddings"):
            self._json(200, _openai_embeddings(body))
        elif path.endswith("/messages"):
            self._json(200, _anthropic(body))
        else:
            self._json(404, {"error": {"message": f"no such path {path}"}})

    def _json(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, events: Iterator[str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in events:
            self.wfile.write(f"data: {event}\n\n".encode())
        self.close_connection = True


@contextmanager
def model_server() -> Iterator[str]:
    """Serve on a free port of the loopback interface; yields the base URL without a path."""
    with serving(_Handler) as url:
        yield url
