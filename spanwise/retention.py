"""Keep what failed traces have for longer: copy it into its class shortly before the common one expires.

Whether a trace failed is known only when it ends, and rows are in a class from the moment they are inserted. Moving
the rows of each failed trace as it is found would write its prompts twice at the busiest time. So ClickHouse drops
whole parts when their days are over, and before that the rows of failed traces are copied into the class that is kept
longer, by one statement a day and class. The copy has the same key and version: under `FINAL` the two are one row.
Nothing is lost by doing it again, in another process as well.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import pyarrow as pa
import structlog

from spanwise.model import TABLES, Table
from spanwise.rounds import Rounds
from spanwise.store import StoreError, TtlOptions, load_sql

log = structlog.get_logger(__name__)

_DAY_S: Final = 86_400
_MARGIN_DAYS_MAX: Final = 3
_SEVERITIES: Final = ("info", "warning", "high", "critical")
_FIRST_AFTER_S: Final = 60.0
"""A start has more urgent work."""


class RetentionStore(Protocol):
    def derive(self, sql: str, params: Mapping[str, Any] | None = None) -> None: ...
    def read_arrow(self, sql: str, params: Mapping[str, Any] | None = None) -> pa.Table: ...


@dataclass(slots=True)
class RetentionStats:
    """Figures since the start."""

    copied: int = 0
    """Days and classes of a table whose failed traces were copied, each time."""
    seconds: float = 0.0
    failures: int = 0


class Retention:
    """Looks on a thread of its own, every `ttl_failed.every_s`. `tick` looks once."""

    def __init__(
        self,
        options: TtlOptions,
        *,
        store: RetentionStore,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._store = store
        self._wall = wall
        self._clock = clock
        self._stats = RetentionStats()
        self._seen: dict[tuple[str, int, str], tuple[int, int]] = {}
        """(rows, day of the look) of a partition when its failed traces were last copied."""
        self._rounds = Rounds("spanwise-retention", self._turn, min(_FIRST_AFTER_S, options.ttl_failed.every_s))

    def start(self) -> None:
        if any(self._options.kept_longer(table.name) for table in TABLES):
            self._rounds.start()

    def stop(self, timeout_s: float) -> bool:
        return self._rounds.stop(timeout_s)

    def stats(self) -> RetentionStats:
        return replace(self._stats)

    def _turn(self) -> float:
        try:
            self.tick()
        except StoreError as error:
            self._stats.failures += 1
            log.warning("retention_failed", error=str(error))
        return self._options.ttl_failed.every_s

    def tick(self) -> int:
        """Copy what is due; returns how many days and classes that were. Raises StoreError."""
        started = self._clock()
        copied = sum(self._copy_due(table) for table in TABLES if self._options.kept_longer(table.name))
        self._stats.copied += copied
        self._stats.seconds += self._clock() - started
        return copied

    def _copy_due(self, table: Table) -> int:
        today = int(self._wall() // _DAY_S)
        classes = {name: (kept_as, days) for name, kept_as, days in self._options.kept_longer(table.name)}
        sql = load_sql("spanwise", "keep_partitions").replace("{table}", table.name)
        found = {(row["day"], row["retention"]): row["rows"] for row in self._store.read_arrow(sql).to_pylist()}
        # what ClickHouse has dropped needs no memory here
        self._seen = {
            key: seen for key, seen in self._seen.items() if key[0] != table.name or (key[1], key[2]) in found
        }
        copied = 0
        for (day, name), rows in found.items():
            if name not in classes or self._rounds.stopping:
                continue
            kept_as, days = classes[name]
            # A row is received at the time of its event or later, so it expires no earlier than this.
            if day + days - _margin(days) > today or self._seen.get((table.name, day, name)) == (rows, today):
                continue
            self._copy(table, day, name, kept_as)
            self._seen[table.name, day, name] = (rows, today)
            copied += 1
        return copied

    def _copy(self, table: Table, day: int, name: str, kept_as: str) -> None:
        identity = [column for column in table.order_by if column in table.names]
        identity += [table.version] if table.version else []
        sql = load_sql("spanwise", "keep_failed").replace("{table}", table.name)
        sql = sql.replace("{columns}", ", ".join(table.names)).replace("{identity}", ", ".join(identity))
        worst = _SEVERITIES.index(self._options.ttl_failed.severity)
        params = {
            "day": dt.date(1970, 1, 1) + dt.timedelta(days=day),
            "retention": name,
            "kept_as": kept_as,
            "severities": list(_SEVERITIES[worst:]),
        }
        self._store.derive(sql, params)


def _margin(days: int) -> int:
    """Days before the end at which copying begins: late spans and stops of the program fall into it."""
    return min(_MARGIN_DAYS_MAX, max(1, days // 3))
