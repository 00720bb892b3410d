"""One request for several partitions: nothing is lost, changed, repeated, or apart from its trace."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from bench.payloads import agent, small
from spanwise import _native
from tests.native.requests import ATTRIBUTES, REQUESTS, attribute, field, request_of, span
from tests.native.test_mutations import sources

Item = tuple[bytes, bytes, bytes]
"""Resource, scope and item, encoded, each with what stands beside it."""


def items(signal: str, body: bytes) -> Iterator[tuple[bytes, Item]]:
    """(trace id, item with all that surrounds it) as the reference decoder reads them."""
    if signal == "traces":
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                head = scope.scope.SerializeToString(), scope.schema_url, scope.HasField("scope")
                beside = resource.resource.SerializeToString(), resource.schema_url
                for one in scope.spans:
                    yield one.trace_id, (repr(beside).encode(), repr(head).encode(), one.SerializeToString())
        return
    for of_resource in ExportLogsServiceRequest.FromString(body).resource_logs:
        for of_scope in of_resource.scope_logs:
            for record in of_scope.log_records:
                around = of_resource.resource.SerializeToString(), of_scope.scope.SerializeToString()
                yield record.trace_id, (*around, record.SerializeToString())


def check(signal: str, body: bytes, partitions: int, bytes_max: int) -> None:
    parts, cuts, too_large = _native.split(signal, body, partitions=partitions, bytes_max=bytes_max)
    assert not cuts
    assert not too_large
    sent = Counter(item for _, item in items(signal, body))
    found: Counter[Item] = Counter()
    places: dict[bytes, set[int]] = defaultdict(set)
    for partition, count, part in parts:
        held = list(items(signal, part))
        assert 0 <= partition < partitions
        assert len(part) <= bytes_max
        assert count == len(held) > 0
        found.update(item for _, item in held)
        for trace_id, _ in held:
            places[trace_id if len(trace_id) == 16 else b""].add(partition)
    assert found == sent
    assert all(len(of_trace) == 1 for of_trace in places.values())
    valid = [trace_id for trace_id in places if trace_id]
    assert _native.partitions_of([trace_id.hex() for trace_id in valid], partitions) == [
        next(iter(places[trace_id])) for trace_id in valid
    ]


@given(REQUESTS, st.integers(1, 7), st.sampled_from([30_000, 60_000]))
@settings(deadline=None)
def test_the_parts_of_a_request_hold_its_spans_once_and_each_trace_in_one_partition(
    request: ExportTraceServiceRequest, partitions: int, bytes_max: int
) -> None:
    check("traces", request.SerializeToString(), partitions, bytes_max)


RECORDS = st.builds(
    LogRecord,
    time_unix_nano=st.integers(0, 2**63),
    trace_id=st.one_of(st.just(b""), st.binary(min_size=16, max_size=16), st.binary(max_size=20)),
    event_name=st.text(max_size=8),
    body=st.text(max_size=50).map(lambda text: AnyValue(string_value=text)),
    attributes=ATTRIBUTES,
)
LOGS = st.builds(
    ExportLogsServiceRequest,
    resource_logs=st.lists(
        st.builds(
            ResourceLogs,
            resource=st.builds(Resource, attributes=ATTRIBUTES),
            scope_logs=st.lists(st.builds(ScopeLogs, log_records=st.lists(RECORDS, max_size=4)), max_size=2),
        ),
        max_size=3,
    ),
)


@given(LOGS, st.integers(1, 7))
@settings(deadline=None)
def test_the_parts_of_a_logs_request_hold_its_records_once(request: ExportLogsServiceRequest, partitions: int) -> None:
    check("logs", request.SerializeToString(), partitions, 30_000)


@pytest.mark.parametrize("bytes_max", [20_000, 200_000, 1_000_000])
def test_large_requests_are_cut_to_the_size_of_a_message(bytes_max: int) -> None:
    check("traces", small(1, 10**18).body, 12, bytes_max)
    check("traces", agent(1, 10**18).body, 12, max(bytes_max, 400_000))


def test_a_part_is_filled_before_the_next_one_is_begun() -> None:
    body = request_of(*(span(name="x" * 900).SerializeToString() for _ in range(100)))
    parts, _, _ = _native.split("traces", body, partitions=1, bytes_max=10_000)
    assert [count for _, count, _ in parts[:-1]] == [10] * (len(parts) - 1)


def test_headers_that_follow_their_items_go_with_all_of_them() -> None:
    one = span(trace_id=b"\1" * 16).SerializeToString()
    two = span(trace_id=b"\2" * 16).SerializeToString()
    resource = Resource(attributes=[attribute("service.name", "late")]).SerializeToString()
    body = field(1, field(2, field(2, one) + field(2, two) + field(3, b"schema")) + field(1, resource))
    check("traces", body, 5, 10_000)


def test_values_of_a_span_over_the_message_size_are_cut_and_named() -> None:
    large = span(attributes=[attribute("prompt", "x" * 50_000)]).SerializeToString()
    parts, cuts, too_large = _native.split("traces", request_of(large), partitions=3, bytes_max=10_000)
    ((_, count, part),) = parts
    assert (count, too_large) == (1, [])
    assert [(index, key, size) for index, key, size, _ in cuts] == [(0, "prompt", 50_000)]
    assert len(part) <= 10_000
    ((_, (_, _, kept)),) = items("traces", part)
    assert b"[cut by spanwise: 50000 bytes" in kept


def test_the_body_of_a_log_record_over_the_message_size_is_cut() -> None:
    record = LogRecord(trace_id=b"\1" * 16, body=AnyValue(string_value="x" * 50_000), attributes=[attribute("k", "v")])
    logs = ResourceLogs(scope_logs=[ScopeLogs(log_records=[record])])
    body = ExportLogsServiceRequest(resource_logs=[logs]).SerializeToString()
    ((_, _, part),), cuts, _ = _native.split("logs", body, partitions=3, bytes_max=10_000)
    assert [(index, key, size) for index, key, size, _ in cuts] == [(0, "body", 50_000)]
    kept = ExportLogsServiceRequest.FromString(part).resource_logs[0].scope_logs[0].log_records[0]
    assert kept.body.string_value.endswith("]")
    assert list(kept.attributes) == [attribute("k", "v")]


def test_an_item_made_of_very_many_small_values_is_left_out_alone() -> None:
    many = span(attributes=[attribute(f"key-{number}", "x" * 100) for number in range(500)]).SerializeToString()
    body = request_of(span().SerializeToString(), many, span().SerializeToString())
    parts, cuts, too_large = _native.split("traces", body, partitions=1, bytes_max=10_000)
    assert (cuts, too_large) == ([], [1])
    assert [count for _, count, _ in parts] == [2]


def test_a_resource_as_large_as_a_message_leaves_no_room_for_its_spans() -> None:
    resource = Resource(attributes=[attribute("k", "x" * 20_000)]).SerializeToString()
    body = request_of(span().SerializeToString(), resource=resource)
    assert _native.split("traces", body, partitions=1, bytes_max=10_000) == ([], [], [0])


def test_a_request_that_would_unfold_to_many_times_its_size_is_refused() -> None:
    resource = Resource(attributes=[attribute("k", "x" * 900_000)]).SerializeToString()
    spans = (span(trace_id=number.to_bytes(16, "big")).SerializeToString() for number in range(1, 200))
    with pytest.raises(ValueError, match="over 8 times as large"):
        _native.split("traces", request_of(*spans, resource=resource), partitions=100, bytes_max=1_000_000)


def test_spoiled_requests_are_split_or_refused_and_never_a_defect() -> None:
    rng = random.Random(5)
    whole = [source for source in sources() if source]
    refusals = []
    for _ in range(3_000):
        body = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        try:
            parts, _, _ = _native.split("traces", bytes(body), partitions=4, bytes_max=2_000)
        except ValueError as error:
            refusals.append(str(error))
        else:
            assert all(len(part) <= 2_000 for _, _, part in parts)
    assert 0 < len(refusals) < 3_000
    assert all("not valid protobuf" in refusal for refusal in refusals)


def test_what_is_no_message_is_refused_with_the_byte() -> None:
    with pytest.raises(ValueError, match="cannot split the request: byte 1: not valid protobuf"):
        _native.split("traces", b"\x0a", partitions=1, bytes_max=1000)
