"""The `[[content]]` rows of a dialect: which attributes, events and log bodies hold messages, tools and results."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ContentRow(BaseModel):
    """One place where a dialect keeps content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: str
    from_: list[str] = Field(alias="from")
    as_: str = Field(alias="as", default="")
    on: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return data | {k: [data[k]] for k in ("from", "on") if isinstance(data.get(k), str)}
        return data
