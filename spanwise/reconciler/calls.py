"""The same model call reported in two traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from processors.columns import Array, Bools, arrow, compute, first_filled, is_known, is_one_of, numbers, plain, together
from processors.reconcile import CALLS, LOG, NARROW, NATIVE_DIALECTS
from spanwise.reconciler.config import ReconcilerConfig
from spanwise.reconciler.rows import PARTNER_NS, TIME_MAX, Key, keys_of

_CALL_SCHEMA: Final = pa.schema(
    [("tenant", pa.utf8()), ("trace_id", pa.utf8()), ("key", pa.utf8()), ("sure", arrow.bool_())]
)
_PARTNERS_MAX: Final = 1_000
"""A scripted model server may answer every call with one id."""


class RecentCalls:
    """Which trace reported which model call, for as long as the same call may turn up in another trace."""

    def __init__(self, config: ReconcilerConfig) -> None:
        self._most = config.recent_calls_max
        self._keep_s = config.recent_calls_s
        self._batches: list[tuple[float, pa.RecordBatch]] = []
        self._rows = 0

    def add(self, calls: pa.RecordBatch, now: float) -> None:
        if calls.num_rows:
            self._batches.append((now, calls))
            self._rows += calls.num_rows
        while self._batches and (self._rows > self._most or self._batches[0][0] < now - self._keep_s):
            self._rows -= self._batches.pop(0)[1].num_rows

    def partners(self, rows: Sequence[pa.RecordBatch], mine: set[Key], now: float) -> list[tuple[Key, int, int]]:
        """Traces not among `mine` that share a call with these rows, with a range of times to look for them."""
        if not rows or not self._batches:
            return []
        spans = together(rows, NARROW)
        calls_here = call_keys(spans)
        start = numbers(spans.column("start_time"))
        low, high = max(int(start.min()) - PARTNER_NS, 0), min(int(start.max()) + PARTNER_NS, TIME_MAX)
        wanted = compute.unique(calls_here.column("key"))
        wanted_by_sure = compute.unique(calls_here.column("key").filter(calls_here.column("sure")))
        found: set[Key] = set()
        for at, calls in self._batches:
            if at < now - self._keep_s:
                continue
            same = compute.and_(compute.is_in(calls.column("key"), value_set=wanted), calls.column("sure"))
            same = compute.or_(same, compute.is_in(calls.column("key"), value_set=wanted_by_sure))
            found.update(keys_of(calls.filter(same)))
        return [(key, low, high) for key in sorted(found - mine)[:_PARTNERS_MAX]]


def call_keys(spans: pa.RecordBatch) -> pa.RecordBatch:
    """A row for each thing that two reports of one model call have in common."""
    has_usage = is_known(spans.column("input_tokens")) | is_known(spans.column("output_tokens"))
    calls = spans.filter(pa.array(has_usage & is_one_of(spans.column("kind"), CALLS)))
    has_id = ~is_one_of(calls.column("response_id"), ("",))
    special = is_one_of(calls.column("kind"), (LOG,)) | is_one_of(calls.column("dialect"), NATIVE_DIALECTS)
    tenant, response = plain(calls.column("tenant")), plain(calls.column("response_id"))
    model = first_filled(calls.column("request_model"), calls.column("response_model"))
    tokens = [calls.column(name).fill_null(0).cast(pa.utf8()) for name in ("input_tokens", "output_tokens")]
    usage = compute.binary_join_element_wise(tenant, model, *tokens, "\n")
    parts = [
        _call_batch(calls, compute.binary_join_element_wise(tenant, response, "\n"), has_id, np.ones_like(has_id)),
        # equal usage pairs a call only with a log-like span or a client's own span
        _call_batch(calls, usage, np.ones_like(has_id), special),
    ]
    return together(parts, _CALL_SCHEMA)


def _call_batch(calls: pa.RecordBatch, key: Array, which: Bools, sure: Bools) -> pa.RecordBatch:
    columns = [plain(calls.column("tenant")), plain(calls.column("trace_id")), key, arrow.array(sure)]
    return pa.RecordBatch.from_arrays(columns, schema=_CALL_SCHEMA).filter(pa.array(which))
