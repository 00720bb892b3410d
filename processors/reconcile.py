"""What only a whole trace can tell: who owns usage, which spans report one call, and what a trace adds up to.

Everything here is a function of the spans at hand and nothing else: any order of arrival, any grouping and any number
of repeats lead to the same result, and deciding again what is already decided changes nothing. Traces are decided by
the thousand, as columns.

A span's usage is its own unless a span below reports it again. Among spans that report one model call, from two
instrumentations, the richer one keeps it. The rules and the producers that made them necessary are in
`docs/usage-scope.md`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from processors.columns import (
    Array,
    Bools,
    Ints,
    arrow,
    compute,
    dense,
    encode,
    first_filled,
    from_vocabulary,
    in_vocabulary,
    is_known,
    is_one_of,
    money,
    nano,
    numbers,
    plain,
    ranks,
    replaced,
)
from processors.work import work
from spanwise.model import SPANS, TRACES

SCOPES: Final = ("none", "own", "aggregate")
NONE, OWN, AGGREGATE = range(3)
REASONS: Final = ("", "tentative", "descendant", "repeat")
TABLE, TENTATIVE, DESCENDANT, REPEAT = range(4)

LOG: Final = "log"
CALLS: Final = ("llm", "embedding", "rerank", "decision", LOG)
"""Kinds whose usage is the provider's answer; anything else can only add up what is below it, or be a hosted agent."""
BOUNDARIES: Final = ("tool", "agent", "workflow", "handoff")
"""Below a model call, these start work of their own: Vercel hangs tools, and the agents in them, under `doStream`."""
NATIVE_DIALECTS: Final = ("anthropic_sdk_native",)
"""Client libraries that emit spans of their own beside whatever instruments them."""

SAME_ID_WITHIN_NS: Final = 60 * 10**9
SAME_USAGE_WITHIN_NS: Final = 5 * 10**9
_NEIGHBOURS_MAX: Final = 8
_TOKENS_MAX: Final = 2**40
_DAYS_MAX: Final = 65_535
"""The last day ClickHouse's `Date` can hold."""

_FAMILIES: Final = {"azure.ai.openai": "openai", "azure.ai.inference": "openai"}

_TOKENS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
_COPIED: Final = (
    "tenant",
    "trace_id",
    "span_id",
    "parent_span_id",
    "start_time",
    "duration_ns",
    "time_flag",
    "service",
    "scope",
    "name",
    "status",
    "dialect",
    "kind",
    "provider",
    "request_model",
    "response_model",
    "response_id",
    "agent_name",
    "agent_version",
    "conversation_id",
    "user_id",
    "workflow_name",
    "tool_name",
    "tool_call_id",
    *_TOKENS,
    "usage_scope",
    "usage_scope_reason",
    "cost_usd",
    "reported_cost_usd",
    "error_type",
    "tool_status",
    "fingerprint",
    "received_at",
    "version",
)
NARROW: Final = pa.schema(
    [
        *(SPANS.arrow.field(name) for name in _COPIED),
        pa.field("attribute_count", pa.int32()),
        pa.field("content_count", pa.int32()),
    ]
)
"""The columns of `spans` that decisions read, and the numbers of attributes and of references to content."""


