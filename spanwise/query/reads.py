"""Answers `ask.Queries` from a store, through its bounded read-only connections."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any, Final, NamedTuple

from spanwise.query.ask import ConfinedError, FindingFilter, ManyTracesError, NoSuchTraceError, TraceFilter
from spanwise.store import QueryError, Store, load_sql
from spanwise.store.reading import read, stream

_FORMATS: Final = {
    "json": "JSONEachRow",
    "jsonl": "JSONEachRow",
    "csv": "CSVWithNames",
    "parquet": "Parquet",
    "table": "JSONCompactEachRowWithNamesAndTypes",
}
_READS: Final = re.compile(r"\(*(SELECT|WITH)\b")
# EXISTS only of our own tables, without a database.
_DESCRIBES: Final = re.compile(r"(SHOW|DESCRIBE|EXPLAIN)\b|EXISTS( TABLE| VIEW)? \w+$")
_CALLED: Final = re.compile(r"(\w+)\s*\(")
_NAMED: Final = re.compile(r"(?<![\w.])(?<! AS )(\w+)")
"""Names but for those that only give a name: `x AS file`, `t.file`."""
_FILES: Final = re.compile(r"\bdefault\.", re.IGNORECASE)
"""Anything of chDB's database `default`, which answers for any path of the machine."""
_PLACES: Final = re.compile(r"\{(\w+):([^}]+)\}")
_INSIDE: Final = frozenset(
    {"format", "generaterandom", "generateseries", "generate_series", "merge", "null", "numbers", "numbers_mt"}
    | {"primes", "values", "view", "zeros", "zeros_mt"}
)
"""Table functions, in lower case, that touch nothing but the store; all others are refused, also those to come."""
_OUTSIDE: Final = re.compile(
    r"file|hascolumnintable|reversednsquery|ai(classify|embed|extract|filter|generate|redact|"
    r"similarity|translate)"
)
"""Ordinary functions, in lower case, that read files or talk to other machines. `readonly` stops none of them."""
# What formatQuery quotes: strings and identifiers, with a backslash before any quote inside.
_QUOTED: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_ID_DIGITS: Final = 32
_TRACE_FINDINGS_MAX: Final = 1_000


class _Checked(NamedTuple):
    statement: str
    streams: bool
    """True for a SELECT, False for a statement that describes."""


