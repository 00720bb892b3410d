"""How rows, amounts and traces look to a person. Everything here is text in, text out.

Span names and attributes come from outside and may hold terminal control sequences: whatever is shown passes `clean`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import IO, Any, Final

import orjson
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_JSON_LEAVES: Final = re.compile(r"[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CELL_MAX: Final = 200
_GAP: Final = 2
_ID_SHOWN: Final = 8  # as many as `spanwise trace` needs to find one

Row = Mapping[str, Any]


class Pipe(Console):
    """Leaves it to the command what it means when nobody reads on; rich would end the program with an error."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def clean(value: object) -> str:
    """One line without control characters or direction overrides: what arrives in spans must not drive a terminal."""
    return _CONTROL.sub("�", str(value).replace("\n", "⏎").replace("\t", " "))


def escape_json(text: str) -> str:
    """The same JSON; what `clean` removes from text is written as an escape."""
    return _JSON_LEAVES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cell(value: object) -> str:
    """A value of any column as one table cell, NULL as an empty one."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, (list, dict)):
        value = orjson.dumps(value, default=str).decode()
    text = clean(value)
    return text if len(text) <= _CELL_MAX else f"{text[:_CELL_MAX]}…"


def duration(nanoseconds: int) -> str:
    seconds = nanoseconds / 1e9
    if seconds >= 60:
        return f"{int(seconds // 60)} m {int(seconds % 60):02d} s"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 0.001:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds * 1e6:.0f} µs"


def count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def cost(value: Decimal | float | None) -> str:
    """USD; small amounts keep three significant digits."""
    if value is None:
        return ""
    amount = Decimal(str(value))
    if amount and amount < 1:
        digits = min(9, 2 - amount.adjusted())
        return f"${amount:.{max(digits, 2)}f}"
    return f"${amount:,.2f}"


def moment(text: str) -> str:
    """An ISO time of the API as local date and time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return clean(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def write_table(
    out: IO[str],
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Iterable[str] = (),
    expendable: Sequence[str] = (),
    short: Mapping[str, Callable[[str], str]] = MappingProxyType({}),
) -> None:
    """Aligned columns: drawn to fit a terminal, else plain and never cut.

    For a terminal the cells of `short` columns are shortened, and columns are left out, the first of `expendable`
    first, until lines fit; a line below names those. What still does not fit is folded.
    """
    numbers = set(right)
    if out.isatty():
        _draw_table(Pipe(file=out), names, list(rows), numbers, expendable, short)
        return
    lines = [list(names), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    for line in lines:
        cells = (
            text.rjust(width) if name in numbers else text.ljust(width)
            for name, text, width in zip(names, line, widths, strict=True)
        )
        out.write("  ".join(cells).rstrip() + "\n")


def _draw_table(
    console: Console,
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: set[str],
    expendable: Sequence[str],
    short: Mapping[str, Callable[[str], str]],
) -> None:
    columns = {name: [short.get(name, str)(row[index]) for row in rows] for index, name in enumerate(names)}
    widths = {name: max(map(cell_len, (name, *cells))) + _GAP for name, cells in columns.items()}
    left_out = []
    for name in expendable:
        if sum(widths.values()) - _GAP <= console.width:
            break
        del widths[name]
        left_out.append(name)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for name in widths:
        table.add_column(Text(name), justify="right" if name in numbers else "left", overflow="fold")
    for index in range(len(rows)):
        table.add_row(*(Text(columns[name][index]) for name in widths))
    console.print(table)
    if left_out:
        console.print(Text(f"not shown, for want of width: {', '.join(left_out)}", style="dim"))


def _short_moment(text: str) -> str:
    return text.partition("-")[2]  # without the year


def _short_id(text: str) -> str:
    return text[:_ID_SHOWN]


TRACE_COLUMNS: Final = (
    "time", "trace", "root", "severity", "findings", "services", "agents", "spans", "llm", "tools", "errors", "tokens",
    "cost", "duration",
)  # fmt: skip
TRACE_EXPENDABLE: Final = ("services", "llm", "tools", "spans", "errors", "agents", "findings", "tokens", "cost")
TRACE_SHORT: Final = {"time": _short_moment, "trace": _short_id}
TRACE_NUMBERS: Final = ("spans", "llm", "tools", "errors", "tokens", "cost", "duration")


def trace_row(row: Row) -> list[str]:
    return [
        moment(row["start_time"]),
        clean(row["trace_id"]),
        cell(row["root_name"]),
        clean(row["finding_severity"]),
        ", ".join(map(clean, row["findings"])),
        ", ".join(map(clean, row["services"])),
        ", ".join(map(clean, row["agents"])),
        count(row["span_count"]),
        count(row["llm_calls"]),
        count(row["tool_calls"]),
        count(row["error_count"]),
        count(row["input_tokens"] + row["output_tokens"]),
        cost(row["cost_usd"]) + ("+" if row["unpriced_calls"] else ""),
        duration(row["duration_ns"]),
    ]


def trace_tree(spans: Sequence[Row]) -> Iterator[tuple[str, Row, bool]]:
    """(guide, span, orphan) of every span, parents before children and siblings by start.

    A span whose parent has not arrived stands at the top as an orphan; so does one of a ring of parents. Each span
    comes exactly once, whatever the ids say.
    """
    spans = sorted(spans, key=lambda span: (span["start_time"], span["span_id"]))
    known = {span["span_id"] for span in spans}
    children: dict[str, list[Row]] = defaultdict(list)
    tops = []
    for span in spans:
        if span["parent_span_id"] in known and span["parent_span_id"] != span["span_id"]:
            children[span["parent_span_id"]].append(span)
        else:
            tops.append(span)
    seen: set[str] = set()
    for top in [*tops, *spans]:
        stack = [("", "", top)]
        while stack:
            guide, below, span = stack.pop()
            if span["span_id"] in seen:
                continue
            seen.add(span["span_id"])
            yield guide, span, not guide and span["parent_span_id"] != ""
            mine = [child for child in children[span["span_id"]] if child["span_id"] not in seen]
            for index in range(len(mine) - 1, -1, -1):
                last = index == len(mine) - 1
                stack.append((below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "), mine[index]))


def found_in(findings: Iterable[Row]) -> dict[str, list[str]]:
    """What was found in each span, by span id."""
    found: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        for span_id in finding["span_ids"]:
            if _name(finding) not in found[span_id]:
                found[span_id].append(_name(finding))
    return found


def span_line(guide: str, span: Row, *, orphan: bool, found: Sequence[str] = ()) -> Text:
    """One line of a trace: what it is, how long, how much, in red what went wrong, and the findings it is part of."""
    line = Text(guide, style="dim", no_wrap=True)
    failed = span["status"] == "error" or span["error_type"] or span["tool_status"] == "error"
    line.append(clean(span["name"]), style="bold red" if failed else "bold")
    if span["kind"]:
        line.append(f"  {clean(span['kind'])}", style="cyan")
    for name in (span["response_model"] or span["request_model"], span["tool_name"]):
        if name and name not in span["name"]:
            line.append(f"  {clean(name)}")
    line.append(f"  {duration(span['duration_ns'])}", style="dim")
    if span["input_tokens"] is not None or span["output_tokens"] is not None:
        repeated = "" if span["usage_scope"] == "own" else f" ({clean(span['usage_scope'])})"
        line.append(f"  {count(span['input_tokens']) or '?'} → {count(span['output_tokens']) or '?'} tokens{repeated}")
    if span["cost_usd"] is not None and span["usage_scope"] == "own":
        line.append(f"  {cost(span['cost_usd'])}", style="green")
    if failed:
        why = span["error_type"] or span["status_message"] or "error"
        line.append(f"  {cell(why)}", style="red")
    if orphan:
        line.append("  (its parent has not arrived)", style="yellow")
    if found:
        line.append(f"  ◄ {', '.join(found)}", style="yellow")
    return line


FINDING_COLUMNS: Final = (
    "found", "severity", "what", "service", "agent", "tool", "model", "count", "wasted", "cost", "trace",
)  # fmt: skip
FINDING_EXPENDABLE: Final = ("cost", "wasted", "model", "agent", "count", "tool", "service")
FINDING_SHORT: Final = {"found": _short_moment, "trace": _short_id}
FINDING_NUMBERS: Final = ("count", "wasted", "cost")
_SEVERITY_STYLES: Final = {"info": "dim", "warning": "yellow", "high": "red", "critical": "bold red"}


def finding_row(row: Row) -> list[str]:
    return [
        moment(row["detected_at"]),
        clean(row["severity"]),
        _what(row),
        *(clean(row[name]) for name in ("service", "agent_name", "tool_name", "model")),
        count(row["count"]),
        count(row["wasted_tokens"]) if row["wasted_tokens"] else "",
        cost(row["wasted_cost_usd"]) if row["wasted_cost_usd"] else "",
        clean(row["trace_id"]),
    ]


def finding_line(row: Row) -> str:
    """One line of `--watch`."""
    where = " / ".join(clean(row[name]) for name in ("service", "agent_name", "tool_name", "model") if row[name])
    return (
        f"{moment(row['detected_at'])}  {row['severity']:8}  {_what(row)} × {row['count']}  {where}  {row['trace_id']}"
    )


def trace_finding(row: Row) -> Text:
    """A finding below the heading of its trace, with the evidence."""
    line = Text("  ", no_wrap=True)
    line.append(f"{row['severity']:8}", style=_SEVERITY_STYLES.get(row["severity"], ""))
    line.append(f"  {_what(row)} × {row['count']}", style="bold")
    for name in ("agent_name", "tool_name", "model"):
        if row[name]:
            line.append(f"  {clean(row[name])}")
    if row["wasted_tokens"]:
        line.append(f"  {count(row['wasted_tokens'])} tokens and {cost(row['wasted_cost_usd'])} wasted", style="yellow")
    for name, value in row["evidence"].items():
        line.append(f"\n            {clean(name)}: {cell(value)}", style="dim")
    return line


def _name(row: Row) -> str:
    return clean(f"{row['signature']}.{row['kind']}" if row["kind"] else row["signature"])


def _what(row: Row) -> str:
    return _name(row) + (" (proxy)" if row["basis"] == "proxy" else "")


def _counted(value: int, what: str) -> str:
    return f"{count(value)} {what}" + ("" if value == 1 else "s")


def trace_heading(trace: Row) -> str:
    parts = [
        f"trace {clean(trace['trace_id'])}",
        moment(trace["start_time"]),
        duration(trace["duration_ns"]),
        _counted(trace["span_count"], "span"),
        _counted(trace["llm_calls"], "model call"),
        _counted(trace["tool_calls"], "tool call"),
        _counted(trace["error_count"], "error"),
        f"{count(trace['input_tokens'])} → {count(trace['output_tokens'])} tokens",
        cost(trace["cost_usd"]) + (f" + {trace['unpriced_calls']} unpriced" if trace["unpriced_calls"] else ""),
        *([f"not decided as a whole: {clean(trace['partial'])}"] if trace["partial"] else []),
    ]
    return " · ".join(parts)
