"""Steps of spans as instrumentations write them, through the real decoder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from processors.detect.steps import FINGERPRINT, ErrorClass, Finish, Flag, Kind, Step
from tests.normalise.spans import span

Event = tuple[str, Mapping[str, object]]
Message = dict[str, Any]


def read(fingerprint: bytes) -> Step | None:
    """The step of a fingerprint, without what other columns add."""
    if not fingerprint:
        return None
    head = np.frombuffer(fingerprint, FINGERPRINT, 1)[0]
    tokens = np.frombuffer(fingerprint, "<u4", offset=FINGERPRINT.itemsize)
    counts = [int(head[f"{name}_tokens_count"]) for name in ("input", "output", "long")]
    assert len(tokens) == sum(counts)
    sketches = [tokens[sum(counts[:n]) : sum(counts[: n + 1])] for n in range(3)]
    for sketch in sketches:
        assert sketch.tolist() == sorted(set(sketch.tolist())), "sorted, each once"
    fields: dict[str, Any] = {
        name: int(head[name])
        for name in FINGERPRINT.names or ()
        if not name.endswith("_count") and name != "fingerprint_version"
    }
    fields |= {"kind": Kind(fields["kind"]), "flags": Flag(fields["flags"])}
    fields |= {"error": ErrorClass(fields["error"]), "finish": Finish(fields["finish"])}
    unknown: dict[str, Any] = dict.fromkeys(("index", "start", "end", "span_id", "parent_id", "window"), 0)
    unknown |= {"input_tokens": -1, "output_tokens": -1}
    return Step(**fields, **unknown, sketches=sketches)


def step(of: Mapping[str, object], **fields: Any) -> Step:
    found = read(span(of, **fields)["fingerprint"])
    assert found is not None
    return found


def tool(
    result: str | None = None, arguments: str | None = None, *, more: Mapping[str, object] = {}, **fields: Any
) -> Step:
    """A tool call as the OpenTelemetry GenAI conventions write it."""
    attributes: dict[str, object] = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    if result is not None:
        attributes["gen_ai.tool.call.result"] = result
    if arguments is not None:
        attributes["gen_ai.tool.call.arguments"] = arguments
    return step(attributes | dict(more), parent="3" * 16, **fields)


def text(role: str, content: str) -> Message:
    return {"role": role, "parts": [{"type": "text", "content": content}]}


def call(name: str, arguments: object, *, id: str = "") -> Message:
    part = {"type": "tool_call", "name": name, "arguments": arguments} | ({"id": id} if id else {})
    return {"role": "assistant", "parts": [part]}


def result(response: object, *, id: str) -> Message:
    return {"role": "tool", "parts": [{"type": "tool_call_response", "id": id, "response": response}]}


def definition(name: str, required: Sequence[str] = (), **properties: object) -> Message:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "name": name, "parameters": schema}


def model(
    *output: Message,
    history: Sequence[Message] = (),
    tools: Sequence[Message] = (),
    finish: Sequence[str] = (),
    more: Mapping[str, object] = {},
    **fields: Any,
) -> Step:
    """A model call as the OpenTelemetry GenAI conventions write it."""
    attributes: dict[str, object] = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5"}
    for key, value in (("input.messages", history), ("output.messages", output), ("tool.definitions", tools)):
        if value:
            attributes[f"gen_ai.{key}"] = json.dumps(list(value))
    if finish:
        attributes["gen_ai.response.finish_reasons"] = list(finish)
    return step(attributes | dict(more), parent="3" * 16, **fields)


def exception(type_: str, message: str) -> Event:
    return ("exception", {"exception.type": type_, "exception.message": message})


def failed(type_: str = "", message: str = "", **fields: Any) -> Step:
    """A model call that ended in an exception."""
    return model(error=True, events=[exception(type_, message)], **fields)