class StoreQueries:
    """The reads of one store. Methods block and may be called from several threads at once.

    With a tenant they see its rows only.
    """

    def __init__(self, store: Store, tenant: str = "") -> None:
        self._store = store
        self._tenant = tenant
        self._table_functions: frozenset[str] | None = None

    def within(self, tenant: str) -> StoreQueries:
        return StoreQueries(self._store, tenant)

    def sql(self, statement: str, format_: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        """See `Queries.sql`. The statement is checked before this returns."""
        if self._tenant:
            # no filter of the embedded engine holds against SQL of the reader's own: docs/adr/0008
            raise ConfinedError
        checked = self._checked(statement.strip().rstrip(";"), parameters)
        # what was checked is what runs, not the text it was made from
        statement = checked.statement
        wanted = _FORMATS[format_]
        if not checked.streams and wanted == "JSONEachRow":
            # chDB streams nothing but SELECT; these answers are small.
            pieces = iter((read(self._store, statement, parameters, "JSONLines"),))
        else:
            pieces = stream(self._store, statement, parameters, wanted)
        return _array(pieces) if format_ == "json" else pieces

    def _checked(self, statement: str, parameters: Mapping[str, str]) -> _Checked:
        """The statement as the store's own parser writes it. Raises QueryError for everything but reads.

        `readonly` keeps a query from changing the store, but not from writing a file: `INTO OUTFILE` is carried out by
        the client, and in embedded mode that is this process. Nor does it stop `SELECT file('...')`, which reads any
        file of the machine, or `DESCRIBE url('...')`, which asks any address. A function need not be called to run:
        `arrayMap(file, [...])` and `APPLY file` name it only. The store's own parser decides what is a keyword and what
        is a name.
        """
        asked = {"statement": statement}
        canonical = read(self._store, load_sql("spanwise.query", "canonical"), asked, "RawBLOB").decode()
        words = _QUOTED.sub("''", canonical)
        if re.search(r"\bOUTFILE\b", words):
            raise QueryError("INTO OUTFILE is not allowed: choose a format and save the answer where you ask")
        called = _CALLED.findall(words)
        named = [name for name in (*called, *_NAMED.findall(words)) if _OUTSIDE.fullmatch(name.lower())]
        named += [name for name in called if name.lower() in self._refused_table_functions()]
        if named:
            raise QueryError(f"the function {named[0]} is not allowed: queries read the store and nothing else")
        if self._store.embedded and _FILES.search(words):
            raise QueryError("the database default is not allowed: it stands for the files of the machine")
        self._check_parameters(words, parameters)
        if _READS.match(words):
            return _Checked(canonical, streams=True)
        if _DESCRIBES.match(words):
            return _Checked(canonical, streams=False)
        raise QueryError(f"{words.split(maxsplit=1)[0]} is not allowed: only reads are answered here")

    @staticmethod
    def _check_parameters(words: str, parameters: Mapping[str, str]) -> None:
        """The driver pastes parameters into a statement that has no place for them: then nothing was checked."""
        types = dict(_PLACES.findall(words))
        for name, type_ in types.items():
            if type_.strip().lower() == "identifier":
                raise QueryError(f"the parameter {name} is a name: write names into the statement itself")
        for name in parameters:
            if name not in types:
                raise QueryError(f"the statement has no parameter {name}: write {{{name}:Type}} where it goes")

    def _refused_table_functions(self) -> frozenset[str]:
        if self._table_functions is None:
            names = (row["name"].lower() for row in self._rows("table_functions"))
            self._table_functions = frozenset(names) - _INSIDE
        return self._table_functions

    def traces(self, chosen: TraceFilter) -> list[dict[str, Any]]:
        return self._rows(
            "traces",
            tenant=self._tenant,
            since_s=chosen.since_s or 0,
            before_s=chosen.before_s or 0,
            service=chosen.service,
            agent=chosen.agent,
            model=chosen.model,
            conversation=chosen.conversation,
            errors=chosen.errors,
            cost_min_usd=float(chosen.cost_min_usd or 0),
            limit=chosen.limit,
        )

    def trace(self, trace_id: str) -> dict[str, Any]:
        trace_id = trace_id.lower()
        if len(trace_id) < _ID_DIGITS:
            found = [row["trace_id"] for row in self._rows("trace_ids", tenant=self._tenant, prefix=trace_id)]
            if len(found) > 1:
                raise ManyTracesError(found)
            if not found:
                raise NoSuchTraceError
            (trace_id,) = found
        summary = self._rows("trace", tenant=self._tenant, trace_id=trace_id)
        if not summary:
            raise NoSuchTraceError
        owner = self.within(summary[0]["tenant"])
        return {
            "trace": summary[0],
            "spans": owner._rows("trace_spans", tenant=owner._tenant, trace_id=trace_id),
            "findings": owner.findings(FindingFilter(limit=_TRACE_FINDINGS_MAX, trace_id=trace_id)),
        }

    def findings(self, chosen: FindingFilter) -> list[dict[str, Any]]:
        return self._rows("findings", **{**asdict(chosen), "tenant": self._tenant, "since_s": chosen.since_s or 0})

    def summary(self) -> dict[str, Any]:
        return self._rows("summary", tenant=self._tenant)[0]

    def _rows(self, name: str, **params: Any) -> list[dict[str, Any]]:
        answer = read(self._store, load_sql("spanwise.query", name), params, "JSONEachRow")
        return [json.loads(line, parse_float=Decimal) for line in answer.splitlines()]


def _array(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Lines of JSON as one array. A line feed ends a row: inside a row it is escaped."""
    yield b"["
    held = b""
    for piece in pieces:
        text = held + piece
        body = text.rstrip(b"\n")
        held = text[len(body) :]
        yield body.replace(b"\n", b",\n")
        held = b"\n" if held else b""
    yield b"]\n"
