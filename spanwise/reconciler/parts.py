"""What the reconciler needs of the parts around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from spanwise.reconciler.rows import Key


class Reader(Protocol):
    def read_arrow(
        self, sql: str, params: Mapping[str, Any] | None = None, *, schema: pa.Schema | None = None
    ) -> pa.Table: ...


class CorrectionSink(Protocol):
    def write(self, token: str, spans: pa.RecordBatch, content: pa.RecordBatch, log_events: pa.RecordBatch) -> int: ...
    def rewrite(self, spans: pa.RecordBatch, token: str) -> None: ...
    def write_traces(self, traces: pa.RecordBatch, token: str) -> None: ...


class Found(Protocol):
    """What the summary of a trace says about its findings."""

    @property
    def findings(self) -> list[str]: ...
    @property
    def severity(self) -> str: ...


class Detection(Protocol):
    """A detector, as far as rounds drive it."""

    def arrived(self, rows: pa.RecordBatch) -> None: ...
    def clear(self) -> None: ...
    def due(self) -> list[Key]: ...
    def ending(self) -> list[tuple[Key, int, int]]: ...
    def look(self, keys: Iterable[Key], began_ms: int) -> None: ...
    def let_go(self, key: Key) -> None: ...
    def stored(self, keys: Iterable[Key]) -> Mapping[Key, Found]: ...
    def decided(
        self, keys: Iterable[Key], known_before: Iterable[Key], rows: pa.RecordBatch, began_ms: int
    ) -> Mapping[Key, Found]: ...


class Notes(Protocol):
    """A journal, as far as it keeps notes across restarts."""

    def get_meta(self, key: str) -> str | None: ...
    def set_meta(self, key: str, value: str) -> None: ...


class Territory(Protocol):
    """Which traces are this program's to decide, where several share one store."""

    def owned(self, trace_ids: Sequence[str]) -> Sequence[bool]: ...
    def term(self) -> int | None:
        """Changes whenever traces come or go; None while they are on the move, or may have gone unnoticed."""


class ReconcileObserver(Protocol):
    def reconciled(self, traces: int, seconds: float) -> None: ...
    def reconcile_failed(self) -> None: ...
