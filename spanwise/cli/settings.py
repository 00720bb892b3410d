"""`check` and `migrate`, and the configuration of the commands that run a server."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from spanwise.cli.client import CommandError
from spanwise.config import Config, ConfigError, load
from spanwise.store import Store, StoreConfigError, StoreError, prepare


def configured(file: Path | None, flags: Mapping[str, Any]) -> Config:
    """The configuration. Raises CommandError with a line for each problem."""
    try:
        return load(file, flags)
    except ConfigError as error:
        raise CommandError("the configuration is wrong\n  " + "\n  ".join(error.problems)) from None


def check(file: Path, out: TextIO) -> None:
    configured(file, {})
    out.write(f"{file}: the configuration is right\n")


def migrate(file: Path | None, flags: Mapping[str, Any], out: TextIO) -> None:
    config = configured(file, flags)
    try:
        # asked for by name, so whatever `store.migrate` says of a start
        with contextlib.closing(Store(config.store_config.model_copy(update={"migrate": True}))) as store:
            done = prepare(store)
            out.writelines(f"{each}\n" for each in done)
            out.write(f"the store in {store.place} has the schema of this program\n")
    except (StoreConfigError, StoreError) as error:
        raise CommandError(str(error)) from error
