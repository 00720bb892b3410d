"""How long rows are kept: by table, by class of tenants, and longer where a trace failed.

The column `retention` says which class a row is in. ClickHouse fills it in from the tenant when the row is inserted, it
is part of the partition, and the TTL of a table looks it up: so parts hold rows of one class and are dropped whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_DAYS_MAX: Final = 10_000
_FOR_EVER_DAYS: Final = 20_000
"""54 years, in a table that keeps other rows shorter: a TTL is a DateTime, and those end in 2106."""
FAILED: Final = "failed"


class TtlDays(BaseModel):
    """Days rows are kept after they were received, 0 for ever. Counted from arrival, so imported history stays."""

    model_config = ConfigDict(extra="forbid")

    spans: int = Field(30, ge=0, le=_DAYS_MAX, description="Days a span is kept after it was received, 0 for ever.")
    content: int = Field(
        14, ge=0, le=_DAYS_MAX, description="Days prompts, answers and other large values are kept, 0 for ever."
    )
    log_events: int = Field(14, ge=0, le=_DAYS_MAX, description="Days log records are kept, 0 for ever.")
    traces: int = Field(90, ge=0, le=_DAYS_MAX, description="Days the summary of a trace is kept, 0 for ever.")
    findings: int = Field(90, ge=0, le=_DAYS_MAX, description="Days a finding is kept, 0 for ever.")
    alert_deliveries: int = Field(
        90, ge=0, le=_DAYS_MAX, description="Days it is kept which findings webhooks were told about, 0 for ever."
    )
    rollup_1m: int = Field(400, ge=0, le=_DAYS_MAX, description="Days the sums of a minute are kept, 0 for ever.")


class ClassTtlDays(BaseModel):
    """Days where they differ from `store.ttl_days`, 0 for ever."""

    model_config = ConfigDict(extra="forbid")

    spans: int | None = Field(None, ge=0, le=_DAYS_MAX, description="Days of spans.")
    content: int | None = Field(None, ge=0, le=_DAYS_MAX, description="Days of prompts, answers and large values.")
    log_events: int | None = Field(None, ge=0, le=_DAYS_MAX, description="Days of log records.")
    traces: int | None = Field(None, ge=0, le=_DAYS_MAX, description="Days of summaries of traces.")
    findings: int | None = Field(None, ge=0, le=_DAYS_MAX, description="Days of findings.")
    alert_deliveries: int | None = Field(None, ge=0, le=_DAYS_MAX, description="Days of what webhooks were told.")
    rollup_1m: int | None = Field(None, ge=0, le=_DAYS_MAX, description="Days of the sums of a minute.")


class FailedTtlDays(BaseModel):
    """Days the rows of failed traces are kept where that is longer than for other traces, 0 for ever."""

    model_config = ConfigDict(extra="forbid")

    spans: int | None = Field(None, ge=0, le=_DAYS_MAX, description="Days of their spans.")
    content: int | None = Field(None, ge=0, le=_DAYS_MAX, description="Days of their prompts and other large values.")
    log_events: int | None = Field(None, ge=0, le=_DAYS_MAX, description="Days of their log records.")
    traces: int | None = Field(None, ge=0, le=_DAYS_MAX, description="Days of their summaries.")


class TtlFailed(BaseModel):
    """Which traces count as failed, and how long they are kept."""

    model_config = ConfigDict(extra="forbid")

    severity: Literal["info", "warning", "high", "critical"] = Field(
        "high", description="A trace with a finding this severe has failed."
    )
    days: FailedTtlDays = Field(
        default_factory=lambda: FailedTtlDays(spans=90, content=90, log_events=90),
        description="How long rows of failed traces are kept, where longer than those of others.",
    )
    every_s: float = Field(
        3600, ge=60, description="Seconds between two looks for failed traces of which rows will soon expire."
    )


class TtlClass(BaseModel):
    """Tenants whose rows are kept for other times than everybody's."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9]{0,31}$", description="Value of the column `retention`.")
    tenants: tuple[str, ...] = Field(min_length=1, description="The tenants in it.")
    days: ClassTtlDays = Field(default_factory=ClassTtlDays, description="Days that differ from `store.ttl_days`.")
    failed_days: FailedTtlDays = Field(
        default_factory=FailedTtlDays, description="Days of failed traces, where longer than `days`; none by default."
    )


