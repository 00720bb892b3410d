"""Whose work it is: what a trace did and used, by minute, agent, model and tool.

Most instrumentations name an agent on its own span only. What is below that span, down to the next one that names an
agent, is this agent's work. It can be told from the whole trace alone, so it is part of the trace's summary.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from processors.columns import (
    Array,
    Bools,
    Ints,
    arrow,
    dense,
    first_filled,
    first_rows,
    is_known,
    is_one_of,
    money,
    nano,
    numbers,
    plain,
    ranks,
)
from spanwise.model import TRACES

_MINUTE_NS: Final = 60 * 10**9
_MINUTES_MAX: Final = (2**32 - 1) // 60
"""The last minute ClickHouse's `DateTime` can hold."""
_TOKENS_MAX: Final = 2**40
_MODEL_KINDS: Final = ("llm", "embedding")

_FIELDS: Final = TRACES.arrow.field("work").type.value_type


def nearest(parent: Ints, wanted: Bools) -> Ints:
    """The nearest wanted row of each row: itself or an ancestor, -1 for none. Parents are rows without cycles."""
    found: Ints = np.where(wanted, np.arange(len(parent)), parent)
    while True:
        further = np.where(found >= 0, found[found], -1)
        if (further == found).all():
            return np.where(found >= 0, np.where(wanted[found], found, -1), -1)
        found = further


def work(spans: pa.RecordBatch, trace: Ints, parent: Ints, own: Bools, repeat: Bools) -> Array:
    """The column `work` of `traces`, a row each trace: deduplicated spans with the columns of `NARROW`.

    `trace` numbers the trace of each row from zero, `parent` is its parent's row; the usage of `own` rows counts, and
    `repeat` rows report a model call that another row reports too.
    """
    kind = spans.column("kind")
    rows = np.flatnonzero(own | ~is_one_of(kind, ("",)))
    named, versioned = (~is_one_of(spans.column(name), ("",)) for name in ("agent_name", "agent_version"))
    agent = nearest(parent, named)
    version = nearest(parent, versioned)
    # a version belongs to the agent it stands beside
    same = (agent >= 0) & (version >= 0)
    names = ranks(spans.column("agent_name"))
    same[same] = names[agent[version[same]]] == names[agent[same]]
    caller = np.where(parent >= 0, agent[parent], -1)
    caller[~is_one_of(kind, ("agent",))] = -1

    def at(name: str, source: Ints) -> Array:
        found: Array = plain(spans.column(name)).take(arrow.array(source[rows], mask=source[rows] < 0)).fill_null("")
        return found

    here = np.arange(spans.num_rows)
    minute = np.clip(numbers(spans.column("start_time"))[rows] // _MINUTE_NS, 0, _MINUTES_MAX).astype(np.int64)
    text = {
        "service": at("service", here),
        "agent_name": at("agent_name", agent),
        "agent_version": at("agent_version", np.where(same, version, -1)),
        "caller": at("agent_name", caller),
        "kind": at("kind", here),
        "provider": at("provider", here),
        "model": first_filled(spans.column("response_model"), spans.column("request_model")).take(arrow.array(rows)),
        "tool_name": at("tool_name", here),
    }
    order = {name: ranks(column) for name, column in text.items()}
    group = dense(trace[rows], minute, *order.values())
    first = first_rows(group)
    # the same spans make the same summary, whatever their order
    sorted_groups = np.lexsort([*(rank[first] for rank in reversed(order.values())), minute[first], trace[rows][first]])
    first = first[sorted_groups]

    def total(values: Ints) -> Ints:
        sums = np.zeros(len(first), dtype=np.int64)
        np.add.at(sums, group, values)
        return sums[sorted_groups]

    owned = own[rows]
    is_call = ~repeat[rows] | ~is_one_of(kind, _MODEL_KINDS)[rows]
    failed = is_one_of(spans.column("status"), ("error",)) | ~is_one_of(spans.column("error_type"), ("",))
    stated = ~is_one_of(spans.column("tool_status"), ("",))
    tool_failed = np.where(stated, is_one_of(spans.column("tool_status"), ("error",)), failed)
    is_tool = is_one_of(kind, ("tool",))
    used = is_known(spans.column("input_tokens")) | is_known(spans.column("output_tokens"))
    unpriced = ~is_known(spans.column("cost_usd")) & used

    def tokens(name: str) -> Ints:
        counts = np.minimum(numbers(spans.column(name))[rows], np.uint64(_TOKENS_MAX)).astype(np.int64)
        return total(np.where(owned, counts, 0))

    sums = {
        "calls": total(is_call.astype(np.int64)),
        "errors": total((is_call & failed[rows]).astype(np.int64)),
        "tool_errors": total((is_tool & tool_failed)[rows].astype(np.int64)),
        **{
            name: tokens(name)
            for name in (
                "input_tokens",
                "output_tokens",
                "cache_read_tokens",
                "cache_write_tokens",
                "reasoning_tokens",
            )
        },
        "unpriced_calls": total((own & unpriced)[rows].astype(np.int64)),
        "duration_ns": total(np.where(is_call, _duration(spans)[rows], 0)),
    }
    columns: dict[str, Array] = {
        "minute": arrow.array((minute[first] * 60).astype(np.uint32)),
        **{name: column.take(arrow.array(first)) for name, column in text.items()},
        **{name: arrow.array(values).cast(_FIELDS.field(name).type) for name, values in sums.items()},
        "cost_usd": money(total(np.where(owned, nano(spans.column("cost_usd"))[rows], 0))),
    }
    fields = [columns[field.name] for field in _FIELDS]
    offsets = np.searchsorted(trace[rows][first], np.arange(int(trace.max(initial=-1)) + 2)).astype(np.int32)
    found: Array = arrow.ListArray.from_arrays(
        offsets, arrow.StructArray.from_arrays(fields, fields=list(_FIELDS)), type=TRACES.arrow.field("work").type
    )
    return found


def _duration(spans: pa.RecordBatch) -> Ints:
    """Nanoseconds, at most a year: the sum of a trace fits into 64 bits."""
    longest = np.uint64(366 * 86_400 * 10**9)
    found: Ints = np.minimum(numbers(spans.column("duration_ns")), longest).astype(np.int64)
    return found
