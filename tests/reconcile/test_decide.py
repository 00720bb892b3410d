"""Usage scopes and summaries of whole traces, in any order, grouping and repetition."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.columns import together
from processors.reconcile import (
    CALLS,
    NARROW,
    REASONS,
    SCOPES,
    decide,
    decided,
    latest,
    narrow,
    next_version,
    summarise,
)
from tests.build import START, TENANT, batch, llm, span, span_id, trace_id, version

Row = dict[str, Any]
SECOND = 10**9


def agent(number: int, parent: int | None = None, *, usage: tuple[int, int] | None = None, **columns: Any) -> Row:
    """An agent span; with usage as the tables leave it: an aggregate until the trace says otherwise."""
    defaults: Row = {"kind": "agent", "operation": "invoke_agent"}
    if usage is not None:
        defaults |= {"input_tokens": usage[0], "output_tokens": usage[1]}
        defaults |= {"usage_scope": "aggregate", "usage_scope_reason": "tentative"}
    return span(number, parent, **(defaults | columns))


def scopes(rows: Iterable[Row]) -> dict[int, tuple[str, str]]:
    """(scope, reason) by span number."""
    spans = narrow(batch(rows))
    decision = decide(spans)
    return {
        int(str(name), 16): (SCOPES[scope], REASONS[reason])
        for name, scope, reason in zip(
            spans.column("span_id").to_pylist(), decision.scope, decision.reason, strict=True
        )
    }


def summary(rows: Iterable[Row]) -> dict[str, Any]:
    spans = latest(narrow(batch(rows)))
    (found,) = summarise(spans, decide(spans)).to_pylist()
    return dict(found)


# What each promise says


def test_an_agent_that_repeats_its_calls_is_an_aggregate() -> None:
    found = scopes([agent(1, usage=(636, 82)), llm(2, 1, usage=(318, 41)), llm(3, 1, usage=(318, 41))])
    assert found == {1: ("aggregate", "descendant"), 2: ("own", ""), 3: ("own", "")}


def test_a_hosted_agent_owns_what_nothing_below_it_reports() -> None:
    assert scopes([agent(1, usage=(636, 82)), span(2, 1, kind="tool")])[1] == ("own", "tentative")


def test_only_the_innermost_of_nested_agents_without_calls_owns_usage() -> None:
    found = scopes([agent(1, usage=(9, 9)), agent(2, 1, usage=(9, 9)), span(3, 2, kind="tool")])
    assert found[1] == ("aggregate", "descendant")
    assert found[2] == ("own", "tentative")


def test_an_aggregate_the_table_is_sure_of_stays_one() -> None:
    lifetime_total = agent(1, usage=(5_000, 100), usage_scope_reason="")
    assert scopes([lifetime_total])[1] == ("aggregate", "")


def test_of_a_call_inside_a_call_the_inner_one_owns_the_usage() -> None:
    found = scopes([llm(1), span(2, 1, kind="chain"), llm(3, 2)])
    assert found == {1: ("aggregate", "descendant"), 2: ("none", ""), 3: ("own", "")}


def test_a_call_made_by_a_tool_below_a_streaming_call_does_not_take_its_usage() -> None:
    found = scopes([llm(1), span(2, 1, kind="tool"), llm(3, 2), agent(4, 1), llm(5, 4)])
    assert found[1] == found[3] == found[5] == ("own", "")


def test_a_wrapper_that_reports_no_usage_changes_nothing() -> None:
    wrapper = llm(1) | {"input_tokens": None, "output_tokens": None, "usage_scope": "none"}
    assert scopes([wrapper, llm(2, 1)]) == {1: ("none", ""), 2: ("own", "")}


@pytest.mark.parametrize("trace", [1, 2])
def test_two_instrumentations_of_one_call_are_one_call_even_in_two_traces(trace: int) -> None:
    rich = llm(1, response_id="msg_1", scope="com.anthropic.sdk.python", attributes={"a": "1", "b": "2"})
    poor = llm(2, trace=trace, response_id="msg_1", scope="other", attributes={"a": "1"}, start=START + 59 * SECOND)
    assert scopes([rich, poor]) == {1: ("own", ""), 2: ("aggregate", "repeat")}
    assert scopes([poor, rich]) == {1: ("own", ""), 2: ("aggregate", "repeat")}


def test_the_same_response_id_is_another_call_after_a_minute_from_another_provider_or_tenant() -> None:
    first = llm(1, response_id="msg_1", scope="a")
    for other in (
        llm(2, response_id="msg_1", scope="b", start=START + 62 * SECOND),
        llm(2, response_id="msg_1", scope="b", provider="anthropic"),
        llm(2, response_id="msg_1", scope="b", tenant="u"),
        llm(2, response_id="msg_2", scope="b"),
        llm(2, response_id="", scope="b"),
    ):
        assert scopes([first, other])[2] == ("own", "")


def test_azure_and_openai_are_one_provider_to_the_client_library() -> None:
    rows = [llm(1, response_id="x", scope="a"), llm(2, response_id="x", scope="b", provider="azure.ai.openai")]
    assert sorted(scope for scope, _ in scopes(rows).values()) == ["aggregate", "own"]


def test_calls_of_one_instrumentation_answered_with_one_id_are_all_counted() -> None:
    rows = [llm(n, response_id="chatcmpl-123", scope="a", trace=n) for n in range(1, 6)]
    assert {scope for scope, _ in scopes(rows).values()} == {"own"}
    doubled = [llm(10 + n, response_id="chatcmpl-123", scope="b", trace=n) for n in range(1, 6)]
    assert sum(scope == "own" for scope, _ in scopes([*rows, *doubled]).values()) == 5


def test_streaming_usage_on_a_log_like_span_and_on_the_clients_own_span_is_one_usage() -> None:
    request = llm(1, trace=1) | {"input_tokens": None, "output_tokens": None, "usage_scope": "none"}
    log_span = llm(2, trace=2, kind="log", scope="logfire", duration=0, start=START + SECOND)
    native = llm(
        3, trace=1, parent=1, scope="com.anthropic.sdk.python", dialect="anthropic_sdk_native", response_id="m"
    )
    found = scopes([request, log_span, native])
    assert found == {1: ("none", ""), 2: ("aggregate", "repeat"), 3: ("own", "")}
    assert scopes([request, log_span])[2] == ("own", "")


def test_a_streaming_log_is_not_the_repeat_of_another_call_of_its_own_instrumentation() -> None:
    calls = [llm(1, scope="logfire.openai", response_id="a"), llm(2, kind="log", scope="logfire.openai", trace=2)]
    assert {scope for scope, _ in scopes(calls).values()} == {"own"}


def test_equal_usage_alone_is_no_sign_of_one_call() -> None:
    assert {scope for scope, _ in scopes([llm(1, scope="a"), llm(2, scope="b")]).values()} == {"own"}
    late = llm(2, trace=2, kind="log", scope="logfire", start=START + 7 * SECOND)
    assert scopes([llm(1, scope="a"), late])[2] == ("own", "")


def test_each_of_several_equal_calls_is_paired_with_its_own_log() -> None:
    calls = [llm(n, trace=n, scope="a", dialect="anthropic_sdk_native", start=START + n * SECOND) for n in range(1, 4)]
    logs = [llm(10 + n, trace=n, kind="log", scope="b", start=START + n * SECOND + 50_000_000) for n in range(1, 4)]
    found = scopes([*calls, *logs])
    assert [found[n][0] for n in (1, 2, 3, 11, 12, 13)] == ["own"] * 3 + ["aggregate"] * 3


def test_parents_that_never_come_and_parents_in_a_circle_end_somewhere() -> None:
    circle = [llm(1, 2), llm(2, 3), llm(3, 1), agent(4, 1, usage=(9, 9)), llm(5, 5), llm(6, 77)]
    found = scopes(circle)
    assert found[4] == ("own", "tentative")
    assert found[5] == found[6] == ("own", "")
    assert {found[n][0] for n in (1, 2, 3)} <= {"own", "aggregate"}


def test_a_chain_of_a_hundred_thousand_spans_is_decided_like_a_short_one() -> None:
    depth = 100_000
    rows = together([narrow(batch([span(1)]))] * depth, NARROW)
    ids = [span_id(n) for n in range(depth)]
    columns = {name: rows.column(name) for name in NARROW.names}
    columns["span_id"] = pa.array(ids)
    columns["parent_span_id"] = pa.array(["", *ids[:-1]])
    columns["kind"] = pa.array(["agent"] * (depth - 1) + ["llm"]).dictionary_encode()
    columns["input_tokens"] = pa.array([1, *[None] * (depth - 2), 1], pa.uint64())
    columns["usage_scope"] = pa.array(["own", *["none"] * (depth - 2), "own"]).dictionary_encode()
    decision = decide(pa.RecordBatch.from_arrays([columns[name] for name in NARROW.names], schema=NARROW))
    found = [SCOPES[scope] for scope in decision.scope]
    assert (found[0], set(found[1:-1]), found[-1]) == ("aggregate", {"none"}, "own")


def test_of_two_versions_of_a_span_the_higher_one_counts() -> None:
    old, new = llm(1, usage=(1, 1), version=version(START, 5)), llm(1, usage=(2, 2), version=version(START + SECOND, 4))
    assert summary([new, old, new])["input_tokens"] == 2


def test_a_correction_wins_over_the_row_it_corrects_and_loses_to_a_newer_one() -> None:
    row = batch([llm(1, version=version(START, 5))])
    corrected = next_version(row).column("version")[0].as_py()
    assert version(START, 5) < corrected < version(START, 6)
    saturated = batch([llm(1, version=version(START, 5, 15))])
    assert next_version(saturated) == saturated


# Summaries


def test_a_summary_adds_up_what_is_own() -> None:
    usage = {"cache_read_tokens": 64, "reasoning_tokens": 8, "cost_usd": Decimal("0.000000001")}
    rows = [
        agent(1, usage=(350, 48), cost_usd=Decimal(9), reported_cost_usd=Decimal(9)),
        llm(2, 1, usage=(164, 24), **usage),
        llm(3, 1, usage=(186, 24), **usage, reported_cost_usd=Decimal("0.5")),
        llm(4, 1, usage=(1, 1), request_model="", response_model=""),
    ]
    found = summary(rows)
    assert (found["input_tokens"], found["output_tokens"]) == (351, 49)
    assert (found["cache_read_tokens"], found["cache_write_tokens"], found["reasoning_tokens"]) == (128, 0, 16)
    assert (found["cost_usd"], found["reported_cost_usd"]) == (Decimal("0.000000002"), Decimal("0.5"))
    assert found["unpriced_calls"] == 1


def test_a_summary_counts_calls_tools_errors_and_spans() -> None:
    rows = [
        agent(1, status="error"),
        llm(2, 1),
        llm(3, 1) | {"input_tokens": None, "output_tokens": None, "usage_scope": "none", "error_type": "429"},
        llm(4, 2),
        llm(5, 1, kind="log"),
        llm(6, 1, response_id="a", scope="a", attributes={"x": "y"}),
        llm(7, 1, response_id="a", scope="b"),
        span(8, 1, kind="tool"),
        span(9, 1, kind="tool", tool_name="search", status="error", error_type="X"),
    ]
    found = summary(rows)
    assert (found["span_count"], found["llm_calls"], found["tool_calls"], found["error_count"]) == (9, 3, 2, 3)


def test_a_summary_takes_conversation_user_and_workflow_from_the_span_nearest_the_root() -> None:
    rows = [
        span(1, 99, conversation_id="orphan", user_id="orphan", start=START - SECOND),
        span(2),
        span(3, 2, conversation_id="near"),
        span(4, 3, conversation_id="far", user_id="u", workflow_name="w"),
    ]
    found = summary(rows)
    assert (found["conversation_id"], found["user_id"], found["workflow_name"]) == ("near", "u", "w")


def test_a_summary_names_the_root_and_an_orphan_is_not_one() -> None:
    orphan = span(1, 99, name="early", start=START - SECOND)
    assert summary([orphan])["root_span_id"] == ""
    assert summary([orphan])["root_name"] == "early"
    found = summary([orphan, span(3, name="later root", start=START + 5), span(2, name="root", start=START)])
    assert (found["root_span_id"], found["root_name"]) == (span_id(2), "root")


def test_a_summary_lists_services_agents_models_and_tools_once_and_sorted() -> None:
    rows = [
        agent(1, service="z", agent_name="planner"),
        llm(2, 1, service="a", agent_name="planner", response_model="m2"),
        llm(3, 1, service="a", agent_name="", response_model="", request_model="m1"),
        span(4, 1, kind="tool", service="", tool_name="t"),
    ]
    found = summary(rows)
    assert found["services"] == ["a", "z"]
    assert found["agents"] == ["planner"]
    assert found["models"] == ["m1", "m2"]
    assert found["tools"] == ["t"]


def test_a_summary_lasts_from_the_earliest_start_to_the_latest_end() -> None:
    rows = [
        span(1, start=START, duration=5),
        span(2, 1, start=START - 7, duration=1),
        span(3, 1, start=START + 1, duration=100),
        span(4, 1, start=0, duration=5, time_flag="zero"),
        span(5, 1, start=2**62, duration=5, time_flag="future"),
    ]
    found = summarise(narrow(batch(rows)), decide(narrow(batch(rows))))
    assert found.column("start_time").cast(pa.int64()).to_pylist() == [START - 7]
    assert found.column("duration_ns").to_pylist() == [108]
    assert found.column("day").cast(pa.int32()).to_pylist() == [START // (86_400 * SECOND)]


def test_no_spans_have_no_summaries() -> None:
    none = narrow(batch([]))
    assert summarise(none, decide(none)).num_rows == 0


# Any order, any grouping, any repetition


def reference(rows: Sequence[Row]) -> dict[tuple[str, str], tuple[str, bool]]:
    """(scope, counts as a call) of each span, by recursion over one trace at a time; without repeated calls."""
    by_trace: dict[str, dict[str, Row]] = {}
    for row in rows:
        mine = by_trace.setdefault(row["trace_id"], {})
        if row["span_id"] not in mine or mine[row["span_id"]]["version"] < row["version"]:
            mine[row["span_id"]] = row
    found = {}
    for trace, spans in by_trace.items():
        children: dict[str, list[Row]] = {}
        for row in spans.values():
            children.setdefault(row["parent_span_id"], []).append(row)

        def below(row: Row, *, through: bool, children: dict[str, list[Row]] = children) -> Iterable[Row]:
            for child in children.get(row["span_id"], []):
                if through or child["kind"] not in ("tool", "agent", "workflow", "handoff"):
                    yield child
                    yield from below(child, through=through)

        for row in spans.values():
            is_call = row["kind"] in CALLS
            ours = row.get("input_tokens") is not None and (
                row["usage_scope"] == "own" or row.get("usage_scope_reason", "") != ""
            )
            scope = row["usage_scope"]
            if ours:
                repeated = any(
                    d.get("input_tokens") is not None
                    and (d["usage_scope"] == "own" or d.get("usage_scope_reason", "") != "")
                    for d in below(row, through=not is_call)
                )
                scope = "aggregate" if repeated else "own"
            call = row["kind"] == "llm" and not any(d["kind"] == "llm" for d in below(row, through=False))
            found[trace, row["span_id"]] = (scope, call)
    return found


@st.composite
def forests(draw: st.DrawFn) -> list[Row]:
    """Spans of a few traces, parents before children, some of them absent; some instrumented twice."""
    size = draw(st.integers(1, 25))
    rows: list[Row] = []
    for number in range(1, size + 1):
        trace = draw(st.integers(1, 3))
        parent = draw(st.one_of(st.none(), st.integers(max(1, number - 4), number - 1))) if number > 1 else None
        if parent is not None and draw(st.booleans()):
            trace = int(rows[parent - 1]["trace_id"], 16)
        place: Row = {"parent": parent, "trace": trace, "start": START + draw(st.integers(0, 200)) * SECOND}
        usage = (draw(st.integers(0, 9)), draw(st.integers(0, 9)))
        match draw(st.sampled_from(["llm", "llm", "agent", "chain", "tool", "sure", "log", "plain"])):
            case "llm":
                rows.append(llm(number, usage=usage, **place))
            case "agent":
                rows.append(agent(number, usage=usage, **place))
            case "chain":
                rows.append(agent(number, usage=usage, kind="chain", usage_scope="own", **place))
            case "tool":
                rows.append(span(number, kind="tool", status=draw(st.sampled_from(["ok", "error"])), **place))
            case "sure":
                rows.append(agent(number, usage=usage, usage_scope_reason="", **place))
            case "log":
                rows.append(llm(number, usage=usage, kind="log", **place))
            case _:
                rows.append(span(number, kind="", conversation_id=draw(st.sampled_from(["", "c"])), **place))
    return rows


@settings(max_examples=60, deadline=None)
@given(forests())
def test_what_is_own_is_what_a_recursion_over_the_tree_says(rows: list[Row]) -> None:
    for row in rows:
        if row["kind"] == "log":  # pairs of calls are not the reference's business
            row["kind"] = "llm"
    spans = narrow(batch(rows))
    decision = decide(spans)
    found = {
        (trace, name): (SCOPES[scope], bool(call))
        for trace, name, scope, call in zip(
            spans.column("trace_id").to_pylist(),
            spans.column("span_id").to_pylist(),
            decision.scope,
            decision.calls,
            strict=True,
        )
    }
    expected = reference(rows)
    assert found == expected
    own = [row for row in rows if expected[row["trace_id"], row["span_id"]][0] == "own"]
    sums = summarise(spans, decision)
    assert sum(total["input_tokens"] for total in sums.to_pylist()) == sum(row["input_tokens"] for row in own)


def twice(rows: list[Row], draw: random.Random) -> list[Row]:
    """Some calls once more, as another instrumentation reports them, in the same or another trace."""
    more = []
    for row in rows:
        if row["kind"] == "llm" and draw.random() < 0.5:
            row |= {"response_id": f"id-{row['span_id']}", "scope": "one"}
            copy = row | {"span_id": span_id(1000 + int(row["span_id"], 16)), "scope": "two", "parent_span_id": ""}
            copy |= {"attributes": [("k", "v")] * draw.randrange(2), "attribute_types": ""}
            copy["attribute_types"] = "s" * len(copy["attributes"])
            copy["trace_id"] = draw.choice([row["trace_id"], trace_id(7)])
            more.append(copy)
    return rows + more


@settings(max_examples=40, deadline=None)
@given(forests(), st.randoms(use_true_random=False))
def test_any_order_grouping_and_repetition_ends_in_the_same_rows_and_summaries(
    rows: list[Row], draw: random.Random
) -> None:
    rows = twice(rows, draw)
    at_once = store_of([rows])
    arriving = rows + [row for row in rows if draw.random() < 0.3]
    draw.shuffle(arriving)
    groups: list[list[Row]] = []
    while arriving:
        size = draw.randint(1, len(arriving))
        groups.append(arriving[:size])
        arriving = arriving[size:]
    in_groups = store_of(groups)
    assert final(in_groups) == final(at_once)


def store_of(groups: Iterable[list[Row]]) -> pa.RecordBatch:
    """What a replacing table holds after each group has been decided, corrections among them."""
    held = narrow(batch([]))
    for rows in groups:
        held = latest(together([held, narrow(batch(rows))], NARROW))
        decision = decide(held)
        changed = decided(held, decision.scope, decision.reason).filter(pa.array(decision.changed))
        held = latest(together([held, next_version(changed)], NARROW))
        assert not decide(held).changed.any(), "deciding again changed something"
    return held


def final(held: pa.RecordBatch) -> tuple[list[Any], list[Any]]:
    spans = held.drop_columns(["version", "usage_scope_reason"]).to_pylist()
    traces = summarise(held, decide(held)).to_pylist()
    spans.sort(key=lambda row: (row["trace_id"], row["span_id"]))
    return spans, sorted(traces, key=lambda row: str(row["trace_id"]))


def test_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    traces, size = 2_000, 50
    one = [agent(1, usage=(9, 9)), *(llm(n, 1 + n % 7, response_id=f"r{n}") for n in range(2, size + 1))]
    table = pa.Table.from_batches([narrow(batch(one))] * traces).combine_chunks()
    columns = {name: table.column(name).combine_chunks() for name in NARROW.names}
    number = np.arange(traces * size)
    columns["trace_id"] = pa.array([trace_id(n) for n in (number // size).tolist()])
    columns["response_id"] = pa.array([f"r{n}" for n in number.tolist()])
    spans = pa.RecordBatch.from_arrays([columns[name] for name in NARROW.names], schema=NARROW)
    assert spans.column("tenant")[0].as_py() == TENANT
    started = time.perf_counter()
    decision = decide(spans)
    middle = time.perf_counter()
    summarise(spans, decision)
    ended = time.perf_counter()
    with capsys.disabled():
        print(f"\nper 100k spans: decide {(middle - started) * 1e3:.0f} ms, summarise {(ended - middle) * 1e3:.0f} ms")
