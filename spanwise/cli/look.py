"""`traces`, `trace`, `sql` and `schema`: ask, then show."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final, TextIO

import orjson

from spanwise.cli import show
from spanwise.cli.client import Client, CommandError
from spanwise.model import TABLES, Table
from spanwise.store.ddl import create_table
from spanwise.store.users import schema_statements, users_sql

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TABLE_ROWS_MAX: Final = 10_000
_WATCH_EVERY_S: Final = 1.0
_WATCH_ROWS_MAX: Final = 500


def since(age: str) -> float:
    """Seconds since the epoch of "so long ago"."""
    moment = ago(age)
    if moment is None:
        raise CommandError(f"--since {age}: is not an age", "write it like 15m, 2h or 7d")
    return moment


def ago(age: str) -> float | None:
    """The same, None if the text is no age. What was before the epoch is as long ago as the epoch."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", age.strip())
    return max(0.0, time.time() - int(match[1]) * _UNITS[match[2]]) if match else None


def traces(client: Client, filters: Mapping[str, Any], out: TextIO, *, as_json: bool) -> None:
    found = client.get("/api/v1/traces", "traces", filters)["traces"]
    if as_json:
        _write_json(found, out)
    elif found:
        show.write_table(
            out,
            show.TRACE_COLUMNS,
            map(show.trace_row, found),
            right=show.TRACE_NUMBERS,
            expendable=show.TRACE_EXPENDABLE,
            short=show.TRACE_SHORT,
        )
    elif any(value is not None for name, value in filters.items() if name != "limit"):
        sys.stderr.write("no trace is like that; `spanwise traces` without options lists the newest\n")
    else:
        sys.stderr.write("no traces yet; send some to the server's OTLP port, or run `spanwise demo`\n")


