"""Legal requests full of nonsense, through everything from the decoder to the findings: nothing of it stops anything.

Names are those that mean something, values are not what they should be: tokens below zero, prices of 1e999, ids that
name themselves as their parent, times before 1970 and after 2200, one trace sent by two tenants.
"""

from __future__ import annotations

import json
import os
import random
from functools import cache
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from processors.normalise import plan_json
from spanwise import _native
from spanwise.model import Signal
from tests.detector.conftest import World
from tests.native import requests

ROUNDS = int(os.environ.get("SPANWISE_HOSTILE", "8"))
SEED = int(os.environ.get("SPANWISE_SEED", "1"))
REQUESTS_PER_ROUND = 40
NOW = 1_780_315_200_000_000_000

NUMBERS = [0, 1, -1, 7, 1000, 2**31, 2**32 - 1, 2**53, 2**63 - 1, -(2**63)]
DOUBLES = [0.0, -0.0, 0.5, -1.5, 1e-320, 1e18, 1e308, float("inf"), float("-inf"), float("nan")]
TEXTS = [
    *("", " ", "\n", "\x00", "0", "-1", "12", "1e999", "-1e999", "NaN", "null", "true", "[]", "{}", "[[[[", '{"a":'),
    *("\u202e", "é" * 300, "x" * 5000, "'; DROP TABLE spans --", "tenant\nother", "\ud7ff\U0010ffff", "9" * 23),
    *("gpt-4o", "openai", "error", "chat", "execute_tool", "invoke_agent", "stop", "length", "own", "1780315200"),
    "2026-06-01T12:00:00Z",
    json.dumps([{"role": "user", "content": "hello " * 40}, {"role": 7, "content": {"x": [None]}}, None, "text", 5]),
    json.dumps({"input_tokens": -5, "output_tokens": 1e300, "total": {"cost": "1e999"}}),
    json.dumps({"cost": 1e18}),
    json.dumps([1e308, -0.0]),
    json.dumps({"messages": [{"parts": [{"type": "text"}]}]}),
]


@cache
def keys() -> list[str]:
    """Every attribute that any dialect reads, with an index where one belongs."""
    plan = json.loads(plan_json())
    found: set[str] = set(plan["targets"])

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                if "." in name:
                    found.add(name)
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)
        elif isinstance(node, str) and ("." in node or "_" in node) and " " not in node:
            found.add(node.replace("*", "0"))

    collect(plan)
    return sorted(found)


def value(rng: random.Random, depth: int = 0) -> AnyValue:
    found = AnyValue()
    match rng.randrange(9 if depth < 3 else 6):
        case 0 | 1:
            found.string_value = rng.choice(TEXTS)
        case 2:
            found.int_value = rng.choice(NUMBERS)
        case 3:
            found.double_value = rng.choice(DOUBLES)
        case 4:
            found.bool_value = rng.random() < 0.5
        case 5:
            found.bytes_value = rng.randbytes(rng.choice([0, 3, 300]))
        case 6 | 7:
            found.array_value.values.extend(value(rng, depth + 1) for _ in range(rng.randrange(4)))
        case _:
            found.kvlist_value.values.extend(attribute(rng, depth + 1) for _ in range(rng.randrange(4)))
    return found


def attribute(rng: random.Random, depth: int = 0) -> KeyValue:
    return KeyValue(key=rng.choice(keys()), value=value(rng, depth))


def attributes(rng: random.Random) -> list[KeyValue]:
    """Some that make a span of a model, tool or agent, and any others."""
    found = [attribute(rng) for _ in range(rng.choice([0, 2, 5, 12]))]
    for key, choices in (
        ("gen_ai.operation.name", ["chat", "execute_tool", "invoke_agent", "embeddings"]),
        ("gen_ai.request.model", ["gpt-4o", "claude-sonnet-4-5", "\x00"]),
        ("gen_ai.provider.name", ["openai", "anthropic"]),
        ("gen_ai.response.id", ["r1", "r2"]),
        ("gen_ai.conversation.id", ["c1", "c\n2"]),
        ("gen_ai.tool.name", ["search", "\U0001f600"]),
        ("gen_ai.agent.name", ["planner", "x" * 400]),
    ):
        if rng.random() < 0.4:
            found.append(requests.attribute(key, rng.choice(choices)))
    for key in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
        if rng.random() < 0.4:
            found.append(KeyValue(key=key, value=AnyValue(int_value=rng.choice([*NUMBERS, 100, 5]))))
    rng.shuffle(found)
    return found


