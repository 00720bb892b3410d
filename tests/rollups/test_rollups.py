"""Sums by minute are those of the deduplicated spans, whatever happened on the way."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spanwise.model import ROLLUP_1M, SPANS
from spanwise.rollups import WATERMARK, Rollups, RollupsConfig
from spanwise.store import StoreError
from tests.build import START, batch, llm, span, version
from tests.reconcile.conftest import Journal
from tests.rollups.conftest import FIGURES, GROUP, World

MINUTE = 60 * 10**9
EXAMPLES = int(os.environ.get("SPANWISE_ROLLUP_EXAMPLES", "8"))

Sums = dict[tuple[Any, ...], dict[str, Any]]


def recount(world: World) -> Sums:
    """What the sums should be, from the deduplicated rows, one at a time."""
    table = world.store.read_arrow(
        f"SELECT {', '.join(SPANS.names)} FROM spans FINAL WHERE tenant = {{tenant:String}}",
        {"tenant": world.tenant},
        schema=SPANS.arrow,
    )
    start = table.column("start_time").cast(pa.int64()).to_pylist()
    found: Sums = {}
    for row, at in zip(table.drop_columns(["start_time"]).to_pylist(), start, strict=True):
        if not (row["kind"] or row["operation"] or row["usage_scope"] == "own"):
            continue
        row["minute"], row["model"] = (at or 0) // MINUTE * 60, row["response_model"] or row["request_model"]
        own = row["usage_scope"] == "own"
        call = row["kind"] not in ("llm", "embedding") or row["usage_scope"] != "aggregate"
        failed = row["status"] == "error" or row["error_type"] != ""
        used = row["input_tokens"] is not None or row["output_tokens"] is not None
        tool_failed = row["tool_status"] == "error" or (row["tool_status"] == "" and failed)
        group = found.setdefault(
            tuple(row[name] for name in GROUP),
            {name: Counter() if name.endswith("buckets") else 0 for name in FIGURES} | {"cost_usd": Decimal(0)},
        )
        group["spans"] += 1
        group["calls"] += call
        group["errors"] += call and failed
        group["tool_errors"] += call and row["kind"] == "tool" and tool_failed
        for name in FIGURES:
            if name.endswith("tokens") and own:
                group[name] += row[name] or 0
        group["cost_usd"] += (row["cost_usd"] or 0) if own else 0
        group["unpriced_calls"] += own and used and row["cost_usd"] is None
        if call:
            group["duration_buckets"][_bucket(row["duration_ns"])] += 1
            if row["time_to_first_chunk_s"] is not None:
                group["first_chunk_buckets"][_bucket(row["time_to_first_chunk_s"] * 1e9)] += 1
    for group in found.values():
        for name in ("duration_buckets", "first_chunk_buckets"):
            group[name] = sorted(group[name].items())
    return found


def _bucket(nanos: float) -> int:
    return math.ceil(math.log2(max(nanos, 1)) / math.log2(1.02))


def _span(number: int, edition: int) -> dict[str, Any]:
    """One of several editions of a span: each may move it to another group."""
    at = START + number % 3 * MINUTE + number * 1_000_003
    duration = 10_000_019 * (number + 1)
    columns: dict[str, Any] = {
        "start": at,
        "duration": duration,
        "trace": number // 4,
        "agent_name": ["", "planner", "writer"][edition % 3],
        "agent_version": ["1", "2"][edition % 2],
        "version": version(at + duration + (edition << 21), edition + 1),
    }
    parent = number - number % 4 if number % 4 else None
    if number % 4 == 0:  # repeats the usage of its children, if they arrive
        return llm(number, parent, usage=(300, 30), usage_scope_reason="tentative", **columns)
    if number % 4 == 1:
        status = ["ok", "error"][edition % 2]
        return span(number, parent, kind="tool", operation="execute_tool", tool_name="search", status=status, **columns)
    if number % 4 == 2 and edition == 2:
        return span(number, parent, **columns)  # no GenAI span after all
    chunk = 0.25 * (edition + 1)
    return llm(number, parent, usage=(100 + edition, 7), time_to_first_chunk_s=chunk, cache_read_tokens=9, **columns)


_DELIVERY = st.tuples(
    st.just("deliver"),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2)), min_size=1, max_size=8),
    st.sampled_from(["", "", "stored", "told"]),
)
_WAIT = st.tuples(st.just("wait"), st.sampled_from([1.0, 40.0, 400.0]), st.sampled_from(["", "", "before", "after"]))
_STEPS = st.lists(st.tuples(_DELIVERY, _WAIT), min_size=2, max_size=6).map(lambda pairs: sum(pairs, ()))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_STEPS)
def test_any_redelivery_order_change_and_crash_ends_in_the_sums_of_a_recount(
    worlds: Callable[[], World], steps: tuple[tuple[str, Any, str], ...]
) -> None:
    world = worlds()
    for what, argument, die in steps:
        if what == "deliver":
            world.deliver([_span(*one) for one in argument], die=die)
        else:
            world.now_s += argument
            world.tick(die)
    world.quiet()
    counted, expected = world.sums(), recount(world)
    assert counted == expected
    assert world.sums("rollup") == expected
    assert sum((row["cost_usd"] for row in counted.values()), Decimal(0)) == sum(
        (row["cost_usd"] for row in expected.values()), Decimal(0)
    )


def test_group_that_vanishes_becomes_a_row_of_zeros(world: World) -> None:
    world.deliver([llm(1, agent_name="old")])
    world.quiet()
    world.deliver([llm(1, agent_name="new", version=version(START + 10**9, 2))])
    world.quiet()
    rows = world.sums(where="true")
    assert {key[3]: row["spans"] for key, row in rows.items()} == {"old": 0, "new": 1}
    assert {key[3] for key in world.sums("rollup")} == {"new"}


def test_corrected_scope_is_counted_again(world: World) -> None:
    """The reconciler finds, after the minute was counted, that the parent repeats the usage of its child."""
    world.deliver([llm(1, kind="agent", operation="invoke_agent", usage_scope_reason="tentative")])
    world.quiet()
    assert sum(row["input_tokens"] for row in world.sums().values()) == 100
    world.deliver([llm(2, 1)])
    world.quiet()
    assert sum(row["input_tokens"] for row in world.sums().values()) == 100
    assert world.sums() == recount(world)


def test_correction_whose_news_was_lost_is_counted_again(world: World) -> None:
    """The program ends after the reconciler stored a correction and before a count, long after the minute closed."""
    world.deliver([llm(1, kind="agent", operation="invoke_agent", usage_scope_reason="tentative")])
    world.quiet()
    world.deliver([llm(2, 1, start=START + 5 * MINUTE)])
    world.now_s += 5
    assert world.reconciler.tick() == 1
    world.kill()
    world.quiet()
    assert sum(row["input_tokens"] for row in world.sums().values()) == 100


def test_view_answers_for_minutes_that_are_not_counted_yet(world: World) -> None:
    world.store.command("TRUNCATE TABLE rollup_1m")
    now = world.store.read_arrow("SELECT toUnixTimestamp64Nano(now64(9)) AS now").to_pylist()[0]["now"]
    world.now_s = (now - START) / 1e9
    world.deliver([llm(1, start=now - 5 * MINUTE)])
    world.now_s += 130
    world.tick()
    assert len(world.sums()) == 1
    world.deliver([llm(2, start=now, agent_name="live")])
    assert {key[3] for key in world.sums("rollup")} == {"", "live"}
    assert {key[3] for key in world.sums()} == {""}


def test_minutes_that_a_view_has_shown_do_not_vanish_while_they_wait_to_be_counted(world: World) -> None:
    world.now_s = 50.0
    world.deliver([llm(1, start=START - 10 * MINUTE), llm(2, start=START)])
    shown = world.sums("rollup")

    for _ in range(60):  # the later minute is due 15 s after its end, the earlier one 30 s after it came
        world.now_s += 1
        world.tick()
        assert world.sums("rollup") == shown
    assert world.sums() == shown


def test_hours_and_days_merge_minutes_exactly(world: World) -> None:
    world.deliver([llm(n, start=START + n * MINUTE, duration=10**8 * n) for n in range(1, 100)])
    world.quiet()
    for table, groups in (("rollup_1h", 2), ("rollup_1d", 1)):
        (found,) = world.store.read_arrow(
            f"SELECT count() AS groups, sum(calls) AS calls, sum(input_tokens) AS tokens, "
            f"pow(1.02, quantileExactWeightedArray(0.5)(mapKeys(duration_buckets), mapValues(duration_buckets))) / 1e9 "
            f"AS p50 FROM {table} WHERE tenant = {{tenant:String}}",
            {"tenant": world.tenant},
        ).to_pylist()
        assert (found["groups"], found["calls"], found["tokens"]) == (groups, 99, 9_900)
        assert found["p50"] == pytest.approx(5.0, rel=0.02)


def test_minutes_beyond_what_memory_holds_are_found_again_in_the_store(world: World) -> None:
    world.start(RollupsConfig(dirty_max=4))
    world.deliver([llm(n, start=START - n * 7 * MINUTE) for n in range(1, 31)])
    stats = world.rollups.stats()
    assert (stats.dirty, stats.overflows, stats.lost) == (4, 26, True)
    world.quiet()
    assert len(world.sums()) == 30
    assert world.sums() == recount(world)


def test_minutes_that_are_lost_while_others_are_searched_are_counted(world: World) -> None:
    world.start(RollupsConfig(dirty_max=4))
    world.deliver([llm(n, start=START - n * 7 * MINUTE) for n in range(1, 31)])
    for more in range(31, 91, 10):
        world.now_s += 40
        world.tick()
        world.deliver([llm(n, start=START - n * 7 * MINUTE) for n in range(more, more + 10)])
    world.kill()
    world.quiet()
    assert len(world.sums()) == 90
    assert world.sums() == recount(world)


def test_mark_goes_back_at_once_when_minutes_are_taken_over(world: World) -> None:
    """Whoever takes them over may die before the first row arrives."""
    world.deliver([llm(1)])
    world.quiet()
    before = int(str(world.journal.get_meta(WATERMARK)))
    world.rollups.rebuild(before - 60_000)
    assert int(str(world.journal.get_meta(WATERMARK))) == before - 60_000


def test_minute_whose_spans_may_be_deleted_keeps_its_sums(world: World) -> None:
    world.deliver([llm(1)])
    world.quiet()
    world.now_s += 40 * 86_400
    world.start(keep_days=30)
    world.store.command(
        "ALTER TABLE spans DELETE WHERE tenant = {tenant:String} SETTINGS mutations_sync = 2", {"tenant": world.tenant}
    )
    world.deliver([llm(2)])
    world.quiet()
    assert [row["spans"] for row in world.sums().values()] == [1]
    assert world.rollups.stats().expired == 1


def test_count_that_fails_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StoreError("the store is away")

    world.deliver([llm(1)])
    world.now_s += 200
    with monkeypatch.context() as patched:
        patched.setattr(world.deadly, "derive", away)
        with pytest.raises(StoreError):
            world.rollups.tick()
    assert world.rollups.tick() == 1
    assert world.sums() == recount(world)


def test_impossible_times_are_counted_too(world: World) -> None:
    world.deliver([llm(1, start=0, time_flag="zero"), llm(2, start=2**62, time_flag="future", day=20_000)])
    world.quiet()
    assert sum(row["spans"] for row in world.sums().values()) == 2


def test_equal_rows_make_no_work(world: World) -> None:
    world.quiet()
    before = world.rollups.stats().minutes
    world.rollups.touched(batch([]))
    assert world.rollups.tick() == 0
    assert world.rollups.stats().minutes == before


def test_of_two_workers_that_count_one_minute_at_once_the_one_that_saw_more_wins(world: World) -> None:
    """The first reads, is slow, and writes after the second has counted a span that the first did not see."""
    world.deliver([llm(1)])
    world.now_s += 200

    class Slow:
        read_arrow = world.store.read_arrow

        def derive(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
            rows = world.store.read_arrow(sql[sql.index("SELECT") :], params)
            world.deliver([llm(2)])
            world.now_s += 2_000
            assert world.rollups.tick() == 1
            (read,) = rows.rename_columns(columns_of(sql)).to_pylist()
            assert read["spans"] == 1
            batch_ = pa.RecordBatch.from_pylist([read], schema=ROLLUP_1M.arrow)
            world.store.insert(ROLLUP_1M, batch_, f"slow-{world.tenant}")

    slow = Rollups(store=Slow(), journal=Journal(), wall_ns=world.wall_ns)
    assert slow.tick() == 1
    assert [row["spans"] for row in world.sums().values()] == [2]
    assert world.sums() == recount(world)


def test_a_group_that_vanished_while_another_worker_counted_does_not_stay(world: World) -> None:
    """Who counts later writes zeros only for groups it finds; the slow one's are written after it has looked."""
    world.deliver([llm(1)])
    world.now_s += 200

    class SlowOnce:
        read_arrow = world.store.read_arrow

        def derive(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
            rows = world.store.read_arrow(sql[sql.index("SELECT") :], params)
            world.deliver([llm(1, duration=5 * 10**9, response_model="gpt-4o-mini")])
            world.now_s += 2_000
            assert world.rollups.tick() == 1
            (read,) = rows.rename_columns(columns_of(sql)).to_pylist()
            batch_ = pa.RecordBatch.from_pylist([read], schema=ROLLUP_1M.arrow)
            world.store.insert(ROLLUP_1M, batch_, f"slow-{world.tenant}")
            self.derive = world.store.derive  # type: ignore[method-assign]

    slow = Rollups(store=SlowOnce(), journal=Journal(), wall_ns=world.wall_ns)
    assert slow.tick() == 1
    assert len(world.sums()) == 2
    assert slow.stats().dirty == 1
    world.now_s += 200
    assert slow.tick() == 1
    assert world.sums() == recount(world)
    assert slow.stats().dirty == 0


def columns_of(sql: str) -> list[str]:
    return sql[sql.index("(") + 1 : sql.index(")")].split(", ")