class TtlOptions(BaseModel):
    """The part of a store's options that says how long rows are kept."""

    model_config = ConfigDict(extra="forbid")

    ttl_days: TtlDays = Field(default_factory=TtlDays, description="How long each table keeps its rows.")
    ttl_failed: TtlFailed = Field(default_factory=TtlFailed, description="Failed traces are kept longer.")
    ttl_classes: tuple[TtlClass, ...] = Field((), description="Classes of tenants that keep rows for other times.")

    @model_validator(mode="after")
    def _one_class_each(self) -> Self:
        names = [each.name for each in self.ttl_classes]
        tenants = [tenant for each in self.ttl_classes for tenant in each.tenants]
        if twice := {name for name in names if names.count(name) > 1} | ({FAILED} & {*names}):
            raise ValueError(f"ttl_classes: the name {min(twice)} is taken")
        if twice := {tenant for tenant in tenants if tenants.count(tenant) > 1}:
            raise ValueError(f"ttl_classes: the tenant {min(twice)} is in two classes")
        return self

    def days(self, table: str) -> dict[str, int]:
        """Days of a table by value of `retention`, 0 for ever."""
        found = {"": getattr(self.ttl_days, table)}
        for each in self.ttl_classes:
            own = getattr(each.days, table)
            found[each.name] = found[""] if own is None else own
        for name, kept_as, kept in self._kept(table):
            found[kept_as] = max(found[name], kept, key=lambda days: days or _FOR_EVER_DAYS)
        return found

    def shortest_days(self, table: str) -> int:
        """Days after which rows of a table may be gone, 0 for never."""
        return min((days for days in self.days(table).values() if days), default=0)

    def kept_longer(self, table: str) -> list[tuple[str, str, int]]:
        """(class, class of its failed traces, days of the former) wherever the latter keeps a table's rows longer."""
        days = self.days(table)
        return [
            (name, kept_as, days[name])
            for name, kept_as, _ in self._kept(table)
            if 0 < days[name] < (days[kept_as] or _FOR_EVER_DAYS)
        ]

    def _kept(self, table: str) -> list[tuple[str, str, int]]:
        wanted = [("", FAILED, self.ttl_failed.days)]
        wanted += [(each.name, f"{each.name}_{FAILED}", each.failed_days) for each in self.ttl_classes]
        found = [(name, kept_as, getattr(days, table, None)) for name, kept_as, days in wanted]
        return [(name, kept_as, days) for name, kept_as, days in found if days is not None]


def class_of_tenant(options: TtlOptions) -> str:
    """The default of the column `retention`, as ClickHouse writes it back."""
    pairs = [(tenant, each.name) for each in options.ttl_classes for tenant in each.tenants]
    if not pairs:
        return "''"
    tenants, names = zip(*pairs, strict=True)
    return f"transform(tenant, {_array(tenants)}, {_array(names)}, '')"


def ttl(options: TtlOptions, table: str) -> str:
    """The TTL of a table, as ClickHouse writes it back; '' where rows are kept for ever."""
    days = options.days(table)
    if not any(days.values()):
        return ""
    finite = {name: each or _FOR_EVER_DAYS for name, each in days.items()}
    others = {name: each for name, each in finite.items() if each != finite[""]}
    if not others:
        return f"toDateTime(received_at) + toIntervalDay({finite['']})"
    names, values = _array(list(others)), ", ".join(map(str, others.values()))
    return f"toDateTime(received_at) + toIntervalDay(transform(retention, {names}, [{values}], {finite['']}))"


def literal(value: object) -> str:
    """A value as a string of SQL."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _array(values: Sequence[str]) -> str:
    return f"[{', '.join(map(literal, values))}]"
