"""What cannot be examined keeps nothing else from being found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from processors.detect.signature import Bools, Found
from processors.detect.steps import Steps, Trace
from tests.build import llm, trace_id
from tests.detector.conftest import World
from tests.detector.test_detector import agent, rows, tool
from tests.reconcile.test_reconciler import usage_record


class Wild:
    """A signature of somebody's own that says of every trace what no finding can say."""

    name: ClassVar[str] = "wild"
    kinds: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1

    def __init__(self, **wild: Any) -> None:
        self._wild = wild

    def candidates(self, steps: Steps) -> Bools:
        return np.ones(len(steps.rows), dtype=np.bool_)

    def find(self, trace: Trace) -> Iterable[Found]:
        said: dict[str, Any] = {"kind": "", "severity": "info", "steps": (0,), "count": 1}
        yield Found(**(said | self._wild))


@pytest.mark.parametrize("wild", [{"severity": "urgent"}, {"basis": "guess"}, {"count": -1}, {"steps": ()}])
def test_a_signature_that_finds_nonsense_loses_its_own_findings_only(world: World, wild: dict[str, Any]) -> None:
    world.detector._signatures.append(Wild(**wild))
    world.take(rows(world, tool(2, 1), tool(4, 3), tool(6, 5), agent()))
    world.settle()
    assert [found["signature"] for found in world.findings()] == ["retry_loop"]
    assert set(world.observer.failures) == {"wild"}
    assert [row["partial"] for row in world.traces().values()] == [""]


def refusing(world: World, trace: str) -> Callable[..., None]:
    """A sink that breaks on findings of one trace."""
    write = world.sink.write_findings

    def fail(findings: pa.RecordBatch, token: str) -> None:
        if trace in findings.column("trace_id").to_pylist():
            raise ZeroDivisionError
        write(findings, token)

    return fail


def take_loops(world: World, *traces: int, first: int = 2, ends: bool = True) -> None:
    spans = rows(world, *(tool(first + 2 * n, first + 2 * n) for n in range(3)), *([agent()] if ends else []))
    theirs = pa.array([trace_id(trace) for trace in traces for _ in range(spans.num_rows)])
    spans = spans.take(pa.array(list(range(spans.num_rows)) * len(traces)))
    world.take(spans.set_column(spans.schema.get_field_index("trace_id"), "trace_id", theirs))


def test_findings_of_other_traces_are_found_although_those_of_one_cannot_be_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reconciler.tick()
    take_loops(world, *range(1, 10))
    monkeypatch.setattr(world.sink, "write_findings", refusing(world, trace_id(4)))
    world.now_s += 2
    assert world.reconciler.tick() == 8
    assert {found["trace_id"] for found in world.findings()} == {trace_id(n) for n in range(1, 10) if n != 4}
    assert {trace for trace, row in world.traces().items() if row["partial"] == "failed"} == {trace_id(4)}
    monkeypatch.undo()
    world.now_s += 20
    assert world.reconciler.tick() == 1
    assert {found["trace_id"] for found in world.findings()} == {trace_id(n) for n in range(1, 10)}
    assert {row["partial"] for row in world.traces().values()} == {""}


def test_open_traces_are_looked_at_although_a_look_at_one_of_them_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reconciler.tick()
    take_loops(world, *range(1, 10), ends=False)
    world.settle()
    take_loops(world, *range(1, 10), first=100, ends=False)
    monkeypatch.setattr(world.sink, "write_findings", refusing(world, trace_id(4)))
    world.now_s += 0.5  # too early for a decision
    assert world.reconciler.tick() == 0
    counts = {found["trace_id"]: found["count"] for found in world.findings()}
    assert counts == {trace_id(n): 3 if n == 4 else 6 for n in range(1, 10)}
    monkeypatch.undo()
    world.settle()
    assert {found["count"] for found in world.findings()} == {6}


def test_findings_of_a_trace_stay_when_it_becomes_oversized(world: World) -> None:
    world.start(spans_per_trace_max=5)
    world.reconciler.tick()
    take_loops(world, 1)
    world.settle()
    before = world.findings()
    take_loops(world, 1, first=100)
    world.settle()
    (summary,) = world.traces().values()
    assert (summary["partial"], summary["span_count"]) == ("oversized", 7)
    assert (summary["findings"], summary["finding_severity"]) == (["retry_loop.identical"], "warning")
    assert world.findings() == before != []


def test_records_without_a_trace_are_joined_although_one_of_them_cannot_be_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = world.store.read_arrow

    def fail(sql: str, params: Any = None, **options: Any) -> pa.Table:
        if "r3" in (params or {}).get("responses", ()):
            raise ZeroDivisionError
        return read(sql, params, **options)

    world.arrive([llm(n, trace=n, response_id=f"r{n}") for n in range(1, 6)])
    world.settle()
    monkeypatch.setattr(world.store, "read_arrow", fail)
    world.arrive([], [usage_record(n, None, trace=None, response_id=f"r{n}", user_id=f"u{n}") for n in range(1, 6)])
    world.settle()
    assert [world.spans()[n]["user_id"] for n in range(1, 6)] == ["u1", "u2", "", "u4", "u5"]
