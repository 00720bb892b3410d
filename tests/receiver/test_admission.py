"""The byte budget: who may go on, who waits, who is sent away."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.admission import Admission, Slot
from receiver.answer import Kind, RefusedError


def admission(in_flight: int = 100, waiting: int = 50, wait_s: float = 5) -> Admission:
    return Admission(in_flight_bytes_max=in_flight, waiting_bytes_max=waiting, wait_s=wait_s)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_bytes_are_held_until_they_are_released() -> None:
    budget = admission()
    slot = await budget.reserve(60)
    assert budget.in_flight_bytes == 60

    slot.shrink(10)
    assert budget.in_flight_bytes == 10

    await slot.grow(90)
    assert budget.in_flight_bytes == 90

    slot.release()
    slot.release()
    assert (budget.in_flight_bytes, budget.requests) == (0, 0)


async def test_what_does_not_fit_waits_for_its_turn() -> None:
    budget = admission()
    first = await budget.reserve(80)
    second = asyncio.create_task(budget.reserve(40))
    await settle()
    assert (second.done(), budget.waiting_bytes) == (False, 40)

    first.release()

    assert (await second).bytes == 40
    assert (budget.in_flight_bytes, budget.waiting_bytes) == (40, 0)


async def test_the_newest_goes_first() -> None:
    budget = admission(in_flight=10)
    first = await budget.reserve(10)
    order: list[str] = []

    async def wait(name: str) -> None:
        slot = await budget.reserve(10)
        order.append(name)
        await settle()
        slot.release()

    tasks = []
    for name in ("old", "middle", "new"):
        tasks.append(asyncio.create_task(wait(name)))
        await settle()
    first.release()
    await asyncio.gather(*tasks)

    assert order == ["new", "middle", "old"]


async def test_a_full_waiting_room_refuses_at_once() -> None:
    budget = admission()
    await budget.reserve(100)
    waiter = asyncio.create_task(budget.reserve(50))
    await settle()

    with pytest.raises(RefusedError) as refused:
        await budget.reserve(1)

    assert (refused.value.kind, refused.value.reason) == (Kind.UNAVAILABLE, "overloaded")
    assert budget.refused == 1
    waiter.cancel()


async def test_unread_bodies_wait_for_little_and_grown_ones_for_what_they_hold() -> None:
    budget = admission(in_flight=100 << 20, waiting=1 << 20)
    slot = await budget.reserve(50 << 20)
    await budget.reserve(50 << 20)
    unread = [asyncio.create_task(budget.reserve(50 << 20)) for _ in range(16)]
    await settle()

    assert budget.waiting_bytes == 16 * 65536
    with pytest.raises(RefusedError):
        await slot.grow(51 << 20)

    for task in unread:
        task.cancel()
    await asyncio.gather(*unread, return_exceptions=True)


async def test_nobody_waits_for_ever() -> None:
    budget = admission(wait_s=0.01)
    slot = await budget.reserve(100)

    with pytest.raises(RefusedError):
        await budget.reserve(10)

    assert budget.waiting_bytes == 0
    slot.release()
    assert budget.in_flight_bytes == 0


async def test_who_leaves_while_waiting_takes_nothing() -> None:
    budget = admission()
    slot = await budget.reserve(100)
    waiter = asyncio.create_task(budget.reserve(10))
    await settle()

    waiter.cancel()
    slot.release()
    await asyncio.gather(waiter, return_exceptions=True)

    assert (budget.in_flight_bytes, budget.waiting_bytes, budget.requests) == (0, 0, 0)


async def test_who_leaves_just_as_its_turn_comes_gives_the_bytes_back() -> None:
    budget = admission()
    slot = await budget.reserve(100)
    waiter = asyncio.create_task(budget.reserve(10))
    await settle()

    slot.release()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)

    assert (budget.in_flight_bytes, budget.requests) == (0, 0)


async def test_bytes_that_outlive_their_request_stay_counted() -> None:
    budget = admission()
    slot = await budget.reserve(30)
    running: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    slot.keep_until(running)

    slot.release()
    assert (budget.in_flight_bytes, budget.requests) == (30, 1)

    running.set_result(None)
    await settle()
    assert (budget.in_flight_bytes, budget.requests) == (0, 0)


async def test_draining_refuses_what_is_new_and_waits_for_what_is_open() -> None:
    budget = admission()
    slot = await budget.reserve(10)
    drained = asyncio.create_task(budget.drain(5))
    await settle()

    with pytest.raises(RefusedError) as refused:
        await budget.reserve(1)
    assert refused.value.reason == "draining"
    await slot.grow(20)
    slot.release()

    assert await drained
    assert not await _drain_with_an_open_slot()


async def _drain_with_an_open_slot() -> bool:
    budget = admission()
    await budget.reserve(10)
    return await budget.drain(0.01)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "grow", "try_grow", "shrink", "release", "cancel", "turn"]), st.integers(0, 60)
        ),
        max_size=60,
    )
)
def test_whatever_happens_the_budget_is_kept_and_nothing_leaks(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        budget = admission(in_flight=100, waiting=80, wait_s=0.0005)
        slots: list[Slot] = []
        tasks: list[asyncio.Task[object]] = []

        async def reserve(size: int) -> None:
            slots.append(await budget.reserve(size))

        for action, number in steps:
            slot = slots[number % len(slots)] if slots else None
            if action == "reserve":
                tasks.append(asyncio.create_task(reserve(number)))
            elif action == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif action == "turn":
                await asyncio.sleep(0.0003 if number > 50 else 0)
            elif slot is not None:
                if action == "grow" and not any(task.get_name() == str(id(slot)) for task in tasks):
                    tasks.append(asyncio.create_task(slot.grow(number), name=str(id(slot))))
                elif action == "try_grow" and not any(task.get_name() == str(id(slot)) for task in tasks):
                    slot.try_grow(number)
                elif action in {"shrink", "release"} and not any(task.get_name() == str(id(slot)) for task in tasks):
                    slot.shrink(number) if action == "shrink" else slot.release()
                    if action == "release":
                        slots.remove(slot)
            assert 0 <= budget.in_flight_bytes <= 100
            assert 0 <= budget.waiting_bytes <= 80
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, RefusedError | asyncio.CancelledError)
        assert budget.in_flight_bytes == sum(slot.bytes for slot in slots)
        for slot in slots:
            slot.release()
        assert (budget.in_flight_bytes, budget.waiting_bytes, budget.requests) == (0, 0, 0)

    asyncio.run(run())
