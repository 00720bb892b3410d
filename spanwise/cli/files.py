"""`import`: send files and say what became of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from spanwise.cli.client import Client, CommandError
from spanwise.cli.show import clean, count
from spanwise.importing import Importer, ImportStoppedError, Report, Sender

_IDS_A_QUERY: Final = 1000
_STORED_WAIT_S: Final = 60.0


def import_files(
    files: Sequence[Path], endpoint: str, client: Client, *, logs: bool, strict: bool, restart: bool
) -> None:
    for file in files:
        if not file.is_file():
            raise CommandError(f"{file}: there is no such file")
    sender = Sender(endpoint, token=os.environ.get("SPANWISE_OTLP_TOKEN", ""))
    if not sender.reachable():
        raise CommandError(
            f"no Spanwise server answers at {endpoint}", "start one with `spanwise up`, or say where with --endpoint"
        )
    counting = _counting(client)
    importer = Importer(sender, counting, signal="logs" if logs else "traces", strict=strict, restart=restart)
    useless = 0
    for file in files:
        with _progress(file) as progress:
            try:
                report = importer.run(file, progress)
            except ImportStoppedError as error:
                raise CommandError(str(error)) from None
            except OSError as error:
                raise CommandError(f"{file}: cannot be read: {error.strerror or error}") from error
        _tell(file, report, client)
        useless += not report.accepted and not report.logs_accepted and bool(report.broken or report.rejected)
    if useless:
        raise CommandError(f"nothing could be taken from {useless} of {len(files)} files")


def _counting(client: Client) -> Callable[[Sequence[str]], int] | None:
    """None where the API cannot be asked; the import itself does not need it."""
    try:
        client.rows("SELECT 1")
    except CommandError as error:
        sys.stderr.write(f"new and repeated spans will not be told apart: {error.message}\n")
        return None
    return lambda trace_ids: _spans_of(client, trace_ids)


def _spans_of(client: Client, trace_ids: Sequence[str]) -> int:
    """Distinct spans of these traces. Ids were checked to be hex digits."""
    found = 0
    for start in range(0, len(trace_ids), _IDS_A_QUERY):
        ids = ", ".join(f"'{trace_id}'" for trace_id in trace_ids[start : start + _IDS_A_QUERY])
        rows = client.rows(f"SELECT uniqExact(trace_id, span_id) AS spans FROM spans WHERE trace_id IN ({ids})")  # noqa: S608
        found += int(rows[0]["spans"])
    return found


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        packed = file.suffix in (".gz", ".zst", ".zstd")
        task = bar.add_task(clean(file.name), total=None if packed else file.stat().st_size)
        yield lambda done: bar.update(task, completed=done)


def _tell(file: Path, report: Report, client: Client) -> None:
    parts = [f"{count(report.sent)} spans sent"]
    if report.resumed_at:
        parts[0] += f" (going on after byte {report.resumed_at:,})"
    if report.before is not None:
        _wait_until_stored(client)
        new = max(0, min(report.accepted, _spans_of(client, sorted(report.trace_ids)) - report.before))
        parts += [f"{count(new)} new", f"{count(report.accepted - new)} already there"]
    else:
        parts.append(f"{count(report.accepted)} accepted")
    parts.append(f"{count(report.rejected)} rejected")
    if report.logs_accepted:
        parts.append(f"{count(report.logs_accepted)} log records accepted")
    sys.stdout.write(f"{file}: {', '.join(parts)}\n")
    for reason, spans in report.reasons.items():
        sys.stdout.write(f"  rejected {count(spans)}: {clean(reason)}\n")
    if report.broken:
        sys.stdout.write(f"  left out {count(report.broken)}:\n")
        for line in report.listed:
            sys.stdout.write(f"    {clean(line)}\n")
        if report.broken > len(report.listed):
            sys.stdout.write(f"    and {count(report.broken - len(report.listed))} more\n")


def _wait_until_stored(client: Client) -> None:
    """What is acknowledged is durable but may still be on its way into the tables."""
    deadline = time.monotonic() + _STORED_WAIT_S
    while time.monotonic() < deadline:
        if not any(map(client.metric, ("spanwise_journal_depth_requests", "spanwise_journal_open_ranges"))):
            return
        time.sleep(0.1)
    sys.stderr.write("the server is still storing; spans that come later are counted as already there\n")