def narrow(spans: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of `NARROW` of whole rows."""
    attributes = compute.binary_length(spans.column("attribute_types"))
    content = compute.list_value_length(spans.column("content"))
    columns = [spans.column(name) for name in _COPIED]
    return pa.RecordBatch.from_arrays([*columns, attributes, content.cast(pa.int32())], schema=NARROW)


def latest(spans: pa.RecordBatch) -> pa.RecordBatch:
    """One row a span: the one with the highest version, as `FINAL` reads it."""
    trace, span, _ = _identities(spans)
    order = np.lexsort((numbers(spans.column("version")), span, trace))
    last = np.ones(len(order), dtype=np.bool_)
    last[:-1] = (np.diff(trace[order]) != 0) | (np.diff(span[order]) != 0)
    return spans if last.all() else spans.take(np.sort(order[last]))


class Decision(NamedTuple):
    """What was decided of each row of the spans given."""

    scope: npt.NDArray[np.int8]
    """Position in `SCOPES`."""
    reason: npt.NDArray[np.int8]
    """Position in `REASONS`."""
    changed: Bools
    """Rows whose stored scope is another one. A reason alone is not worth writing a row again: an agent that the table
    took for an aggregate, and the trace too, keeps its `tentative`."""
    calls: Bools
    """Rows that count as one model call."""


def decide(spans: pa.RecordBatch) -> Decision:
    """Usage scopes of whole traces: deduplicated rows with the columns of `NARROW`."""
    kind = spans.column("kind")
    is_call = is_one_of(kind, CALLS)
    tree = _Tree(spans)
    scope = in_vocabulary(spans.column("usage_scope"), SCOPES)
    reason = in_vocabulary(spans.column("usage_scope_reason"), REASONS)
    ours = _has_usage(spans) & ((scope == OWN) | (reason != TABLE))

    inside_call = tree.cut(is_one_of(kind, BOUNDARIES))
    descendant = ours & np.where(is_call, inside_call.ancestors_of(ours), tree.ancestors_of(ours))
    repeat = _repeats(spans, ours & ~descendant & is_call)
    own = ours & ~descendant & ~repeat

    new_scope, new_reason = scope.copy(), reason.copy()
    new_scope[own] = OWN
    new_reason[own & (reason != TABLE)] = TENTATIVE
    new_reason[own & is_call] = TABLE
    new_scope[descendant | repeat] = AGGREGATE
    new_reason[descendant] = DESCENDANT
    new_reason[repeat] = REPEAT

    is_llm = is_one_of(kind, ("llm",))
    calls = is_llm & ~inside_call.ancestors_of(is_llm) & ~repeat
    return Decision(new_scope, new_reason, new_scope != scope, calls)


def decided(rows: pa.RecordBatch, scope: npt.NDArray[np.int8], reason: npt.NDArray[np.int8]) -> pa.RecordBatch:
    """Rows with their usage scopes and the reasons for them."""
    columns = {"usage_scope": from_vocabulary(scope, SCOPES), "usage_scope_reason": from_vocabulary(reason, REASONS)}
    return replaced(rows, columns)


def next_version(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Count one more correction in the low four bits of `version`; the fifteenth is the last that counts."""
    version = numbers(rows.column("version"))
    return replaced(rows, {"version": pa.array(np.where(version & 15 == 15, version, version + 1), pa.uint64())})


class _Tree:
    """Parents of spans as row numbers, -1 for none. A span that is its own ancestor has no parent."""

    def __init__(self, spans: pa.RecordBatch) -> None:
        trace, span, parent = _identities(spans)
        width = int(max(span.max(initial=0), parent.max(initial=0))) + 2
        found = compute.index_in(pa.array(trace * width + parent), pa.array(trace * width + span))
        row = numbers(found.fill_null(-1)).astype(np.int64)
        row[(parent < 0) | (row == np.arange(len(row)))] = -1
        self.trace = trace
        self.parent = _without_cycles(row)
        self.has_parent_id = parent >= 0

    def cut(self, at: Bools) -> _Tree:
        """The same spans, those of `at` without their parents."""
        other = object.__new__(_Tree)
        other.trace, other.has_parent_id = self.trace, self.has_parent_id
        other.parent = np.where(at, -1, self.parent)
        return other

    def ancestors_of(self, seeds: Bools) -> Bools:
        """Rows that have a seed somewhere below them, by pointer doubling: as many rounds as the depth has bits."""
        found = np.zeros(len(seeds), dtype=np.bool_)
        jump = self.parent
        first = jump[seeds]
        found[first[first >= 0]] = True
        while (jump >= 0).any():
            above = jump[found]
            found[above[above >= 0]] = True
            jump = np.where(jump >= 0, jump[jump], -1)
        return found

    def tops(self) -> tuple[Ints, Ints]:
        """(row of the topmost known ancestor, steps to it) of every row."""
        here = np.arange(len(self.parent))
        top = np.where(self.parent >= 0, self.parent, here)
        depth = (top != here).astype(np.int64)
        while True:
            further = top[top]
            if (further == top).all():
                return top, depth
            depth, top = depth + depth[top], further


def _without_cycles(parent: Ints) -> Ints:
    jump = parent
    for _ in range(len(parent).bit_length() + 1):
        if not (jump >= 0).any():
            return parent
        jump = np.where(jump >= 0, jump[jump], -1)
    # after more steps than there are rows, only rows of a cycle are reached
    broken = parent.copy()
    broken[jump[jump >= 0]] = -1
    return broken


def _repeats(spans: pa.RecordBatch, candidates: Bools) -> Bools:
    """Calls among `candidates` that a richer span reports too."""
    repeat = np.zeros(len(candidates), dtype=np.bool_)
    rows = np.flatnonzero(candidates)
    if len(rows) > 1:
        calls = _Calls(spans.take(rows))
        same_id = calls.same_id()
        repeat[rows] = same_id | calls.same_usage(~same_id)
    return repeat


class _Calls:
    """Spans that carry a provider's usage, as columns to compare them by."""

    def __init__(self, spans: pa.RecordBatch) -> None:
        self.spans = spans
        self.is_log = is_one_of(spans.column("kind"), (LOG,))
        provider, providers = encode(spans.column("provider"))
        families = {name: number for number, name in enumerate(sorted({_FAMILIES.get(p, p) for p in providers}))}
        family = np.array([families[_FAMILIES.get(p, p)] for p in providers], dtype=np.int64)[provider]
        self.who = dense(encode(spans.column("tenant"))[0], family)
        self.has_id = ~is_one_of(spans.column("response_id"), ("",))
        self.scope, _ = encode(spans.column("scope"))
        self.start = numbers(spans.column("start_time"))
        self.end = self.start + _duration(spans)

    def _poverty(self, rows: Ints) -> list[Any]:
        """Sort keys, the last one first: the richest span of a call comes first, and always the same one."""
        some = self.spans.take(rows)
        attributes, content = numbers(some.column("attribute_count")), numbers(some.column("content_count"))
        return [ranks(some.column("span_id")), ranks(some.column("trace_id")), -content, -attributes, self.is_log[rows]]

    def same_id(self) -> Bools:
        """All but the richest of the spans with one provider and response id within a minute.

        Spans of the winner's own instrumentation stay: they are further calls answered with the same id, as scripted
        model servers do.
        """
        repeat = np.zeros(len(self.who), dtype=np.bool_)
        key = dense(self.who, encode(self.spans.column("response_id"))[0])
        rows = np.flatnonzero(self.has_id & (np.bincount(key)[key] > 1))
        if len(rows) == 0:
            return repeat
        rows = rows[np.lexsort((self.start[rows], key[rows]))]
        breaks = (np.diff(key[rows]) != 0) | (np.diff(self.start[rows]) > SAME_ID_WITHIN_NS)
        cluster = np.concatenate([[0], np.cumsum(breaks)])
        order = np.lexsort([*self._poverty(rows), cluster])
        rows, cluster = rows[order], cluster[order]
        winner = rows[np.unique(cluster, return_index=True)[1]][cluster]
        same_source = (self.scope[rows] == self.scope[winner]) & (self.is_log[rows] == self.is_log[winner])
        repeat[rows[~same_source]] = True
        return repeat

    def same_usage(self, candidates: Bools) -> Bools:
        """One of each pair with one provider, model and usage, ending within five seconds, that an id cannot pair.

        Only between two instrumentations of which one wrote a log-like span (Logfire's streaming) or is the client
        library, and where one has no id: equal usage alone is no sign of one call.
        """
        repeat = np.zeros(len(self.who), dtype=np.bool_)
        special = self.is_log | is_one_of(self.spans.column("dialect"), NATIVE_DIALECTS)
        if not (special & candidates).any():
            return repeat
        model = first_filled(self.spans.column("request_model"), self.spans.column("response_model"))
        key = dense(self.who, encode(model)[0], *(numbers(self.spans.column(name)) for name in _TOKENS[:2]))
        wanted = np.zeros(int(key.max()) + 1, dtype=np.bool_)
        wanted[key[special & candidates]] = True
        rows = np.flatnonzero(candidates & wanted[key])
        poverty = np.empty(len(key), dtype=np.int64)
        poverty[rows[np.lexsort(self._poverty(rows))]] = np.arange(len(rows))
        rows = rows[np.lexsort((poverty[rows], self.end[rows], key[rows]))]
        pairs: list[tuple[int, int, int, int, int]] = []
        for step in range(1, min(_NEIGHBOURS_MAX, len(rows) - 1) + 1):
            a, b = rows[:-step], rows[step:]
            apart = self.end[b] - self.end[a]
            fits = (key[a] == key[b]) & (apart <= SAME_USAGE_WITHIN_NS) & (special[a] | special[b])
            fits &= ~(self.has_id[a] & self.has_id[b])
            # one instrumentation states a call's usage once: Logfire's log span has it where its request span has none
            fits &= self.scope[a] != self.scope[b]
            rich, poor = np.minimum(poverty[a], poverty[b]), np.maximum(poverty[a], poverty[b])
            columns = (apart, rich, poor, a, b)
            pairs += zip(*(column[fits].tolist() for column in columns), strict=True)
        taken: set[int] = set()
        for _, _, poor_rank, a_row, b_row in sorted(pairs):
            if a_row not in taken and b_row not in taken:
                taken |= {a_row, b_row}
                repeat[a_row if poverty[a_row] == poor_rank else b_row] = True
        return repeat


def summarise(spans: pa.RecordBatch, decision: Decision) -> pa.RecordBatch:
    """One row of `traces` for each trace of the spans given: deduplicated rows with the columns of `NARROW`.

    `version` is 0 and is for the caller to set.
    """
    tree = _Tree(spans)
    every = np.ones(spans.num_rows, dtype=np.bool_)
    start = numbers(spans.column("start_time"))
    end = start + _duration(spans)
    top, depth = tree.tops()
    span_rank = ranks(spans.column("span_id"))
    timeless = ~is_one_of(spans.column("time_flag"), ("", "inverted"))
    nearest = _Order(tree.trace, np.lexsort((span_rank, start, depth, tree.has_parent_id[top], tree.trace)))
    earliest = _Order(tree.trace, np.lexsort((span_rank, start, timeless, tree.trace)))
    root = nearest.first(~tree.has_parent_id)
    first = earliest.first(every)
    named = np.where(root >= 0, root, first)

    begin = start[first]
    last = begin.copy()
    np.maximum.at(last, tree.trace, np.where(timeless, begin[tree.trace], end))
    received = np.zeros(len(begin), dtype=np.int64)
    np.maximum.at(received, tree.trace, numbers(spans.column("received_at")))
    # impossible times have no partition of their own, see the column `day`
    day = np.where(timeless[first], received * 10**6, begin) // (86_400 * 10**9)

    own = decision.scope == OWN
    failed = is_one_of(spans.column("status"), ("error",)) | ~is_one_of(spans.column("error_type"), ("",))
    unpriced = own & ~is_known(spans.column("cost_usd")) & _has_usage(spans)

    def rows_with(mask: Bools) -> Array:
        found: Array = arrow.array(np.bincount(tree.trace[mask], minlength=len(begin)).astype(np.uint32))
        return found

    def text_at(name: str, rows: Ints) -> Array:
        found: Array = plain(spans.column(name)).take(arrow.array(rows, mask=rows < 0)).fill_null("")
        return found

    def stated(name: str) -> Array:
        return text_at(name, nearest.first(~is_one_of(spans.column(name), ("",))))

    def total(values: Ints) -> Ints:
        sums = np.zeros(len(begin), dtype=np.int64)
        np.add.at(sums, tree.trace[own], values[own])
        return sums

    def tokens(name: str) -> Array:
        counts = np.minimum(numbers(spans.column(name)), np.uint64(_TOKENS_MAX)).astype(np.int64)
        found: Array = arrow.array(total(counts).astype(np.uint64))
        return found

    models = first_filled(spans.column("response_model"), spans.column("request_model"))
    columns: dict[str, Array] = {
        "tenant": arrow.Array.dictionary_encode(text_at("tenant", named)),
        "trace_id": text_at("trace_id", named),
        "start_time": arrow.array(begin).cast(TRACES.arrow.field("start_time").type),
        "duration_ns": arrow.array((last - begin).astype(np.uint64)),
        "root_span_id": text_at("span_id", root),
        "root_name": arrow.Array.dictionary_encode(text_at("name", named)),
        "services": _distinct(tree.trace, spans.column("service"), len(begin)),
        "agents": _distinct(tree.trace, spans.column("agent_name"), len(begin)),
        "models": _distinct(tree.trace, models, len(begin)),
        "tools": _distinct(tree.trace, spans.column("tool_name"), len(begin)),
        "conversation_id": stated("conversation_id"),
        "user_id": stated("user_id"),
        "workflow_name": arrow.Array.dictionary_encode(stated("workflow_name")),
        "span_count": rows_with(every),
        "llm_calls": rows_with(decision.calls),
        "tool_calls": rows_with(is_one_of(spans.column("kind"), ("tool",))),
        "error_count": rows_with(failed),
        **{name: tokens(name) for name in _TOKENS},
        "cost_usd": money(total(nano(spans.column("cost_usd")))),
        "reported_cost_usd": money(total(nano(spans.column("reported_cost_usd")))),
        "unpriced_calls": rows_with(unpriced),
        "work": work(spans, tree.trace, tree.parent, own, decision.scope == AGGREGATE),
        # filled in by whoever looks for failures
        "findings": arrow.array([[]] * len(begin), pa.list_(pa.utf8())),
        "finding_severity": arrow.Array.dictionary_encode(arrow.array([""] * len(begin), pa.utf8())),
        "partial": arrow.Array.dictionary_encode(arrow.array([""] * len(begin), pa.utf8())),
        "day": arrow.array(np.clip(day, 0, _DAYS_MAX).astype(np.int32)).cast(pa.date32()),
        "received_at": arrow.array(received).cast(TRACES.arrow.field("received_at").type),
        "version": arrow.array(np.zeros(len(begin), dtype=np.uint64)),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in TRACES.names], schema=TRACES.arrow)


