"""Requests with defects: never a crash, never a hang, and the same reading as the reference wherever that has one."""

from __future__ import annotations

import json
import os
import random
import time
from functools import cache

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, Phase, given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from processors.normalise import plan_json
from spanwise import _native
from tests.native import oracle, requests
from tests.native.requests import RECEIVED, REQUESTS
from tests.shared import CORPUS

MUTATIONS = int(os.environ.get("SPANWISE_MUTATIONS", "30000"))
SEED = int(os.environ.get("SPANWISE_SEED", "1"))
BATCH = 50
SOURCE_BYTES_MAX = 4_000
LIMITS = {"items_max": 10**9, "attributes_max": 10**9}


@cache
def decoder() -> _native.Decoder:
    return _native.Decoder(plan_json())


@cache
def sources() -> tuple[bytes, ...]:
    """Short requests of every shape, and short recorded ones where there are any."""
    made: list[bytes] = []

    @settings(
        max_examples=200,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(REQUESTS)
    def collect(request: ExportTraceServiceRequest) -> None:
        body = request.SerializeToString()
        if 0 < len(body) <= SOURCE_BYTES_MAX:
            made.append(body)

    collect()
    for path in sorted(CORPUS.glob("*.jsonl")):
        if path.name.count(".") == 1:
            bodies = (_native.json_to_protobuf("traces", line) for line in path.read_bytes().splitlines()[:20])
            made += [body for body in bodies if len(body) <= SOURCE_BYTES_MAX][:5]
    return tuple(made)


def reference(body: bytes) -> list[oracle.Expected | None] | None:
    try:
        return oracle.expected(ExportTraceServiceRequest.FromString(body))
    except DecodeError:
        return None


def check(bodies: list[bytes]) -> int:
    """Compare a batch of requests; returns how many of them the reference reads."""
    decoded = decoder().decode([(str(index), RECEIVED, "traces", body) for index, body in enumerate(bodies)])
    rejects: dict[int, list[int]] = {index: [] for index in range(len(bodies))}
    for frame, item, reason in decoded.rejects:
        assert reason
        rejects[frame].append(item)
    rows: dict[int, list[dict[str, object]]] = {index: [] for index in range(len(bodies))}
    for row in oracle.rows(decoded.spans):
        rows[int(row["tenant"])].append(row)
    content = oracle.stored(decoded.content)
    legal = 0
    for frame, body in enumerate(bodies):
        try:
            inspection = _native.inspect("traces", body, **LIMITS)
        except ValueError:
            # the rest of the request cannot be found: decode says so once, after what it could read
            assert rejects[frame]
        else:
            assert [item for item, _ in inspection.rejects] == rejects[frame][:100]
            assert inspection.items == len(rows[frame]) + len(rejects[frame])
        expected = reference(body)
        if expected is not None:
            legal += 1
            assert rejects[frame] == [item for item, span in enumerate(expected) if span is None]
            kept = [span for span in expected if span is not None]
            assert len(kept) == len(rows[frame])
            for span, row in zip(kept, rows[frame], strict=True):
                oracle.check_span(span, row, content)
    return legal


@pytest.mark.timeout(24 * 3600)
def test_requests_with_defects_are_read_as_the_reference_reads_them() -> None:
    random_ = random.Random(SEED)
    done = legal = 0
    while done < MUTATIONS:
        bodies = [requests.mutate(random_.choice(sources()), random_) for _ in range(min(BATCH, MUTATIONS - done))]
        try:
            legal += check(bodies)
        except BaseException:
            # name the one that it was
            for body in bodies:
                try:
                    check([body])
                except BaseException as error:
                    raise AssertionError(f"request {body.hex()}") from error
            raise
        done += len(bodies)
    print(f"{done} mutations, {legal} of them legal, seed {SEED}")
    assert legal > MUTATIONS // 20, "too few legal requests to compare"


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_json_with_defects_is_refused_or_read(signal: str) -> None:
    random_ = random.Random(SEED)
    texts = [
        json.dumps(requests.to_json(ExportTraceServiceRequest.FromString(source))).encode() for source in sources()
    ]
    read = 0
    for _ in range(MUTATIONS // 6):
        text = requests.mutate(random_.choice(texts), random_)
        try:
            body = _native.json_to_protobuf(signal, text)
        except ValueError:
            continue
        read += 1
        assert _native.inspect(signal, body, **LIMITS).items >= 0
    assert read > MUTATIONS // 60


def test_log_requests_with_defects_never_break_the_decoder() -> None:
    """Traces read as logs: the same framing, fields that mean something else."""
    random_ = random.Random(SEED)
    for _ in range(MUTATIONS // 600):
        bodies = [requests.mutate(random_.choice(sources()), random_) for _ in range(BATCH)]
        decoded = decoder().decode([(str(index), RECEIVED, "logs", body) for index, body in enumerate(bodies)])
        decoded.log_events.validate(full=True)
        assert decoded.spans.num_rows == 0


def test_no_request_takes_longer_than_its_size_explains() -> None:
    """Hostile shapes of half a megabyte: each is linear work, where a quadratic one would take minutes."""
    size = 500_000
    many = requests.attribute("k", "v").SerializeToString()
    span = requests.span().SerializeToString()
    hostile = {
        "deep arrays": requests.field(9, requests.field(1, b"k") + requests.field(2, nested(size // 8))),
        "one key again and again": requests.field(9, many) * (size // (len(many) + 2)),
        "empty attributes": b"\x4a\x00" * (size // 2),
        "empty events": b"\x5a\x00" * (size // 2),
        "value in pieces": requests.field(9, requests.field(2, b"\x2a\x00") * (size // 4)),
        "array of empty values": requests.field(9, requests.field(2, requests.field(5, b"\x0a\x00" * (size // 2)))),
        "status in pieces": b"\x7a\x00" * (size // 2),
        "half a JSON array": requests.field(
            9, requests.attribute("gen_ai.input.messages", "[" * size).SerializeToString()
        ),
        "short elements": requests.field(
            9, requests.attribute("gen_ai.input.messages", "[" + "1," * (size // 2) + "1]").SerializeToString()
        ),
        "indexed keys": b"".join(
            requests.field(9, requests.attribute(f"gen_ai.prompt.{index}.content", "x").SerializeToString())
            for index in range(10_000)
        ),
    }
    for name, body in hostile.items():
        request = requests.request_of(span + body)
        start = time.process_time()
        decoded = decoder().decode([("t", RECEIVED, "traces", request)])
        assert decoded.spans.num_rows + decoded.rejected == 1, name
        _native.inspect("traces", request, **LIMITS)
        assert time.process_time() - start < 20, name
    empty = requests.field(1, requests.field(2, b"\x12\x00" * (size // 2)))
    start = time.process_time()
    assert decoder().decode([("t", RECEIVED, "traces", empty)]).rejected == size // 2
    assert time.process_time() - start < 20
    # one key of 100 kB and a long array: the key is not repeated for every element
    long_key = requests.attribute("k" * 100_000, json.dumps(["x" * 80] * 4_000)).SerializeToString()
    decoded = decoder().decode([("t", RECEIVED, "traces", requests.request_of(span + requests.field(9, long_key)))])
    assert decoded.spans.nbytes < 1_000_000


def nested(levels: int) -> bytes:
    """An AnyValue of so many arrays inside one another, written from the inside."""
    parts: list[bytes] = []
    length = 0
    for _ in range(levels):
        for tag in (b"\x2a", b"\x0a"):
            part = tag + requests.varint(length)
            parts.append(part)
            length += len(part)
    # the outermost wrapping is an AnyValue
    return b"".join(reversed(parts[:-1]))


def test_a_request_of_deep_values_is_kept_as_text() -> None:
    levels = 100_000
    request = requests.request_of(
        requests.span().SerializeToString()
        + requests.field(9, requests.field(1, b"k") + requests.field(2, nested(levels)))
    )
    decoded = decoder().decode([("t", RECEIVED, "traces", request)])
    row = oracle.rows(decoded.spans)[0]
    text = oracle.whole(row, oracle.stored(decoded.content), "attributes", "k", row["attributes"][0][1])
    # 32 levels of JSON, and in them a string that holds the rest
    value = json.loads(text)
    for _ in range(32):
        (value,) = value
    assert value == "[" * (levels - 32) + "]" * (levels - 32)
