"""`export`: write what is chosen and say how it goes."""

from __future__ import annotations

import datetime as dt
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from spanwise.cli.client import Client, CommandError
from spanwise.cli.look import ago
from spanwise.cli.show import clean, count
from spanwise.exporting import NS_MAX, Exporter, ExportError, ExportReport, Selection, begin

_BUSY: Final = 503
_PATIENCE_S: Final = 120.0


def export(
    client: Client, asked: dict[str, Any], format_: str, output: str, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """`asked` holds the options as they were given; None and '' are left out."""
    asked = {name: value for name, value in asked.items() if value}
    if "trace" in asked:
        asked["trace"] = _trace_id(asked["trace"])
    try:
        chosen = selection(asked)
        with _progress() as progress:
            if output == "-":
                exporter = Exporter(_patient(client, sleep), chosen, progress)
                report = _to_standard_output(exporter, format_)
            else:
                chosen = begin(Path(output), format_, asked, chosen)
                exporter = Exporter(_patient(client, sleep), chosen, progress)
                report = exporter.parquet(Path(output)) if format_ == "parquet" else exporter.otlp(Path(output))
    except ExportError as error:
        raise CommandError(str(error)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"cannot write {error.filename or output}: {error.strerror or error}") from error
    except KeyboardInterrupt:
        if output != "-":
            sys.stderr.write(f"stopped; the same command goes on with what is missing in {clean(output)}\n")
        raise
    _tell(report, output)


def _to_standard_output(exporter: Exporter, format_: str) -> ExportReport:
    if format_ == "parquet":
        raise ExportError("parquet is several files: choose a directory with --output DIR")
    return exporter.otlp_stream(sys.stdout.buffer)


def selection(asked: dict[str, Any]) -> Selection:
    chosen: dict[str, Any] = {
        name: asked[name] for name in ("tenant", "trace", "service", "agent", "failed") if name in asked
    }
    chosen |= {
        name: _moment_ns(given, asked[given])
        for name, given in (("start_ns", "from"), ("end_ns", "to"))
        if given in asked
    }
    selection = Selection(**chosen)
    if selection.end_ns <= selection.start_ns:
        raise CommandError("--to is not after --from", "nothing lies between them")
    return selection


def _trace_id(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{32}", text):
        raise CommandError(f"--trace {text}: is not a trace id of 32 hex digits", "`spanwise traces` lists them")
    return text.lower()


def _moment_ns(option: str, text: str) -> int:
    """Nanoseconds since the epoch of an age like 7d, or of an ISO 8601 date or time; UTC where it names no zone."""
    if (seconds := ago(text)) is not None:
        return int(seconds * 10**9)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"--{option} {text}: is not a time", "write 2026-11-21, 2026-11-21T08:30, or an age like 7d"
        ) from None
    since_epoch = (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return min(max(0, since_epoch // dt.timedelta(microseconds=1) * 1000), NS_MAX)


def _patient(client: Client, sleep: Callable[[float], None]) -> Callable[[str, str], Iterable[bytes]]:
    """Asks again for a while where the server has too much to read: an export is never in a hurry."""

    def ask(statement: str, format_: str) -> list[bytes]:
        waited = 0.0
        while True:
            try:
                return list(client.sql(statement, format_))
            except CommandError as error:
                if error.status != _BUSY or waited >= _PATIENCE_S:
                    raise
            sleep(1.0)
            waited += 1.0

    return ask


@contextmanager
def _progress() -> Iterator[Callable[[str, str, int], None]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda *_: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    written = 0

    def advance(table: str, day: str, rows: int) -> None:
        nonlocal written
        written += rows
        bar.update(task, description=f"{table} of {day}: {count(written)} rows so far")

    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("looking what there is", total=None)
        yield advance


def _tell(report: ExportReport, output: str) -> None:
    parts = [f"{count(rows)} {table}" for table, rows in report.rows.items()] or ["nothing"]
    where = "" if output == "-" else f" into {count(len(report.files))} files of {output}"
    sys.stderr.write(f"wrote {', '.join(parts)}{where}\n")
    if report.there:
        sys.stderr.write(f"left {count(report.there)} files as they were: an earlier run had finished them\n")
    if report.values_missing:
        sys.stderr.write(
            f"{count(report.values_missing)} big values are not stored any more: their first 200 characters stand for "
            "them\n"
        )
