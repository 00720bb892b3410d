"""Decide traces again when they have gone quiet: usage scopes, joined log records, summaries.

A trace is dirty from the moment rows of it are stored until it is decided. What was just stored is decided from memory;
only traces that were summarised before, or that no longer fit into memory, are read back, because looking up thousands
of random trace ids a second in a large table would cost more than storing them.

After a crash nothing is lost: the journal keeps, together with the rows it forgets, how far back something may still be
dirty, and everything received since is decided again, which changes nothing where it had been decided before.

Two kinds of traces are set aside, so that no other trace waits for them. One whose decision fails, whatever the reason
but a store that is away, is found by deciding halves of its round, and tried again alone after growing pauses. One with
more spans than fit into memory is not decided any more. Of both the store adds up what it has, and the summary says so
in `partial`: there a failed one is found again after a restart, and so neither holds the watermark back.
"""

from __future__ import annotations

import hashlib
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import structlog

from processors.columns import (
    Ints,
    arrow,
    compute,
    copied,
    dense,
    encode,
    is_known,
    is_one_of,
    numbers,
    plain,
    replaced,
    together,
)
from processors.log_join import assign, join
from processors.reconcile import NARROW, Decision, decide, decided, latest, narrow, next_version, summarise
from spanwise.halving import culprits
from spanwise.model import CONTENT, LOG_EVENTS, SPANS
from spanwise.reconciler.calls import RecentCalls, call_keys
from spanwise.reconciler.config import ReconcilerConfig
from spanwise.reconciler.parts import CorrectionSink, Detection, Found, Notes, Reader, ReconcileObserver, Territory
from spanwise.reconciler.queries import IDS_PER_QUERY, Known, Queries, Range, Record
from spanwise.reconciler.round import Dirty, Round
from spanwise.reconciler.rows import PARTNER_NS, TIME_MAX, Key, ids_of, keys_by_row, keys_of, touches_of
from spanwise.refingerprint import Refingerprint
from spanwise.rounds import Rounds
from spanwise.stage import Processor
from spanwise.store import StoreError

log = structlog.get_logger(__name__)

WATERMARK: Final = "reconcile.received_ms"
_CONTENT_BYTES: Final = 64 << 20
_ROWS_WITH_CONTENT: Final = 1_000
"""Joined spans whose content is read at once, and the bytes of it."""
OVERSIZED: Final = "oversized"
FAILED: Final = "failed"
_TRIES_PER_ROUND: Final = 200
"""Parts of a round that failed which are tried in search of the traces to blame: about a dozen for each of them."""
_DOUBTFUL_ROUNDS: Final = 3
"""Rounds that fail one after the other before a trace may be to blame for an error that is mostly the store's."""
_NEVER: Final = float("inf")


class _Everything:
    def owned(self, trace_ids: Sequence[str]) -> Sequence[bool]:
        return [True] * len(trace_ids)

    def term(self) -> int | None:
        return 0


class _MovedError(Exception):
    """Traces came or went while they were being decided: what was read may be old, so nothing is written."""


