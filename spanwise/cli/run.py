"""`up`, `demo` and `check`: the commands that build a configuration."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.panel import Panel

from receiver.config import Address
from spanwise import demo as traffic
from spanwise import pipeline
from spanwise.cli.client import CommandError
from spanwise.config import Config, ConfigError, load
from spanwise.store import StoreConfigError, StoreError
from spanwise.telemetry import configure_logging, version


class Started(Protocol):
    """The real addresses of a server that has begun to listen."""

    @property
    def grpc(self) -> Address: ...
    @property
    def http(self) -> Address: ...
    @property
    def web(self) -> Address: ...


def up(file: Path | None, flags: Mapping[str, Any]) -> None:
    config = _config(file, flags)
    _run(config, pipeline.serve(config, announce=_announcer(config)))  # type: ignore[attr-defined]


def demo(file: Path | None, flags: Mapping[str, Any], *, once: bool) -> None:
    config = _config(file, flags)
    _run(config, traffic.run(config, once=once, announce=_announcer(config)))  # type: ignore[attr-defined]


def check(file: Path) -> None:
    _config(file, {})
    sys.stdout.write(f"{file}: the configuration is right\n")


def _config(file: Path | None, flags: Mapping[str, Any]) -> Config:
    try:
        return load(file, flags)
    except ConfigError as error:
        raise CommandError("the configuration is wrong\n  " + "\n  ".join(error.problems)) from None


def _run(config: Config, work: Coroutine[Any, Any, None]) -> None:
    configure_logging(config.telemetry)
    try:
        asyncio.run(work)
    except (StoreConfigError, StoreError) as error:
        raise CommandError(f"cannot open the store: {error}") from error
    except OSError as error:
        raise CommandError(f"cannot start: {error.strerror or error}") from error


def _announcer(config: Config) -> Callable[[Started], None]:
    """Shows where the server listens: a panel on a terminal, else plain lines that a script can read."""

    def announce(started: Started) -> None:
        lines = (
            f"OTLP gRPC   {started.grpc}",
            f"OTLP HTTP   http://{started.http}",
            f"API         http://{started.web}",
            f"data        {config.data_dir}",
            "",
            "send        OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
            f"            OTEL_EXPORTER_OTLP_ENDPOINT=http://{started.http}",
            f"look        spanwise traces --web http://{started.web}",
            "stop        Ctrl-C",
        )
        out = Console(file=sys.stdout, highlight=False, markup=False)
        if out.is_terminal:
            out.print(Panel("\n".join(lines), title=f"Spanwise {version()}", expand=False))
        else:
            sys.stdout.write("\n".join([f"Spanwise {version()}", *filter(None, lines), ""]))
            sys.stdout.flush()

    return announce
