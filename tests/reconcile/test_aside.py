"""A trace that cannot be decided keeps no other trace waiting; nor does one that is larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
import structlog
from inline_snapshot import snapshot

from processors.price import Price
from spanwise.reconciler import WATERMARK
from spanwise.store import StoreError
from tests.build import START, llm, span, trace_id
from tests.reconcile.conftest import Row, World
from tests.reconcile.test_decide import agent
from tests.reconcile.test_moving import Territory
from tests.reconcile.test_reconciler import usage_record

SECOND = 10**9
BAD = 13


class Choking:
    """Prices like the real one, but while it is `broken` it raises at a model."""

    def __init__(self, price: Price) -> None:
        self._price = price
        self.broken = True
        self.tries = 0

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if "choker" in batch.column("request_model").to_pylist():
            self.tries += 1
            if self.broken:
                raise ZeroDivisionError
        return self._price(batch)


@pytest.fixture
def price(world: World) -> Choking:
    found = Choking(world.price)
    world.reconciler._price = found
    return found


def restart(world: World, price: Choking, **options: Any) -> None:
    world.start(**options)
    world.reconciler._price = price


def arrive_bad(world: World, trace: int = BAD, *, first: int | None = None) -> None:
    """A trace whose decision prices a call again, with what a log record says of it."""
    number = first or 1_000 * trace
    call = llm(number, trace=trace, request_model="choker") | {"input_tokens": None, "output_tokens": None}
    of = usage_record(number, number, trace=trace, input_tokens=7, output_tokens=1, request_model="choker")
    world.arrive([call | {"usage_scope": "none"}, agent(number + 1, usage=(5, 1), trace=trace)], [of])


def tick(world: World, after_s: float = 2) -> int:
    world.now_s += after_s
    return world.reconciler.tick()


def decided(world: World) -> set[str]:
    return {trace for trace, row in world.traces().items() if row["partial"] == ""}


def watermark(world: World) -> int:
    return int(world.journal.notes[WATERMARK])


@contextmanager
def constraint(world: World, table: str, check: str) -> Iterator[None]:
    """The store refuses some rows for good."""
    world.store.command(f"ALTER TABLE {table} ADD CONSTRAINT no CHECK {check}")
    try:
        yield
    finally:
        world.store.command(f"ALTER TABLE {table} DROP CONSTRAINT no")


def test_every_other_trace_of_a_round_is_decided_although_one_cannot_be(world: World, price: Choking) -> None:
    world.reconciler.tick()
    arrive_bad(world)
    world.arrive([llm(n, trace=n) for n in range(1, 31) if n != BAD])
    assert tick(world) == 29
    assert decided(world) == {trace_id(n) for n in range(1, 31) if n != BAD}
    stats = world.reconciler.stats()
    assert (stats.dirty, stats.failed, stats.failed_attempts) == (0, 1, 1)


def test_several_of_a_round_are_found_at_once(world: World, price: Choking) -> None:
    world.reconciler.tick()
    for bad in (3, 4, 17):
        arrive_bad(world, bad)
    world.arrive([llm(n, trace=n) for n in range(1, 31) if n not in (3, 4, 17)])
    assert tick(world) == 27
    assert world.reconciler.stats().failed == 3


def test_an_id_that_is_none_is_decided_like_any_other(world: World) -> None:
    """Somebody wrote into the table by hand."""
    world.reconciler.tick()
    rows = [agent(1, usage=(5, 1)), llm(2, 1)]
    world.arrive([row | {"trace_id": "it's, mine"} for row in rows] + [llm(3, trace=2)])
    assert tick(world) == 2
    world.settle()
    assert decided(world) == {"it's, mine", trace_id(2)}


def test_a_correction_that_the_store_refuses_for_good_stops_nothing(world: World) -> None:
    world.reconciler.tick()
    with constraint(world, "spans", "span_id != '0000000000000001' OR usage_scope != 'own'"):
        world.arrive([agent(1, usage=(5, 1)), llm(2, trace=2)])
        world.sink._observer = _Quiet()
        assert tick(world) == 1
        assert decided(world) == {trace_id(2)}
    world.settle()
    tick(world, 20)
    assert decided(world) == {trace_id(1), trace_id(2)}
    assert world.reconciler.stats().failed == 0


class _Quiet:
    def stored(self, table: str, *, rows: int, bytes_: int, seconds: float) -> None:
        pass

    def refused(self, table: str, *, rows: int, reason: str) -> None:
        pass


def test_a_store_that_is_away_is_no_traces_fault(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.reconciler.tick()
    world.arrive([llm(n, trace=n) for n in range(1, 9)])
    calls = 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        raise StoreError("cannot insert 8 rows into traces: no answer (NewConnectionError)")

    with monkeypatch.context() as patch:
        patch.setattr(world.sink, "write_traces", fail)
        for _ in range(6):
            with pytest.raises(StoreError):
                tick(world)
    assert calls == 6
    assert world.reconciler.stats().failed_attempts == 0
    world.settle()
    assert len(decided(world)) == 8


def full(world: World, of: Callable[[pa.RecordBatch], bool]) -> Callable[..., None]:
    write = world.sink.write_traces

    def fail(traces: pa.RecordBatch, token: str) -> None:
        if of(traces):
            raise StoreError("cannot insert", code=241, name="MEMORY_LIMIT_EXCEEDED")
        write(traces, token)

    return fail


def test_a_store_that_takes_nothing_for_a_while_sets_no_trace_aside(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reconciler.tick()
    world.arrive([llm(n, trace=n) for n in range(1, 4)])
    with monkeypatch.context() as patch:
        patch.setattr(world.sink, "write_traces", full(world, lambda _: True))
        for _ in range(6):
            with pytest.raises(StoreError):
                tick(world)
    assert world.reconciler.stats().failed_attempts == 0
    world.settle()
    assert len(decided(world)) == 3


def test_a_trace_that_is_always_too_much_for_the_store_is_set_aside_after_some_rounds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reconciler.tick()
    world.arrive([llm(n, trace=n) for n in range(1, 9)])
    with monkeypatch.context() as patch:
        patch.setattr(world.sink, "write_traces", full(world, lambda rows: trace_id(5) in str(rows.column("trace_id"))))
        for _ in range(3):
            with pytest.raises(StoreError):
                tick(world)
        assert tick(world) == 7
    assert decided(world) == {trace_id(n) for n in range(1, 9) if n != 5}


def test_it_is_tried_again_alone_after_pauses_that_grow_up_to_a_limit(world: World, price: Choking) -> None:
    restart(world, price, dirty_max_s=10, aside_max_s=60)
    world.reconciler.tick()
    arrive_bad(world)
    tick(world)
    at = []
    for second in range(1, 250):
        before = price.tries
        tick(world, 1)
        at += [second] * (price.tries - before)
    assert at == snapshot([10, 30, 70, 130, 190])


def test_it_is_decided_when_what_was_wrong_is_mended(world: World, price: Choking) -> None:
    world.reconciler.tick()
    arrive_bad(world)
    tick(world)
    assert decided(world) == set()
    price.broken = False
    assert tick(world, 10) == 1
    (summary,) = world.traces().values()
    assert (summary["partial"], summary["input_tokens"]) == ("", 12)
    assert world.reconciler.stats().failed == 0


def test_new_spans_make_it_be_tried_before_its_pause_is_over(world: World, price: Choking) -> None:
    world.reconciler.tick()
    arrive_bad(world)
    for _ in range(8):
        tick(world, 700)
    price.broken = False
    assert tick(world, 1) == 0
    world.arrive([llm(7, trace=BAD)])
    assert tick(world, 10) == 1
    assert decided(world) == {trace_id(BAD)}


def test_a_trace_that_fails_and_goes_on_is_tried_no_more_often_than_one_that_goes_on(
    world: World, price: Choking
) -> None:
    world.reconciler.tick()
    arrive_bad(world)
    tick(world)
    before = price.tries
    for number in range(1, 21):
        world.arrive([span(number, trace=BAD)])
        tick(world, 3)
    assert price.tries - before == 5


def test_what_its_spans_say_is_added_up_and_the_summary_says_that_it_is_no_more_than_that(
    world: World, price: Choking
) -> None:
    world.reconciler.tick()
    arrive_bad(world)
    world.arrive([llm(5, trace=BAD, usage=(100, 10))])
    tick(world)
    (summary,) = world.traces().values()
    assert (summary["partial"], summary["input_tokens"], summary["span_count"]) == ("failed", 100, 3)


def test_it_does_not_hold_the_watermark_back(world: World, price: Choking) -> None:
    world.reconciler.tick()
    arrive_bad(world)
    tick(world)
    late = START // 10**6 + 3_600_000
    world.arrive([llm(1, received_at=late)])
    tick(world)
    assert watermark(world) == late


def test_it_is_found_again_after_a_restart_long_after_the_watermark_has_passed_it(world: World, price: Choking) -> None:
    world.reconciler.tick()
    arrive_bad(world)
    tick(world)
    world.arrive([llm(1, received_at=START // 10**6 + 3_600_000)])
    tick(world)
    world.arrive([llm(2, received_at=START // 10**6 + 3_600_000)])
    world.journal.killed()
    price.broken = False
    restart(world, price)
    world.settle()
    assert decided(world) == {trace_id(1), trace_id(BAD)}


def test_whoever_takes_it_over_tries_it(world: World, price: Choking) -> None:
    before = world.start(territory=Territory(BAD))
    before._price = price
    before.tick()
    arrive_bad(world)
    tick(world)
    before.release()
    assert before.stats().failed == 0
    price.broken = False
    after = world.start(territory=Territory(BAD))
    after.rebuild(watermark(world))
    world.settle()
    assert decided(world) == {trace_id(BAD)}


def test_others_leave_it_alone(world: World, price: Choking) -> None:
    world.reconciler.tick()
    arrive_bad(world)
    tick(world)
    restart(world, price, territory=Territory(1))
    before = price.tries
    world.settle()
    assert (price.tries, world.reconciler.stats().failed) == (before, 0)


def test_more_of_them_than_memory_holds_are_found_in_the_store_when_there_is_room(world: World, price: Choking) -> None:
    restart(world, price, aside_traces_max=2)
    world.reconciler.tick()
    for bad in range(1, 6):
        arrive_bad(world, bad)
    tick(world)
    stats = world.reconciler.stats()
    assert (stats.failed, stats.aside_overflows, stats.dirty) == (2, 3, 0)
    price.broken = False
    for _ in range(12):
        tick(world, 20)
    assert decided(world) == {trace_id(n) for n in range(1, 6)}


def test_two_reports_of_a_call_are_compared_although_a_third_trace_failed_between_them(
    world: World, price: Choking
) -> None:
    world.reconciler.tick()
    arrive_bad(world, 2)
    world.arrive([llm(1, trace=1, response_id="msg_1", scope="a", attributes={"x": "1"})])
    world.arrive([llm(3, trace=3, response_id="msg_1", scope="b")])
    tick(world)
    for _ in range(3):
        tick(world)
    assert [world.spans()[n]["usage_scope"] for n in (1, 3)] == ["own", "aggregate"]


def test_what_is_logged_names_the_trace_and_nothing_that_was_sent(world: World, price: Choking) -> None:
    world.reconciler.tick()
    arrive_bad(world)
    with structlog.testing.capture_logs() as lines:
        tick(world)
    (line,) = (line for line in lines if line["event"] == "trace_set_aside")
    assert line.pop("where").startswith("test_aside.py:")
    assert line == {
        "event": "trace_set_aside",
        "log_level": "error",
        "tenant": world.tenant,
        "trace_id": trace_id(BAD),
        "error": "ZeroDivisionError",
        "failures": 1,
        "retry_in_s": 10.0,
    }


# Oversized


def arrive_large(world: World, spans: int, *, first: int = 1, trace: int = 1, **columns: Any) -> None:
    world.arrive([llm(first + n, trace=trace, usage=(10, 1), **columns) for n in range(spans)])


def summary(world: World, trace: int = 1) -> Row:
    return dict(world.traces()[trace_id(trace)])


def test_a_trace_with_more_spans_than_the_limit_is_added_up_by_the_store(world: World) -> None:
    world.start(spans_per_trace_max=20)
    world.reconciler.tick()
    arrive_large(world, 21)
    world.arrive([span(50, kind="tool", tool_name="find", status="error")])
    tick(world)
    row = summary(world)
    assert (row["partial"], row["span_count"], row["llm_calls"], row["tool_calls"]) == ("oversized", 22, 21, 1)
    assert (row["input_tokens"], row["output_tokens"], row["error_count"]) == (210, 21, 1)
    assert world.reconciler.stats().added_up == 1


def test_its_sums_are_those_of_a_decision_where_nothing_had_to_be_decided(world: World) -> None:
    rows = [llm(n, 1, service=f"s{n % 3}", user_id="u", tool_name="", reported_cost_usd=1) for n in range(2, 12)]
    rows += [span(1, kind="agent", agent_name="buyer", agent_version="2", workflow_name="w", conversation_id="c")]
    rows += [span(12, 2, kind="tool", tool_name="t", tool_status="error", agent_name="buyer", agent_version="2")]
    rows += [span(13, 1, start=0, time_flag="zero"), span(14, 1, start=START + 90 * SECOND, duration=60 * SECOND)]
    world.arrive(rows)
    world.settle()
    whole = summary(world)
    world.start(spans_per_trace_max=3)
    world.arrive(rows)
    world.settle()
    added = summary(world)
    assert (whole.pop("partial"), added.pop("partial")) == ("", "oversized")
    assert added.pop("version") > whole.pop("version")
    # only the whole trace tells whose work a call is that does not name its agent
    for row in (whole, added):
        row["work"] = sorted((one["minute"], one["kind"], one["tool_name"], one["calls"]) for one in row["work"])
        row["work"] = [one for one in row["work"] if one[1] != "llm"]
    assert added == whole


def test_it_is_not_read_back_once_it_is_known(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start(spans_per_trace_max=20)
    world.reconciler.tick()
    arrive_large(world, 21)
    world.settle()
    before = world.reconciler.stats()
    restart_at = world.journal.notes
    world.start(spans_per_trace_max=20)
    assert restart_at == world.journal.notes
    arrive_large(world, 5, first=100)
    world.settle()
    assert world.reconciler.stats().read_back == 0
    assert world.reconciler.stats().added_up == before.added_up == 1
    assert summary(world)["span_count"] == 26


def test_no_more_of_it_is_read_than_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start(spans_per_trace_max=20)
    arrive_large(world, 500)
    world.arrive([llm(1000 + n, trace=2) for n in range(10)])
    world.start(spans_per_trace_max=20)
    world.reconciler.rebuild(0)
    read = world.store.read_arrow
    rows = []

    def counted(sql: str, params: Any = None, *, schema: pa.Schema | None = None) -> pa.Table:
        found = read(sql, params, schema=schema)
        rows.append(found.num_rows)
        return found

    monkeypatch.setattr(world.store, "read_arrow", counted)
    world.settle()
    assert max(rows) <= 21 + 10
    monkeypatch.undo()
    assert {row["partial"] for row in world.traces().values()} == {"", "oversized"}
    assert summary(world)["input_tokens"] == 5_000


def test_a_round_after_a_restart_reads_no_more_than_other_rounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.arrive([llm(100 * trace + n, trace=trace) for trace in range(1, 21) for n in range(10)])
    world.start(rows_per_round=50)
    world.reconciler.rebuild(0)
    rows = rows_read(world, monkeypatch)
    world.settle()
    assert max(rows) <= 50
    assert len(decided(world)) == 20


def rows_read(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of spans that are read back at once, as they come to be."""
    read = world.reconciler._queries.spans
    rows: list[int] = []

    def counted(*arguments: Any) -> Iterator[pa.RecordBatch]:
        found = list(read(*arguments))
        rows.append(sum(part.num_rows for part in found))
        yield from found

    monkeypatch.setattr(world.reconciler._queries, "spans", counted)
    return rows