class _Silent:
    def reconciled(self, traces: int, seconds: float) -> None:
        pass

    def reconcile_failed(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class ReconcilerStats:
    """State at one moment, and counts since the start."""

    dirty: int
    """Traces that wait to be decided, as far as memory knows them."""
    lag_s: float
    """How long the oldest of them has been waiting."""
    spilled: bool
    """More traces are dirty than memory holds; they are being found again in the store."""
    cached_rows: int
    traces: int
    rows: int
    read_back: int
    """Traces that had to be read from the store."""
    corrections: int
    joined: int
    """Log records that a span was found for; a record is counted whenever its trace is decided."""
    unjoined: int
    failures: int
    seconds: float
    failed: int
    """Traces that could not be decided and wait to be tried again."""
    oversized: int
    """Traces with too many spans to be decided that went on lately."""
    failed_attempts: int
    """Attempts to decide a trace that failed because of that trace."""
    added_up: int
    """Summaries added up by the store because their trace is oversized."""
    aside_overflows: int
    """Failed traces there was no room for: they are found again in the store."""


@dataclass(slots=True)
class _Aside:
    """A trace that no round takes along."""

    entry: Dirty
    reason: str
    tried_s: float
    wait_s: float
    """New spans wait at least this long after the last attempt."""
    due_s: float
    failures: int = 0


@dataclass(slots=True)
class _Counts:
    traces: int = 0
    rows: int = 0
    read_back: int = 0
    corrections: int = 0
    joined: int = 0
    unjoined: int = 0
    failures: int = 0
    seconds: float = 0.0
    failed_attempts: int = 0
    added_up: int = 0
    aside_overflows: int = 0


class Reconciler:
    """Keeps spans and trace summaries right while rows keep arriving.

    `touched` is called with every stored batch, before the journal forgets it; everything else happens on one thread
    of its own. Without `start`, `tick` does one round on the caller's thread. `recount` is called with rows that were
    corrected, after they are stored.
    """

    def __init__(
        self,
        config: ReconcilerConfig | None = None,
        *,
        store: Reader,
        sink: CorrectionSink,
        price: Processor,
        journal: Notes,
        detector: Detection | None = None,
        observer: ReconcileObserver | None = None,
        territory: Territory | None = None,
        recount: Callable[[pa.RecordBatch], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._config = config or ReconcilerConfig()
        self._recount = recount
        self._detector = detector
        self._arrived: list[pa.RecordBatch] = []
        self._arrived_rows = 0
        self._queries = Queries(store, wall_ns)
        self._sink = sink
        self._price = price
        self._journal = journal
        self._observer = observer or _Silent()
        self._territory = territory or _Everything()
        self._released = False
        """What the detector holds of open traces is not all of them: it has to start over."""
        self._clock = clock
        self._wall_ns = wall_ns
        self._lock = threading.Lock()
        self._dirty: dict[Key, Dirty] = {}
        self._aside: dict[Key, _Aside] = {}
        self._aside_more = True
        """The store may know of failed traces that memory does not have."""
        self._failed_rounds = 0
        self._correcting: Mapping[Key, Dirty] = {}
        self._doubtful: dict[Key, Dirty] = {}
        """Traces that went while they were corrected: that may have come after what their new owner decided."""
        self._cache: list[pa.RecordBatch] = []
        self._cached_rows = 0
        self._calls = RecentCalls(self._config)
        self._refingerprint = Refingerprint()
        self._records: list[Record] = []
        self._has_logs = self._has_loose_logs = False
        self._warm = False
        since = journal.get_meta(WATERMARK)
        self._spilled_ms: int | None = int(since) if since else 0  # all there is, if nothing tells
        self._overflow_ms: int | None = None
        self._records_since_ms: int | None = self._spilled_ms
        """Records without a trace that were received since then may not have been joined; None: none."""
        self._latest_ms = self._spilled_ms or 0
        self._counts = _Counts()
        self._pause_s = self._config.tick_s
        self._rounds = Rounds("spanwise-reconcile", self._turn, self._config.tick_s)

    def start(self) -> None:
        self._rounds.start()

    def rebuild(self, since_ms: int) -> None:
        """Find what is dirty in the store again, among all that was received since then."""
        with self._lock:
            self._spilled_ms = since_ms if self._spilled_ms is None else min(self._spilled_ms, since_ms)
            self._overflow_ms = since_ms if self._overflow_ms is None else min(self._overflow_ms, since_ms)
            known = self._records_since_ms
            self._records_since_ms = since_ms if known is None else min(known, since_ms)
            self._aside_more = True
            self._note()

    def release(self) -> None:
        """Forget what is dirty: its partitions go to another worker, which finds it in the store."""
        with self._lock:
            self._doubtful.update(self._correcting)
            self._dirty.clear()
            self._aside.clear()
            self._cache.clear()
            self._cached_rows = 0
            self._forget_arrived()
            self._records.clear()
            self._spilled_ms = self._overflow_ms = self._records_since_ms = None

    def stop(self, timeout_s: float) -> bool:
        """Finish the running round. True if it finished in time; what is dirty stays so for the next start."""
        return self._rounds.stop(timeout_s)

    def stats(self) -> ReconcilerStats:
        with self._lock:
            oldest = min((entry.first_s for entry in self._dirty.values()), default=None)
            counts = self._counts
            return ReconcilerStats(
                dirty=len(self._dirty),
                lag_s=0.0 if oldest is None else max(0.0, self._clock() - oldest),
                spilled=self._spilled_ms is not None,
                cached_rows=max(self._cached_rows, self._arrived_rows),
                traces=counts.traces,
                rows=counts.rows,
                read_back=counts.read_back,
                corrections=counts.corrections,
                joined=counts.joined,
                unjoined=counts.unjoined,
                failures=counts.failures,
                seconds=counts.seconds,
                failed=sum(aside.reason == FAILED for aside in self._aside.values()),
                oversized=sum(aside.reason == OVERSIZED for aside in self._aside.values()),
                failed_attempts=counts.failed_attempts,
                added_up=counts.added_up,
                aside_overflows=counts.aside_overflows,
            )

    # What arrives

    def touched(self, spans: pa.RecordBatch, log_events: pa.RecordBatch) -> None:
        """Rows that were just stored. Durable notes are made before it returns."""
        touches = [*touches_of(spans, "start_time"), *touches_of(log_events, "time")]
        rows = copied(narrow(spans)) if spans.num_rows else None
        calls = call_keys(rows) if rows is not None else None
        ours = self._territory.owned([trace for (_, trace), *_ in touches])
        with self._lock:
            now = self._clock()
            for (key, received, low, high, count), mine in zip(touches, ours, strict=True):
                self._latest_ms = max(self._latest_ms, received)
                if key[1] and mine:
                    self._touch(key, now, received, low, high, count, read=False)
                elif key[1]:  # it went while these rows were being stored, and memory let go of the others
                    around = max(low - PARTNER_NS, 0), min(high + PARTNER_NS, TIME_MAX)
                    self._touch(key, now, received, *around, count, read=True)
            if rows is not None and calls is not None:
                self._remember(rows)
                self._calls.add(calls, now)
            if log_events.num_rows:
                self._has_logs = True
                self._loose_records(log_events)
            self._note()

    def _touch(self, key: Key, now: float, received: int, low: int, high: int, rows: int, *, read: bool) -> None:
        entry = self._dirty.get(key)
        if entry is None and (aside := self._aside.get(key)) is not None:
            entry = aside.entry
            if aside.due_s == _NEVER:
                entry.received_ms = received
            aside.due_s = min(aside.due_s, max(now + self._config.quiet_s, aside.tried_s + aside.wait_s))
        if entry is not None:
            entry.last_s = now
            entry.touches += 1
            entry.received_ms = min(entry.received_ms, received)
            entry.since_ms = min(entry.since_ms, received)
            entry.low_ns, entry.high_ns = min(entry.low_ns, low), max(entry.high_ns, high)
            entry.rows += rows
            entry.read |= read
        elif len(self._dirty) < self._config.dirty_traces_max:
            self._dirty[key] = Dirty(now, now, received, low, high, rows, read)
        else:
            self._spilled_ms = received if self._spilled_ms is None else min(self._spilled_ms, received)
            self._overflow_ms = received if self._overflow_ms is None else min(self._overflow_ms, received)

    def _remember(self, rows: pa.RecordBatch) -> None:
        if self._detector is not None:
            self._arrived.append(rows)
            self._arrived_rows += rows.num_rows
            if self._arrived_rows > self._config.cached_rows_max and len(self._arrived) > 1:
                self._forget_arrived()  # rounds fail or are slow: decisions read from the store what looks have missed
        self._cache.append(rows)
        self._cached_rows += rows.num_rows
        while self._cached_rows > self._config.cached_rows_max and self._cache:
            oldest = self._cache.pop(0)
            self._cached_rows -= oldest.num_rows
            for key in keys_of(oldest):
                if key in self._dirty:
                    self._dirty[key].read = True

    def _forget_arrived(self) -> None:
        self._arrived.clear()
        self._arrived_rows = 0
        self._released = True

    def _loose_records(self, log_events: pa.RecordBatch) -> None:
        loose = log_events.filter(pa.array(is_one_of(log_events.column("trace_id"), ("",))))
        if loose.num_rows == 0:
            return
        self._has_loose_logs = True
        columns = [plain(loose.column(name)).to_pylist() for name in ("tenant", "conversation_id", "response_id")]
        columns += [loose.column(name).cast(pa.int64()).to_pylist() for name in ("time", "received_at")]
        self._records += sorted({record for record in map(Record, *columns) if record.conversation or record.response})
        del self._records[: -self._config.records_max]

    def _note(self) -> None:
        """How far back something may be dirty. Durable together with the range whose rows it is about."""
        oldest = min((entry.received_ms for entry in self._dirty.values()), default=self._latest_ms)
        # failed ones are found in the store; of an oversized one that waits to be added up only the journal can tell
        waiting = (one for one in self._aside.values() if one.reason == OVERSIZED and one.due_s < _NEVER)
        oldest = min([oldest, *(one.entry.received_ms for one in waiting)])
        if self._spilled_ms is not None:
            oldest = min(oldest, self._spilled_ms)
        if self._records_since_ms is not None:
            oldest = min(oldest, self._records_since_ms)
        oldest = min((record.received_ms for record in self._records), default=oldest)
        self._journal.set_meta(WATERMARK, str(oldest))

    # Rounds

    def _turn(self) -> float:
        try:
            self.tick()
        except Exception as error:  # whatever a driver raises: the traces stay dirty and are tried again
            with self._lock:
                self._counts.failures += 1
            self._observer.reconcile_failed()
            self._pause_s = min(max(self._pause_s, 0.5) * 2, self._config.retry_max_s)
            log.warning("reconcile_failed", error=type(error).__name__, retry_in_s=round(self._pause_s, 1))
        else:
            self._pause_s = self._config.tick_s
        return self._pause_s

    def tick(self) -> int:
        """One round: decide what is due. Returns the number of traces; raises what the store raises."""
        try:
            decided = self._tick()
        except Exception:
            self._failed_rounds += 1
            raise
        self._failed_rounds = 0
        return decided

    def _tick(self) -> int:
        started = self._clock()
        began_ms = self._wall_ns() // 10**6
        term = self._territory.term()
        if term is None:
            return 0
        self._let_go()
        self._take_doubtful()
        if not self._warm:
            self._warm_up()
        self._find_failed()
        self._find_spilled()
        self._find_of_records()
        self._detect(began_ms)
        decided = 0
        try:
            chosen = self._choose()
            if chosen.keys:
                decided += self._round(chosen, term)
            decided += self._try_aside(term)
        except _MovedError:
            return decided
        if decided:
            seconds = self._clock() - started
            with self._lock:
                self._counts.seconds += seconds
                self._note()
            self._observer.reconciled(decided, seconds)
        return decided

    def _round(self, chosen: Round, term: int) -> int:
        decided = 0
        part = chosen
        try:
            self._ask(chosen)
            for part in chosen.parts(self._config.rows_per_round, self._config.spans_per_trace_max):
                self._decide(part, term)
                decided += len(part.keys)
        except BaseException as error:
            self._give_back(chosen)
            if not isinstance(error, Exception) or not self._is_of_traces(error):
                raise
            return decided + self._isolate(part, term, error)  # the other parts are still dirty
        return decided

    def _ask(self, chosen: Round) -> None:
        chosen.began_ms = self._wall_ns() // 10**6
        chosen.known = self._queries.known(chosen.keys)

    def _is_of_traces(self, error: Exception) -> bool:
        """Whether an error may be the fault of a trace. Else the store is away, or will not be asked now."""
        if isinstance(error, (_MovedError, OSError)):
            return False
        if isinstance(error, StoreError) and not error.permanent:
            return self._failed_rounds >= _DOUBTFUL_ROUNDS and bool(error.code)
        return True

    def _isolate(self, chosen: Round, term: int, error: Exception) -> int:
        """Decide a round that failed in parts, and set aside the traces that fail alone."""
        decided: list[Key] = []
        again: list[Key] = []

        def attempt(keys: Sequence[Key]) -> None:
            if self._rounds.stopping:
                raise _MovedError
            spans = self._decide(chosen.part(keys), term)
            decided.extend(keys)
            with self._lock:
                if spans.num_rows and self._calls.partners([spans], set(keys), self._clock()):
                    again.extend(keys)

        blamed = {next(iter(chosen.keys)): error}
        left: list[Key] = []
        if len(chosen.keys) > 1:
            blamed, left = culprits(chosen.keys, attempt, tries=_TRIES_PER_ROUND, is_of_items=self._is_of_traces)
        if isinstance(error, StoreError) and not error.permanent and not decided:
            raise error  # whatever is asked of it fails: it is the store
        for key, reason in blamed.items():
            self._set_aside(key, chosen.keys[key], reason, term)
        if blamed:
            with self._lock:  # two reports of one call are compared only by a round that has both
                for key in again:
                    if key not in self._aside:
                        self._dirty.setdefault(key, chosen.keys[key])
        if left:
            raise error
        return len(decided)

    def _set_aside(self, key: Key, entry: Dirty, error: Exception, term: int) -> None:
        """Try a trace again later, alone. Once the store says that it failed, nothing else has to remember it."""
        self._mark(key, entry, term)
        with self._lock:
            now = self._clock()
            known = self._aside.pop(key, None)
            if known is None and self._dirty.pop(key, None) is None:
                return  # released
            self._correcting = {}  # it is tried again before anybody else has it, or by whoever has it then
            self._counts.failed_attempts += 1
            failures = known.failures + 1 if known is not None else 1
            wait_s = self._aside_s(1)
            pause_s = self._aside_s(2.0 ** min(failures - 1, 30))
            if known is not None or len(self._aside) < self._config.aside_traces_max:
                self._aside[key] = _Aside(entry, FAILED, now, wait_s, now + pause_s, failures)
            else:
                self._counts.aside_overflows += 1
                self._aside_more = True
            self._note()
        log.error(
            "trace_set_aside",
            tenant=key[0],
            trace_id=key[1],
            error=type(error).__name__,
            where=_place(error),
            failures=failures,
            retry_in_s=round(pause_s, 1),
        )

    def _mark(self, key: Key, entry: Dirty, term: int) -> None:
        try:
            self._add_up(key, entry, FAILED, term)
        except Exception as error:
            if not self._is_of_traces(error):
                raise
            log.error("trace_not_marked", tenant=key[0], trace_id=key[1], error=type(error).__name__)

    def _try_aside(self, term: int) -> int:
        """Take up one trace that was set aside, alone."""
        with self._lock:
            now = self._clock()
            over_s = now - self._config.aside_max_s
            for key in [key for key, one in self._aside.items() if one.due_s == _NEVER and one.tried_s < over_s]:
                del self._aside[key]  # oversized, and nothing came for it since
            due = [(aside.due_s, key) for key, aside in self._aside.items() if aside.due_s <= now]
            if not due:
                return 0
            key = min(due)[1]
            entry = self._aside[key].entry
            entry.read = True
            chosen = Round({})
            chosen.take(key, entry)
            self._take_rows(chosen, chosen.keys)
        try:
            self._decide(chosen, term)
        except Exception as error:
            away = isinstance(error, OSError) or (isinstance(error, StoreError) and not error.code)
            if away or isinstance(error, _MovedError):
                raise
            self._set_aside(key, entry, error, term)
            return 0
        return 1

    def _find_failed(self) -> None:
        """Take up traces from the store that were set aside before the program started, or for want of room."""
        most = self._config.aside_traces_max
        with self._lock:
            if not self._aside_more or len(self._aside) > most // 2:
                return
            self._aside_more = False
        try:
            found = self._queries.failed(10 * most)  # among them those of others
        except BaseException:
            self._aside_more = True
            raise
        ours = self._territory.owned([one.key[1] for one in found])
        with self._lock:
            now = self._clock()
            for one, mine in zip(found, ours, strict=True):
                if not mine or one.key in self._aside or one.key in self._dirty:
                    continue
                if len(self._aside) >= most:
                    self._aside_more = True
                    break
                entry = Dirty(now, now, *one[1:], read=True, found=True)
                self._aside[one.key] = _Aside(entry, FAILED, now, self._aside_s(1), now)

    def _aside_s(self, times: float) -> float:
        return min(max(self._config.dirty_max_s, 1.0) * max(times, 1.0), self._config.aside_max_s)

    def _let_go(self) -> None:
        with self._lock:
            released, self._released = self._released, False
        if released and self._detector is not None:
            self._detector.clear()

    def _take_doubtful(self) -> None:
        """Decide once more, from the store, what is no longer ours: whoever decides last has seen everything."""
        with self._lock:
            due_s = self._clock() - self._config.quiet_s
            for key, entry in self._doubtful.items():
                self._touch(key, due_s, entry.received_ms, entry.low_ns, entry.high_ns, 0, read=True)
            self._doubtful.clear()

    def _still(self, term: int) -> None:
        if self._territory.term() != term:
            raise _MovedError

    def _detect(self, began_ms: int) -> None:
        """Hand on what arrived, and look at traces that go on."""
        if self._detector is None:
            return
        with self._lock:
            arrived, self._arrived = self._arrived, []
            self._arrived_rows = 0
        try:
            for rows in arrived:
                self._detector.arrived(rows)
        except BaseException:
            self._released = True  # it has missed some: decisions read them from the store
            raise
        self._look(self._detector, began_ms)
        ending = self._detector.ending()
        with self._lock:
            now = self._clock()
            for key, low, high in ending:
                self._touch(key, now - self._config.quiet_s, self._latest_ms, low, high, 0, read=True)

    def _look(self, detector: Detection, began_ms: int) -> None:
        due = detector.due()

        def look(keys: Iterable[Key]) -> None:
            detector.look(keys, began_ms)

        try:
            look(due)
        except Exception as error:
            if not due or not self._is_of_traces(error):
                raise
            blamed, _ = culprits(due, look, tries=_TRIES_PER_ROUND, is_of_items=self._is_of_traces)
            for key, reason in blamed.items():
                detector.let_go(key)  # until it is decided
                log.error(
                    "trace_not_examined",
                    tenant=key[0],
                    trace_id=key[1],
                    error=type(reason).__name__,
                    where=_place(reason),
                )

    def _warm_up(self) -> None:
        has_logs, has_loose = self._queries.has_logs()
        since = self._wall_ns() // 10**6 - int(self._config.recent_calls_s * 1_000)
        calls = self._queries.calls(since, self._config.recent_calls_max)
        with self._lock:
            self._has_logs |= has_logs
            self._has_loose_logs |= has_loose
            self._calls.add(call_keys(calls), self._clock())
            self._warm = True

    def _find_spilled(self) -> None:
        """Take traces from the store that memory had no room for, or that were dirty when the program stopped."""
        room = self._config.dirty_traces_max // 2
        with self._lock:
            since = self._spilled_ms
            if since is None or len(self._dirty) > room:
                return
            self._overflow_ms = None
        most = max(1, min(room, 4 * self._config.traces_per_round))
        found = self._queries.since(since, most)
        with self._lock:
            now = self._clock()
            self._spilled_ms = max(one.received_ms for one in found) + 1 if len(found) >= most else None
            if self._overflow_ms is not None:
                self._spilled_ms = min(self._overflow_ms, self._spilled_ms or self._overflow_ms)
            ours = self._territory.owned([one.key[1] for one in found])
            for one, mine in zip(found, ours, strict=True):
                if mine:
                    self._touch(one.key, now - self._config.quiet_s, *one[1:], read=True)
                    if one.key in self._dirty:
                        self._dirty[one.key].found = True
                self._latest_ms = max(self._latest_ms, one.received_ms)

    def _find_of_records(self) -> None:
        with self._lock:
            since = self._records_since_ms
            records = list(self._records)
        if since is not None:
            records += self._queries.records_since(since, self._config.records_max)
        found = self._of_records(records)
        with self._lock:
            now = self._clock()
            if self._records_since_ms == since:
                self._records_since_ms = None
            done = set(records)
            self._records = [record for record in self._records if record not in done]
            for one in found:
                self._touch(one.key, now, *one[1:], read=True)

    def _of_records(self, records: Sequence[Record]) -> list[Range]:
        found: list[Range] = []

        def attempt(some: Sequence[Record]) -> None:
            found.extend(self._queries.of_records(some, self._config.traces_per_round))

        try:
            attempt(records)
        except Exception as error:
            if not records or not self._is_of_traces(error):
                raise
            blamed, _ = culprits(records, attempt, tries=_TRIES_PER_ROUND, is_of_items=self._is_of_traces)
            log.error("records_not_joined", records=len(blamed), error=type(error).__name__, where=_place(error))
        return found

    def _choose(self) -> Round:
        config = self._config
        with self._lock:
            now = self._clock()
            # the more is waiting, the longer a trace may gather before it is worth a round
            quiet_s = config.quiet_s * (1 + len(self._dirty) // (2 * config.traces_per_round))
            keys: dict[Key, Dirty] = {}
            rows = 0
            for key, entry in self._dirty.items():
                if now - entry.last_s < quiet_s and now - entry.first_s < config.dirty_max_s:
                    continue
                if keys and (rows + entry.rows > config.rows_per_round or len(keys) >= config.traces_per_round):
                    break
                keys[key] = entry
                rows += entry.rows
            chosen = Round(keys)
            if not keys:
                return chosen
            self._take_rows(chosen, keys)
            partners = self._calls.partners(chosen.rows, set(keys), now)
            late = {}
            for key, low, high in partners:
                if key in self._aside:
                    continue
                entry = self._dirty.get(key) or Dirty(now, now, self._latest_ms, low, high, 0, read=True)
                late[key] = entry
            self._take_rows(chosen, late)
            chosen.keys.update(late)
            # until they are decided they stay dirty, at the end of the line
            for key, entry in chosen.keys.items():
                self._dirty.pop(key, None)
                self._dirty[key] = entry
                entry.first_s = entry.last_s = now
                chosen.take(key, entry)
            return chosen

    def _take_rows(self, chosen: Round, keys: Mapping[Key, Dirty]) -> None:
        if not keys:
            return
        wanted = pa.array([f"{tenant}\n{trace}" for tenant, trace in keys])
        kept = []
        for batch in self._cache:
            due = compute.is_in(ids_of(batch), value_set=wanted)
            mine = batch.filter(due)
            if mine.num_rows:
                chosen.rows.append(mine)
                self._cached_rows -= mine.num_rows
            if mine.num_rows == 0:
                kept.append(batch)
            elif mine.num_rows < batch.num_rows:
                kept.append(batch.filter(compute.invert(due)))
        self._cache = kept

    def _give_back(self, chosen: Round) -> None:
        """Failed: those that are still ours stay dirty; what memory held of them is read from the store next time."""
        with self._lock:
            for key in chosen.keys & self._dirty.keys():
                self._dirty[key].read = True

    def _decide(self, chosen: Round, term: int) -> pa.RecordBatch:
        """Decide the traces of a round. Returns their rows, without those of traces that are oversized."""
        if chosen.known is None:
            self._ask(chosen)
        known = chosen.known or {}
        spans, oversized = self._rows_of(chosen, known)
        corrections = 0
        if spans.num_rows:
            spans, whole = self._with_logs(spans)
            decision = decide(spans)
            self._correcting = chosen.keys
            try:
                self._still(term)
            except _MovedError:
                self._correcting = {}
                raise
            corrections = self._correct(spans, decision, whole)
            self._recount_found(chosen, spans)
            keys = chosen.keys.keys() - oversized.keys()
            # a summary comes after the findings: without one there may be findings of a program that died in between
            before = keys & (known.keys() | {key for key in keys if chosen.keys[key].read})
            found = self._detector.decided(keys, before, spans, chosen.began_ms) if self._detector is not None else {}
            self._still(term)
            self._correcting = {}
            self._summarise(spans, decision, known, found, chosen.began_ms)
        for key in oversized:
            oversized[key] = max(oversized[key], self._add_up(key, chosen.keys[key], OVERSIZED, term, known.get(key)))
        with self._lock:
            self._finished(chosen, oversized)
            self._counts.traces += len(chosen.keys)
            self._counts.rows += spans.num_rows
            self._counts.corrections += corrections
            self._counts.added_up += len(oversized)
        return spans

    def _finished(self, chosen: Round, oversized: Mapping[Key, int]) -> None:
        """What was touched meanwhile stays dirty; an oversized trace is added up the more seldom the larger it is."""
        config = self._config
        now = self._clock()
        for key, touches in chosen.touches.items():
            aside = self._aside.pop(key, None)
            entry = self._dirty.pop(key, None) or (aside.entry if aside is not None else None)
            if entry is None:
                continue  # released
            again = entry.touches != touches
            if again:
                entry.received_ms = entry.since_ms
            if key in oversized and len(self._aside) < config.aside_traces_max:
                wait_s = self._aside_s(oversized[key] / config.spans_per_trace_max)
                self._aside[key] = _Aside(entry, OVERSIZED, now, wait_s, now + wait_s if again else _NEVER)
            elif again:
                self._dirty[key] = entry

    def _rows_of(self, chosen: Round, known: Mapping[Key, Known]) -> tuple[pa.RecordBatch, dict[Key, int]]:
        """The rows of the traces, and which of these are oversized with how many spans, or at least so many."""
        most = self._config.spans_per_trace_max
        # spans only become more: what was oversized is not read to find out that it still is
        oversized = {key: one.spans for key, one in known.items() if one.spans > most}
        read = {
            key: (min(entry.low_ns, known[key].low_ns), max(entry.high_ns, known[key].high_ns))
            if key in known
            else (entry.low_ns, entry.high_ns)
            for key, entry in chosen.keys.items()
            if (entry.read or key in known) and key not in oversized
        }
        parts = []
        if chosen.rows:
            held = together(chosen.rows, NARROW)
            again = pa.array([f"{tenant}\n{trace}" for tenant, trace in [*read, *oversized]], pa.utf8())
            parts.append(held.filter(compute.invert(compute.is_in(ids_of(held), value_set=again))))
        with self._lock:
            self._counts.read_back += len(read)
        parts += self._queries.spans(read, most + 1)
        rows = latest(together(parts, NARROW))
        if rows.num_rows > most:
            codes = dense(encode(ids_of(rows))[0])
            large = np.bincount(codes) > most
            if large.any():
                oversized |= dict.fromkeys(keys_of(rows.filter(pa.array(large[codes]))), most + 1)
                rows = rows.filter(pa.array(~large[codes]))
        return rows, oversized

    def _add_up(self, key: Key, entry: Dirty, reason: str, term: int, known: Known | None = None) -> int:
        """Store a summary of what the store has, of a trace that is not decided. Returns the number of its spans."""
        began_ms = self._wall_ns() // 10**6
        known = known or self._queries.known([key]).get(key)
        low = min(entry.low_ns, known.low_ns) if known else entry.low_ns
        high = max(entry.high_ns, known.high_ns) if known else entry.high_ns
        traces = self._queries.sums(key, low, high)
        if traces.num_rows == 0:
            return 0
        columns = {
            "partial": pa.array([reason]).dictionary_encode(),
            "version": pa.array([max(known.version + 1, began_ms) if known else began_ms], pa.uint64()),
        }
        if known:
            columns["day"] = arrow.array([known.day], pa.int32()).cast(pa.date32())
        if self._detector is not None:
            self._detector.let_go(key)
            if found := self._detector.stored([key]).get(key):
                columns["findings"] = pa.array([found.findings], pa.list_(pa.utf8()))
                columns["finding_severity"] = pa.array([found.severity]).dictionary_encode()
        self._still(term)
        traces = replaced(traces, columns)
        self._sink.write_traces(traces, _token("traces", traces))
        spans: int = traces.column("span_count")[0].as_py()
        return spans

    def _recount_found(self, chosen: Round, spans: pa.RecordBatch) -> None:
        """Whoever stopped after storing a correction may not have told of it."""
        found = pa.array(
            [f"{tenant}\n{trace}" for (tenant, trace), entry in chosen.keys.items() if entry.found], pa.utf8()
        )
        if len(found):
            corrected = spans.filter(pa.array(numbers(spans.column("version")) & 15 != 0))
            self._recount(corrected.filter(compute.is_in(ids_of(corrected), value_set=found)))

    # Log records

    def _with_logs(self, spans: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Spans with what their log records add, and the whole rows that this changed, not yet stored."""
        nothing = together([], SPANS.arrow)
        if not self._has_logs:
            return spans, nothing
        logs = self._queries.logs(spans, loose=self._has_loose_logs)
        of = assign(spans, logs)
        with self._lock:
            self._counts.joined += int(np.count_nonzero(of >= 0))
            self._counts.unjoined += int(np.count_nonzero(of < 0))
        rows = np.unique(of[of >= 0])
        if len(rows) == 0:
            return spans, nothing
        whole, at = self._whole(spans, rows)
        place = {int(row): number for number, row in enumerate(at.tolist())}
        which = np.array([place.get(int(row), -1) for row in of], dtype=np.int64)
        joined, changed = join(whole, logs, which)
        if len(changed) == 0:
            return spans, nothing
        joined = self._price(joined)
        self._adopt_content(joined, logs, which, changed)
        joined = self._refingerprinted(joined)
        kept = np.ones(spans.num_rows, dtype=np.bool_)
        kept[at[changed]] = False
        return together([spans.filter(pa.array(kept)), narrow(joined)], NARROW), joined

    def _adopt_content(self, joined: pa.RecordBatch, logs: pa.RecordBatch, of: Ints, changed: Ints) -> None:
        """Keep the content of records without a trace under the trace of their span."""
        loose = is_one_of(logs.column("trace_id"), ("",)) & np.isin(of, changed)
        if not loose.any():
            return
        spot = {int(row): number for number, row in enumerate(changed.tolist())}
        traces: list[Any] = plain(joined.column("trace_id")).to_pylist()
        days: list[Any] = joined.column("day").to_pylist()
        wanted: dict[tuple[str, str], list[tuple[str, Any]]] = {}
        tenants: list[Any] = plain(logs.column("tenant")).to_pylist()
        for number in np.flatnonzero(loose).tolist():
            row = spot[int(of[number])]
            for reference in logs.column("content")[number].as_py() or ():
                wanted.setdefault((tenants[number], reference["hash"]), []).append((traces[row], days[row]))
        found = self._queries.content(sorted({tenant for tenant, _ in wanted}), sorted({h for _, h in wanted}))
        rows = [
            content | {"trace_id": trace, "day": day}
            for content in found.to_pylist()
            for trace, day in wanted.get((content["tenant"], content["hash"]), ())
        ]
        if rows:
            adopted = pa.RecordBatch.from_pylist(rows, schema=CONTENT.arrow)
            token = _token("content", adopted)
            self._sink.write(token, together([], SPANS.arrow), adopted, together([], LOG_EVENTS.arrow))

    def _refingerprinted(self, joined: pa.RecordBatch) -> pa.RecordBatch:
        """Spans with fingerprints that include what their records brought."""
        parts = [self._refingerprint(some, self._queries.content_of(some)) for some in _by_content(joined)]
        return together(parts, SPANS.arrow)

    # Writing

    def _whole(self, spans: pa.RecordBatch, rows: Ints) -> tuple[pa.RecordBatch, Ints]:
        """Whole rows of some spans as they are stored, and the row of `spans` for each.

        A row that has a newer version by now is left out: its trace is dirty again.
        """
        wanted = spans.take(rows)
        whole = self._queries.whole(wanted)
        identity = ("tenant", "trace_id", "span_id", "version")
        found = compute.index_in(ids_of(whole, identity), value_set=ids_of(wanted, identity))
        there = is_known(found)
        return whole.filter(pa.array(there)), rows[numbers(found.drop_null())]

    def _correct(self, spans: pa.RecordBatch, decision: Decision, joined: pa.RecordBatch) -> int:
        """Store the rows that changed; returns how many."""
        identity = ("tenant", "trace_id", "span_id")
        parts = []
        changed = decision.changed
        if joined.num_rows:
            found = numbers(compute.index_in(ids_of(joined, identity), value_set=ids_of(spans, identity)))
            parts.append(decided(joined, decision.scope[found], decision.reason[found]))
            changed = changed.copy()
            changed[found] = False
        rows = np.flatnonzero(changed)
        if len(rows):
            whole, at = self._whole(spans, rows)
            parts.append(decided(whole, decision.scope[at], decision.reason[at]))
        corrected = next_version(together(parts, SPANS.arrow)) if parts else None
        if corrected is None or corrected.num_rows == 0:
            return 0
        self._sink.rewrite(corrected, _token("spans", corrected))
        self._recount(corrected)
        return corrected.num_rows

    def _summarise(
        self,
        spans: pa.RecordBatch,
        decision: Decision,
        known: Mapping[Key, Known],
        found: Mapping[Key, Found],
        began_ms: int,
    ) -> None:
        traces = summarise(spans, decision)
        version = np.full(traces.num_rows, began_ms, dtype=np.uint64)
        day = numbers(traces.column("day").cast(pa.int32())).copy()
        if known:
            for row, key in enumerate(keys_by_row(traces)):
                if key in known:
                    version[row] = max(known[key].version + 1, began_ms)
                    day[row] = known[key].day  # one partition, or two summaries of a trace would never be merged
        columns = {"version": pa.array(version), "day": arrow.array(day, pa.int32()).cast(pa.date32())}
        if any(one.findings for one in found.values()):
            of = [found.get(key) for key in keys_by_row(traces)]
            columns["findings"] = pa.array([one.findings if one else [] for one in of], pa.list_(pa.utf8()))
            severities = pa.array([one.severity if one else "" for one in of], pa.utf8())
            columns["finding_severity"] = arrow.Array.dictionary_encode(severities)
        traces = replaced(traces, columns)
        self._sink.write_traces(traces, _token("traces", traces))


def _place(error: Exception) -> str:
    """Where it was raised. Its text may hold what was sent."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _by_content(spans: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Rows with no more content together than is held at once, but at least one row."""
    references: list[Any] = spans.column("content").to_pylist()
    start, count, size = 0, 0, 0
    for row, mine in enumerate(references):
        count, size = count + len(mine), size + sum(one["bytes"] for one in mine)
        if row > start and (count > IDS_PER_QUERY or size > _CONTENT_BYTES or row - start >= _ROWS_WITH_CONTENT):
            yield spans.slice(start, row - start)
            start, count, size = row, len(mine), sum(one["bytes"] for one in mine)
    yield spans.slice(start)


def _token(what: str, rows: pa.RecordBatch) -> str:
    """The same rows have the same token, so that a repeated insert stores nothing.

    Their versions are not enough: who decided the same trace at the same time may have counted to the same one.
    """
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_batch(rows)
    return f"reconcile-{what}-{hashlib.blake2b(stream.getvalue(), digest_size=16).hexdigest()}"
