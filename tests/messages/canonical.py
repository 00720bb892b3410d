"""The canonical shape of content, as a checker: what `docs/messages.md` promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_REQUIRED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "text": {"content": str},
    "reasoning": {"content": str},
    "tool_call": {"name": str},
    "tool_call_response": {"response": object},
    "server_tool_call": {"name": str, "server_tool_call": dict},
    "server_tool_call_response": {"server_tool_call_response": dict},
    "blob": {"modality": str, "content": str},
    "file": {"modality": str, "file_id": str},
    "uri": {"modality": str, "uri": str},
}
_FOREIGN = {
    "input_text", "output_text", "thinking", "tool_use", "tool-call", "tool_result", "tool-result", "function_call",
    "image_url", "input_image", "image", "input_audio", "file-data", "function",
}  # fmt: skip
_ROLES = {"system", "user", "assistant", "tool", "developer"}


def _part_problems(part: Any) -> Iterator[str]:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str) or not part["type"]:
        yield f"a part without a type: {str(part)[:80]}"
        return
    kind = part["type"]
    if kind in _FOREIGN:
        yield f"a part of the foreign type {kind}"
    for key, wanted in _REQUIRED.get(kind, {}).items():
        if key not in part:
            yield f"a {kind} part without {key}"
        elif not isinstance(part[key], wanted):
            yield f"{key} of a {kind} part is {type(part[key]).__name__}"
    if kind in ("blob", "file", "uri") and part.get("modality") not in ("image", "audio", "video", "document"):
        yield f"modality {part.get('modality')!r}"
    if kind.startswith("tool_call") and not isinstance(part.get("id"), (str, type(None))):
        yield f"id of a {kind} part is {type(part['id']).__name__}"
    arguments = part.get("arguments")
    if kind == "tool_call" and isinstance(arguments, str):
        try:
            if isinstance(json.loads(arguments), (dict, list)):
                yield "tool call arguments are JSON inside a string"
        except ValueError:
            pass


def _message_problems(message: Any) -> Iterator[str]:
    if not isinstance(message, dict):
        yield f"a message that is {type(message).__name__}"
        return
    if message.get("role") not in _ROLES:
        yield f"role {message.get('role')!r}"
    if not isinstance(message.get("parts"), list):
        yield "a message without parts"
        return
    if not isinstance(message.get("name"), (str, type(None))):
        yield "name is not text"
    extra = message.keys() - {"role", "parts", "name", "finish_reason"}
    if extra:
        yield f"members {sorted(extra)}"
    for part in message["parts"]:
        yield from _part_problems(part)
    ids = [p["id"] for p in message["parts"] if isinstance(p, dict) and p.get("type") == "tool_call" and p.get("id")]
    if len(ids) != len(set(ids)):
        yield "one tool call twice in one message"


def _definition_problems(tool: Any) -> Iterator[str]:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str) or not isinstance(tool.get("name"), str):
        yield f"a tool definition without type and name: {str(tool)[:80]}"
        return
    for foreign in ("function", "inputSchema", "input_schema", "parametersJsonSchema", "json_schema"):
        if foreign in tool:
            yield f"a tool definition with {foreign}"
    if not isinstance(tool.get("parameters"), (dict, type(None))):
        yield "parameters are not an object"


def _document_problems(document: Any) -> Iterator[str]:
    if not isinstance(document, dict) or not document.keys() & {"id", "score", "content"}:
        yield f"no document: {str(document)[:80]}"


_CHECKS: dict[str, Callable[[Any], Iterable[str]]] = {
    "gen_ai.input.messages": _message_problems,
    "gen_ai.output.messages": _message_problems,
    "gen_ai.system_instructions": _part_problems,
    "gen_ai.tool.definitions": _definition_problems,
    "gen_ai.retrieval.documents": _document_problems,
}


def problems(key: str, form: str, value: str) -> list[str]:
    """What is wrong with one content value, [] for nothing. `key` is canonical or else not checked."""
    if key in ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"):
        return [] if form == "text" else [f"form {form}"]
    if key not in _CHECKS:
        return []
    if form != "item":
        return [f"form {form}"]
    try:
        parsed = json.loads(value)
    except ValueError:
        return ["not JSON"]
    return list(_CHECKS[key](parsed))
