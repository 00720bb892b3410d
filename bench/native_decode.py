"""Native decode and normalise on one core, beside what Python does with the reference decoder, in one run.

    python -m bench.native_decode [--seconds 3]

Rates are per second of CPU time of the decoding thread. MB are 10^6 bytes of encoded requests. The upb rows are the
`opentelemetry-proto` package: parsing alone, and every field of every span put into Python dicts.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from bench.payloads import Payload, agent, small
from processors.normalise import plan_json
from spanwise import _native

NOW = 1_780_000_000_000_000_000
RANGE_BYTES = 8_000_000
"""What one decode call takes, about as the pipeline does."""


def payloads(make: Callable[[int, int], Payload]) -> list[Payload]:
    """Different requests of one shape that add up to one range."""
    made = [make(0, NOW)]
    while sum(len(payload.body) for payload in made) < RANGE_BYTES:
        made.append(make(len(made), NOW))
    return made


def best_seconds(work: Callable[[], object], seconds: float) -> float:
    """CPU time of the fastest run, among as many as fit."""
    work()
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return best


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind) if kind else None


def _attributes(attributes: Sequence[KeyValue]) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def into_dicts(body: bytes) -> list[dict[str, Any]]:
    """Every field of every span as Python objects."""
    spans = []
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope
            for span in scope_spans.spans:
                row = {
                    "resource": resource,
                    "scope": scope.name,
                    "scope_version": scope.version,
                    "trace_id": span.trace_id.hex(),
                    "span_id": span.span_id.hex(),
                    "parent_span_id": span.parent_span_id.hex(),
                    "trace_state": span.trace_state,
                    "flags": span.flags,
                    "name": span.name,
                    "kind": span.kind,
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "status": span.status.code,
                    "status_message": span.status.message,
                    "attributes": _attributes(span.attributes),
                    "events": [(e.time_unix_nano, e.name, _attributes(e.attributes)) for e in span.events],
                    "links": [(k.trace_id.hex(), k.span_id.hex(), _attributes(k.attributes)) for k in span.links],
                }
                spans.append(row)
    return spans


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    seconds = parser.parse_args().seconds
    print(f"{'shape':8}{'what':34}{'MB/s/core':>12}{'spans/s/core':>15}")
    for shape, make in (("small", small), ("agent", agent)):
        requests = payloads(make)
        size, spans = sum(len(request.body) for request in requests), sum(request.spans for request in requests)
        for what, work in works([request.body for request in requests]).items():
            gc.collect()
            took = best_seconds(work, seconds)
            print(f"{shape:8}{what:34}{size / took / 1e6:12,.0f}{spans / took:15,.0f}", flush=True)


def works(bodies: Sequence[bytes]) -> dict[str, Callable[[], object]]:
    """What is timed, by its name."""
    decoder = _native.Decoder(plan_json())
    frames = [("bench", NOW, "traces", body) for body in bodies]

    def inspect() -> None:
        for body in bodies:
            _native.inspect("traces", body, items_max=10**6, attributes_max=10**7)

    def parse() -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for body in bodies]

    return {
        "native decode + normalise": lambda: decoder.decode(frames),
        "native inspect": inspect,
        "upb parse": parse,
        "upb parse into dicts": lambda: [into_dicts(body) for body in bodies],
    }


if __name__ == "__main__":
    main()
