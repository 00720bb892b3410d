"""What a webhook asks for is told at least once, at most once while all goes well, and never in a flood."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from sinks.webhook.deliver import plan
from spanwise.store import StoreError
from tests.webhook.build import alert, finding_id
from tests.webhook.conftest import World
from tests.webhook.receiver import Got, Receiver, status


def told(receiver: Receiver) -> list[int]:
    """Numbers of the findings in all messages that came, in order."""
    return [int(finding["finding_id"], 16) for got in receiver.got for finding in got.json["findings"]]


def test_a_finding_is_told_once(world: World) -> None:
    with Receiver() as receiver:
        delivery = world.start(receiver.url)
        world.find(1)
        for _ in range(3):
            world.round(delivery)
            world.now_s += 700
    assert told(receiver) == [1]
    assert world.deliveries() == {"1 high": "sent"}
    (got,) = receiver.got
    assert got.json["findings"][0]["evidence"] == {"calls": "3"}
    assert got.json["findings"][0]["service"] == "shop"


def test_a_restart_tells_nothing_twice_and_forgets_nothing(world: World) -> None:
    with Receiver() as receiver:
        world.round(world.start(receiver.url))
        world.find(1)
        world.settle(world.start(receiver.url))
        world.find(2)
        world.settle(world.start(receiver.url))
        world.settle(world.start(receiver.url))
    assert told(receiver) == [1, 2]


def test_growing_is_no_news_and_getting_worse_is(world: World) -> None:
    with Receiver() as receiver:
        delivery = world.start(receiver.url)
        for columns in ({"severity": "warning"}, {"severity": "warning", "count": 9}, {"severity": "critical"}):
            world.find(1, **columns)
            world.settle(delivery)
            world.now_s += 10
        world.find(1, severity="high")
        world.settle(delivery)
    assert [got.json["findings"][0]["severity"] for got in receiver.got] == ["warning", "critical"]
    assert [got.key for got in receiver.got] == [f"{finding_id(1)}-warning", f"{finding_id(1)}-critical"]


def test_what_was_withdrawn_before_it_could_be_told_is_not_told(world: World) -> None:
    with Receiver() as receiver:
        delivery = world.start(receiver.url)
        world.find(1)
        world.now_s += 1
        world.find(1, withdrawn=1)
        world.settle(delivery)
    assert receiver.got == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 4, 5]),
        ({"min_severity": "info"}, [1, 2, 3, 4, 5]),
        ({"min_severity": "critical"}, [1]),
        ({"signatures": ["cascade"]}, [2]),
        ({"signatures": ["retry_loop.identical"]}, [1]),
        ({"signatures": ["retry_loop", "cascade"]}, [1, 2, 4]),
        ({"tenants": ["other"]}, [5]),
    ],
    ids=str,
)
def test_a_webhook_is_told_what_it_asks_for(world: World, options: dict[str, Any], expected: list[int]) -> None:
    with Receiver() as receiver:
        delivery = world.start(receiver.url, **options)
        world.find(1, severity="critical")
        world.find(2, signature="cascade", kind="")
        world.find(3, severity="info")
        world.find(4, kind="near_identical", severity="warning")
        world.find(5, tenant="other", signature="tool_cycle", kind="")
        world.settle(delivery)
    assert sorted(told(receiver)) == expected


def test_findings_that_are_of_no_trace_are_told_too(world: World) -> None:
    """As `quality_drift` writes them: each comparison writes the same finding again."""
    with Receiver() as receiver:
        delivery = world.start(receiver.url)
        for _ in range(3):
            world.find(1, trace_id="", signature="quality_drift", kind="error_rate", first_span_id="", span_ids=[])
            world.settle(delivery)
            world.now_s += 300
    assert told(receiver) == [1]


def test_a_new_webhook_is_told_nothing_of_the_past(world: World) -> None:
    world.find(1)
    world.now_s += 60
    with Receiver() as receiver:
        delivery = world.start(receiver.url)
        world.find(2)
        world.settle(delivery)
    assert told(receiver) == [2]


# Receivers that fail


def test_what_was_found_while_the_receiver_was_away_is_told_when_it_is_back(world: World) -> None:
    with Receiver() as receiver:
        port, url = receiver.port, receiver.url
    delivery = world.start(url)
    world.find(1)
    pauses = []
    for number in range(2, 8):
        pauses.append(world.round(delivery))
        world.now_s += pauses[-1]
        world.find(number)
    assert pauses == [1, 2, 4, 8, 16, 32]
    assert delivery.stats().failures == {"connect": 6}
    with Receiver(port=port) as receiver:
        world.settle(delivery)
    assert sorted(told(receiver)) == [1, 2, 3, 4, 5, 6, 7]
    assert delivery.stats().failing == 0


@pytest.mark.parametrize("code", [500, 502, 503, 429, 404, 401, 302])
def test_a_refusal_that_may_pass_is_tried_again_with_the_same_key(world: World, code: int) -> None:
    with Receiver(status(code), status(code)) as receiver:
        delivery = world.start(receiver.url)
        world.find(1)
        world.settle(delivery)
    assert len(receiver.got) == 3
    assert len({got.key for got in receiver.got}) == 1
    assert world.deliveries() == {"1 high": "sent"}


def test_a_receiver_that_asks_for_a_pause_gets_it(world: World) -> None:
    with Receiver(status(429, Retry_After="120")) as receiver:
        delivery = world.start(receiver.url)
        world.find(1)
        assert world.round(delivery) == pytest.approx(120)


def test_a_receiver_that_hangs_is_a_failure_after_the_timeout(world: World) -> None:
    with Receiver() as receiver:
        receiver.answers.append(receiver.hang)
        delivery = world.start(receiver.url, timeout_s=0.5)
        world.find(1)
        world.settle(delivery)
    assert delivery.stats().failures.keys() == {"timeout"}
    assert len(receiver.got) >= 2
    assert {got.key for got in receiver.got} == {f"{finding_id(1)}-high"}


def test_a_message_the_receiver_will_never_take_does_not_stop_the_others(world: World) -> None:
    with Receiver(status(400)) as receiver:
        delivery = world.start(receiver.url)
        world.find(1, severity="critical")
        world.find(2)
        world.settle(delivery)
        world.settle(world.start(receiver.url))
    assert told(receiver) == [1, 2]
    assert world.deliveries() == {"1 critical": "rejected", "2 high": "sent"}
    assert delivery.stats().rejected == 1


def test_a_message_the_receiver_chokes_on_goes_behind_the_others(world: World) -> None:
    def choke(handler: BaseHTTPRequestHandler, got: Got) -> None:
        receiver.answers.append(choke)
        status(500 if finding_id(1).encode() in got.body else 200)(handler, got)

    with Receiver(choke) as receiver:
        delivery = world.start(receiver.url)
        world.find(1, severity="critical")
        world.find(2, 3)
        world.round(delivery)
        world.now_s += 5
        world.round(delivery)
    assert world.deliveries() == {"2 high": "sent", "3 high": "sent"}
    assert delivery.stats().waiting == 1


def test_what_cannot_be_told_in_time_is_given_up_and_counted(world: World) -> None:
    with Receiver() as receiver:
        url, port = receiver.url, receiver.port
    delivery = world.start(url, give_up_after_h=1)
    world.find(1)
    world.round(delivery)
    world.now_s += 3_000
    world.find(2)
    world.now_s += 700
    with Receiver(port=port) as receiver:
        world.settle(delivery)
        world.settle(world.start(url, give_up_after_h=1))
    assert told(receiver) == [2]
    assert world.deliveries() == {"1 high": "expired", "2 high": "sent"}
    assert delivery.stats().expired == 1


def test_what_became_too_old_while_the_program_was_down_is_counted_too(world: World) -> None:
    with Receiver() as receiver:
        world.start(receiver.url, give_up_after_h=1)
        world.find(1)
        world.now_s += 4_000
        delivery = world.start(receiver.url, give_up_after_h=1)
        world.settle(delivery)
    assert receiver.got == []
    assert delivery.stats().expired == 1


# Death


@contextmanager
def unwritable(world: World) -> Iterator[None]:
    """What was told can be read and not be written."""
    world.store.command("RENAME TABLE alert_deliveries TO alert_deliveries_gone")
    world.store.command("CREATE VIEW alert_deliveries AS SELECT * FROM alert_deliveries_gone")
    try:
        yield
    finally:
        world.store.command("DROP VIEW alert_deliveries")
        world.store.command("RENAME TABLE alert_deliveries_gone TO alert_deliveries")


def test_a_program_that_dies_before_it_wrote_down_the_answer_sends_again_with_the_same_key(world: World) -> None:
    with Receiver() as receiver:
        delivery = world.start(receiver.url)
        world.find(1)
        with unwritable(world):
            world.round(delivery)
        world.settle(world.start(receiver.url))
        world.settle(world.start(receiver.url))
    assert [got.key for got in receiver.got] == [f"{finding_id(1)}-high"] * 2


def test_while_the_store_cannot_write_down_what_was_told_nothing_is_told_twice(world: World) -> None:
    with Receiver() as receiver:
        delivery = world.start(receiver.url)
        world.find(1)
        with unwritable(world):
            world.round(delivery)
            world.find(2)
            for _ in range(2):
                with pytest.raises(StoreError):
                    world.round(delivery)
        assert told(receiver) == [1]
        world.settle(delivery)
    assert told(receiver) == [1, 2]
    assert world.deliveries() == {"1 high": "sent", "2 high": "sent"}


# Floods


@pytest.mark.parametrize(
    ("found", "room", "sizes"), [(3, 5, [1, 1, 1]), (5, 5, [1] * 5), (40, 3, [1, 1, 38]), (2, 1, [2]), (4, 0, [])]
)
def test_what_is_too_much_for_single_messages_is_told_together(found: int, room: int, sizes: list[int]) -> None:
    alerts = [alert(number) for number in range(found)]
    messages = plan(alerts, room)
    assert [len(message) for message in messages] == sizes
    assert sum(messages, ())[: sum(sizes)] == tuple(alerts)[: sum(sizes)]


def test_a_flood_is_a_few_messages_with_the_worst_first_and_nothing_left_out(world: World) -> None:
    with Receiver() as receiver:
        delivery = world.start(receiver.url, messages_per_minute=5)
        world.find(*range(1, 301))
        world.find(301, severity="critical")
        world.settle(delivery)
    assert told(receiver)[0] == 301
    assert sorted(told(receiver)) == list(range(1, 302))
    assert len(receiver.got) <= 7
    assert delivery.stats().findings == 301
    assert set(world.deliveries().values()) == {"sent", "digest"}


def test_a_digest_the_receiver_finds_too_large_is_sent_in_parts(world: World) -> None:
    with Receiver(status(413), status(413)) as receiver:
        delivery = world.start(receiver.url, messages_per_minute=1)
        world.find(*range(1, 41))
        world.settle(delivery, rounds=60)
    taken = [len(got.json["findings"]) for got in receiver.got[2:]]
    assert max(taken) == 10
    assert sum(taken) == 40
    assert delivery.stats().rejected == 0


# Fleets


class Half:
    """A program that has every second trace, or none of them while they move."""

    def __init__(self, remainder: int) -> None:
        self.remainder = remainder
        self.generation: int | None = 1

    def owned(self, trace_ids: Sequence[str]) -> Sequence[bool]:
        return [int(trace or "0", 16) % 2 == self.remainder for trace in trace_ids]

    def term(self) -> int | None:
        return self.generation


def test_each_program_of_a_fleet_tells_what_is_its_own(world: World) -> None:
    with Receiver() as even, Receiver() as odd:
        first, second = world.start(even.url, territory=Half(0)), world.start(odd.url, territory=Half(1))
        world.find(*range(1, 7))
        world.round(first)
        world.round(second)
    assert sorted(told(even)) == [2, 4, 6]
    assert sorted(told(odd)) == [1, 3, 5]


def test_what_a_dead_program_left_is_told_by_who_takes_over(world: World) -> None:
    with Receiver() as receiver:
        territory = Half(0)
        delivery = world.start(receiver.url, territory=territory)
        world.find(1)
        world.round(delivery)
        world.now_s += 400  # longer than what is looked at again each time
        world.find(2)
        world.round(delivery)
        assert told(receiver) == [2]
        territory.generation = None
        world.now_s += 10
        world.round(delivery)
        assert told(receiver) == [2]
        territory.generation, territory.remainder = 2, 1
        world.round(delivery)
    assert told(receiver) == [2, 1]
