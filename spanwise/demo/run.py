"""Start the server, send the traffic, wait until it is stored, say what is there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from spanwise.config import Config
from spanwise.demo import traffic
from spanwise.server import Started, StartError, running, stopped

WEB_DEFAULT = "http://127.0.0.1:8080"
_SETTLE_S = 30.0


async def run(config: Config, *, once: bool, announce: Callable[[Started], None]) -> None:
    """Play the demo against a server of its own; with `once` return after the summary, else serve until stopped.

    Raises StartError if the server cannot start or does not show what it acknowledged within 30 s.
    """
    console = Console(highlight=False)
    async with running(config) as started, aiohttp.ClientSession(f"http://{started.web}") as session:
        announce(started)
        since = f"{time.time():.3f}"
        sent = await _send(console, started)
        totals = await _settled(_Sql(session, since), sent)
        await _show(console, _Sql(session, since), totals, f"http://{started.web}")
        if not once:
            console.print("Serving until Ctrl-C.")
            await stopped()


class _Sql:
    """The demo's queries, asked the way any other program asks: through the HTTP API."""

    def __init__(self, session: aiohttp.ClientSession, since: str) -> None:
        self._session = session
        self._since = since

    async def rows(self, name: str) -> list[dict[str, Any]]:
        text = resources.files("spanwise.demo").joinpath("sql", f"{name}.sql").read_text()
        parameters = {"format": "jsonl", "param_since": self._since}
        async with self._session.post("/api/v1/sql", params=parameters, data=text.encode()) as answer:
            body = await answer.text()
            if answer.status != 200:
                raise StartError(f"cannot read the demo's {name} back: {body}")
        return [json.loads(line) for line in body.splitlines()]


async def _send(console: Console, started: Started) -> traffic.Sent:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("traces"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("sending agent traffic")

        def show(played: int, total: int) -> None:
            progress.update(task, completed=played, total=total)

        return await asyncio.to_thread(
            traffic.send,
            grpc_endpoint=started.grpc,
            http_endpoint=f"http://{started.http}",
            now_unix_nano=time.time_ns(),
            progress=show,
        )


async def _settled(sql: _Sql, sent: traffic.Sent) -> dict[str, Any]:
    """The totals once every span is queryable and two readings agree: usage is reconciled shortly after arrival."""
    deadline = time.monotonic() + _SETTLE_S
    last: dict[str, Any] = {}
    while time.monotonic() < deadline:
        totals = (await sql.rows("totals"))[0]
        if totals["spans"] == sent.spans and totals == last:
            return totals
        last = totals
        await asyncio.sleep(1.5)
    raise StartError(f"{sent.spans} spans were acknowledged, but only {last.get('spans', 0)} are there after 30 s")


async def _show(console: Console, sql: _Sql, totals: dict[str, Any], web: str) -> None:
    console.print()
    console.print(
        f"[bold]{totals['spans']} spans[/bold] of {totals['traces']} traces from {totals['services']} services: "
        f"{totals['model_calls']} model calls, {totals['tool_calls']} tool calls, "
        f"{totals['input_tokens']:,} input and {totals['output_tokens']:,} output tokens, "
        f"[bold]${totals['cost_usd']:.4f}[/bold]"
    )
    console.print(_table("What it cost", await sql.rows("agents")))
    failures = [row | {"trace_id": row["trace_id"][:8]} for row in await sql.rows("failures")]
    evidence = [row.pop("evidence") for row in failures]
    console.print(_table("What failed, although every run answered", failures))
    for row, text in zip(failures, evidence, strict=True):
        console.print(Text(f"  {row['trace_id']}  {text}"), soft_wrap=True)
    console.print("\nLook further, from another terminal:")
    where = "" if web == WEB_DEFAULT else f" --web {web}"
    query = "SELECT name, error_type FROM spans FINAL WHERE status = 'error'"
    commands = ["failures", *(f"trace {row['trace_id']}" for row in failures[:1]), "traces", f'sql "{query}"']
    for command in commands:
        console.print(f"  {_program()} {command}{where}", soft_wrap=True)


def _program() -> str:
    """How this program was called, so that the commands shown can be pasted."""
    path = Path(sys.argv[0])
    if path.name != "spanwise":
        return "python -m spanwise"
    on_path = shutil.which("spanwise")
    return "spanwise" if on_path and Path(on_path).resolve() == path.resolve() else os.path.relpath(path)


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name in rows[0] if rows else ():
        number = isinstance(rows[0][name], int | float)
        table.add_column(name.replace("_", " "), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