def test_a_round_of_long_traces_that_go_on_reads_no_more_than_other_rounds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start(rows_per_round=50)
    world.arrive([llm(100 * trace + n, trace=trace) for trace in range(1, 21) for n in range(10)])
    world.settle()
    rows = rows_read(world, monkeypatch)
    world.arrive([llm(100 * trace + 50, trace=trace) for trace in range(1, 21)])
    world.arrive([llm(100 * trace + 50, trace=trace) for trace in range(101, 106)])
    assert tick(world) == 25
    assert sum(rows) == 20 * 11
    assert max(rows) <= 60
    assert [row["span_count"] for row in world.traces().values()] == [11] * 20 + [1] * 5


def test_a_trace_that_fails_in_a_round_of_long_traces_is_found(world: World, price: Choking) -> None:
    restart(world, price, rows_per_round=50)
    world.arrive([llm(100 * trace + n, trace=trace) for trace in range(1, 21) for n in range(10)])
    world.settle()
    arrive_bad(world, 10, first=9_000)
    world.arrive([llm(100 * trace + 50, trace=trace) for trace in range(1, 21) if trace != 10])
    tick(world)
    tick(world)
    assert world.reconciler.stats().dirty == 0
    assert [row["span_count"] for row in world.traces().values()] == [11] * 9 + [12] + [11] * 10
    assert world.traces()[trace_id(10)]["partial"] == "failed"


