from __future__ import annotations

import threading

from spanwise.rounds import Rounds


def test_work_comes_round_until_it_is_stopped() -> None:
    thrice = threading.Event()
    done: list[str] = []

    def work() -> float:
        done.append(threading.current_thread().name)
        if len(done) == 3:
            thrice.set()
            return 3600.0
        return 0.0

    rounds = Rounds("spanwise-work", work, 0.0)
    rounds.start()
    assert thrice.wait(10)
    assert rounds.running

    assert rounds.stop(10)
    assert not rounds.running
    assert done == ["spanwise-work"] * 3


def test_a_round_that_takes_too_long_is_told_and_can_see_that_it_should_end() -> None:
    began, end, saw = threading.Event(), threading.Event(), list[bool]()

    def work() -> float:
        began.set()
        end.wait(10)
        saw.append(rounds.stopping)
        return 0.0

    rounds = Rounds("spanwise-work", work, 0.0)
    rounds.start()
    assert began.wait(10)

    assert not rounds.stop(0.01)
    end.set()
    assert rounds.stop(10)
    assert saw == [True]


def test_what_was_never_started_has_stopped() -> None:
    assert Rounds("spanwise-work", lambda: 0.0, 0.0).stop(0)
