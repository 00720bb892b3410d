"""Signatures of your own: a class named in the configuration, with the contract of `signature.Signature`."""

from __future__ import annotations

import importlib
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from processors.detect.signature import Signature

_MEMBERS: Final = ("name", "kinds", "version", "candidates", "find")


class PythonSignatureConfig(BaseModel):
    """A signature written in Python, looked up when the program starts."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["python"] = Field("python", description="How it is written.")
    path: str = Field(description="Where it is: `package.module:Class`, importable by the program.")
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the class.")

    @model_validator(mode="after")
    def _can_be_built(self) -> PythonSignatureConfig:
        self.build()
        return self

    def build(self) -> Signature:
        """Raises ValueError, saying what is wrong with the class, if it is no signature."""
        module_name, colon, class_name = self.path.partition(":")
        if not colon or not module_name or not class_name:
            raise ValueError(f"{self.path!r} is not written like package.module:Class")
        try:
            made = getattr(importlib.import_module(module_name), class_name)(**self.options)
        except Exception as error:  # whatever a user's module raises, it is this option that is wrong
            raise ValueError(f"{self.path} cannot be built: {type(error).__name__}: {error}") from error
        missing = [member for member in _MEMBERS if not hasattr(made, member)]
        if missing:
            raise ValueError(f"{self.path} is no signature: it has no {', '.join(missing)}")
        signature: Signature = made
        return signature
