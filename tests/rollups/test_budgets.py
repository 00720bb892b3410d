"""Budgets say exactly what was spent, and tell once about each part of a limit that is used up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from inline_snapshot import snapshot
from pydantic import ValidationError

from spanwise.budgets import BudgetConfig, Budgets, BudgetState, spent_sql
from spanwise.config import Config
from tests.build import START, llm, version
from tests.detector.conftest import Observer
from tests.rollups.conftest import World

HOUR = 3_600
CALL_USD = Decimal("0.00035")
"""100 tokens into gpt-4o and 10 out of it."""


class Watching:
    """Budgets on the store of a world, with what they said."""

    def __init__(self, world: World, *budgets: Mapping[str, Any]) -> None:
        self.world = world
        self.observer = Observer()
        self.reads: list[str] = []
        scoped = [{**budget, "scope": {"tenant": world.tenant, **budget.get("scope", {})}} for budget in budgets]
        self.budgets = Budgets(
            [BudgetConfig.model_validate(budget) for budget in scoped],
            store=self,
            sink=world.sink,
            observer=self.observer,
            wall_ns=world.wall_ns,
        )

    def read_arrow(
        self, sql: str, params: Mapping[str, Any] | None = None, *, schema: pa.Schema | None = None
    ) -> pa.Table:
        self.reads.append(sql)
        return self.world.store.read_arrow(sql, params, schema=schema)

    def state(self) -> BudgetState:
        self.budgets.tick()
        (state,) = self.budgets.stats().budgets
        return state

    def told(self) -> list[tuple[str, str, str]]:
        return [(labels["signature"], labels["kind"], labels["severity"]) for labels in self.observer.labels]


def findings(world: World) -> list[dict[str, Any]]:
    table = world.store.read_arrow(
        "SELECT * FROM findings FINAL WHERE signature = 'budget' AND tenant = {tenant:String} ORDER BY detected_at, "
        "severity, evidence['threshold']",
        {"tenant": world.tenant},
    )
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def calls(first: int, count: int, **columns: Any) -> list[dict[str, Any]]:
    return [llm(number, trace=number, **columns) for number in range(first, first + count)]


def counted(world: World, rows: list[dict[str, Any]]) -> None:
    world.deliver(rows)
    world.quiet()


def test_each_part_of_a_limit_that_is_used_up_is_told_about_once(world: World) -> None:
    watching = Watching(world, {"name": "all", "limit_usd": CALL_USD * 10})
    counted(world, calls(1, 4))
    assert watching.state().used_ratio == 0.4
    assert findings(world) == []
    counted(world, calls(5, 1))
    assert watching.state().used_ratio == 0.5
    watching.budgets.tick()
    counted(world, calls(6, 7))
    assert watching.state().used_ratio == 1.2
    watching.budgets.tick()
    found = findings(world)
    assert [(row["severity"], dict(row["evidence"])["threshold"]) for row in found] == [
        ("warning", "0.5"),
        ("high", "1"),
        ("warning", "0.8"),
    ]
    assert [(row["trace_id"], row["kind"], row["basis"]) for row in found] == [("", "all", "exact")] * 3
    assert dict(found[1]["evidence"])["spent_usd"] == "0.004200000"
    assert watching.told() == [
        ("budget", "all", "warning"),
        ("budget", "all", "warning"),
        ("budget", "all", "high"),
    ]


def test_another_start_or_worker_finds_the_same_findings(world: World) -> None:
    budget = {"name": "all", "limit_tokens": 100}
    counted(world, calls(1, 1))
    first, second = Watching(world, budget), Watching(world, budget)
    assert second.budgets.tick() == 3
    before = findings(world)
    # knows nothing of the other, as a worker that looked at the same moment
    first.budgets._found = {}
    assert first.budgets.tick() == 3
    assert [row["finding_id"] for row in findings(world)] == [row["finding_id"] for row in before]
    assert Watching(world, budget).budgets.tick() == 0


def test_money_that_was_not_spent_takes_the_finding_back(world: World) -> None:
    watching = Watching(world, {"name": "all", "limit_tokens": 200, "warn_at": [1]})
    agent = llm(1, kind="agent", operation="invoke_agent", usage=(190, 10), usage_scope_reason="tentative")
    counted(world, [agent])
    assert watching.state().spent == 200
    assert len(findings(world)) == 1
    counted(world, [llm(2, 1, usage=(150, 10))])
    assert watching.state().spent == 160
    assert findings(world) == []
    counted(world, calls(3, 1))
    assert watching.state().spent == 270
    assert len(findings(world)) == 1


@pytest.mark.parametrize(
    ("scope", "spent"),
    [
        ({}, 330),
        ({"service": "shop"}, 110),
        ({"agent_name": "o'hara\\"}, 110),
        ({"service": "shop", "agent_name": "o'hara\\"}, 0),
        ({"provider": "openai"}, 330),
        ({"model": "gpt-4o"}, 0),
        ({"model": "gpt-4o-2024-08-06"}, 330),
    ],
)
def test_only_what_is_in_scope_counts(world: World, scope: dict[str, str], spent: int) -> None:
    counted(world, calls(1, 1) + calls(2, 1, service="shop") + calls(3, 1, agent_name="o'hara\\"))
    assert Watching(world, {"name": "one", "scope": scope, "limit_tokens": 10**6}).state().spent == spent


def test_windows_are_hours_days_and_months_of_utc(world: World) -> None:
    at = int(datetime(2026, 6, 30, 23, 30, tzinfo=UTC).timestamp())
    world.now_s = at - START / 1e9
    for number, seconds in enumerate((0, -HOUR, -24 * HOUR, -29 * 24 * HOUR, -31 * 24 * HOUR)):
        start = (at + seconds) * 10**9
        world.deliver([llm(number + 1, trace=number + 1, start=start, day=start // (86_400 * 10**9))])
    world.quiet()
    world.now_s = at - START / 1e9
    spent = {
        window: Watching(world, {"name": "w", "window": window, "limit_tokens": 10**6}).state().spent
        for window in ("hour", "day", "month")
    }
    assert spent == {"hour": 110, "day": 220, "month": 440}
    watching = Watching(world, {"name": "w", "limit_tokens": 440})
    assert watching.budgets.tick() == 3
    world.now_s += HOUR
    assert watching.state().spent == 0
    assert len(findings(world)) == 3, "what was found in June stays"


def test_a_forecast_goes_on_as_it_did_lately(world: World) -> None:
    """24 hours at 110 tokens an hour; on June 3rd at noon 27.5 days are left."""
    now_s = 48 * HOUR
    for hour in range(25):
        start = START + (now_s - hour * HOUR) * 10**9
        world.deliver([llm(hour + 1, trace=hour + 1, start=start, day=start // (86_400 * 10**9))])
    world.now_s = float(now_s + HOUR)
    world.quiet()
    world.now_s = float(now_s) + 1
    state = Watching(world, {"name": "all", "limit_tokens": 10**6}).state()
    assert state.spent == 25 * 110
    assert state.forecast == pytest.approx(25 * 110 + 25 * 110 / 24 * 27.5 * 24, rel=0.01)


def test_days_that_were_not_counted_again_are_not_read_again(world: World) -> None:
    for day in range(3):
        start = START + day * 86_400 * 10**9
        world.deliver([llm(day + 1, trace=day + 1, start=start, day=start // (86_400 * 10**9))])
    world.now_s = 48.0 * HOUR
    world.quiet()
    watching = Watching(world, {"name": "all", "limit_tokens": 10**6})
    assert watching.state().spent == 330

    def days_read() -> int:
        watching.reads.clear()
        watching.budgets.tick()
        return sum("toStartOfHour" in sql for sql in watching.reads)

    assert days_read() == 0
    counted(world, [llm(1, trace=1, version=version(START + 10**9, 2), usage=(900, 10), day=START // (86_400 * 10**9))])
    assert days_read() == 1
    assert watching.state().spent == 1_130


def test_a_look_that_fails_changes_nothing_and_is_made_again(world: World) -> None:
    watching = Watching(world, {"name": "all", "limit_tokens": 100})
    counted(world, calls(1, 1))
    write, world.sink.write_findings = world.sink.write_findings, None  # type: ignore[assignment,method-assign]
    with pytest.raises(TypeError):
        watching.budgets.tick()
    world.sink.write_findings = write  # type: ignore[method-assign]
    assert watching.budgets.tick() == 3
    assert len(findings(world)) == 3


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"name": "a"}, "budget a needs limit_usd or limit_tokens"),
        ({"name": "a", "limit_usd": 1, "limit_tokens": 1}, "and not both"),
        ({"name": "a", "limit_usd": 0}, "greater than 0"),
        ({"name": "a b", "limit_usd": 1}, "pattern"),
        ({"name": "a", "limit_usd": 1, "warn_at": [0]}, "above 0"),
        ({"name": "a", "limit_usd": 1, "scope": {"team": "x"}}, "Extra inputs"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(budget: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        BudgetConfig.model_validate(budget)


def test_two_budgets_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two budgets are named a"):
        Config.model_validate({"budgets": [{"name": "a", "limit_usd": 1}] * 2})


def test_the_query_that_is_built() -> None:
    budgets = [
        BudgetConfig.model_validate({"name": "all", "limit_usd": 100}),
        BudgetConfig.model_validate({"name": "x", "scope": {"service": "a", "model": "b"}, "limit_tokens": 1}),
    ]
    assert spent_sql(budgets) == snapshot(
        (
            """\
-- What each budget's part of the traffic used in each hour of a day: cost in 10⁻⁹ USD, or tokens.
SELECT toUnixTimestamp(toStartOfHour(minute)) AS hour, toString(toInt128(sum(cost_usd) * 1000000000)) AS b0,
    toString(sumIf(input_tokens + output_tokens, service = {b1_service:String} AND model = {b1_model:String})) AS b1
FROM rollup_1m FINAL
WHERE minute >= toDateTime({day:Int64} * 86400, 'UTC') AND minute < toDateTime(({day:Int64} + 1) * 86400, 'UTC')
GROUP BY hour
""",
            {"b1_service": "a", "b1_model": "b"},
        )
    )
