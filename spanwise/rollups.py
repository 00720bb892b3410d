"""Keep the sums of each minute right: count it again whenever its spans may have changed.

A minute is dirty from the moment spans of it are stored or corrected until it is counted. It is counted a little after
its end, and once more, some time after the first change, if anything changes later. Counting replaces: the sums come
from the deduplicated spans, in one statement inside the store, and the last count has seen everything. So no delivery
can be counted twice, whatever was repeated, reordered or interrupted.

After a crash nothing is lost: the journal keeps, together with the rows it forgets, how far back a minute may still be
dirty, and every minute with spans received since is counted again. Corrections need no note of their own: a trace that
was being decided is decided again, and hands over its corrected rows again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import structlog
from pydantic import BaseModel, ConfigDict, Field

from processors.columns import encode, numbers
from spanwise.model import ROLLUP_1M
from spanwise.rounds import Rounds
from spanwise.store import load_sql

log = structlog.get_logger(__name__)

WATERMARK: Final = "rollups.received_ms"
_MINUTE_S: Final = 60
_TENANTS_PER_QUERY: Final = 2_000
"""The text of a query is at most 256 KiB by default."""
_DAY_S: Final = 86_400
_DAY_MS: Final = 86_400_000
_TIME_MAX_S: Final = 2**32 - 1
"""`toStartOfMinute` answers with a `DateTime`, and with its bounds for times beyond them."""
_DIMENSIONS: Final = ROLLUP_1M.order_by
_MEASURES: Final = tuple(
    column
    for column in ROLLUP_1M.columns
    if column.name not in _DIMENSIONS and column.name not in {"day", "received_at", "version"}
)
_MAPS: Final = frozenset(column.name for column in _MEASURES if column.type.startswith("Map"))


_Minute = tuple[int, str]
"""Start in seconds, and tenant."""


class RollupsConfig(BaseModel):
    """When the sums of a minute are counted again."""

    model_config = ConfigDict(extra="forbid")

    close_s: float = Field(30.0, ge=0, description="A minute is counted this long after its end.")
    late_s: float = Field(
        120.0,
        ge=0,
        description="A minute that was counted is counted again this long after its spans changed, and each time it "
        "changes again after twice as long.",
    )
    late_max_s: float = Field(1_800.0, ge=0, description="But after this long at most.")
    tick_s: float = Field(1.0, gt=0, description="Pause between two looks at what is due.")
    minutes_per_query: int = Field(60, ge=1, le=1_440, description="Most minutes counted in one statement.")
    dirty_max: int = Field(
        10_000,
        ge=1,
        description="Minutes of tenants that wait in memory; further ones are found again in the store.",
    )
    retry_max_s: float = Field(30.0, ge=0.1, description="Longest pause after counts that failed.")


class RollupStore(Protocol):
    def read_arrow(
        self, sql: str, params: Mapping[str, Any] | None = None, *, schema: pa.Schema | None = None
    ) -> pa.Table: ...
    def derive(self, sql: str, params: Mapping[str, Any] | None = None) -> None: ...


class Notes(Protocol):
    """A journal, as far as it keeps notes across restarts."""

    def get_meta(self, key: str) -> str | None: ...
    def set_meta(self, key: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class RollupsStats:
    """State at one moment, and counts since the start."""

    dirty: int
    """Minutes of tenants that wait to be counted."""
    lost: bool
    """More minutes are dirty than memory holds; they are being found again in the store."""
    lag_s: float
    """How long the oldest that is due has been so."""
    minutes: int
    """Minutes counted, each time."""
    overflows: int
    """Times that there was no room for a minute, so that it has to be found again in the store."""
    expired: int
    """Minutes left as they were counted, because spans of them may be deleted already."""
    failures: int
    seconds: float


@dataclass(slots=True)
class _Dirty:
    due_s: float
    received_ms: int
    touched_s: float
    touches: int = 1


@dataclass(slots=True)
class _Sweep:
    """A search of the store for minutes with spans received since some time, a page at a time."""

    since_ms: int
    after: _Minute = (-1, "")


@dataclass(slots=True)
class _Counts:
    minutes: int = 0
    overflows: int = 0
    expired: int = 0
    failures: int = 0
    seconds: float = 0.0


class Rollups:
    """Recounts `rollup_1m`.

    `touched` is called with every stored batch of spans before the journal forgets it, and with every corrected row
    after it is stored; the rest happens on one thread of its own. Without `start`, `tick` does one round on the
    caller's thread. `keep_days` is how long spans are kept, 0 for ever: a minute whose spans may be deleted keeps the
    sums it has. `skew_s` is how far the clocks of the nodes of a store may be apart.
    """

    def __init__(
        self,
        config: RollupsConfig | None = None,
        *,
        store: RollupStore,
        journal: Notes,
        keep_days: int = 0,
        skew_s: float = 0.0,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._config = config or RollupsConfig()
        self._store = store
        self._journal = journal
        self._keep_ms = keep_days * _DAY_MS
        self._skew_s = skew_s
        self._wall_ns = wall_ns
        self._lock = threading.Lock()
        self._dirty: dict[_Minute, _Dirty] = {}
        self._counted: dict[_Minute, int] = {}
        """How often minutes were counted, the last `dirty_max` of them."""
        since = journal.get_meta(WATERMARK)
        self._sweep: _Sweep | None = _Sweep(int(since) if since else 0)  # all there is, if nothing tells
        self._lost_ms: int | None = None
        """Where the sweep after this one begins."""
        self._latest_ms = self._sweep.since_ms
        self._counts = _Counts()
        self._pause_s = self._config.tick_s
        self._rounds = Rounds("spanwise-rollups", self._turn, self._config.tick_s)

    def start(self) -> None:
        self._rounds.start()

    def stop(self, timeout_s: float) -> bool:
        """Finish the running statement. True if it finished in time; what is dirty stays so for the next start."""
        return self._rounds.stop(timeout_s)

    def rebuild(self, since_ms: int) -> None:
        """Find what is dirty in the store again, among all that was received since then."""
        with self._lock:
            self._lose(since_ms)
            self._note()

    def stats(self) -> RollupsStats:
        with self._lock:
            now = self._now_s()
            oldest = min((entry.due_s for entry in self._dirty.values()), default=now)
            counts = self._counts
            return RollupsStats(
                dirty=len(self._dirty),
                lost=self._sweep is not None or self._lost_ms is not None,
                lag_s=max(0.0, now - oldest),
                minutes=counts.minutes,
                overflows=counts.overflows,
                expired=counts.expired,
                failures=counts.failures,
                seconds=counts.seconds,
            )

    # What changes

    def touched(self, spans: pa.RecordBatch) -> None:
        """Spans that were just stored. Durable notes are made before it returns."""
        found = _minutes(spans)
        with self._lock:
            for minute, received_ms in found:
                self._latest_ms = max(self._latest_ms, received_ms)
                self._touch(minute, received_ms)
            self._note()

    def _touch(self, minute: _Minute, received_ms: int, *, late: bool = True) -> None:
        entry = self._dirty.get(minute)
        if entry is not None:
            entry.touches += 1
            entry.touched_s = self._now_s()
            entry.received_ms = min(entry.received_ms, received_ms)
            return
        if len(self._dirty) >= self._config.dirty_max:
            self._counts.overflows += 1
            self._lose(received_ms)
            return
        now_s, end_s = self._now_s(), minute[0] + _MINUTE_S
        # an end that lies ahead by more than a day is no minute that will close
        open_still = now_s < end_s + self._config.close_s and end_s - now_s < _DAY_S
        due_s = end_s + self._config.close_s if open_still else now_s + (self._late_s(minute) if late else 0.0)
        self._dirty[minute] = _Dirty(due_s, received_ms, now_s)

    def _late_s(self, minute: _Minute) -> float:
        """Traces that end long after they began change their first minutes for as long as they last."""
        counted = min(self._counted.get(minute, 0), 32)
        return min(self._config.late_s * float(1 << max(counted - 1, 0)), self._config.late_max_s)

    def _lose(self, received_ms: int) -> None:
        self._lost_ms = received_ms if self._lost_ms is None else min(self._lost_ms, received_ms)

    def _note(self) -> None:
        """How far back something may be dirty. Durable together with the range whose rows it is about."""
        marks = [entry.received_ms for entry in self._dirty.values()]
        marks += [self._sweep.since_ms] if self._sweep is not None else []
        marks += [self._lost_ms] if self._lost_ms is not None else []
        self._journal.set_meta(WATERMARK, str(min(marks, default=self._latest_ms)))

    # Counting

    def _turn(self) -> float:
        try:
            self.tick()
        except Exception as error:  # whatever a driver raises: the minutes stay dirty and are tried again
            with self._lock:
                self._counts.failures += 1
            self._pause_s = min(self._pause_s * 2, self._config.retry_max_s)
            log.warning("rollups_failed", error=type(error).__name__, retry_in_s=round(self._pause_s, 1))
        else:
            self._pause_s = self._config.tick_s
        return self._pause_s

    def tick(self) -> int:
        """Count what is due, the oldest first. Returns the number of minutes; raises what the store raises."""
        self._find_lost()
        with self._lock:
            now = self._now_s()
            due = {minute: entry.touches for minute, entry in self._dirty.items() if entry.due_s <= now}
            # Views count later minutes from the spans: earlier ones would be seen nowhere until they are counted, too.
            newest, _ = max(due, default=(0, ""))
            due |= {
                minute: entry.touches
                for minute, entry in self._dirty.items()
                if minute[0] < newest and minute not in self._counted
            }
        counted = 0
        for part in self._parts(sorted(due)):
            if self._rounds.stopping:
                break
            began = time.perf_counter()
            minutes, again = self._count(part)
            counted += minutes
            with self._lock:
                self._counts.seconds += time.perf_counter() - began
                for minute in part:
                    self._settle(minute, due[minute], now, again=minute in again)
                self._note()
        return counted

    def _settle(self, minute: _Minute, touches: int, now_s: float, *, again: bool) -> None:
        entry = self._dirty[minute]
        self._counted[minute] = self._counted.pop(minute, 0) + 1
        if len(self._counted) > self._config.dirty_max:
            del self._counted[next(iter(self._counted))]
        # Another process may have begun to count before that, by a clock that is ahead: its version would win.
        if not again and entry.touches == touches and now_s - entry.touched_s >= self._skew_s:
            del self._dirty[minute]
        else:
            entry.due_s = self._now_s() + self._late_s(minute)

    def _parts(self, minutes: list[_Minute]) -> Iterable[list[_Minute]]:
        """Cut into statements, all tenants of a minute together: views take it as counted as soon as one is."""
        part: list[_Minute] = []
        for minute in minutes:
            full = len(part) >= self._config.minutes_per_query and minute[0] != part[-1][0]
            if full or len(part) >= _TENANTS_PER_QUERY:
                yield part
                part = []
            part.append(minute)
        if part:
            yield part

    def _count(self, minutes: list[_Minute]) -> tuple[int, set[_Minute]]:
        """How many were counted, and which have to be once more: another process counted them at the same time."""
        again: set[_Minute] = set()
        kept_since_ms = self._wall_ns() // 10**6 - self._keep_ms
        if self._keep_ms and any(at * 1_000 < kept_since_ms + _DAY_MS for at, _ in minutes):
            found = self._read("rollups_expired", minutes, {"kept_since": kept_since_ms})
            expired = _of_rows(found)
            minutes = [minute for minute in minutes if minute not in expired]
            with self._lock:
                self._counts.expired += len(expired)
        if minutes:
            # From before the count begins: whoever reads later has seen more, and must win.
            (version,) = self._read("rollups_version", minutes, {}).column("version").to_pylist()
            self._store.derive(_COUNT, {**_due(minutes), "version": version})
            again = _of_rows(self._read("rollups_overtaken", minutes, {}))
            with self._lock:
                self._counts.minutes += len(minutes)
        return len(minutes), again

    def _find_lost(self) -> None:
        """Take from the store what was dirty when the program stopped, or what memory had no room for."""
        with self._lock:
            if self._sweep is None and self._lost_ms is not None:
                self._sweep, self._lost_ms = _Sweep(self._lost_ms), None
            sweep, room = self._sweep, self._config.dirty_max - len(self._dirty)
        if sweep is None or room <= 0:
            return
        at, tenant = sweep.after
        params = {"since": sweep.since_ms, "at": at, "tenant": tenant, "most": room}
        rows = self._store.read_arrow(load_sql("spanwise", "rollups_since"), params).to_pylist()
        found = [((int(row["at"]), str(row["tenant"])), int(row["received"])) for row in rows]
        with self._lock:
            for minute, received_ms in found:
                self._latest_ms = max(self._latest_ms, received_ms)
                self._touch(minute, received_ms, late=False)
            if len(found) == room:
                sweep.after = found[-1][0]
            else:
                self._sweep = None
            self._note()

    def _read(self, name: str, minutes: list[_Minute], params: Mapping[str, Any]) -> pa.Table:
        return self._store.read_arrow(load_sql("spanwise", name).replace("{due}", _DUE), {**_due(minutes), **params})

    def _now_s(self) -> float:
        return self._wall_ns() / 1e9


_DUE: Final = "arrayZip({tenants:Array(String)}, arrayMap(at -> toDateTime(at, 'UTC'), {minutes:Array(UInt32)}))"


def _due(minutes: list[_Minute]) -> dict[str, Any]:
    return {"tenants": [tenant for _, tenant in minutes], "minutes": [at for at, _ in minutes]}


def _of_rows(found: pa.Table) -> set[_Minute]:
    return {(int(row["minute"]), str(row["tenant"])) for row in found.to_pylist()}


def _count_sql() -> str:
    names = [column.name for column in _MEASURES]
    return (
        load_sql("spanwise", "rollups_count")
        .replace("{columns}", ", ".join((*_DIMENSIONS, *names, "day", "received_at", "version")))
        .replace("{dimensions}", ", ".join(_DIMENSIONS))
        .replace("{measures}", ", ".join(names))
        .replace("{sums}", ", ".join(f"{'sumMap' if n in _MAPS else 'sum'}(counted.{n}) AS {n}" for n in names))
        .replace(
            "{zeros}",
            ", ".join(f"CAST({'map()' if c.name in _MAPS else '0'} AS {c.type}) AS {c.name}" for c in _MEASURES),
        )
        .replace("{due}", _DUE)
    )


_COUNT: Final = _count_sql()


def _minutes(spans: pa.RecordBatch) -> list[tuple[_Minute, int]]:
    """The minutes of some spans by tenant, and the earliest receipt in each."""
    if spans.num_rows == 0:
        return []
    code, tenants = encode(spans.column("tenant"))
    seconds = numbers(spans.column("start_time")) // 10**9
    key = code << 32 | np.clip(seconds // _MINUTE_S * _MINUTE_S, 0, _TIME_MAX_S)
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    received = np.minimum.reduceat(numbers(spans.column("received_at"))[order], first)
    return [
        ((one & _TIME_MAX_S, tenants[one >> 32]), earliest)
        for one, earliest in zip(key[order][first].tolist(), received.tolist(), strict=True)
    ]