def trace(client: Client, trace_id: str, out: TextIO, *, spans_max: int, as_json: bool) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{1,32}", trace_id):
        raise CommandError("a trace id is up to 32 hex digits", "`spanwise traces` lists them")
    found = client.get(f"/api/v1/traces/{trace_id}", "trace")
    if as_json:
        _write_json(found, out)
        return
    console = show.Pipe(file=out, soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(show.trace_heading(found["trace"]))
    for finding in found["findings"]:
        console.print(show.trace_finding(finding))
    marks = show.found_in(found["findings"])
    for index, (guide, span, orphan) in enumerate(show.trace_tree(found["spans"])):
        if index == spans_max:
            console.print(f"… and {len(found['spans']) - spans_max} more spans (--max-spans)")
            break
        console.print(show.span_line(guide, span, orphan=orphan, found=marks.get(span["span_id"], ())))


def failures(client: Client, filters: Mapping[str, Any], out: TextIO, *, as_json: bool) -> None:
    found = _findings(client, filters)
    if as_json:
        _write_json(found, out)
    else:
        _write_findings(found, out)


def _write_findings(found: Sequence[show.Row], out: TextIO) -> None:
    if found:
        show.write_table(
            out,
            show.FINDING_COLUMNS,
            map(show.finding_row, found),
            right=show.FINDING_NUMBERS,
            expendable=show.FINDING_EXPENDABLE,
            short=show.FINDING_SHORT,
        )
    else:
        sys.stderr.write("no failures found; `--severity info` shows what is only worth knowing\n")


def _findings(client: Client, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/api/v1/findings", "findings", filters)["findings"]
    return found


def watch_failures(
    client: Client,
    filters: Mapping[str, Any],
    out: TextIO,
    *,
    as_json: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Print what there is, then findings as they come, and again when they grow, until the process is interrupted.

    As JSON it is a finding a line. A server that goes away is waited for.
    """
    limit = filters["limit"]
    wanted = {**filters, "limit": max(limit, _WATCH_ROWS_MAX)}
    found = _findings(client, wanted)
    if as_json:
        out.writelines(map(_json_line, reversed(found[:limit])))
    else:
        _write_findings(found[:limit], out)
    away = False
    while True:
        out.flush()
        seen = {row["finding_id"]: row["count"] for row in found}
        sleep(_WATCH_EVERY_S)
        try:
            found = _findings(client, wanted)
        except CommandError as error:
            if error.status not in (0, 503):
                raise
            if not away:
                sys.stderr.write(f"{show.clean(error.message)}; waiting for it\n")
            away = True
            continue
        away = False
        new = [row for row in reversed(found) if seen.get(row["finding_id"], 0) < row["count"]]
        out.writelines(_json_line(row) if as_json else f"{show.finding_line(row)}\n" for row in new)


def standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise CommandError("standard input is not UTF-8 text") from None


def sql(client: Client, statement: str, format_: str, output: Path | None, out: TextIO) -> None:
    if output is None and format_ == "parquet" and out.isatty():
        raise CommandError("parquet is not for a terminal", "write it to a file with --output FILE")
    if output is not None and output.is_dir():
        raise CommandError(f"{output} is a directory", "give --output the name of a file")
    pieces = client.sql(statement, format_)
    if output is not None:
        _write_file(output, pieces, format_, client)
    elif format_ == "table":
        _write_rows(pieces, out)
    elif out.isatty():
        for line in _lines(pieces):
            out.write(show.clean(line.decode("utf-8", "replace")) + "\n")
    else:
        for piece in pieces:
            out.buffer.write(piece)
        out.flush()


def _write_file(output: Path, pieces: Iterator[bytes], format_: str, client: Client) -> None:
    """Under another name until it is whole, so that a failed query leaves no half file."""
    partial = output.with_name(f"{output.name}.part")
    try:
        if format_ == "table":
            with partial.open("w", encoding="utf-8") as text:
                _write_rows(pieces, text)
        else:
            with partial.open("wb") as file:
                file.writelines(pieces)
        partial.replace(output)
    except OSError as error:
        raise CommandError(
            f"cannot write {output}: {error.strerror}", f"the query was answered by {client.url}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _write_rows(pieces: Iterator[bytes], out: IO[str]) -> None:
    """The `table` format of the API: lines of JSON with the names, the types, then each row."""
    lines = _lines(pieces)
    names, types = (json.loads(next(lines, b"[]")) for _ in range(2))
    rows: list[list[str]] = []
    more = False
    for line in lines:
        if len(rows) == _TABLE_ROWS_MAX:
            more = True
            break
        rows.append([show.cell(value) for value in json.loads(line, parse_float=Decimal)])
    numbers = [
        name for name, type_ in zip(names, types, strict=True) if re.match(r"(Nullable\()?(U?Int|Float|Dec)", type_)
    ]
    show.write_table(out, list(map(show.clean, names)), rows, right=numbers)
    if more:
        sys.stderr.write(f"stopped after {_TABLE_ROWS_MAX} rows; use --format jsonl, csv or parquet for more\n")


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def schema(table: str, out: TextIO, *, ddl: bool) -> None:
    known = {known.name: known for known in TABLES}
    if table and table not in known:
        raise CommandError(f"there is no table {table}", f"the tables are {', '.join(known)}")
    chosen = [known[table]] if table else list(TABLES)
    if ddl:
        out.write("\n".join(map(create_table, chosen)))
    elif table:
        _write_columns(known[table], out)
    else:
        show.write_table(out, ("table", "one row is"), [(each.name, each.doc) for each in chosen])


def cluster_schema(database: str, cluster: str, out: TextIO) -> None:
    _check_names(database, cluster)
    out.writelines(f"{statement};\n\n" for statement in schema_statements(database, cluster))


def users(database: str, cluster: str, tenants: Sequence[str], out: TextIO) -> None:
    _check_names(database, cluster)
    out.write(users_sql(database, cluster, tenants))


def _check_names(database: str, cluster: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", database, re.ASCII):
        raise CommandError(f"{database!r} is no name of a database", "letters, digits and _ make one")
    if not re.fullmatch(r"[\w{}-]*", cluster, re.ASCII):
        raise CommandError(f"{cluster!r} is no name of a cluster", "it stands in remote_servers of the server")


def _write_columns(table: Table, out: TextIO) -> None:
    out.write(f"{table.doc}\n\n")
    show.write_table(
        out, ("column", "type", "meaning"), [(column.name, column.type, column.doc) for column in table.columns]
    )


def _write_json(value: object, out: TextIO) -> None:
    out.write(_json(value, orjson.OPT_INDENT_2))


def _json_line(row: object) -> str:
    return _json(row)


def _json(value: object, option: int = 0) -> str:
    """JSON without the control characters that it leaves as they are, and with exact numbers."""
    text = orjson.dumps(value, default=_exact, option=option | orjson.OPT_APPEND_NEWLINE).decode()
    return show.escape_json(text)


def _exact(value: object) -> object:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"cannot show a {type(value).__name__} as JSON")