def test_the_larger_it_is_the_more_seldom_it_is_added_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start(spans_per_trace_max=100, dirty_max_s=10, aside_max_s=60)
    sums = world.reconciler._queries.sums
    added_up: list[str] = []

    def counted(key: tuple[str, str], *between: int) -> pa.RecordBatch:
        added_up.append(key[1])
        return sums(key, *between)

    monkeypatch.setattr(world.reconciler._queries, "sums", counted)
    for trace, spans in ((1, 101), (2, 300), (3, 2_000)):
        arrive_large(world, spans, first=10_000 * trace, trace=trace)
    for number in range(24):
        world.arrive([llm(10_000 * trace + 5_000 + number, trace=trace, usage=(10, 1)) for trace in (1, 2, 3)])
        tick(world, 5)
    assert [added_up.count(trace_id(trace)) for trace in (1, 2, 3)] == snapshot([8, 4, 2])


def test_what_came_for_it_since_it_was_added_up_is_not_forgotten_by_a_restart(world: World) -> None:
    world.start(spans_per_trace_max=10)
    world.reconciler.tick()
    arrive_large(world, 11)
    tick(world)
    arrive_large(world, 1, first=100)
    world.arrive([llm(500, trace=2, received_at=START // 10**6 + 60_000)])
    tick(world)
    world.journal.killed()
    world.start(spans_per_trace_max=10)
    world.settle()
    assert summary(world)["span_count"] == 12


def test_it_does_not_hold_the_watermark_back_longer_than_its_pause(world: World) -> None:
    world.start(spans_per_trace_max=10)
    world.reconciler.tick()
    for second in range(5, 125, 5):
        arrive_large(world, 11 if second == 5 else 1, first=20 * second, received_at=START // 10**6 + 1_000 * second)
        tick(world, 5)
    assert START // 10**6 + 120_000 - watermark(world) <= 50_000


def test_a_trace_that_shrinks_below_the_limit_is_decided_again(world: World) -> None:
    world.start(spans_per_trace_max=10)
    arrive_large(world, 11)
    world.settle()
    world.start(spans_per_trace_max=20)
    arrive_large(world, 1, first=100)
    world.settle()
    assert (summary(world)["partial"], summary(world)["span_count"]) == ("", 12)
