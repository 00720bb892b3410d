"""A program that was stopped while its traces moved, and goes on in the middle of writing: what it knew is old."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from sinks.clickhouse import ClickHouseSink
from tests.build import llm, span_id
from tests.reconcile.conftest import World
from tests.reconcile.test_decide import agent
from tests.reconcile.test_moving import Territory, quiet, watermark


class Sleepy:
    """A sink that falls asleep before its first correction."""

    def __init__(self, sink: ClickHouseSink, meanwhile: Callable[[Callable[[], None]], None]) -> None:
        self._sink = sink
        self._meanwhile: Callable[[Callable[[], None]], None] | None = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)

    def rewrite(self, spans: pa.RecordBatch, token: str) -> None:
        """`meanwhile` gets what will be written after it, to write it earlier."""
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile(lambda: self._sink.rewrite(spans, token))
        self._sink.rewrite(spans, token)


def scopes(world: World) -> dict[str, str]:
    table = world.store.read_arrow("SELECT span_id, toString(usage_scope) AS scope FROM spans FINAL ORDER BY span_id")
    return {row["span_id"]: row["scope"] for row in table.to_pylist()}


RIGHT = {span_id(1): "aggregate", span_id(2): "own"}


def test_a_correction_that_is_written_after_its_trace_has_moved_is_put_right(world: World) -> None:
    territory = Territory(1)
    sleeper = world.start(territory=territory)
    sleeper.tick()
    world.arrive([agent(1, usage=(636, 82))])
    mark = watermark(world)
    owner = world.start(territory=Territory(1))

    def moved(_: Callable[[], None]) -> None:
        territory.terms, territory.traces = [2], set()
        owner.rebuild(mark)
        world.arrive([llm(2, 1)])
        quiet(world, owner)
        assert scopes(world) == RIGHT
        sleeper.release()

    sleeper._sink = Sleepy(world.sink, moved)
    quiet(world, sleeper)
    quiet(world, sleeper)
    quiet(world, owner)
    assert scopes(world) == RIGHT
    (summary,) = world.traces().values()
    assert summary["span_count"] == 2


def test_a_correction_is_stored_although_another_one_of_the_same_version_was(world: World) -> None:
    """Both counted one more correction; the store must not take the second for the first, sent again."""
    sleeper = world.start(territory=Territory(1))
    sleeper.tick()
    world.arrive([agent(1, usage=(636, 82), usage_scope="none")])
    owner = world.start(territory=Territory(1))
    owner.rebuild(watermark(world))

    def meanwhile(wake: Callable[[], None]) -> None:
        world.arrive([llm(2, 1)])
        owner._sink = Sleepy(world.sink, lambda _: wake())
        quiet(world, owner)
        assert scopes(world) == RIGHT

    sleeper._sink = Sleepy(world.sink, meanwhile)
    quiet(world, sleeper)
    assert scopes(world) == RIGHT


def test_what_is_stored_after_its_trace_has_gone_is_not_decided_from_memory(world: World) -> None:
    """The last rows of a range are stored when its partition is gone; the earlier ones were let go with it."""
    territory = Territory(1)
    slow = world.start(territory=territory)
    slow.tick()
    world.arrive([llm(1)])
    territory.traces = set()
    slow.release()
    world.arrive([llm(2)])
    world.settle()
    (summary,) = world.traces().values()
    assert summary["span_count"] == 2
