"""Budgets: how much of a limit in USD or tokens an hour, a day or a month has used, and what it will have used.

What was spent is read from the rollups, so it is exact, follows corrections in both directions, and is a minute or two
behind. Sums are kept by hour; only days that were counted again since are read again. Each threshold that is crossed is
one finding of the signature `budget`, with an id made of budget, window and threshold: whoever finds it again, after a
restart or in another worker, finds the same one. Money that turns out not to have been spent takes it back.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, Protocol

import pyarrow as pa
import structlog
from pydantic import BaseModel, ConfigDict, Field, model_validator

from spanwise.detector import DetectObserver, FindingSink
from spanwise.model import FINDINGS
from spanwise.rounds import Rounds
from spanwise.store import load_sql

log = structlog.get_logger(__name__)

SIGNATURE: Final = "budget"
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400
_LOOKBACK_S: Final = {"hour": _HOUR_S, "day": _HOUR_S, "month": _DAY_S}
"""From how far back the rate of a forecast is taken: a month is not judged by its nights."""
_EVERY_S: Final = 60.0
_RETRY_S: Final = 5.0
_NANOS: Final = 10**9

Unit = Literal["usd", "tokens"]


class BudgetScope(BaseModel):
    """The part of the traffic that counts; all of it by default. Values are compared exactly."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: str = Field("", description="Only of this tenant.")
    service: str = Field("", description="Only of this service.")
    agent_name: str = Field("", description="Only spans that name this agent.")
    agent_version: str = Field("", description="Only spans that name this agent version.")
    provider: str = Field("", description="Only of this provider.")
    model: str = Field("", description="Only of this model, as responses name it.")

    def conditions(self) -> dict[str, str]:
        """Columns of the rollups with the value each must have."""
        return {name: value for name, value in self if value}


