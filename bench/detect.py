"""What detection costs: memory of open traces, and CPU of the whole server with and without it.

The traffic is healthy, as most traffic is: runs of 16 spans, an agent with five model calls and ten tool calls with
arguments and results, sent at a fixed rate. Both servers get the same load, one after the other; the bill is CPU time
of the process until everything is stored and every trace is decided.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from bench.load import send
from bench.payloads import Payload, _prose, _request, _set, _span, fresh
from processors.columns import compute
from processors.reconcile import narrow
from spanwise.detector import DetectConfig, Detector
from tests.detect.corpus import FOLDER, decoded
from tests.running import RunningServer

_RUN_SPANS = 16
_RUNS = 32


def runs(seed: int, now_unix_nano: int) -> Payload:
    """512 spans: 32 healthy agent runs."""
    rng = random.Random(seed)
    request, scope_spans = _request(f"agents-{seed % 4}")
    ids = []
    for _ in range(_RUNS):
        trace_id = rng.randbytes(16)
        start = now_unix_nano - 20_000_000_000
        root = _span(scope_spans, rng, trace_id, "invoke_agent researcher", start, 18)
        _set(root, "gen_ai.operation.name", "invoke_agent")
        _set(root, "gen_ai.agent.name", "researcher")
        ids.append(root.trace_id + root.span_id)
        for step in range(5):
            at = start + step * 3_500_000_000
            call = _span(scope_spans, rng, trace_id, "chat gpt-4o", at, 1.5)
            call.parent_span_id = root.span_id
            for key, value in {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.response.id": f"chatcmpl-{rng.getrandbits(96):024x}",
                "gen_ai.usage.input_tokens": 1_000 + step * 900,
                "gen_ai.usage.output_tokens": rng.randrange(50, 400),
                "gen_ai.response.finish_reasons": ["tool_calls"],
            }.items():
                _set(call, key, value)
            ids.append(call.trace_id + call.span_id)
            for number in range(2):
                tool = _span(scope_spans, rng, trace_id, "execute_tool", at + 1_600_000_000 + number, 0.6)
                tool.parent_span_id = root.span_id
                for key, value in {
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": rng.choice(("search", "fetch", "query")),
                    "gen_ai.tool.call.id": f"call-{rng.getrandbits(48):012x}",
                    "gen_ai.tool.call.arguments": json.dumps({"query": _prose(rng, 60), "page": rng.randrange(9)}),
                    "gen_ai.tool.call.result": _prose(rng, 640),
                }.items():
                    _set(tool, key, value)
                ids.append(tool.trace_id + tool.span_id)
    return Payload(request.SerializeToString(), _RUNS * _RUN_SPANS, tuple(ids))


def _cpu_s(server: RunningServer) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)


def _server_cpu(payloads: list[Payload], rate: float, *, detect: bool) -> float:
    """CPU seconds per 100,000 spans."""
    spans = sum(payload.spans for payload in payloads)
    with (
        tempfile.TemporaryDirectory() as directory,
        RunningServer(Path(directory) / "data", SPANWISE_DETECT__ENABLED=str(detect).lower()) as server,
    ):
        cpu = _cpu_s(server)
        sent = asyncio.run(send(server.grpc, payloads, connections=8, requests_per_s=rate))
        server.wait_for("SELECT count() FROM spans", spans, timeout_s=300)
        server.wait_for("SELECT sum(span_count) FROM traces FINAL", spans, timeout_s=300)
        used = (_cpu_s(server) - cpu) / spans * 1e5
        print(
            f"server with detection {'on ' if detect else 'off'}: {spans} GenAI spans offered at "
            f"{rate * payloads[0].spans:,.0f} spans/s, refused {sent.refused}: {used:.2f} s CPU per 100k spans"
        )
        return used


def _state() -> None:
    if not FOLDER.is_dir():
        print("state of open traces not measured: the labelled traces are not beside the repository")
        return

    class Nothing:
        def __getattr__(self, _name: str) -> object:
            raise AssertionError("only state is measured")

    nothing: Any = Nothing()
    detector = Detector(
        DetectConfig(), store=nothing, sink=nothing, window=lambda *_: None, observer=nothing, signatures=[]
    )
    spans = narrow(decoded())
    # without their roots they all go on
    going_on = spans.filter(compute.not_equal(spans.column("parent_span_id"), ""))
    keys = list(dict.fromkeys(("default", str(trace)) for trace in going_on.column("trace_id").to_pylist()))
    detector.decided(keys, [], going_on, 0)
    stats = detector.stats()
    each = stats.state_bytes / stats.open_traces
    room = DetectConfig().state_bytes_max / each
    print(
        f"state of {stats.open_traces} open traces of the labelled corpus: {each:,.0f} bytes a trace; "
        f"{room:,.0f} such traces fit into the default of {DetectConfig().state_bytes_max >> 20} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=20_000, help="spans offered a second")
    parser.add_argument("--seconds", type=int, default=15)
    options = parser.parse_args()
    _state()
    rng = random.Random()
    seeds = [runs(seed, time.time_ns()) for seed in range(8)]
    count = options.rate * options.seconds // seeds[0].spans
    rate = options.rate / seeds[0].spans
    without = _server_cpu([fresh(seeds[n % 8], rng) for n in range(count)], rate, detect=False)
    with_ = _server_cpu([fresh(seeds[n % 8], rng) for n in range(count)], rate, detect=True)
    print(f"detection takes {(with_ - without) / with_:.1%} of the server's CPU, its fingerprints not counted")


if __name__ == "__main__":
    main()
