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

from spanwise.cli.client import OTLP_DEFAULT, Client, CommandError, server_url
from spanwise.cli.show import clean, count
from spanwise.importing import TRACES_COUNTED_MAX, CountSpans, Importer, ImportStoppedError, Report, Sender

_IDS_A_QUERY: Final = 1000
_STORED_WAIT_S: Final = 60.0
_PENDING: Final = ("spanwise_journal_depth_requests", "spanwise_journal_open_ranges")


def import_files(
    files: Sequence[Path], endpoint: str, client: Client, *, logs: bool, strict: bool, restart: bool
) -> None:
    for file in files:
        _check(file)
    sender = Sender(server_url(endpoint, OTLP_DEFAULT), token=os.environ.get("SPANWISE_OTLP_TOKEN", ""))
    if trouble := sender.trouble():
        what, hint = trouble
        raise CommandError(what, hint or "start one with `spanwise up`, or say where with --endpoint")
    counting = _counting(client)
    importer = Importer(sender, counting, signal="logs" if logs else "traces", strict=strict, restart=restart)
    useless = 0
    for file in files:
        report = _import(importer, file)
        _tell(file, report, counting, client)
        useless += not report.accepted and not report.logs_accepted and bool(report.broken or report.rejections)
    if useless:
        raise CommandError(
            f"nothing could be taken from {useless} of {len(files)} files",
            "a file holds OTLP JSON, a request a line or one document, or protobuf requests; --logs if of log records",
        )


def _check(file: Path) -> None:
    if file.is_dir():
        raise CommandError(f"{file} is a directory", "name the files in it")
    if not file.exists():
        raise CommandError(f"{file}: there is no such file")
    if not file.is_file():
        raise CommandError(f"{file} is no regular file", "a file is read more than once: write it to disk first")


def _import(importer: Importer, file: Path) -> Report:
    try:
        with _progress(file) as progress:
            return importer.run(file, progress)
    except ImportStoppedError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror or error}") from error
    except KeyboardInterrupt:
        sys.stderr.write(f"stopped at {clean(file)}; the same command goes on there\n")
        raise


def _counting(client: Client) -> CountSpans | None:
    """None where the API cannot be asked; the import itself does not need it."""
    try:
        client.rows("SELECT 1")
        watched = client.metric(_PENDING[0]) is not None
    except CommandError as error:
        _not_told_apart(error.message)
        return None
    if not watched:
        _not_told_apart("the server's journal is in Kafka, and others may store what is sent")
        return None

    def count_spans(trace_ids: Sequence[str]) -> int | None:
        try:
            return _spans_of(client, trace_ids)
        except CommandError as error:
            _not_told_apart(error.message)
            return None

    return count_spans


def _not_told_apart(why: str) -> None:
    sys.stderr.write(f"new and repeated spans will not be told apart: {clean(why)}\n")


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


def _tell(file: Path, report: Report, count_spans: CountSpans | None, client: Client) -> None:
    parts = [f"{count(report.sent)} spans sent"]
    if report.resumed_at:
        parts[0] += f" (going on after byte {report.resumed_at:,})"
    if (new := _new(report, count_spans, client)) is None:
        parts.append(f"{count(report.accepted)} accepted")
    else:
        parts += [f"{count(new)} new", f"{count(report.accepted - new)} already there"]
    parts.append(f"{count(report.rejected)} rejected")
    if report.logs_accepted or report.logs_rejected:
        parts.append(f"{count(report.logs_accepted)} log records accepted")
    if report.logs_rejected:
        parts.append(f"{count(report.logs_rejected)} rejected")
    sys.stdout.write(f"{clean(file)}: {', '.join(parts)}\n")
    for reason, items in report.reasons.items():
        sys.stdout.write(f"  rejected {count(items)}: {clean(reason)}\n")
    if report.broken:
        sys.stdout.write(f"  left out {count(report.broken)}:\n")
        for line in report.listed:
            sys.stdout.write(f"    {clean(line)}\n")
        if report.broken > len(report.listed):
            sys.stdout.write(f"    and {count(report.broken - len(report.listed))} more\n")


def _new(report: Report, count_spans: CountSpans | None, client: Client) -> int | None:
    """How many of the accepted spans the server did not have, None if that is not known."""
    if report.many_traces:
        _not_told_apart(f"these are of more than {TRACES_COUNTED_MAX:,} traces")
    if count_spans is None or report.before is None:
        return None
    _wait_until_stored(client)
    after = count_spans(sorted(report.trace_ids))
    return None if after is None else max(0, min(report.accepted, after - report.before))


def _wait_until_stored(client: Client) -> None:
    """What is acknowledged is durable but may still be on its way into the tables."""
    deadline = time.monotonic() + _STORED_WAIT_S
    while time.monotonic() < deadline:
        try:
            if not any(map(client.metric, _PENDING)):
                return
        except CommandError:
            return  # whoever asks next says so
        time.sleep(0.1)
    sys.stderr.write("the server is still storing; spans that come later are counted as already there\n")
