"""Runs that fail in every way there is a signature for, sent as an instrumented agent sends them.

Each function of `FAILURES` plays one run. Times are given, so that runs of some hours ago can be sent too.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context

_SECOND: Final = 10**9
MODEL: Final = "gpt-4o"
_WINDOW: Final = 128_000


class Agents:
    """The tracer of a service whose agents fail. Use as a context manager: leaving it flushes."""

    def __init__(self, grpc: str, service: str) -> None:
        exporter = OTLPSpanExporter(endpoint=f"http://{grpc}", insecure=True)
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=20_000, schedule_delay_millis=200)
        )
        self._tracer = self._provider.get_tracer("planted")
        self._stack: list[Span] = []
        self._ids = itertools.count()
        self.now = time.time_ns() - 120 * _SECOND

    def __enter__(self) -> Agents:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._provider.force_flush(30_000)
        self._provider.shutdown()

    @contextmanager
    def span(self, operation: str, name: str, error: str = "", **attributes: Any) -> Iterator[Span]:
        context = set_span_in_context(self._stack[-1]) if self._stack else None
        span = self._tracer.start_span(f"{operation} {name}", context=context, start_time=self.now)
        span.set_attribute("gen_ai.operation.name", operation)
        for key, value in attributes.items():
            span.set_attribute("gen_ai." + key.replace("__", "."), value)
        self._stack.append(span)
        yield span
        self._stack.pop()
        self.now += _SECOND // 2
        if error:
            span.set_attribute("error.type", error.split(":", maxsplit=1)[0])
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(self.now)
        self.now += _SECOND // 10

    @contextmanager
    def agent(self, name: str, task: str = "", answer: str = "", error: str = "") -> Iterator[Span]:
        said = {"input__messages": _messages("user", task)} if task else {}
        said |= {"output__messages": _messages("assistant", answer)} if answer else {}
        with self.span("invoke_agent", name, error, agent__name=name, agent__version="3", **said) as span:
            yield span

    def tool(self, name: str, arguments: object, result: str = "", error: str = "") -> None:
        told = {} if error else {"tool__call__result": result}
        call = {"tool__call__arguments": json.dumps(arguments), "tool__call__id": f"call-{next(self._ids)}"}
        with self.span("execute_tool", name, error, tool__name=name, **call, **told):
            pass

    def chat(
        self,
        answer: str = "I go on.",
        *,
        tokens: int = 900,
        messages: int = 1,
        finish: str = "stop",
        error: str = "",
        call: str = "",
        **attributes: Any,
    ) -> None:
        history = [
            {"role": "user" if number % 2 == 0 else "assistant", "parts": [_text(f"Part {number} of what was said.")]}
            for number in range(messages)
        ]
        part = {"type": "tool_call", "id": f"call-{next(self._ids)}", "name": call, "arguments": {"q": 1}}
        said: dict[str, Any] = {"input__messages": json.dumps(history)}
        if not error:
            parts = [part] if call else [_text(answer)]
            said |= {
                "output__messages": json.dumps([{"role": "assistant", "parts": parts}]),
                "response__finish_reasons": ["tool_calls" if call else finish],
                "usage__input_tokens": tokens,
                "usage__output_tokens": 60,
            }
        with self.span("chat", MODEL, error, provider__name="openai", request__model=MODEL, **said, **attributes):
            pass


def _text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}


def _messages(role: str, content: str) -> str:
    return json.dumps([{"role": role, "parts": [_text(content)]}])


def retry_loop(agents: Agents) -> None:
    with agents.agent("buyer", "Find a flight", "I found nothing."):
        for _ in range(6):
            agents.chat(call="search")
            agents.tool("search", {"query": "flight to Oslo"}, "Error: quota exceeded")


def tool_cycle(agents: Agents) -> None:
    with agents.agent("editor", "Tidy the file", "Done."):
        for _ in range(5):
            agents.tool("open_file", {"path": "a.txt"}, "12 lines")
            agents.tool("close_file", {"path": "a.txt"}, "closed")


def llm_repetition(agents: Agents) -> None:
    with agents.agent("writer", "Write a poem", "Roses."):
        for _ in range(4):
            agents.chat("Let me think about that for a moment.")


def delegation_loop(agents: Agents) -> None:
    with agents.agent("manager", "Ask for the report", "No report."):
        for _ in range(3):
            with agents.agent("assistant", "Please fetch the quarterly report of the northern region", "Not found."):
                agents.chat("I do not have it.")


def tool_error(agents: Agents) -> None:
    with agents.agent("booker", "Book any room", "Your room is booked."):
        for number in range(5):
            agents.tool("book_room", {"room": f"r{number}", "nights": number}, error="Conflict: room is taken")
        agents.chat("Your room is booked.")


def empty_result(agents: Agents) -> None:
    with agents.agent("librarian", "Find books", "There are many."):
        for topic in ("owls", "larks", "wrens"):
            agents.tool("find_books", {"topic": topic}, "[]")
        agents.chat("There are many.")


def invalid_tool_call(agents: Agents) -> None:
    tools = json.dumps([{"type": "function", "name": "search", "parameters": {"type": "object", "properties": {}}}])
    with agents.agent("guesser", "Look it up", "I could not."):
        for number in range(3):
            agents.chat(call=f"made_up_{number}", tool__definitions=tools)


def context_limit(agents: Agents) -> None:
    with agents.agent("reader", "Read everything", "I read it."):
        agents.chat(tokens=int(_WINDOW * 0.97), messages=5)
    with agents.agent("crammer", "Read even more", "I read it."):
        agents.chat(error="BadRequestError: This model's maximum context length is 128000 tokens.")
        agents.chat(error="BadRequestError: This model's maximum context length is 128000 tokens.")
    with agents.agent("forgetter", "Keep it in mind", "What was it?"):
        for messages, tokens in ((3, 6_000), (5, 9_000), (7, 4_000)):
            agents.chat(f"Noted, part {messages}.", messages=messages, tokens=tokens)
    with agents.agent("talker", "Go on", "I cannot."):
        agents.chat(tokens=2_000, finish="model_context_window_exceeded")
    with agents.agent("tidy", "Go on for ever", "I go on."):
        agents.chat(tokens=2_000, finish="compaction")


def output_truncated(agents: Agents) -> None:
    with agents.agent("novelist", "Write a long book", "It was a dark and"):
        for number in range(2):
            agents.chat(f"Chapter {number}. It was a dark and", finish="length", request__max_tokens=60)


def cascade(agents: Agents) -> None:
    failed = "ConnectionError: warehouse refused the connection"
    with (
        agents.agent("planner", "Plan the week", error=failed),
        agents.agent("courier", "Fetch the parcels", error=failed),
        agents.agent("storekeeper", "Open the warehouse", error=failed),
    ):
        agents.tool("open_door", {"door": 3}, error=failed)


def run_limit(agents: Agents) -> None:
    error = "GraphRecursionError: Recursion limit of 25 reached without hitting a stop condition."
    with agents.agent("wanderer", "Find the way", error=error):
        agents.chat("Left.")


def goal_drift(agents: Agents) -> None:
    with agents.agent("tourist", "Book a hotel near the harbour", "Here is a song."):
        for number in range(5):
            agents.tool("hotel_search", {"area": f"harbour {number}"}, f"{number} hotels")
        for number in range(5):
            agents.tool("map_lookup", {"place": f"pier {number}"}, f"map {number}")
        for number in range(6):
            agents.tool("play_song", {"title": f"tune {number}"}, f"played {number}")


def quality_drift(agents: Agents) -> None:
    """Good calls some hours ago, bad ones now."""
    now = agents.now
    for begin, error in ((now - 3 * 3600 * _SECOND, ""), (now - 600 * _SECOND, "RateLimitError: slow down")):
        agents.now = begin
        for number in range(120):
            with agents.agent("analyst"):
                agents.chat(f"Figure {number}.", error=error)
    agents.now = now


FAILURES: Final[dict[str, Callable[[Agents], None]]] = {
    play.__name__: play
    for play in (
        retry_loop,
        tool_cycle,
        llm_repetition,
        delegation_loop,
        tool_error,
        empty_result,
        invalid_tool_call,
        context_limit,
        output_truncated,
        cascade,
        run_limit,
        goal_drift,
        quality_drift,
    )
}
