"""Alerts and rows of findings for these tests: every field has a default, a keyword sets it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sinks.webhook import Alert
from spanwise.model import FINDINGS

NOW_MS = 1_780_000_000_000


def finding_id(number: int) -> str:
    return f"{number:032x}"


def alert(number: int = 1, **fields: Any) -> Alert:
    spans = (f"{number:016x}", f"{number + 1:016x}")
    defaults: dict[str, Any] = {
        "finding_id": finding_id(number),
        "tenant": "default",
        "trace_id": f"{number:032x}",
        "signature": "retry_loop",
        "kind": "identical",
        "severity": "high",
        "basis": "exact",
        "service": "shop",
        "agent_name": "buyer",
        "agent_version": "2",
        "tool_name": "search",
        "model": "gpt-4o",
        "conversation_id": "",
        "first_span_id": spans[0],
        "last_span_id": spans[1],
        "span_ids": spans,
        "count": 4,
        "wasted_tokens": 12_345,
        "wasted_cost_usd": "0.125",
        "evidence": {"calls": "4", "seconds": "1.5"},
        "rule_version": 1,
        "started_at": "2026-06-01T12:00:00Z",
        "detected_at": "2026-06-01T12:00:02Z",
    }
    return Alert(**defaults | fields)


def findings(*rows: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=FINDINGS.arrow)


def finding(number: int, *, at_ms: int, **columns: Any) -> dict[str, Any]:
    """A row of `findings`, written at a time."""
    row: dict[str, Any] = {
        "tenant": "default",
        "trace_id": f"{number:032x}",
        "finding_id": finding_id(number),
        "signature": "retry_loop",
        "kind": "identical",
        "severity": "high",
        "basis": "exact",
        "service": "shop",
        "agent_name": "buyer",
        "agent_version": "2",
        "tool_name": "search",
        "model": "gpt-4o",
        "conversation_id": "",
        "first_span_id": f"{number:016x}",
        "last_span_id": f"{number:016x}",
        "span_ids": [f"{number:016x}"],
        "count": 3,
        "wasted_tokens": 0,
        "wasted_cost_usd": 0,
        "evidence": [("calls", "3")],
        "rule_version": 1,
        "started_at": at_ms * 10**6,
        "detected_at": at_ms,
        "day": at_ms // 86_400_000,
        "received_at": at_ms,
        "version": at_ms,
        "withdrawn": 0,
    }
    return row | columns
