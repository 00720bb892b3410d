"""Findings are there while the run goes on, and right in the end, whatever happens in between."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from processors.detect.examine import Finding
from processors.detect.steps import Steps
from processors.normalise import plan_json
from spanwise._native import Decoder
from spanwise.detector import DetectConfig, Key
from tests.detect.corpus import decoded, needs_corpus
from tests.detector.conftest import World
from tests.reconcile.test_moving import Territory

START = 1_780_000_000 * 10**9
SECOND = 10**9


Span = dict[str, Any]


def request(*spans: dict[str, Any], service: str = "shop") -> bytes:
    """An OTLP request with spans given as (`id`, `parent`, `at` in seconds, `name`, `attributes`)."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = service
    scope = group.scope_spans.add()
    for given in spans:
        span = scope.spans.add(name=given["name"], trace_id=bytes([given.get("trace", 1)]) * 16)
        span.span_id = given["id"].to_bytes(8, "big")
        if given.get("parent"):
            span.parent_span_id = given["parent"].to_bytes(8, "big")
        span.start_time_unix_nano = START + int(given["at"] * SECOND)
        span.end_time_unix_nano = span.start_time_unix_nano + given.get("lasts", SECOND // 2)
        for key, value in given["attributes"].items():
            attribute = span.attributes.add(key=key).value
            if isinstance(value, int):
                attribute.int_value = value
            else:
                attribute.string_value = value
    return message.SerializeToString()


def agent(id_: int = 1, at: float = 0, **given: Any) -> dict[str, Any]:
    attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "buyer", "gen_ai.agent.version": "7"}
    attributes["gen_ai.conversation.id"] = "talk-1"
    return {"id": id_, "at": at, "lasts": 60 * SECOND, "name": "invoke_agent buyer", "attributes": attributes} | given


def tool(
    id_: int, at: float, query: str = "cats", result: str = "Error: quota exceeded", **given: Any
) -> dict[str, Any]:
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
        "gen_ai.tool.call.arguments": json.dumps({"query": query}),
        "gen_ai.tool.call.result": result,
    }
    return {"id": id_, "parent": 1, "at": at, "name": "execute_tool search", "attributes": attributes} | given


def chat(id_: int, at: float, **given: Any) -> dict[str, Any]:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 100,
    }
    return {"id": id_, "parent": 1, "at": at, "name": "chat gpt-4o", "attributes": attributes} | given


def rows(world: World, *spans: dict[str, Any]) -> pa.RecordBatch:
    frame = (world.tenant, world.wall_ns(), "traces", request(*spans))
    return Decoder(plan_json()).decode([frame]).spans


def test_a_loop_is_found_while_its_trace_goes_on_and_grows_with_it(world: World) -> None:
    world.reconciler.tick()
    world.take(rows(world, tool(2, 1), chat(3, 2), tool(4, 3), chat(5, 4), tool(6, 5)))
    world.now_s += 1.1
    world.reconciler.tick()
    (found,) = world.findings()
    assert (found["signature"], found["kind"], found["severity"], found["count"]) == (
        "retry_loop",
        "identical",
        "warning",
        3,
    )
    assert (found["tool_name"], found["service"], found["agent_name"]) == ("search", "shop", "")
    assert (found["wasted_tokens"], str(found["wasted_cost_usd"])) == (2_200, "0.007000000")
    assert dict(found["evidence"])["error of 0000000000000006"] == "Error: quota exceeded"

    world.take(rows(world, chat(7, 6), tool(8, 7), chat(9, 8), tool(10, 9), agent()))
    world.settle()
    (grown,) = world.findings()
    assert (grown["finding_id"], grown["detected_at"]) == (found["finding_id"], found["detected_at"])
    assert (grown["count"], grown["severity"], grown["agent_name"], grown["agent_version"]) == (5, "high", "buyer", "7")
    assert grown["conversation_id"] == "talk-1"
    assert [labels["signature"] for labels in world.observer.labels] == ["retry_loop"]
    assert [(labels["severity"], labels["agent"]) for labels in world.observer.grown] == [("high", "buyer")]
    assert [str(waste["cost_usd"]) for waste in world.observer.wastes] == ["0.007000000", "0.007000000"]
    (summary,) = world.traces().values()
    assert (summary["findings"], summary["finding_severity"]) == (["retry_loop.identical"], "high")


def test_a_trace_that_never_pauses_is_looked_at_every_second(world: World) -> None:
    world.reconciler.tick()
    world.take(rows(world, tool(2, 1)))
    world.settle()
    assert world.findings() == []
    for number in range(3, 9):
        world.take(rows(world, tool(number, number)))
        world.now_s += 0.6
        world.reconciler.tick()
    (found,) = world.findings()
    assert found["count"] >= 5


def test_a_finding_that_late_spans_contradict_is_withdrawn(world: World) -> None:
    world.take(rows(world, tool(2, 1), tool(6, 5), tool(10, 9)))
    world.settle()
    assert [found["count"] for found in world.findings()] == [3]
    world.take(rows(world, tool(4, 3, result="3 cats"), tool(8, 7, result="4 dogs"), agent()))
    world.settle()
    assert world.findings() == []
    assert next(iter(world.traces().values()))["findings"] == []
    assert world.detector.stats().withdrawn == 1


def test_a_finding_that_does_not_change_is_not_written_again(world: World) -> None:
    world.take(rows(world, agent(), tool(2, 1), tool(4, 3), tool(6, 5)))
    world.settle()
    (before,) = world.findings()
    world.take(rows(world, chat(20, 30)))
    world.settle()
    world.start()
    world.take(rows(world, chat(21, 31)))
    world.settle()
    (after,) = world.findings()
    assert after["version"] == before["version"]
    assert world.observer.labels == []


