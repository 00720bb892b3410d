"""Store batches in ClickHouse so that the same token stores nothing twice, whatever died in between.

Content goes first and spans last: a span is visible only when what it refers to is. A table gets one insert a batch,
more only if the batch spans many days; how it is cut depends on the batch alone, so a replay sends the same blocks
under the same tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from pydantic import BaseModel, ConfigDict, Field

from spanwise.model import CONTENT, FINDINGS, LOG_EVENTS, SPANS, TRACES, SpanBatch, Table
from spanwise.stage import RejectedError
from spanwise.store import Store, StoreError

log = structlog.get_logger(__name__)


class ClickHouseSinkConfig(BaseModel):
    """How batches are cut into inserts."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["clickhouse"] = "clickhouse"
    insert_days_max: int = Field(
        30, ge=1, le=100, description="Most days, and so partitions, one insert may touch; imports of years are cut."
    )
    isolate_inserts_max: int = Field(
        64, ge=0, description="Extra inserts spent on finding the rows a store refuses; beyond that the batch fails."
    )

    def build(self, store: Store, observer: SinkObserver | None = None) -> ClickHouseSink:
        return ClickHouseSink(self, store, observer or _Silent())


class SinkObserver(Protocol):
    """What the sink tells telemetry: figures by table, never payload."""

    def stored(self, table: str, *, rows: int, bytes_: int, seconds: float) -> None: ...
    def refused(self, table: str, *, rows: int, reason: str) -> None:
        """Rows the store will never take; the others of the batch are stored."""


class _Silent:
    def stored(self, table: str, *, rows: int, bytes_: int, seconds: float) -> None:
        pass

    def refused(self, table: str, *, rows: int, reason: str) -> None:
        pass


@dataclass(slots=True)
class _Hunt:
    """The search for refused rows in one batch."""

    inserts_left: int
    refused: int = 0
    reason: str = ""


class ClickHouseSink:
    """Writes spans, content and log records, and the rows that correct them later."""

    def __init__(
        self,
        config: ClickHouseSinkConfig,
        store: Store,
        observer: SinkObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._store = store
        self._observer = observer
        self._clock = clock

    def write(self, token: str, spans: SpanBatch, content: pa.RecordBatch, log_events: pa.RecordBatch) -> int:
        """Store a range; returns how many rows were left out because the store can never take them.

        Raises RejectedError if no row of a table can be stored, or too many are refused to find them one by one;
        StoreError if it may work later.
        """
        refused = self._insert(CONTENT, content, token)
        refused += self._insert(LOG_EVENTS, log_events, token)
        return refused + self._insert(SPANS, spans, token)

    def rewrite(self, spans: SpanBatch, token: str) -> None:
        """Store whole rows of spans again with a higher `version`. Raises like `write`."""
        self._insert(SPANS, spans, token)

    def write_traces(self, traces: pa.RecordBatch, token: str) -> None:
        """Store summaries of traces. Raises like `write`."""
        self._insert(TRACES, traces, token)

    def write_findings(self, findings: pa.RecordBatch, token: str) -> None:
        """Store findings, or write them again. Raises like `write`."""
        self._insert(FINDINGS, findings, token)

    def _insert(self, table: Table, batch: pa.RecordBatch, token: str) -> int:
        return sum(self._insert_part(table, rows, f"{token}:{table.name}{part}") for part, rows in self._parts(batch))

    def _parts(self, batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Cut a batch so that no insert touches more than `insert_days_max` partitions."""
        if batch.num_rows == 0:
            return
        days = pc.unique(batch.column("day")).sort()
        most = self._config.insert_days_max
        if len(days) <= most:
            yield "", batch
            return
        for start in range(0, len(days), most):
            chosen = pc.is_in(batch.column("day"), value_set=days.slice(start, most))
            yield f":{start // most}", batch.filter(chosen)

    def _insert_part(self, table: Table, rows: pa.RecordBatch, token: str) -> int:
        try:
            self._send(table, rows, token)
            return 0
        except StoreError as error:
            if not error.permanent:
                raise
            hunt = _Hunt(self._config.isolate_inserts_max, reason=error.name)
            self._isolate(table, rows, token, hunt)
            self._observer.refused(table.name, rows=hunt.refused, reason=hunt.reason)
            log.error("rows_refused", table=table.name, rows=hunt.refused, of=rows.num_rows, reason=hunt.reason)
            if hunt.refused == rows.num_rows:
                raise RejectedError(
                    f"{table.name} takes none of {rows.num_rows} rows: ClickHouse error {error.code} {error.name}"
                ) from error
            return hunt.refused

    def _isolate(self, table: Table, rows: pa.RecordBatch, token: str, hunt: _Hunt) -> None:
        """Store what can be stored of rows that were refused together, by halves."""
        if rows.num_rows == 1:
            hunt.refused += 1
            return
        half = rows.num_rows // 2
        for side, some in (("a", rows.slice(0, half)), ("b", rows.slice(half))):
            if hunt.inserts_left == 0:
                raise RejectedError(
                    f"{table.name} refuses too many of {rows.num_rows} rows to find them one by one: {hunt.reason}"
                )
            hunt.inserts_left -= 1
            try:
                self._send(table, some, token + side)
            except StoreError as error:
                if not error.permanent:
                    raise
                self._isolate(table, some, token + side, hunt)

    def _send(self, table: Table, rows: pa.RecordBatch, token: str) -> None:
        started = self._clock()
        sent = self._store.insert(table, rows, token)
        self._observer.stored(table.name, rows=rows.num_rows, bytes_=sent, seconds=self._clock() - started)
