"""What Grafana and its ClickHouse data source do to a query before they send it.

Written from the documentation of the data source (version 4) and the behaviour of its tests: `$__conditionalAll` is
resolved first, in the browser, from the last one to the first; then variables; then, in the data source's back end, the
other macros.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

ALL = "$__all"


@dataclass(frozen=True)
class View:
    """What the user has chosen: a time range, an interval in seconds, and values of variables (nothing is All)."""

    since: datetime
    until: datetime
    interval_s: int = 60
    variables: Mapping[str, Sequence[str] | str] = field(default_factory=dict)


def expand(sql: str, view: View) -> str:
    """The SQL that reaches ClickHouse. Raises ValueError for macros, KeyError for variables that nobody replaces."""
    sql = _conditional_all(sql, view.variables)
    sql = re.sub(r"\$\{(\w+)(?::(\w+))?\}", lambda found: _variable(found[1], found[2], view.variables), sql)
    return re.sub(r"\$__(\w+)(?:\(([^()]*)\))?", lambda found: _macro(found[1], found[2], view), sql)


_CONDITIONAL = "$__conditionalAll("


def _conditional_all(sql: str, variables: Mapping[str, Sequence[str] | str]) -> str:
    while (start := sql.rfind(_CONDITIONAL)) >= 0:
        condition, variable, end = _arguments(sql, start + len(_CONDITIONAL))
        name = re.fullmatch(r"\s*\$(?:\{(\w+)\}|(\w+))", variable)
        if name is None:
            raise ValueError(f"$__conditionalAll does not understand {variable!r}")
        value = variables.get(name[1] or name[2], ALL)
        chosen = value if isinstance(value, str) else ",".join(value)
        sql = sql[:start] + ("1=1" if chosen in {"", ALL} else condition) + sql[end:]
    return sql


def _arguments(sql: str, start: int) -> tuple[str, str, int]:
    """The two arguments of a macro, split the way the data source does: it counts brackets and knows no quotes."""
    depth, cuts = 1, [start]
    for position in range(start, len(sql)):
        depth += {"(": 1, ")": -1}.get(sql[position], 0)
        if sql[position] == "," and depth == 1:
            cuts.append(position + 1)
        if depth == 0:
            if len(cuts) != 2:
                raise ValueError(f"$__conditionalAll takes two arguments: {sql[start:position]}")
            return sql[start : cuts[1] - 1], sql[cuts[1] : position], position + 1
    raise ValueError(f"a bracket is missing: {sql[start:]}")


def _variable(name: str, format_: str | None, variables: Mapping[str, Sequence[str] | str]) -> str:
    value = variables[name]
    values = [value] if isinstance(value, str) else list(value)
    if format_ == "singlequote":
        return ",".join("'" + one.replace("'", "\\'") + "'" for one in values)
    raise ValueError(f"${{{name}}} needs the format singlequote, it stands in SQL")


def _macro(name: str, argument: str | None, view: View) -> str:
    since, until = f"toDateTime({int(view.since.timestamp())})", f"toDateTime({int(view.until.timestamp())})"
    if argument is None:
        return {"fromTime": since, "toTime": until, "interval_s": str(view.interval_s)}[name]
    if name == "timeFilter":
        return f"{argument} >= {since} AND {argument} <= {until}"
    if name == "timeInterval":
        return f"toStartOfInterval(toDateTime({argument}), INTERVAL {view.interval_s} second)"
    raise ValueError(f"unknown macro $__{name}({argument})")
