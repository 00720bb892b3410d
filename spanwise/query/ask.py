"""What can be asked of the store and how it answers: the contract between the queries and the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Protocol


class ConfinedError(Exception):
    """A reader that is bound to one tenant asks for what cannot be limited to it."""


class NoSuchTraceError(Exception):
    """No trace has an id that begins so."""


class ManyTracesError(Exception):
    """Several traces have ids that begin so; `trace_ids` are some of them."""

    def __init__(self, trace_ids: list[str]) -> None:
        super().__init__(f"{len(trace_ids)} traces begin so")
        self.trace_ids = trace_ids


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """Which traces to list. Empty fields do not filter; times are seconds since the epoch."""

    limit: int = 20
    since_s: float | None = None
    before_s: float | None = None
    service: str = ""
    agent: str = ""
    model: str = ""
    conversation: str = ""
    errors: bool = False
    cost_min_usd: Decimal | None = None


SEVERITIES: Final = ("info", "warning", "high", "critical")


@dataclass(frozen=True, slots=True)
class FindingFilter:
    """Which findings to list. Empty fields do not filter; times are seconds since the epoch."""

    limit: int = 50
    since_s: float | None = None
    """Found at or after this time."""
    severity: str = "info"
    """This one or worse."""
    trace_id: str = ""
    """Or the beginning of it."""
    signature: str = ""
    service: str = ""
    agent: str = ""
    model: str = ""
    tool: str = ""


class Queries(Protocol):
    """Reads of the store. They block, and are called from several threads at once.

    All raise `spanwise.store.QueryError` if the question is wrong or runs into a limit, `OverloadedError` if no
    connection is free, `StoreError` if the store does not answer. Money in rows is Decimal, times are ISO 8601 text
    with a zone.
    """

    def within(self, tenant: str) -> Queries:
        """The same reads, limited to the rows of one tenant. Its `sql` raises ConfinedError."""

    def sql(self, statement: str, format_: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        """Stream the answer to one read-only statement of a user.

        `format_` is json (one array of objects), jsonl, csv (with a header), parquet, or table: lines of JSON arrays,
        the column names, their ClickHouse types, then each row. Errors come before the first piece where that is
        possible; the iterator is closed by whoever stops reading.
        """

    def traces(self, chosen: TraceFilter) -> list[dict[str, Any]]:
        """Rows of `traces`, newest first, all columns."""

    def trace(self, trace_id: str) -> dict[str, Any]:
        """`{"trace": row of traces, "spans": [rows], "findings": [rows]}` of the trace whose id begins so.

        Spans have all columns of `spans` but content, attributes, events and links. Where several tenants have a trace
        of that id, it is the one that began last. Raises NoSuchTraceError or ManyTracesError.
        """

    def findings(self, chosen: FindingFilter) -> list[dict[str, Any]]:
        """Rows of `findings`, last found first, all columns but version and withdrawn."""

    def summary(self) -> dict[str, Any]:
        """Counts and sums over everything that may be read, for people."""
