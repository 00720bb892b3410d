"""Several programs share one store, and traces move between them: each is decided by whoever has all of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from spanwise.reconciler import WATERMARK, Reconciler
from tests.build import llm, trace_id
from tests.reconcile.conftest import World


class Territory:
    """Traces of some numbers. `terms` are what it says each time it is asked; the last one stays."""

    def __init__(self, *traces: int, terms: Sequence[int | None] = (1,)) -> None:
        self.traces = {trace_id(number) for number in traces}
        self.terms = list(terms)

    def owned(self, trace_ids: Sequence[str]) -> list[bool]:
        return [trace in self.traces for trace in trace_ids]

    def term(self) -> int | None:
        return self.terms.pop(0) if len(self.terms) > 1 else self.terms[0]


def quiet(world: World, reconciler: Reconciler) -> int:
    world.now_s += 20
    return reconciler.tick()


def watermark(world: World) -> int:
    found = world.journal.get_meta(WATERMARK)
    assert found is not None
    return int(found)


def test_a_trace_that_moves_before_it_is_decided_is_decided_whole_by_its_new_owner(world: World) -> None:
    before = world.start(territory=Territory(1))
    before.tick()
    world.arrive([llm(1, usage=(100, 1))])
    mark = watermark(world)
    before.release()
    after = world.start(territory=Territory(1))
    after.rebuild(mark)
    world.arrive([llm(2, usage=(10, 1))])
    world.settle()
    assert quiet(world, before) == 0
    (summary,) = world.traces().values()
    assert (summary["span_count"], summary["input_tokens"]) == (2, 110)


def test_traces_of_others_are_left_alone_when_state_is_rebuilt(world: World) -> None:
    world.start(territory=Territory(1, 2)).tick()
    world.arrive([llm(1, trace=1), llm(2, trace=2)])
    mark = watermark(world)
    after = world.start(territory=Territory(2))
    after.rebuild(mark)
    world.settle()
    assert list(world.traces()) == [trace_id(2)]


def test_nothing_is_decided_while_traces_are_on_the_move(world: World) -> None:
    reconciler = world.start(territory=Territory(1, terms=[None]))
    world.arrive([llm(1)])
    assert quiet(world, reconciler) == 0
    assert world.traces() == {}


def test_who_slept_through_a_move_writes_nothing_of_what_it_had_read_before(world: World) -> None:
    sleeper = world.start(territory=Territory(1, terms=[1, 1, 2]))  # it moves after the round was begun
    sleeper.tick()
    world.arrive([llm(1)])
    assert quiet(world, sleeper) == 0
    assert world.traces() == {}


def test_of_two_who_decide_one_trace_the_one_that_read_later_wins_however_late_the_other_writes(world: World) -> None:
    slow = world.start()
    slow.tick()
    world.arrive([llm(1)])
    quick = world.start(territory=Territory(1))
    quick.rebuild(watermark(world))

    class Overtaking(Territory):
        """Lets the other decide a newer span between the reading and the writing of the slow one."""

        def term(self) -> int | None:
            term = super().term()
            if term is None:
                self.terms = [1]
                world.now_s += 20
                world.arrive([llm(2)])
                assert quiet(world, quick) == 1
                world.now_s += 20
                return 1
            return term

    slow._territory = Overtaking(1, terms=[1, None])
    assert quiet(world, slow) == 1
    (summary,) = world.traces().values()
    assert summary["span_count"] == 2


def test_who_was_unsure_for_a_moment_decides_what_it_had_begun_after_all(world: World) -> None:
    """A process short of CPU may not know whether its partitions were taken from it: mostly they were not."""
    reconciler = world.start(territory=Territory(1, terms=[1, 1, None, 1]))
    reconciler.tick()
    world.arrive([llm(1)])
    assert quiet(world, reconciler) == 0
    world.settle()
    (summary,) = world.traces().values()
    assert summary["span_count"] == 1


def test_who_loses_a_trace_while_it_fails_to_decide_it_does_not_keep_it(world: World) -> None:
    class Lost(Territory):
        def term(self) -> int | None:
            term = super().term()
            if term == 2:
                world.reconciler.release()
                raise ConnectionError
            return term

    reconciler = world.start(territory=Lost(1, terms=[1, 1, 2, 3]))
    reconciler.tick()
    world.arrive([llm(1)])
    with pytest.raises(ConnectionError):
        quiet(world, reconciler)
    assert reconciler.stats().dirty == 0


def test_the_mark_goes_back_at_once_when_traces_are_taken_over(world: World) -> None:
    """Whoever takes them over may die before the first row arrives."""
    reconciler = world.start(territory=Territory(1))
    reconciler.tick()
    world.arrive([llm(1)])
    world.settle()
    before = watermark(world)
    reconciler.rebuild(before - 60_000)
    assert watermark(world) == before - 60_000
