"""The `[[content]]` rows of a dialect: which attributes, events and log bodies hold messages, tools and results."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Target = Literal[
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.retrieval.documents",
    "input",
    "output",
]
Shape = Literal["", "strict", "choices", "assemble", "object", "schema", "drop"]


class ContentRow(BaseModel):
    """One place where a dialect keeps content. `docs/messages.md` explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Target
    """Canonical attribute that the row fills unless an earlier row did; `input` and `output` are previews only."""
    from_: list[str] = Field(alias="from", min_length=1)
    """`key`, `key#member.member`, `prefix.*`, `event:name`, `event:name/key`, `body`, `body#member`."""
    as_: Shape = Field(alias="as", default="")
    """How to read it, '' by the target."""
    on: list[str] = []
    """Kinds of span the row is for, empty for all; `!kind` for all but these."""
    absent: list[str] = []
    """Texts that this producer writes where nothing was captured."""
    name: str = ""
    """Attribute with the name of the tool, for `schema`."""

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return data | {k: [data[k]] for k in ("from", "on", "absent") if isinstance(data.get(k), str)}
        return data
