"""`check`, and the configuration of the commands that run a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from spanwise.cli.client import CommandError
from spanwise.config import Config, ConfigError, load


def configured(file: Path | None, flags: Mapping[str, Any]) -> Config:
    """The configuration. Raises CommandError with a line for each problem."""
    try:
        return load(file, flags)
    except ConfigError as error:
        raise CommandError("the configuration is wrong\n  " + "\n  ".join(error.problems)) from None


def check(file: Path, out: TextIO) -> None:
    configured(file, {})
    out.write(f"{file}: the configuration is right\n")
