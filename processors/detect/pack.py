"""Steps of stored spans: the columns that detectors read, as one structured array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from processors.columns import Array, Ints, arrow, compute, dense, encode, first_rows, is_known, is_one_of, numbers
from processors.detect.steps import FINGERPRINT, FINGERPRINT_VERSION, STEP, Rows

Windows = Callable[[str, str], int]
"""Context window in tokens of (provider, model), 0 = unknown."""

_HEAD_BYTES: Final = FINGERPRINT.itemsize
_HEAD_WORDS: Final = _HEAD_BYTES // 4
_ID_DIGITS: Final = 16
_COUNTS: Final = ("input_tokens_count", "output_tokens_count", "long_tokens_count")
_TOKENS_MAX: Final = 2**31 - 1
_TIME_MAX: Final = 2**63 - 1
_NIBBLES: Final = np.array([int(chr(c), 16) if chr(c) in "0123456789abcdef" else 0 for c in range(256)], np.uint64)


class Packed(NamedTuple):
    """Steps of some spans, in their order."""

    traces: list[tuple[str, str]]
    """(tenant, trace id) by the number in the field `trace`."""
    rows: Rows
    """Structured array of `STEP`."""
    sketches: npt.NDArray[np.uint32]
    """Token hashes that the field `sketch` points to."""
    spans: Ints
    """The row of the spans given that each step was made of."""


def pack(spans: pa.RecordBatch, windows: Windows) -> Packed:
    """The steps among `spans` (columns of `NARROW`).

    Spans without a fingerprint are no steps; one that this program cannot read, of another version, is left out too.
    `windows` is asked once for each model named.
    """
    heads, which, sketches, starts = _fingerprints(spans.column("fingerprint"))
    spans = spans.take(arrow.array(which))
    rows = np.zeros(len(heads), dtype=STEP)
    for name in FINGERPRINT.names or ():
        rows[name] = heads[name]
    tenant, tenants = encode(spans.column("tenant"))
    trace, ids = encode(spans.column("trace_id"))
    number = dense(tenant, trace)
    rows["trace"] = number
    rows["window"] = _windows(spans, windows)
    rows["start"] = numbers(spans.column("start_time")).astype(np.int64)
    duration = np.minimum(numbers(spans.column("duration_ns")), np.uint64(_TIME_MAX)).astype(np.int64)
    rows["end"] = rows["start"] + np.minimum(duration, _TIME_MAX - np.maximum(rows["start"], 0))
    rows["span_id"] = _ids(spans.column("span_id"))
    rows["parent_id"] = _ids(spans.column("parent_span_id"))
    rows["version"] = numbers(spans.column("version"))
    for name in ("input_tokens", "output_tokens"):
        column = spans.column(name)
        known = np.minimum(numbers(column.fill_null(0)), _TOKENS_MAX).astype(np.int32)
        rows[name] = np.where(is_known(column), known, -1)
    rows["sketch"] = starts
    return Packed([(tenants[tenant[row]], ids[trace[row]]) for row in first_rows(number)], rows, sketches, which)


def _fingerprints(column: Array) -> tuple[Rows, Ints, npt.NDArray[np.uint32], Ints]:
    """(heads, their rows, sketches of all, where those of each head start)."""
    lengths = numbers(compute.binary_length(column))
    which = np.flatnonzero((lengths >= _HEAD_BYTES) & (lengths % 4 == 0))
    words = _bytes(column, which).view("<u4")
    width = lengths[which] // 4
    starts = np.cumsum(width) - width
    in_heads = starts[:, np.newaxis] + np.arange(_HEAD_WORDS)
    heads: Rows = words[in_heads].view(FINGERPRINT).reshape(-1)
    is_sketch = np.ones(len(words), np.bool_)
    is_sketch[in_heads] = False
    counts = sum(heads[name].astype(np.int64) for name in _COUNTS)
    readable = (heads["fingerprint_version"] == FINGERPRINT_VERSION) & (width == _HEAD_WORDS + counts)
    sketch_starts = starts - _HEAD_WORDS * np.arange(len(starts))
    return heads[readable], which[readable], words[is_sketch], sketch_starts[readable]


def _bytes(column: Any, which: Ints) -> npt.NDArray[np.uint8]:
    """Those values, one after the other."""
    chosen = column.take(arrow.array(which))
    size = int(compute.sum(compute.binary_length(chosen), min_count=0).as_py())
    data = chosen.buffers()[2]
    return np.frombuffer(data, np.uint8, size) if size else np.zeros(0, np.uint8)


def _ids(column: Array) -> npt.NDArray[np.uint64]:
    """16 hex digits as a number, anything else as 0."""
    lengths = numbers(compute.binary_length(column))
    which = np.flatnonzero(lengths == _ID_DIGITS)
    nibbles = _NIBBLES[_bytes(column, which)].reshape(-1, _ID_DIGITS)
    found = np.zeros(len(lengths), np.uint64)
    found[which] = nibbles @ (np.uint64(1) << np.arange(4 * _ID_DIGITS - 4, -4, -4).astype(np.uint64))
    return found


def _windows(spans: pa.RecordBatch, windows: Windows) -> Ints:
    """Of the model that answered, else of the one that was asked."""
    named = [encode(spans.column(name)) for name in ("provider", "response_model", "request_model")]
    number = dense(*(codes for codes, _ in named))
    known = []
    for row in first_rows(number):
        provider, answered, asked = (values[codes[row]] for codes, values in named)
        known.append(next((size for model in (answered, asked) if model and (size := windows(provider, model))), 0))
    calls = is_one_of(spans.column("kind"), ("llm", "log", "decision"))
    return np.where(calls, np.array([*known, 0], np.int64)[number], 0)
