"""Answers `ask.Queries` from a store, through its bounded read-only connections."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from decimal import Decimal
from functools import partial
from typing import Any, Final

from spanwise.query.ask import ConfinedError, FindingFilter, ManyTracesError, NoSuchTraceError, TraceFilter
from spanwise.query.guard import Guard
from spanwise.store import QueryError, Store, load_sql
from spanwise.store.reading import read, stream

_FORMATS: Final = {
    "json": "JSONEachRow",
    "jsonl": "JSONEachRow",
    "csv": "CSVWithNames",
    "parquet": "Parquet",
    "table": "JSONCompactEachRowWithNamesAndTypes",
}
_ID_DIGITS: Final = 32
_TRACE_FINDINGS_MAX: Final = 1_000


class StoreQueries:
    """The reads of one store. Methods block and may be called from several threads at once.

    With a tenant they see its rows only.
    """

    def __init__(self, store: Store, tenant: str = "") -> None:
        self._store = store
        self._tenant = tenant
        self._guard = Guard(embedded=store.embedded)

    def within(self, tenant: str) -> StoreQueries:
        return StoreQueries(self._store, tenant)

    def sql(self, statement: str, format_: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        """See `Queries.sql`. The statement is checked before this returns."""
        if self._tenant:
            # no filter of the embedded engine holds against SQL of the reader's own: docs/adr/0009
            raise ConfinedError
        checked = self._guard.checked(statement, partial(read, self._store))
        if checked.format:
            raise QueryError(f"FORMAT {checked.format} is not allowed: choose a format where you ask")
        if checked.settings:
            raise QueryError("SETTINGS are not allowed: the limits of a query are `store.query_*`")
        for name in parameters:
            # the driver pastes parameters into a statement that has no place for them: then nothing was checked
            if name not in checked.parameters:
                raise QueryError(f"the statement has no parameter {name}: write {{{name}:Type}} where it goes")
        # what was checked is what runs, not the text it was made from
        statement = checked.statement
        wanted = _FORMATS[format_]
        if not checked.streams and wanted == "JSONEachRow":
            # chDB streams nothing but SELECT; these answers are small.
            pieces = iter((read(self._store, statement, parameters, "JSONLines"),))
        else:
            pieces = stream(self._store, statement, parameters, wanted)
        return _array(pieces) if format_ == "json" else pieces

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