class _Order:
    """Rows in an order that keeps traces together, asked for the first one of each trace that has something."""

    def __init__(self, trace: Ints, order: Ints) -> None:
        self._order = order
        self._trace = trace[order]

    def first(self, mask: Bools) -> Ints:
        """Row numbers by trace, -1 where no row has it."""
        rows = np.full(int(self._trace.max(initial=-1)) + 1, -1, dtype=np.int64)
        wanted = mask[self._order]
        traces, at = np.unique(self._trace[wanted], return_index=True)
        rows[traces] = self._order[wanted][at]
        return rows


def _distinct(trace: Ints, column: Array, count: int) -> Array:
    """Distinct non-empty values of each trace, sorted."""
    codes, values = encode(column)
    names = sorted(set(values) - {""})
    at = {name: number for number, name in enumerate(names)}
    rank = np.array([*(at.get(value, -1) for value in values), -1], dtype=np.int64)[codes]
    width = len(names) + 1
    pairs = np.unique((trace * width + rank)[rank >= 0])
    offsets = np.searchsorted(pairs, np.arange(count + 1) * width).astype(np.int32)
    flat = arrow.array(names, pa.utf8()).take(arrow.array(pairs % width))
    found: Array = arrow.ListArray.from_arrays(offsets, flat)
    return found


def _identities(spans: pa.RecordBatch) -> tuple[Ints, Ints, Ints]:
    """(trace, span, parent) of each row as numbers; traces count from zero in order of appearance, no parent is -1."""
    trace = dense(encode(spans.column("tenant"))[0], encode(spans.column("trace_id"))[0])
    ids, values = encode(arrow.concat_arrays([spans.column("span_id"), spans.column("parent_span_id")]))
    parent = np.where(np.array([*(value == "" for value in values), False])[ids], -1, ids)
    return trace, ids[: spans.num_rows], parent[spans.num_rows :]


def _has_usage(spans: pa.RecordBatch) -> Bools:
    return is_known(spans.column("input_tokens")) | is_known(spans.column("output_tokens"))


def _duration(spans: pa.RecordBatch) -> Ints:
    """Nanoseconds, cut where an end would not fit into 64 bits."""
    start = numbers(spans.column("start_time"))
    room = np.uint64(2**63 - 1) - np.maximum(start, 0).astype(np.uint64)
    found: Ints = np.minimum(numbers(spans.column("duration_ns")), room).astype(np.int64)
    return found
