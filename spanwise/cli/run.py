"""`up` and `demo`: the commands that run a server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel

from spanwise.cli.client import CommandError
from spanwise.cli.settings import configured
from spanwise.config import Config
from spanwise.demo import run as play
from spanwise.server import Role, Started, StartError, serve
from spanwise.telemetry import configure_logging, version


def up(file: Path | None, flags: Mapping[str, Any], role: Role = Role.BOTH) -> None:
    config = configured(file, flags)
    _run(config, serve(config, announce=_announce, role=role))


def receive(file: Path | None, flags: Mapping[str, Any]) -> None:
    up(file, flags, Role.RECEIVE)


def work(file: Path | None, flags: Mapping[str, Any]) -> None:
    up(file, flags, Role.WORK)


def demo(file: Path | None, flags: Mapping[str, Any], *, once: bool) -> None:
    config = configured(file, flags)
    _run(config, play(config, once=once, announce=_announce))


def _run(config: Config, work: Coroutine[Any, Any, None]) -> None:
    configure_logging(config.telemetry)
    try:
        asyncio.run(work)
    except StartError as error:
        raise CommandError(str(error)) from error


def _announce(started: Started) -> None:
    """Show where the server listens: a panel on a terminal, else plain lines that a script can read."""
    receives = (f"OTLP gRPC   {started.grpc}", f"OTLP HTTP   http://{started.http}") if started.http else ()
    stores = (f"store       {started.store}",) if started.store else ()
    send = (
        "send        OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
        f"            OTEL_EXPORTER_OTLP_ENDPOINT=http://{started.http}",
    )
    lines = (
        *receives,
        f"API         http://{started.web}",
        *((f"ClickHouse  http://{started.clickhouse}",) if started.clickhouse else ()),
        f"data        {started.data_dir}",
        *stores,
        "",
        *(send if started.http else ()),
        *((f"look        spanwise traces --web http://{started.web}",) if started.store else ()),
        "stop        Ctrl-C",
    )
    out = Console(file=sys.stdout, highlight=False, markup=False)
    if out.is_terminal:
        out.print(Panel("\n".join(lines), title=f"Spanwise {version()}", expand=False))
    else:
        sys.stdout.write("\n".join([f"Spanwise {version()}", *filter(None, lines), ""]))
        sys.stdout.flush()