class BudgetConfig(BaseModel):
    """A limit, what counts against it, and in which time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="Label of its metrics, and `kind` of its findings."
    )
    scope: BudgetScope = Field(default_factory=BudgetScope, description="What counts.")
    window: Literal["hour", "day", "month"] = Field("month", description="Calendar time in UTC after which it is new.")
    limit_usd: Decimal | None = Field(None, gt=0, lt=10**9, description="The limit in USD; this or `limit_tokens`.")
    limit_tokens: int | None = Field(
        None, gt=0, lt=10**18, description="The limit in tokens, input and output together; this or `limit_usd`."
    )
    warn_at: list[float] = Field(
        default_factory=lambda: [0.5, 0.8, 1.0],
        max_length=10,
        description="Parts of the limit; using one up is a finding, from 1 on of severity high.",
    )

    @model_validator(mode="after")
    def _one_limit(self) -> BudgetConfig:
        if (self.limit_usd is None) == (self.limit_tokens is None):
            raise ValueError(f"budget {self.name} needs limit_usd or limit_tokens, and not both")
        if any(not 0 < part <= 100 for part in self.warn_at):
            raise ValueError(f"warn_at of budget {self.name} must be parts of the limit: above 0, up to 100")
        return self

    @property
    def unit(self) -> Unit:
        return "usd" if self.limit_usd is not None else "tokens"

    @property
    def limit(self) -> int:
        """In whole units: 10⁻⁹ USD, or tokens."""
        return int(self.limit_usd * _NANOS) if self.limit_usd is not None else int(self.limit_tokens or 0)


@dataclass(frozen=True, slots=True)
class BudgetState:
    """One budget at one moment, in USD or tokens."""

    name: str
    unit: Unit
    limit: float
    spent: float
    forecast: float
    """What will have been used when the window ends, if it goes on as it did lately."""
    used_ratio: float


@dataclass(frozen=True, slots=True)
class BudgetsStats:
    """State of all budgets at the last look, and counts since the start."""

    budgets: Sequence[BudgetState]
    looked_at_s: float
    """Unix time of the last look that succeeded, 0 before it."""
    failures: int


class BudgetStore(Protocol):
    def read_arrow(
        self, sql: str, params: Mapping[str, Any] | None = None, *, schema: pa.Schema | None = None
    ) -> pa.Table: ...


@dataclass(frozen=True, slots=True)
class _Window:
    start_s: int
    end_s: int


@dataclass(frozen=True, slots=True)
class _Mark:
    """A threshold of a budget in the window that is open."""

    budget: BudgetConfig
    window: _Window
    part: float
    state: BudgetState
    crossed: bool


class Budgets:
    """Looks once a minute on a thread of its own. `tick` looks once, on the caller's."""

    def __init__(
        self,
        budgets: Sequence[BudgetConfig],
        *,
        store: BudgetStore,
        sink: FindingSink,
        observer: DetectObserver,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._budgets = tuple(budgets)
        self._store = store
        self._sink = sink
        self._observer = observer
        self._wall_ns = wall_ns
        self._sql, self._params = spent_sql(self._budgets)
        self._days: dict[int, tuple[int, dict[int, list[int]]]] = {}
        """Of each day since 1970: when it was counted, and what each budget used in each hour of it."""
        self._found: dict[str, int] | None = None
        """See `_in_force`; None before they are looked up."""
        self._written_ms = 0
        self._lock = threading.Lock()
        self._stats = BudgetsStats((), 0.0, 0)
        self._rounds = Rounds("spanwise-budgets", self._turn, 0.0)

    def start(self) -> None:
        if self._budgets:
            self._rounds.start()

    def stop(self, timeout_s: float) -> bool:
        return self._rounds.stop(timeout_s)

    def stats(self) -> BudgetsStats:
        with self._lock:
            return self._stats

    def _turn(self) -> float:
        try:
            self.tick()
        except Exception as error:  # whatever a driver raises: the next look is a new one
            with self._lock:
                self._stats = BudgetsStats(self._stats.budgets, self._stats.looked_at_s, self._stats.failures + 1)
            log.warning("budgets_failed", error=type(error).__name__, retry_in_s=_RETRY_S)
            return _RETRY_S
        return _EVERY_S

    def tick(self) -> int:
        """Look; returns how many findings were written. Raises what the store raises."""
        now_s = self._wall_ns() // _NANOS
        windows = [_window(budget.window, now_s) for budget in self._budgets]
        if not windows:
            return 0
        first_s = min(
            min(window.start_s, now_s - _LOOKBACK_S[budget.window] - _HOUR_S)
            for budget, window in zip(self._budgets, windows, strict=True)
        )
        self._read_days(first_s // _DAY_S, now_s // _DAY_S)
        states: list[BudgetState] = []
        marks: dict[str, _Mark] = {}
        for number, (budget, window) in enumerate(zip(self._budgets, windows, strict=True)):
            spent = self._spent(number, window.start_s, window.end_s)
            states.append(_state(budget, spent, self._forecast(number, spent, window, now_s)))
            for part in budget.warn_at:
                crossed = spent >= Decimal(str(part)) * budget.limit
                marks[_finding_id(budget, window, part)] = _Mark(budget, window, part, states[-1], crossed)
        written = self._write(marks, self._in_force(min(window.start_s for window in windows)))
        with self._lock:
            self._stats = BudgetsStats(tuple(states), float(now_s), self._stats.failures)
        return written

    # What was spent

    def _read_days(self, first: int, last: int) -> None:
        versions = self._store.read_arrow(load_sql("spanwise", "budgets_versions"), {"since": first, "until": last})
        counted = {int(row["number"]): int(row["version"]) for row in versions.to_pylist()}
        self._days = {day: kept for day, kept in self._days.items() if day in counted}
        for day, version in counted.items():
            if day not in self._days or self._days[day][0] != version:
                rows = self._store.read_arrow(self._sql, {**self._params, "day": day}).to_pylist()
                hours = {int(row["hour"]): [int(row[f"b{n}"]) for n in range(len(self._budgets))] for row in rows}
                self._days[day] = version, hours

    def _spent(self, number: int, from_s: int, until_s: int) -> int:
        hours = (
            self._days[day][1] for day in range(from_s // _DAY_S, (until_s - 1) // _DAY_S + 1) if day in self._days
        )
        return sum(used[number] for each in hours for hour, used in each.items() if from_s <= hour < until_s)

    def _forecast(self, number: int, spent: int, window: _Window, now_s: int) -> float:
        lookback_s = _LOOKBACK_S[self._budgets[number].window]
        since_s = (now_s - lookback_s) // _HOUR_S * _HOUR_S
        rate = self._spent(number, since_s, now_s + 1) / max(now_s - since_s, 1)
        return spent + rate * (window.end_s - now_s)

    # What is said about it

    def _in_force(self, since_s: int) -> dict[str, int]:
        """When the findings that are in force were found, in ms: another start may have found them."""
        if self._found is None:
            found = self._store.read_arrow(load_sql("spanwise", "budgets_known"), {"since": since_s}).to_pylist()
            self._found = {str(row["finding_id"]): int(row["detected_ms"]) for row in found}
        return self._found

    def _write(self, marks: Mapping[str, _Mark], found: Mapping[str, int]) -> int:
        now_ms = max(self._wall_ns() // 10**6, self._written_ms + 1)
        changed = {key: mark for key, mark in marks.items() if mark.crossed != (key in found)}
        if changed:
            rows = [_row(key, mark, found.get(key, now_ms), now_ms) for key, mark in changed.items()]
            token = hashlib.blake2b(f"{now_ms} {sorted(changed)}".encode(), digest_size=16).hexdigest()
            self._sink.write_findings(pa.RecordBatch.from_pylist(rows, schema=FINDINGS.arrow), f"budget-{token}")
            self._written_ms = now_ms
        # of windows that are over nothing is kept
        self._found = {key: found.get(key, now_ms) for key, mark in marks.items() if mark.crossed}
        for mark in changed.values():
            if mark.crossed:
                self._observer.found(
                    signature=SIGNATURE,
                    kind=mark.budget.name,
                    severity=_severity(mark.part),
                    service=mark.budget.scope.service,
                    agent=mark.budget.scope.agent_name,
                )
        return len(changed)


def spent_sql(budgets: Sequence[BudgetConfig]) -> tuple[str, dict[str, Any]]:
    """The query for what each budget used in the hours of a day, and its parameters without the day."""
    sums, params = [], {}
    for number, budget in enumerate(budgets):
        used = "cost_usd" if budget.unit == "usd" else "input_tokens + output_tokens"
        conditions = []
        for name, value in budget.scope.conditions().items():
            params[f"b{number}_{name}"] = value
            conditions.append(f"{name} = {{b{number}_{name}:String}}")
        total = f"sumIf({used}, {' AND '.join(conditions)})" if conditions else f"sum({used})"
        whole = f"toInt128({total} * 1000000000)" if budget.unit == "usd" else total
        sums.append(f"toString({whole}) AS b{number}")
    return load_sql("spanwise", "budgets_spent").replace("{sums}", ",\n    ".join(sums)), params


def _window(kind: str, now_s: int) -> _Window:
    now = datetime.fromtimestamp(now_s, UTC)
    if kind == "month":
        start = datetime(now.year, now.month, 1, tzinfo=UTC)
        end = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
        return _Window(int(start.timestamp()), int(end.timestamp()))
    width_s = _DAY_S if kind == "day" else _HOUR_S
    start_s = now_s // width_s * width_s
    return _Window(start_s, start_s + width_s)


def _state(budget: BudgetConfig, spent: int, forecast: float) -> BudgetState:
    unit = _NANOS if budget.unit == "usd" else 1
    return BudgetState(
        name=budget.name,
        unit=budget.unit,
        limit=budget.limit / unit,
        spent=spent / unit,
        forecast=forecast / unit,
        used_ratio=spent / budget.limit,
    )


def _severity(part: float) -> str:
    return "high" if part >= 1 else "warning"


def _finding_id(budget: BudgetConfig, window: _Window, part: float) -> str:
    """A budget that gets another limit or scope is another one, and is told about anew."""
    scope = sorted(budget.scope.conditions().items())
    named = [SIGNATURE, budget.name, scope, budget.unit, budget.limit, budget.window, window.start_s, part]
    return hashlib.blake2b(repr(named).encode(), digest_size=16).hexdigest()


def _row(finding_id: str, mark: _Mark, detected_ms: int, now_ms: int) -> dict[str, Any]:
    budget, window, state = mark.budget, mark.window, mark.state
    digits = 9 if budget.unit == "usd" else 0
    evidence = {
        "threshold": f"{mark.part:g}",
        "used_ratio": f"{state.used_ratio:.4f}",
        f"spent_{budget.unit}": f"{state.spent:.{digits}f}",
        f"limit_{budget.unit}": f"{state.limit:.{digits}f}",
        f"forecast_{budget.unit}": f"{state.forecast:.{digits}f}",
        "window": budget.window,
        "window_end": datetime.fromtimestamp(window.end_s, UTC).isoformat(),
        **{f"scope.{name}": value for name, value in budget.scope.conditions().items()},
    }
    scope = budget.scope
    return {
        "tenant": scope.tenant,
        "trace_id": "",
        "finding_id": finding_id,
        "signature": SIGNATURE,
        "kind": budget.name,
        "severity": _severity(mark.part),
        "basis": "exact",
        "service": scope.service,
        "agent_name": scope.agent_name,
        "agent_version": scope.agent_version,
        "tool_name": "",
        "model": scope.model,
        "conversation_id": "",
        "first_span_id": "",
        "last_span_id": "",
        "span_ids": [],
        "count": 1,
        "wasted_tokens": 0,
        "wasted_cost_usd": 0,
        "evidence": sorted(evidence.items()),
        "rule_version": 1,
        "started_at": window.start_s * _NANOS,
        "detected_at": detected_ms,
        "day": window.start_s // _DAY_S,
        "received_at": now_ms,
        "version": now_ms,
        "withdrawn": int(not mark.crossed),
    }