def test_a_trace_whose_root_never_arrives_ends_after_a_while(world: World) -> None:
    answer = chat(5, 4)
    answer["attributes"]["gen_ai.output.messages"] = json.dumps(
        [{"role": "assistant", "parts": [{"type": "text", "content": "All done"}], "finish_reason": "stop"}]
    )
    world.reconciler.tick()
    world.take(rows(world, tool(2, 1), answer))
    world.now_s += 2
    world.reconciler.tick()
    assert world.findings() == []
    world.now_s += 91
    world.reconciler.tick()
    world.now_s += 2
    world.reconciler.tick()
    assert [found["kind"] for found in world.findings()] == ["ignored"]
    assert world.detector.stats().open_traces == 0


def test_memory_for_open_traces_is_bounded_and_findings_outlive_it(world: World) -> None:
    world.start(detect=DetectConfig(state_bytes_max=1 << 20))
    for number in range(1, 61):
        world.take(rows(world, *(tool(n, n, trace=number, query=f"q{n}") for n in range(2, 140))))
    world.settle()
    stats = world.detector.stats()
    assert stats.state_bytes <= 1 << 20
    assert stats.evicted > 0
    world.take(rows(world, tool(200, 200, trace=1), tool(201, 201, trace=1), tool(202, 202, trace=1)))
    world.settle()
    assert ("retry_loop", 3) in {(found["signature"], found["count"]) for found in world.findings()}
    assert world.detector.stats().late > 0


def test_excerpts_can_be_left_out(world: World) -> None:
    world.start(detect=DetectConfig(excerpts=False))
    world.take(rows(world, tool(2, 1), tool(4, 3), tool(6, 5)))
    world.settle()
    (found,) = world.findings()
    assert "quota" not in str(found["evidence"])


def test_a_finding_written_right_before_a_kill_is_withdrawn_when_late_spans_contradict_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    world.reconciler.tick()
    world.take(rows(world, tool(2, 1), tool(6, 5), tool(10, 9)))
    world.now_s += 2
    with monkeypatch.context() as patch:
        patch.setattr(world.sink, "write_traces", die)
        with pytest.raises(KeyboardInterrupt):
            world.reconciler.tick()
    assert [found["count"] for found in world.findings()] == [3]
    assert world.traces() == {}
    world.journal.killed()
    world.start()
    world.take(rows(world, tool(4, 3, result="3 cats"), tool(8, 7, result="4 dogs"), agent()))
    world.settle()
    assert world.findings() == []


def test_what_arrives_while_rounds_fail_is_bounded_in_memory_and_found_afterwards(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError

    reconciler = world.start(cached_rows_max=20)
    world.reconciler.tick()
    world.take(rows(world, tool(2, 1)))
    world.settle()
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "read_arrow", fail)
        reconciler.rebuild(0)
        for number in range(3, 103):
            world.take(rows(world, tool(number, number)))
            world.now_s += 1
            with pytest.raises(ConnectionError):
                reconciler.tick()
    assert reconciler.stats().cached_rows <= 40
    world.settle()
    (found,) = world.findings()
    assert found["count"] == 101


def same(findings: list[dict[str, Any]]) -> list[str]:
    """Findings without what depends on when the program looked."""
    left_out = ("detected_at", "version", "received_at", "tenant", "finding_id")
    return sorted(str({name: value for name, value in found.items() if name not in left_out}) for found in findings)


@needs_corpus()
@pytest.mark.parametrize("stages", [4])
def test_a_program_killed_again_and_again_finds_what_a_calm_one_finds(world: World, stages: int) -> None:
    world.take(decoded(world.tenant))
    world.settle()
    calm = same(world.findings())
    assert len(calm) > 100

    again = World(world.store)
    for table in ("spans", "traces", "findings"):
        world.store.command(f"TRUNCATE TABLE {table}")
    spans = decoded(again.tenant)
    rng = random.Random(stages)
    stage = np.array([rng.randrange(stages) for _ in range(spans.num_rows)])
    for number in range(stages):
        mine = spans.filter(pa.array(stage == number))
        again.take(mine)
        if number % 2:
            again.take(mine.slice(0, mine.num_rows // 3))
        again.now_s += 1.5
        again.reconciler.tick()
        again.journal.killed()
        again.start()
    again.settle()
    assert same(again.findings()) == calm


def test_what_is_found_by_who_slept_through_a_move_does_not_replace_what_the_new_owner_found(world: World) -> None:
    territory = Territory(1)
    sleeper, detector = world.start(territory), world.detector
    sleeper.tick()
    world.take(rows(world, tool(2, 1), tool(4, 3), tool(6, 5)))
    world.settle()
    world.take(rows(world, tool(8, 7)))
    examine = detector._examine

    def sleepily(keys: Sequence[Key], steps: Steps) -> list[Finding]:
        detector._examine = examine  # type: ignore[method-assign]
        found = examine(keys, steps)
        territory.terms = [2]
        world.start().rebuild(0)
        world.take(rows(world, tool(10, 9), tool(12, 11)))
        world.settle()
        assert [finding["count"] for finding in world.findings()] == [6]
        return found

    detector._examine = sleepily  # type: ignore[method-assign]
    world.now_s += 1.1
    sleeper.tick()
    assert [finding["count"] for finding in world.findings()] == [6]
