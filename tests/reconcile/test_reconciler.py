"""Traces come out right whatever the order, and whenever the program dies."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from processors.reconcile import AGGREGATE, OWN, SCOPES
from tests.build import START, llm, log, span, trace_id
from tests.reconcile.conftest import Row, World
from tests.reconcile.test_decide import agent

SECOND = 10**9


def scope_of(row: Row) -> str:
    return str(row["usage_scope"])


def test_a_trace_is_summarised_once_it_has_been_quiet_for_a_second(world: World) -> None:
    world.reconciler.tick()
    world.arrive([llm(1, usage=(164, 24))])
    world.now_s += 0.5
    assert world.reconciler.tick() == 0
    world.now_s += 0.6
    assert world.reconciler.tick() == 1
    (summary,) = world.traces().values()
    assert (summary["input_tokens"], summary["output_tokens"], summary["llm_calls"]) == (164, 24, 1)
    assert summary["cost_usd"] == Decimal("0.00065")


def test_a_trace_that_never_goes_quiet_is_summarised_all_the_same(world: World) -> None:
    world.reconciler.tick()
    rounds = 0
    for number in range(1, 25):
        world.arrive([llm(number)])
        world.now_s += 0.9
        rounds += world.reconciler.tick()
    assert 1 <= rounds <= 3
    assert next(iter(world.traces().values()))["span_count"] >= 11


def test_a_hosted_agent_gets_its_usage_and_loses_it_to_a_call_that_arrives_later(world: World) -> None:
    world.arrive([agent(1, usage=(636, 82), request_model="gpt-4o")])
    world.settle()
    assert scope_of(world.spans()[1]) == "own"
    world.arrive([llm(2, 1, usage=(636, 82))])
    world.settle()
    assert [scope_of(world.spans()[n]) for n in (1, 2)] == ["aggregate", "own"]
    (summary,) = world.traces().values()
    assert (summary["input_tokens"], summary["span_count"]) == (636, 2)


def test_a_correction_keeps_everything_else_of_the_row(world: World) -> None:
    row = agent(1, usage=(636, 82), request_model="gpt-4o", attributes={"k": "v", "l": "w"}, status_message="m")
    row |= {"content": [{"key": "k", "form": "item", "hash": "0" * 32, "bytes": 5}], "finish_reasons": ["stop"]}
    row |= {
        "events": [{"time": START, "name": "e", "attributes": [("a", "b")], "types": "s"}],
        "usage_scope": "aggregate",
    }
    world.arrive([row])
    before = world.spans()[1]
    world.settle()
    after = world.spans()[1]
    assert after.pop("version") == before.pop("version") + 1
    assert before | {"usage_scope": "own"} == after


def test_one_call_in_two_traces_is_counted_once_in_either_order(world: World) -> None:
    rich = llm(1, trace=1, response_id="msg_1", scope="a", attributes={"x": "1"})
    poor = llm(2, trace=2, response_id="msg_1", scope="b")
    world.arrive([poor])
    world.settle()
    assert scope_of(world.spans()[2]) == "own"
    world.arrive([rich])
    world.settle()
    assert [scope_of(world.spans()[n]) for n in (1, 2)] == ["own", "aggregate"]
    assert [row["llm_calls"] for row in world.traces().values()] == [1, 0]
    assert [row["input_tokens"] for row in world.traces().values()] == [100, 0]


def test_one_call_in_two_traces_is_found_after_a_restart_between_them(world: World) -> None:
    world.arrive([llm(2, trace=2, response_id="msg_1", scope="b", received_at=START // 10**6 + 990_000)])
    world.settle()
    world.start()
    world.arrive([llm(1, trace=1, response_id="msg_1", scope="a", attributes={"x": "1"})])
    world.settle()
    assert [scope_of(world.spans()[n]) for n in (1, 2)] == ["own", "aggregate"]


def test_a_redelivered_trace_changes_nothing(world: World) -> None:
    rows = [agent(1, usage=(636, 82)), span(2, 1, kind="tool"), agent(3, usage=(9, 9), trace=2)]
    world.arrive(rows)
    world.settle()
    spans, traces = world.spans(), world.traces()
    world.arrive(rows)
    world.settle()
    assert world.spans() == spans
    same = [{k: v for k, v in row.items() if k != "version"} for row in world.traces().values()]
    assert same == [{k: v for k, v in row.items() if k != "version"} for row in traces.values()]


def test_a_newer_version_of_a_corrected_span_is_corrected_again(world: World) -> None:
    world.arrive([agent(1, usage=(636, 82))])
    world.settle()
    world.arrive([agent(1, usage=(700, 90), duration=5 * SECOND)])
    world.settle()
    row = world.spans()[1]
    assert (scope_of(row), row["input_tokens"]) == ("own", 700)


def test_what_no_longer_fits_into_memory_is_read_back(world: World) -> None:
    world.start(cached_rows_max=3, dirty_traces_max=4, traces_per_round=2)
    for number in range(1, 11):
        world.arrive([agent(2 * number, usage=(9, 9), trace=number), span(2 * number + 1, 2 * number, trace=number)])
    assert world.reconciler.stats().spilled
    world.settle()
    assert not world.reconciler.stats().spilled
    assert [row["span_count"] for row in world.traces().values()] == [2] * 10
    assert {scope_of(row) for row in world.spans().values()} == {"own", "none"}


def test_traces_of_other_hours_days_and_impossible_times_stay_whole(world: World) -> None:
    day = 86_400 * SECOND
    world.arrive([llm(1, start=START), llm(2, 1, start=START + 26 * 3600 * SECOND)])
    world.settle()
    world.arrive([llm(3, 1, start=START - day), span(4, 1, start=0, time_flag="zero")])
    world.settle()
    world.arrive([span(5, 1, start=2**62, time_flag="future"), llm(6, 3, start=START)])
    world.settle()
    (summary,) = world.traces().values()
    assert summary["span_count"] == 6
    assert world.store.read_arrow("SELECT uniqExact(day) AS days FROM traces").to_pylist() == [{"days": 1}]


@pytest.mark.parametrize("seed", range(4))
def test_after_a_kill_at_any_point_every_trace_is_decided(world: World, seed: int) -> None:
    draw = random.Random(seed)
    world.start(traces_per_round=3)
    expected = {}
    number = 0
    for trace in range(1, 9):
        rows = [agent(number + 1, usage=(30, 3), trace=trace)]
        rows += [llm(number + n, number + 1, usage=(10, 1), trace=trace) for n in range(2, 5)]
        number += 10
        expected[trace_id(trace)] = 30
        draw.shuffle(rows)
        for row in rows:
            row["received_at"] = START // 10**6 + number
        cut = draw.randrange(1, 4)
        world.arrive(rows[:cut])
        if draw.random() < 0.5:
            world.now_s += 2
            world.reconciler.tick()
        # died after the store had the rows: the journal did not forget the range and sends it again
        world.arrive(rows[cut:], touch=False)
        world.journal.killed()
        world.start(traces_per_round=3)
        world.arrive(rows[cut:])
        if draw.random() < 0.5:
            world.journal.killed()
            world.start(traces_per_round=3)
    world.settle()
    assert {trace: row["input_tokens"] for trace, row in world.traces().items()} == expected
    assert {trace: row["span_count"] for trace, row in world.traces().items()} == dict.fromkeys(expected, 4)


def test_a_round_that_fails_is_done_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.reconciler.tick()
    world.arrive([agent(1, usage=(9, 9)), llm(2, 1, usage=(9, 9)), agent(3, usage=(9, 9), trace=2)])
    world.now_s += 5
    for broken in ("rewrite", "write_traces"):
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> None:
                raise ConnectionError

            patch.setattr(world.sink, broken, fail)
            with pytest.raises(ConnectionError):
                world.reconciler.tick()
        world.now_s += 5
    world.settle()
    assert [row["input_tokens"] for row in world.traces().values()] == [9, 9]
    assert scope_of(world.spans()[3]) == "own"


def test_rows_that_arrive_while_a_round_runs_are_not_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.reconciler.tick()
    world.arrive([llm(1)])
    world.now_s += 2
    write = world.sink.write_traces

    def interrupted(*arguments: Any) -> None:
        write(*arguments)
        world.arrive([llm(2)])

    with monkeypatch.context() as patch:
        patch.setattr(world.sink, "write_traces", interrupted)
        world.reconciler.tick()
    world.settle()
    (summary,) = world.traces().values()
    assert summary["span_count"] == 2


def test_constant_response_ids_of_a_scripted_server_do_not_merge_calls(world: World) -> None:
    world.arrive([llm(n, trace=n, response_id="chatcmpl-123", scope="a") for n in range(1, 40)])
    world.settle()
    assert sum(row["llm_calls"] for row in world.traces().values()) == 39


# Log records


def usage_record(number: int, of: int | None, **columns: Any) -> Row:
    defaults: Row = {"kind": "llm", "request_model": "gpt-4o", "input_tokens": 100, "output_tokens": 10}
    return log(number, of, **(defaults | columns))


@pytest.mark.parametrize("logs_first", [True, False])
def test_a_record_fills_what_its_span_lacks_in_either_order(world: World, logs_first: bool) -> None:
    reference = {"key": "gen_ai.input.messages", "form": "item", "hash": "1" * 32, "bytes": 7}
    record = usage_record(1, 1, output_tokens=99, reported_cost_usd=Decimal("0.25"), finish_reasons=["stop"])
    record |= {"content": [reference], "input_preview": "hi", "response_id": "r"}
    call = llm(1, finish_reasons_raw=["STOP"])
    for spans, logs in ([[], [record]], [[call], []]) if logs_first else ([[call], []], [[], [record]]):
        world.arrive(spans, logs)
        world.settle()
    row = world.spans()[1]
    assert (row["input_preview"], row["response_id"], row["reported_cost_usd"]) == ("hi", "r", Decimal("0.25"))
    assert (row["finish_reasons"], row["finish_reasons_raw"], row["content"]) == (["stop"], ["STOP"], [reference])
    assert row["output_tokens"] == 10
    assert next(iter(world.traces().values()))["reported_cost_usd"] == Decimal("0.25")
    version = row["version"]
    world.arrive([call], [record])
    world.settle()
    assert world.spans()[1]["version"] == version


def test_usage_that_only_the_record_has_becomes_the_calls_own_and_is_priced(world: World) -> None:
    call = llm(1) | {"input_tokens": None, "output_tokens": None, "usage_scope": "none"}
    world.arrive([call], [usage_record(1, 1)])
    world.settle()
    row = world.spans()[1]
    assert (scope_of(row), row["input_tokens"], row["cost_usd"]) == ("own", 100, Decimal("0.00035"))


def test_records_that_arrive_one_by_one_fill_like_records_that_arrive_together(world: World) -> None:
    def reference(number: int) -> Row:
        return {"key": "gen_ai.input.messages", "form": "item", "hash": f"{number:032x}", "bytes": 7}

    records = [
        log(n, 1, content=[reference(n)], input_preview=f"p{n}", user_id="u" if n == 3 else "") for n in (1, 2, 3)
    ]
    world.arrive([llm(1)])
    for record in reversed(records):
        world.arrive([], [record])
        world.settle()
    row = world.spans()[1]
    assert (row["input_preview"], row["user_id"]) == ("p1", "u")
    assert row["content"] == [reference(n) for n in (1, 2, 3)]


def test_the_cost_that_claude_code_logs_at_the_interaction_goes_to_the_request(world: World) -> None:
    spans = [agent(1), llm(2, 1, start=START, duration=2 * SECOND), llm(3, 1, start=START + 3 * SECOND)]
    logs = [
        usage_record(1, 1, time=START + 2 * SECOND + 5_000_000, reported_cost_usd=Decimal("0.01")),
        usage_record(2, 1, time=START + 3 * SECOND + 5_000_000, reported_cost_usd=Decimal("0.02")),
    ]
    world.arrive(spans, logs)
    world.settle()
    assert [world.spans()[n]["reported_cost_usd"] for n in (1, 2, 3)] == [None, Decimal("0.01"), Decimal("0.02")]


@pytest.mark.parametrize("logs_first", [True, False])
def test_thoughts_that_gemini_cli_logs_without_ids_become_output_of_the_call(world: World, logs_first: bool) -> None:
    call = llm(1, provider="gcp.gemini", request_model="gemini-2.5-flash", response_model="", usage=(204, 22))
    call |= {"conversation_id": "c", "dialect": "gemini_cli"}
    record = usage_record(1, None, trace=None, request_model="gemini-2.5-flash", input_tokens=204, conversation_id="c")
    record |= {"output_tokens": 53, "reasoning_tokens": 31, "cache_read_tokens": 96, "time": START + SECOND}
    for spans, logs in ([[], [record]], [[call], []]) if logs_first else ([[call], []], [[], [record]]):
        world.arrive(spans, logs)
        world.settle()
    row = world.spans()[1]
    assert (row["output_tokens"], row["reasoning_tokens"], row["cache_read_tokens"]) == (53, 31, 96)
    (summary,) = world.traces().values()
    assert (summary["output_tokens"], summary["reasoning_tokens"]) == (53, 31)


@pytest.mark.parametrize("trace", [1, None], ids=["of a trace", "without a trace"])
def test_a_record_of_an_old_span_is_joined_even_if_the_program_dies_right_after_storing_it(
    world: World, trace: int | None
) -> None:
    world.arrive([llm(1, response_id="r1")])
    world.settle()
    received = START // 10**6 + 60_000
    late = usage_record(1, trace, trace=trace, response_id="r1", received_at=received, reported_cost_usd=Decimal(1))
    world.arrive([], [late])
    world.arrive([llm(2, trace=2, received_at=received + 1_000)])
    world.journal.killed()
    world.start()
    world.settle()
    assert world.spans()[1]["reported_cost_usd"] == Decimal(1)


def test_a_record_without_a_trace_is_joined_even_if_the_store_fails_when_its_trace_is_looked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError

    world.arrive([llm(1, response_id="r1")])
    world.settle()
    world.arrive([], [usage_record(1, None, trace=None, response_id="r1", reported_cost_usd=Decimal(1))])
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "read_arrow", fail)
        with pytest.raises(ConnectionError):
            world.reconciler.tick()
    world.settle()
    assert world.spans()[1]["reported_cost_usd"] == Decimal(1)


def test_content_of_a_record_without_a_trace_can_be_read_with_its_span(world: World) -> None:
    reference = {"key": "gen_ai.output.messages", "form": "item", "hash": "a" * 32, "bytes": 5}
    record = usage_record(1, None, trace=None, response_id="r1", content=[reference])
    value = {"trace_id": "", "hash": "a" * 32, "value": "hello", "day": START // (86_400 * SECOND)}
    world.arrive([llm(1, response_id="r1")], [record], [value])
    world.settle()
    assert world.spans()[1]["content"] == [reference]
    found = world.store.read_arrow(
        "SELECT value FROM spans FINAL ARRAY JOIN content AS c INNER JOIN content AS v "
        "ON v.tenant = spans.tenant AND v.trace_id = spans.trace_id AND v.hash = c.hash"
    )
    assert found.to_pylist() == [{"value": "hello"}]


def test_a_record_that_could_belong_to_nothing_certain_stays_alone_and_is_counted(world: World) -> None:
    far = usage_record(1, None, trace=None, conversation_id="c", time=START + 60 * SECOND, reported_cost_usd=Decimal(1))
    world.arrive([llm(1, conversation_id="c")], [far])
    world.settle()
    assert world.spans()[1]["reported_cost_usd"] is None
    assert world.reconciler.stats().unjoined == 1


def test_the_vocabulary_is_the_columns(world: World) -> None:
    world.arrive([agent(1, usage=(1, 1)), agent(2, usage=(1, 1), trace=2), llm(3, 2, trace=2)])
    world.settle()
    assert {scope_of(row) for row in world.spans().values()} == {SCOPES[OWN], SCOPES[AGGREGATE]}