def when(rng: random.Random) -> int:
    if rng.random() < 0.8:
        return NOW + rng.randrange(-(10**11), 10**11)
    return rng.choice([0, 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, NOW + 10**18, 10**18])


def traces(rng: random.Random) -> bytes:
    request = ExportTraceServiceRequest()
    for _ in range(rng.choice([1, 1, 2])):
        of_resource = request.resource_spans.add()
        of_resource.resource.attributes.extend(attributes(rng)[:3])
        of_scope = of_resource.scope_spans.add()
        of_scope.scope.name = rng.choice(["", "openinference.instrumentation.openai", "com.anthropic.claude_code", "s"])
        for _ in range(rng.randrange(1, 6)):
            span = of_scope.spans.add(
                trace_id=rng.randrange(1, 30).to_bytes(16, "big"),
                span_id=rng.randrange(1, 12).to_bytes(8, "big"),
                parent_span_id=rng.choice([b"", rng.randrange(1, 12).to_bytes(8, "big")]),
                name=rng.choice([*TEXTS[:12], "chat gpt-4o", "execute_tool search"]),
                kind=rng.randrange(6),
                start_time_unix_nano=when(rng),
                end_time_unix_nano=when(rng),
                attributes=attributes(rng),
            )
            span.status.code = rng.choice(list(Status.StatusCode.values()))
            span.status.message = rng.choice(TEXTS)
            for _ in range(rng.randrange(3)):
                name = rng.choice(["exception", "gen_ai.user.message", "gen_ai.choice", ""])
                span.events.add(time_unix_nano=when(rng), name=name, attributes=attributes(rng))
    body: bytes = request.SerializeToString()
    return body


def logs(rng: random.Random) -> bytes:
    request = ExportLogsServiceRequest()
    of_resource = request.resource_logs.add()
    of_resource.resource.attributes.extend(attributes(rng)[:3])
    of_scope = of_resource.scope_logs.add()
    of_scope.scope.name = rng.choice(["", "com.anthropic.claude_code.events", "s"])
    for _ in range(rng.randrange(1, 6)):
        record = of_scope.log_records.add(
            time_unix_nano=when(rng),
            observed_time_unix_nano=when(rng),
            trace_id=rng.choice([b"", rng.randrange(1, 30).to_bytes(16, "big")]),
            span_id=rng.choice([b"", rng.randrange(1, 12).to_bytes(8, "big")]),
            attributes=attributes(rng),
            event_name=rng.choice(
                ["gen_ai.client.inference.operation.details", "gen_ai.user.message", "gen_ai.choice", "api_request", ""]
            ),
        )
        record.body.CopyFrom(value(rng))
    body: bytes = request.SerializeToString()
    return body


def receive(world: World, decoder: _native.Decoder, requests_: list[tuple[str, Signal, bytes]]) -> int:
    """Store requests as the pipeline does: (tenant, signal, body). Returns the number of spans."""
    decoded = decoder.decode([(tenant, world.wall_ns(), signal, body) for tenant, signal, body in requests_])
    spans = world.price(decoded.spans)
    world.stored += 1
    assert world.sink.write(f"{world.tenant}-{world.stored}", spans, decoded.content, decoded.log_events) == 0
    world.reconciler.touched(spans, decoded.log_events)
    world.journal.range_done()
    return spans.num_rows


@pytest.mark.timeout(7200)
def test_nonsense_in_legal_requests_is_stored_decided_and_examined(world: World) -> None:
    rng = random.Random(SEED)
    decoder = _native.Decoder(plan_json())
    received = 0
    for _ in range(ROUNDS):
        sent: list[tuple[str, Signal, bytes]] = []
        for _ in range(REQUESTS_PER_ROUND):
            tenant = rng.choice(["a", "b"])
            sent.append((tenant, "traces", traces(rng)) if rng.random() < 0.7 else (tenant, "logs", logs(rng)))
        received += receive(world, decoder, sent)
        world.now_s += rng.choice([0.1, 1.5, 100])
        world.reconciler.tick()
    world.settle()
    assert received > 50 * ROUNDS
    assert world.observer.failures == []
    counted = "(SELECT uniqExact(tenant, trace_id) FROM spans) AS sent, (SELECT count() FROM traces FINAL) AS decided"
    (found,) = world.store.read_arrow(f"SELECT {counted}").to_pylist()
    assert found["sent"] == found["decided"] > 30
