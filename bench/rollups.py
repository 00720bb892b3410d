"""What it costs to keep the sums of each minute: CPU of the counts beside a steady stream of spans.

Time is simulated, the store and the counting are real. Every second a batch of spans arrives that ended just now: model
calls and tools of seconds, agents of up to minutes, so that each minute changes for as long as its agents ran. The bill
is CPU time of the process during counts and bookkeeping, without merges, after the first minutes, when as many minutes
are counted again as ever.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import SecretStr

from processors.columns import replaced
from spanwise.model import SPANS
from spanwise.rollups import Rollups, RollupsConfig
from spanwise.store import Store, StoreConfig, open_store
from tests.build import batch, llm, span

_WARM_MINUTES = 3
_AGENTS, _MODELS, _TOOLS, _SERVICES = 12, 6, 20, 4
_MEDIAN_S = {"llm": 3.0, "tool": 0.5, "agent": 25.0}
_LONGEST_S = 300.0


class _Notes:
    def get_meta(self, key: str) -> str | None:  # noqa: ARG002 - there is one note
        return str(int(time.time() * 1_000))

    def set_meta(self, key: str, value: str) -> None:
        pass


class _Traffic:
    """Spans of a second, new ones each time."""

    def __init__(self, rate: int) -> None:
        self._rng = np.random.default_rng(7)
        self._kinds = self._rng.choice(list(_MEDIAN_S), rate, p=[0.4, 0.5, 0.1])
        self._batch = batch([self._row(number, kind) for number, kind in enumerate(self._kinds.tolist())], SPANS)

    def _row(self, number: int, kind: str) -> dict[str, Any]:
        def pick(most: int) -> int:
            return int(self._rng.integers(most))

        names: dict[str, Any] = {
            "service": f"svc-{pick(_SERVICES)}",
            "agent_name": f"agent-{pick(_AGENTS)}",
            "agent_version": "1",
        }
        attributes = {"gen_ai.request.temperature": "0.2", "session": f"{number:032x}", "deployment": "blue"}
        if kind == "llm":
            chunk = float(self._rng.lognormal(-0.5))
            model: dict[str, Any] = {"response_model": f"model-{pick(_MODELS)}", "time_to_first_chunk_s": chunk}
            return llm(number, attributes=attributes, usage=(pick(8_000), pick(900)), **names, **model)
        if kind == "tool":
            tool: dict[str, Any] = {"operation": "execute_tool", "tool_name": f"tool-{pick(_TOOLS)}"}
            return span(number, kind="tool", attributes=attributes, **tool, **names)
        return span(number, kind="agent", attributes=attributes, operation="invoke_agent", **names)

    def second(self, now_ns: int) -> pa.RecordBatch:
        rows = self._batch.num_rows
        median = np.array([_MEDIAN_S[kind] for kind in self._kinds.tolist()])
        duration = np.minimum(median * self._rng.lognormal(0.0, 1.0, rows), _LONGEST_S) * 1e9
        end = now_ns - self._rng.integers(0, 10**9, rows)
        start = end - duration.astype(np.int64)
        ids = self._rng.bytes(rows * 24).hex()
        columns = {
            "trace_id": pa.array([ids[at : at + 32] for at in range(0, rows * 48, 48)]),
            "span_id": pa.array([ids[at : at + 16] for at in range(32, rows * 48, 48)]),
            "start_time": pa.array(start).cast(SPANS.arrow.field("start_time").type),
            "duration_ns": pa.array(duration.astype(np.uint64)),
            "day": pa.array((start // (86_400 * 10**9)).astype(np.int32)).cast(pa.date32()),
            "received_at": pa.array(np.full(rows, now_ns // 10**6)).cast(SPANS.arrow.field("received_at").type),
            "version": pa.array(((end >> 20) << 23).astype(np.uint64)),
        }
        return replaced(self._batch, columns)


def _run(store: Store, rate: int, minutes: int, config: RollupsConfig) -> None:
    now_ns = time.time_ns() // (60 * 10**9) * 60 * 10**9 - 3_600 * 10**9
    rollups = Rollups(config, store=store, journal=_Notes(), wall_ns=lambda: now_ns)
    traffic = _Traffic(rate)
    cpu = wall = notes = 0.0
    before = rollups.stats()
    for second in range(minutes * 60):
        now_ns += 10**9
        spans = traffic.second(now_ns)
        store.insert(SPANS, spans, f"second-{second}")
        if second == _WARM_MINUTES * 60:
            cpu, wall, notes, before = 0.0, 0.0, 0.0, rollups.stats()
        used = time.process_time()
        rollups.touched(spans)
        notes += time.process_time() - used
        if rollups.stats().lag_s > 0:
            store.command("SYSTEM STOP MERGES spans")  # they are the price of storing spans, not of counting
            used, began = time.process_time(), time.perf_counter()
            rollups.tick()
            cpu, wall = cpu + time.process_time() - used, wall + time.perf_counter() - began
            store.command("SYSTEM START MERGES spans")
    took = (minutes - _WARM_MINUTES) * 60
    counted = rollups.stats().minutes - before.minutes
    (found,) = store.read_arrow(
        "SELECT count() AS groups, uniqExact(minute) AS minutes FROM rollup_1m FINAL WHERE spans > 0"
    ).to_pylist()
    share, each = (cpu + notes) / took, max(counted, 1)
    print(
        f"rollups at {rate:,} spans/s: {share:.4f} s CPU per second, {share:.1%} of a core "
        f"(counts {cpu / took:.4f}, bookkeeping {notes / took:.4f}); {counted / (took / 60):.1f} counts a minute of "
        f"traffic, {cpu / each:.2f} s CPU and {wall / each:.2f} s each, "
        f"{found['groups'] / max(found['minutes'], 1):.0f} groups in a minute"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=10_000, help="spans a second")
    parser.add_argument("--minutes", type=int, default=8, help=f"the first {_WARM_MINUTES} are not counted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        store = open_store(Store(StoreConfig(dsn=SecretStr(f"chdb://{Path(directory)}/store"))))
        try:
            _run(store, options.rate, options.minutes, RollupsConfig())
        finally:
            store.close()


if __name__ == "__main__":
    main()
