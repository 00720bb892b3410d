"""What waits to be decided, and what is decided at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from processors.columns import compute
from spanwise.reconciler.queries import Known
from spanwise.reconciler.rows import TIME_MAX, Key, ids_of


@dataclass(slots=True)
class Dirty:
    """A trace that waits to be decided."""

    first_s: float
    last_s: float
    received_ms: int
    low_ns: int
    high_ns: int
    rows: int
    read: bool
    """The store may have rows of it that memory does not have."""
    touches: int = 1
    since_ms: int = TIME_MAX
    """Earliest receipt of what came since a round began that decides it."""
    found: bool = False
    """Found in the store again: what was corrected of it may not have been told to `recount`."""


@dataclass(slots=True)
class Round:
    """The traces of one round and what memory holds of them."""

    keys: dict[Key, Dirty]
    rows: list[pa.RecordBatch] = field(default_factory=list)
    touches: dict[Key, int] = field(default_factory=dict)
    """How often each had been touched when the round began."""
    began_ms: int = 0
    """From before anything was read: who read earlier knows less, and must not win by being slow."""
    known: dict[Key, Known] | None = None
    """What the store says of them; None: not asked yet."""

    def take(self, key: Key, entry: Dirty) -> None:
        self.keys[key] = entry
        self.touches[key] = entry.touches
        entry.since_ms = TIME_MAX

    def part(self, keys: Iterable[Key]) -> Round:
        """Some of the traces, without their rows: those are gone from memory."""
        some = {key: self.keys[key] for key in keys}
        return Round(some, touches={key: self.touches[key] for key in some})

    def parts(self, rows_max: int, spans_max: int) -> Iterator[Round]:
        """All of it, if that is not much more than `rows_max` rows; else parts with no more of them, or one trace.

        What was summarised before is read back whole, unless it has more than `spans_max` spans.
        """
        known = self.known or {}
        sizes = {
            key: (0 if known[key].spans > spans_max else known[key].spans) if key in known else entry.rows
            for key, entry in self.keys.items()
        }
        if sum(sizes.values()) <= 2 * rows_max:
            yield self
            return
        some: list[Key] = []
        rows = 0
        for key, size in sizes.items():
            if some and rows + size > rows_max:
                yield self._with_rows(some)
                some, rows = [], 0
            some.append(key)
            rows += size
        yield self._with_rows(some)

    def _with_rows(self, keys: Sequence[Key]) -> Round:
        wanted = pa.array([f"{tenant}\n{trace}" for tenant, trace in keys])
        some = self.part(keys)
        some.rows = [rows.filter(compute.is_in(ids_of(rows), value_set=wanted)) for rows in self.rows]
        some.began_ms = self.began_ms
        some.known = {key: one for key, one in (self.known or {}).items() if key in some.keys}
        return some
