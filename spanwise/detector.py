"""Find failures in open traces and keep the table `findings` right while spans keep arriving.

Findings are computed from all known steps of a trace each time, so neither the order of arrival nor repeats nor a
restart matters. A trace is examined when the reconciler decides it, with all rows the store has. If its root has not
arrived it goes on: its steps stay in memory, packed, and it is looked at again every second in which something came.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from itertools import takewhile
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog
from pydantic import BaseModel, ConfigDict, Field, model_validator

from processors.columns import encode
from processors.detect import SignaturesConfig
from processors.detect.custom import PythonSignatureConfig
from processors.detect.examine import Finding, examine
from processors.detect.pack import Packed, pack
from processors.detect.signature import Signature
from processors.detect.steps import STEP, Rows, Steps, sketch_counts
from spanwise.model import FINDINGS
from spanwise.rules import RuleConfig, Rules
from spanwise.store import load_sql

log = structlog.get_logger(__name__)

Key = tuple[str, str]
"""(tenant, trace id)."""

_SEVERITIES: Final = ("info", "warning", "high", "critical")
_STEP_BYTES: Final = STEP.itemsize
_TRACE_BYTES: Final = 530
"""What Python needs for an open trace besides its packed steps; measured with tracemalloc."""
_IDS_PER_QUERY: Final = 2_000
_BEFORE_NS: Final = 24 * 3600 * 10**9
"""Ancestors of a span, which may name its agent, started at most this long before it."""


class DetectConfig(BaseModel):
    """What is looked for in traces, and how much of them is kept while they are open."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(True, description="Look for failure signatures.")
    look_s: float = Field(
        1.0, gt=0, description="A trace that keeps going is examined this often; one that pauses, at once."
    )
    idle_end_s: float = Field(
        90.0, ge=1, description="A trace whose root never arrived counts as ended after this long without spans."
    )
    state_bytes_max: int = Field(
        256 << 20, ge=1 << 20, description="Memory for the steps of open traces; the longest idle ones are let go."
    )
    steps_per_trace_max: int = Field(
        5_000, ge=16, description="Steps of one trace that are examined; of a longer one, the newest."
    )
    excerpts: bool = Field(True, description="Keep short excerpts of inputs, outputs and errors as evidence.")
    excerpt_chars: int = Field(160, ge=16, le=200, description="Length of an excerpt.")
    signatures: SignaturesConfig = Field(default_factory=SignaturesConfig, description="Thresholds of each signature.")
    custom: list[PythonSignatureConfig] = Field(
        default_factory=list, description="Signatures of your own, see docs/detection.md."
    )
    rules: list[RuleConfig] = Field(default_factory=list, description="Signatures as rules over columns of spans.")

    @model_validator(mode="after")
    def _names_differ(self) -> DetectConfig:
        names = [signature.name for signature in self.build()] + [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two signatures have the name {twice[0]}")
        return self

    def build(self) -> list[Signature]:
        """The signatures that are enabled."""
        return [*self.signatures.build(), *(custom.build() for custom in self.custom)]


class Reader(Protocol):
    def read_arrow(
        self, sql: str, params: Mapping[str, Any] | None = None, *, schema: pa.Schema | None = None
    ) -> pa.Table: ...


class FindingSink(Protocol):
    def write_findings(self, findings: pa.RecordBatch, token: str) -> None: ...


class DetectObserver(Protocol):
    """What the detector tells telemetry; never payload."""

    def found(self, *, signature: str, kind: str, severity: str, service: str, agent: str) -> None: ...
    def grew(self, *, signature: str, kind: str, severity: str, service: str, agent: str) -> None: ...
    def wasted(self, *, signature: str, service: str, agent: str, tokens: int, cost_usd: Decimal) -> None: ...
    def signature_failed(self, signature: str) -> None: ...


@dataclass(frozen=True, slots=True)
class DetectorStats:
    """State at one moment, and counts since the start."""

    open_traces: int
    state_bytes: int
    evicted: int
    late: int
    """Steps that came for traces which the store knew and memory did not."""
    traces: int
    steps: int
    seconds: float
    withdrawn: int


@dataclass(slots=True)
class _Counts:
    evicted: int = 0
    late: int = 0
    traces: int = 0
    steps: int = 0
    seconds: float = 0.0
    withdrawn: int = 0


class Summary(NamedTuple):
    """What `traces` says about the findings of a trace."""

    findings: list[str]
    severity: str


@dataclass(slots=True)
class _Written:
    digest: bytes
    detected_ms: int
    version: int
    row: dict[str, Any]


@dataclass(slots=True)
class _Open:
    """A trace that goes on: its root has not arrived."""

    rows: bytearray = field(default_factory=bytearray)
    sketches: bytearray = field(default_factory=bytearray)
    touched_s: float = 0.0
    looked_s: float = 0.0
    ended: bool = False
    written: dict[str, _Written] | None = None
    """None: not known, the store has to be asked."""

    @property
    def bytes(self) -> int:
        return len(self.rows) + len(self.sketches) + _TRACE_BYTES


class Detector:
    """Examines traces as the reconciler tells it to. Not thread-safe: only the reconciler's rounds call it."""

    def __init__(
        self,
        config: DetectConfig,
        *,
        store: Reader,
        sink: FindingSink,
        window: Callable[[str, str], int | None],
        observer: DetectObserver,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        signatures: Sequence[Signature] | None = None,
        on_findings: Callable[[list[dict[str, Any]]], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._signatures = config.build() if signatures is None else list(signatures)
        self._rules = Rules(config.rules, store)
        self._store = store
        self._sink = sink
        self._window = window
        self._observer = observer
        self._clock = clock
        self._wall_ns = wall_ns
        self._on_findings = on_findings
        self._open: OrderedDict[Key, _Open] = OrderedDict()
        self._changed: set[Key] = set()
        """Traces that steps came for since they were examined."""
        self._bytes = 0
        self._counts = _Counts()

    def stats(self) -> DetectorStats:
        return DetectorStats(open_traces=len(self._open), state_bytes=self._bytes, **asdict(self._counts))

    # What arrives

    def arrived(self, rows: pa.RecordBatch) -> None:
        """Take the steps that belong to open traces among rows with the columns of `NARROW` that were just stored.

        What opens a trace is not taken: it is decided as soon as it pauses, and then memory has all of it.
        """
        if not self._open:
            return
        codes, ids = encode(rows.column("trace_id"))
        open_ids = {trace for _, trace in self._open}
        mine = np.array([trace in open_ids for trace in ids], dtype=np.bool_)[codes]
        if not mine.any():
            return
        now = self._clock()
        for key, part, sketches in _by_trace(pack(rows.filter(pa.array(mine)), self._window_of)):
            known = self._open.get(key)
            if known is not None:
                self._open.move_to_end(key)
                self._append(known, part, sketches)
                known.touched_s, known.ended = now, False
                self._changed.add(key)
        self._evict()

    def _window_of(self, provider: str, model: str) -> int:
        return self._window(provider, model) or 0

    def _append(self, known: _Open, rows: Rows, sketches: npt.NDArray[np.uint32]) -> None:
        before = known.bytes
        rows["sketch"] += len(known.sketches) // 4
        known.rows += rows.tobytes()
        known.sketches += sketches.tobytes()
        if len(known.rows) > self._config.steps_per_trace_max * _STEP_BYTES:
            self._compact(known)
        self._bytes += known.bytes - before

    def _compact(self, known: _Open) -> None:
        """Each span once, and no more than the newest `steps_per_trace_max`."""
        steps = _steps([known])
        kept = steps.rows[-self._config.steps_per_trace_max :]
        counts = sketch_counts(kept)
        sketches = [steps.sketches[at : at + n] for at, n in zip(kept["sketch"], counts, strict=True)]
        kept = kept.copy()
        kept["sketch"] = np.cumsum(counts) - counts
        known.rows = bytearray(kept.tobytes())
        known.sketches = bytearray(np.concatenate(sketches).tobytes())

    def _evict(self) -> None:
        while self._bytes > self._config.state_bytes_max and len(self._open) > 1:
            self._forget(next(iter(self._open)))
            self._counts.evicted += 1

    def _forget(self, key: Key) -> _Open | None:
        gone = self._open.pop(key, None)
        self._changed.discard(key)
        if gone is not None:
            self._bytes -= gone.bytes
        return gone

    def clear(self) -> None:
        """Forget all open traces: others may store and examine them before they come back."""
        self._open.clear()
        self._changed.clear()
        self._bytes = 0

    # Rounds

    def due(self) -> list[Key]:
        """Traces to look at now although the reconciler does not decide them yet."""
        latest_s = self._clock() - self._config.look_s
        return [key for key in self._changed if self._open[key].looked_s <= latest_s]

    def ending(self) -> list[tuple[Key, int, int]]:
        """Traces that have been idle for so long that they count as ended, with their times.

        They have to be decided once more.
        """
        latest_s = self._clock() - self._config.idle_end_s
        found = []
        for key, known in takewhile(lambda entry: entry[1].touched_s <= latest_s, self._open.items()):
            if not known.ended:
                known.ended = True
                rows = np.frombuffer(known.rows, dtype=STEP)
                found.append((key, int(rows["start"].min()), int(rows["end"].max())))
        return found

    def let_go(self, key: Key) -> None:
        """Look at a trace no more until it is decided."""
        self._forget(key)

    def stored(self, keys: Iterable[Key]) -> Mapping[Key, Summary]:
        """What the store has of traces that are not examined now, of those with findings."""
        return {key: _summary(of) for key, of in self._stored(list(keys)).items() if of}

    def look(self, keys: Iterable[Key], began_ms: int) -> None:
        """Examine open traces from memory. `began_ms`: see `decided`."""
        traces = {key: self._open[key] for key in keys if key in self._open}
        if not traces:
            return
        started = self._clock()
        found = self._examine(list(traces), _steps(list(traces.values())))
        for trace in traces.values():
            trace.looked_s = started
        self._changed.difference_update(traces)
        written = {key: trace.written for key, trace in traces.items() if trace.written is not None}
        written |= self._stored([key for key in traces if key not in written])
        for key, trace in traces.items():
            trace.written = written[key]
        try:
            self._write(list(traces), found, written, began_ms)
        except BaseException:
            for trace in traces.values():  # what of this reached the store is not known: ask it
                trace.written = None
            self._changed.update(traces)
            raise
        self._counts.seconds += self._clock() - started

    def decided(
        self, keys: Iterable[Key], known_before: Iterable[Key], rows: pa.RecordBatch, began_ms: int
    ) -> Mapping[Key, Summary]:
        """Examine traces of which these are all rows in the store, as the reconciler decided them.

        `known_before` are those that may have been examined before. `began_ms` is from before anything was read: who
        was stopped since then knows less than whoever took over, and must not win by being late. Returns what to say in
        the summaries of those with findings.
        """
        started = self._clock()
        packed = pack(rows, self._window_of)
        olds = {key: old for key in keys if (old := self._forget(key)) is not None}
        rooted = np.zeros(len(packed.traces), dtype=np.bool_)
        rooted[packed.rows["trace"][packed.rows["parent_id"] == 0]] = True
        ended = rooted | np.array([key in olds and olds[key].ended for key in packed.traces], dtype=np.bool_)
        found = self._examine(packed.traces, Steps(packed.rows, packed.sketches, ended))

        before = set(known_before)
        late = before.difference(olds)
        written = {key: old.written for key, old in olds.items() if old.written is not None}
        concerned = {packed.traces[finding.trace] for finding in found} | before
        written |= self._stored([key for key in concerned if key not in written and key in before])
        written |= {key: {} for key in concerned if key not in written}
        self._write(packed.traces, found, written, began_ms)

        self._open_again(packed, ended, olds, written)
        if late:
            numbers = [number for number, key in enumerate(packed.traces) if key in late]
            self._counts.late += int(np.isin(packed.rows["trace"], numbers).sum())
        self._counts.seconds += self._clock() - started
        return {key: _summary(of) for key, of in written.items() if of}

    def _open_again(
        self,
        packed: Packed,
        ended: npt.NDArray[np.bool_],
        olds: Mapping[Key, _Open],
        written: Mapping[Key, dict[str, _Written]],
    ) -> None:
        """Keep the steps of traces that go on."""
        if ended.all():
            return
        now = self._clock()
        for key, part, sketches in _by_trace(packed, ~ended):
            old = olds.get(key)
            trace = self._open[key] = _Open(touched_s=old.touched_s if old else now, looked_s=now)
            trace.written = written.get(key, {})
            self._bytes += trace.bytes
            self._append(trace, part, sketches)
        self._evict()

    def _examine(self, keys: Sequence[Key], steps: Steps) -> list[Finding]:
        self._counts.traces += len(steps.ended)
        self._counts.steps += len(steps.rows)
        return examine(self._signatures, steps, self._failed) + self._rules.examine(keys)

    def _failed(self, signature: Signature, error: Exception) -> None:
        self._observer.signature_failed(signature.name)
        log.error("signature_failed", signature=signature.name, exc_info=error)

    # Writing

    def _stored(self, keys: Sequence[Key]) -> dict[Key, dict[str, _Written]]:
        """What the store has of traces that were examined before this program started, or before they were let go."""
        found: dict[Key, dict[str, _Written]] = {key: {} for key in keys}
        sql = load_sql("spanwise", "findings_of_traces").replace("{columns}", ", ".join(FINDINGS.names))
        for start in range(0, len(keys), _IDS_PER_QUERY):
            tenants, ids = ({key[part] for key in keys[start : start + _IDS_PER_QUERY]} for part in (0, 1))
            params = {"tenants": sorted(tenants), "traces": sorted(ids)}
            for row in self._store.read_arrow(sql, params, schema=FINDINGS.arrow).to_pylist():
                key = (row["tenant"], row["trace_id"])
                if key in found:
                    found[key][row["finding_id"]] = _written(row)
        return found

    def _write(
        self,
        keys: Sequence[Key],
        found: Sequence[Finding],
        written: Mapping[Key, dict[str, _Written]],
        began_ms: int,
    ) -> None:
        """Store what is new, changed or gone of the traces in `written`, which says what is stored and is changed."""
        now_ms = self._wall_ns() // 10**6
        changed: list[dict[str, Any]] = []
        grown: list[tuple[dict[str, Any], _Written | None]] = []
        current: dict[Key, set[str]] = {}
        for row, finding in zip(self._rows(keys, found), found, strict=True):
            if row is None:
                continue
            known = written[keys[finding.trace]]
            current.setdefault(keys[finding.trace], set()).add(row["finding_id"])
            before = known.get(row["finding_id"])
            row["detected_at"] = before.detected_ms if before else now_ms
            row["version"] = max(began_ms, before.version + 1) if before else began_ms
            after = _written(row)
            if before is None or before.digest != after.digest:
                known[row["finding_id"]] = after
                changed.append(row)
                grown.append((row, before))
        for key, known in written.items():
            for finding_id in set(known) - current.get(key, set()):
                gone = known.pop(finding_id)
                self._counts.withdrawn += 1
                changed.append({**gone.row, "withdrawn": 1, "version": max(began_ms, gone.version + 1)})
        if not changed:
            return
        self._sink.write_findings(pa.RecordBatch.from_pylist(changed, schema=FINDINGS.arrow), _token(changed))
        for row, before in grown:
            self._count(row, before.row if before else None)
        self._on_findings([row for row in changed if not row["withdrawn"]])

    def _count(self, row: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        """Tell telemetry of a finding that was written, and what came on top of what it was before."""
        owner = {"signature": row["signature"], "service": row["service"], "agent": row["agent_name"]}
        if before is None:
            self._observer.found(kind=row["kind"], severity=row["severity"], **owner)
        elif _weight(row) > _weight(before):
            self._observer.grew(kind=row["kind"], severity=row["severity"], **owner)
        tokens, cost_usd = row["wasted_tokens"], Decimal(row["wasted_cost_usd"])
        if before is not None:
            tokens, cost_usd = tokens - before["wasted_tokens"], cost_usd - Decimal(before["wasted_cost_usd"])
        if tokens > 0 or cost_usd > 0:
            self._observer.wasted(tokens=tokens, cost_usd=cost_usd, **owner)

    def _rows(self, keys: Sequence[Key], found: Sequence[Finding]) -> list[dict[str, Any] | None]:
        """Rows of `findings`, with what the involved spans say; None where the first span is not in the store."""
        if not found:
            return []
        spans = self._spans_of(keys, found)
        return [self._row(keys[finding.trace], finding, spans) for finding in found]

    def _spans_of(self, keys: Sequence[Key], found: Sequence[Finding]) -> dict[tuple[Key, str], dict[str, Any]]:
        wanted = sorted({keys[finding.trace] for finding in found})
        sql = load_sql("spanwise", "findings_spans")
        spans: dict[tuple[Key, str], dict[str, Any]] = {}
        for start in range(0, len(wanted), _IDS_PER_QUERY):
            some = set(wanted[start : start + _IDS_PER_QUERY])
            mine = [finding for finding in found if keys[finding.trace] in some]
            params = {
                "tenants": sorted({tenant for tenant, _ in some}),
                "traces": sorted({trace for _, trace in some}),
                "low": max(0, min(finding.start for finding in mine) - _BEFORE_NS),
                "parts": sorted({_hex(span) for finding in mine for span in (*finding.span_ids, *finding.wasted)}),
            }
            for row in self._store.read_arrow(sql, params).to_pylist():
                spans[(row["tenant"], row["trace_id"]), row["span_id"]] = row
        return spans

    def _row(
        self, key: Key, finding: Finding, spans: Mapping[tuple[Key, str], dict[str, Any]]
    ) -> dict[str, Any] | None:
        involved = [spans[key, _hex(span)] for span in finding.span_ids if (key, _hex(span)) in spans]
        first = spans.get((key, _hex(finding.span_ids[0])))
        if first is None:
            return None
        wasted = [spans[key, _hex(span)] for span in dict.fromkeys(finding.wasted) if (key, _hex(span)) in spans]
        own = [span for span in wasted if span["usage_scope"] == "own"]
        agent = next((span for span in _upwards(key, first, spans) if span["agent_name"]), None)
        found = finding.found
        evidence = dict(sorted((str(name), str(value)) for name, value in found.evidence.items()))
        if self._config.excerpts:
            for span, part in finding.quotes:
                text = spans.get((key, _hex(span)), {}).get(_PARTS[part], "")
                if text:
                    evidence[f"{part} of {_hex(span)}"] = text[: self._config.excerpt_chars]
        anchor = "\n".join((*key, finding.signature, found.kind, _hex(finding.span_ids[0])))
        return {
            "tenant": key[0],
            "trace_id": key[1],
            "finding_id": hashlib.blake2b(anchor.encode(), digest_size=16).hexdigest(),
            "signature": finding.signature,
            "kind": found.kind,
            "severity": found.severity,
            "basis": found.basis,
            "service": first["service"],
            "agent_name": agent["agent_name"] if agent else "",
            "agent_version": agent["agent_version"] if agent else "",
            "tool_name": _stated(involved, "tool_name"),
            "model": _stated(involved, "model"),
            "conversation_id": _stated([*involved, *_upwards(key, first, spans)], "conversation_id"),
            "first_span_id": _hex(finding.span_ids[0]),
            "last_span_id": _hex(finding.span_ids[-1]),
            "span_ids": [_hex(span) for span in finding.span_ids],
            "count": found.count,
            "wasted_tokens": sum((span["input_tokens"] or 0) + (span["output_tokens"] or 0) for span in own),
            "wasted_cost_usd": sum((span["cost_usd"] or Decimal(0) for span in own), Decimal(0)),
            "evidence": list(evidence.items()),
            "rule_version": finding.rule_version,
            "started_at": finding.start,
            "day": first["day"],
            "received_at": first["received_at"],
            "withdrawn": 0,
        }


def _token(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same rows have the same token, so that a repeated insert stores nothing."""
    versions = "\n".join(f"{row['finding_id']} {row['version']}" for row in rows)
    return f"findings-{hashlib.blake2b(versions.encode(), digest_size=16).hexdigest()}"


_PARTS: Final = {"input": "input_preview", "output": "output_preview", "error": "error_text"}
_CHANGING: Final = ("detected_at", "version", "received_at")
"""Columns that say nothing about the finding itself."""


def _written(row: dict[str, Any]) -> _Written:
    row = {**row, "evidence": sorted(tuple(pair) for pair in row["evidence"])}
    plain_row = {name: value for name, value in row.items() if name not in _CHANGING}
    plain_row["started_at"] = _nanos(row["started_at"])
    detected = _millis(row["detected_at"])
    kept = {**row, "detected_at": detected, "started_at": plain_row["started_at"]}
    plain_row["wasted_cost_usd"] = format(row["wasted_cost_usd"], ".9f")
    text = repr(sorted((name, str(value)) for name, value in plain_row.items()))
    return _Written(hashlib.blake2b(text.encode(), digest_size=16).digest(), detected, row["version"], kept)


def _weight(row: Mapping[str, Any]) -> tuple[int, int]:
    return _SEVERITIES.index(row["severity"]), row["count"]


def _nanos(value: Any) -> int:
    return value if isinstance(value, int) else int(value.value)


def _millis(value: Any) -> int:
    return value if isinstance(value, int) else int(value.timestamp() * 1000 + 0.5)


def _summary(written: Mapping[str, _Written] | None) -> Summary:
    rows = [one.row for one in (written or {}).values() if not one.row["withdrawn"]]
    names = {f"{row['signature']}.{row['kind']}" if row["kind"] else row["signature"] for row in rows}
    worst = max((row["severity"] for row in rows), key=_SEVERITIES.index, default="")
    return Summary(sorted(names), worst)


def _stated(spans: Iterable[Mapping[str, Any]], name: str) -> str:
    return next((span[name] for span in spans if span[name]), "")


def _upwards(
    key: Key, span: Mapping[str, Any], spans: Mapping[tuple[Key, str], dict[str, Any]]
) -> Iterable[Mapping[str, Any]]:
    """The span and its ancestors, as far as they are known."""
    seen = set()
    at: Mapping[str, Any] | None = span
    while at is not None and at["span_id"] not in seen:
        seen.add(at["span_id"])
        yield at
        at = spans.get((key, at["parent_span_id"]))


def _hex(span_id: int) -> str:
    return f"{span_id:016x}"


def _by_trace(
    packed: Packed, traces: npt.NDArray[np.bool_] | None = None
) -> Iterator[tuple[Key, Rows, npt.NDArray[np.uint32]]]:
    """Steps trace by trace, with the sketches they point to; only of some traces if a mask is given."""
    chosen = packed.rows if traces is None else packed.rows[traces[packed.rows["trace"]]]
    rows = chosen[np.argsort(chosen["trace"], kind="stable")]
    counts = sketch_counts(rows)
    ends = np.cumsum(counts)
    # sketches in the order of the rows: those of one trace lie together
    at = np.repeat(rows["sketch"].astype(np.int64) - (ends - counts), counts) + np.arange(int(counts.sum()))
    sketches = packed.sketches[at]
    rows["sketch"] = ends - counts
    numbers, lows = np.unique(rows["trace"], return_index=True)
    for number, low, high in zip(numbers.tolist(), lows.tolist(), [*lows.tolist()[1:], len(rows)], strict=True):
        mine = rows[low:high]
        first = int(mine["sketch"][0])
        mine["sketch"] -= first
        yield packed.traces[number], mine, sketches[first : int(ends[high - 1])]


def _steps(traces: Sequence[_Open]) -> Steps:
    counts = [len(trace.rows) // _STEP_BYTES for trace in traces]
    starts = np.concatenate(([0], np.cumsum([len(trace.sketches) // 4 for trace in traces])))[:-1]
    rows = np.frombuffer(b"".join(bytes(trace.rows) for trace in traces), dtype=STEP).copy()
    rows["trace"] = np.repeat(np.arange(len(traces)), counts)
    rows["sketch"] += np.repeat(starts, counts).astype(np.uint32)
    sketches = np.frombuffer(b"".join(bytes(trace.sketches) for trace in traces), dtype=np.uint32)
    return Steps(rows, sketches, np.array([trace.ended for trace in traces], dtype=np.bool_))
