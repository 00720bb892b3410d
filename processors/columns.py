"""Arrow columns as numpy arrays and back, for processors that decide about whole columns at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Array: TypeAlias = "pa.Array[Any]"

# the published stubs lag behind pyarrow: they know neither map arrays nor most of compute's result types
arrow: Any = pa
compute: Any = pyarrow.compute


def encode(column: Array) -> tuple[Ints, list[str]]:
    """(index into the values for each row, values) of a text column, dictionary-encoded or not; NULL is ''."""
    encoded = column if isinstance(column, pa.DictionaryArray) else arrow.Array.dictionary_encode(column)
    values = [value or "" for value in encoded.dictionary.to_pylist()]
    indices = encoded.indices
    if indices.null_count:
        values.append("")
        indices = indices.fill_null(len(values) - 1)
    return np.asarray(indices.to_numpy(zero_copy_only=False), dtype=np.int64), values


def is_one_of(column: Array, wanted: Sequence[str]) -> Bools:
    codes, values = encode(column)
    return np.array([*(value in wanted for value in values), False], dtype=np.bool_)[codes]


def in_vocabulary(column: Array, vocabulary: Sequence[str]) -> npt.NDArray[np.int8]:
    """Position of each value in `vocabulary`, 0 for any other value."""
    codes, values = encode(column)
    known = [vocabulary.index(value) if value in vocabulary else 0 for value in values]
    return np.array([*known, 0], dtype=np.int8)[codes]


def from_vocabulary(codes: npt.NDArray[np.int8], vocabulary: Sequence[str]) -> Array:
    values = pa.array(list(vocabulary), pa.utf8())
    return pa.DictionaryArray.from_arrays(codes.astype(np.int32), values)


def plain(column: Array) -> Array:
    """A text column without its dictionary."""
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column


def first_filled(*columns: Array) -> Array:
    """The first text of each row that is not empty."""
    found = plain(columns[0])
    for column in columns[1:]:
        found = compute.if_else(compute.equal(found, ""), plain(column), found)
    return found


def numbers(column: Array) -> npt.NDArray[Any]:
    """Numbers or times (as integers), NULL is 0."""
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        column = column.cast(pa.int64())
    return np.asarray(column.fill_null(0).to_numpy(zero_copy_only=False))


def is_known(column: Array) -> Bools:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)


def ranks(column: Array) -> Ints:
    """A number for each text that sorts like the text."""
    encoded = arrow.Array.dictionary_encode(plain(column))
    order = compute.array_sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    found: Ints = rank[encoded.indices.to_numpy()]
    return found


def dense(*keys: npt.NDArray[Any]) -> Ints:
    """One number for each distinct combination, counting from zero in order of appearance."""
    found: Ints | None = None
    for key in keys:
        code = np.asarray(arrow.array(key).dictionary_encode().indices.to_numpy(), dtype=np.int64)
        if found is not None:
            code = found * (int(code.max(initial=0)) + 1) + code
            code = np.asarray(arrow.array(code).dictionary_encode().indices.to_numpy(), dtype=np.int64)
        found = code
    assert found is not None  # noqa: S101 - called with at least one key
    return found


def first_rows(codes: Ints) -> Ints:
    """The first row of each code; codes count from zero without gaps."""
    first = np.empty(int(codes.max(initial=-1)) + 1, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return first


def nano(column: Array) -> Ints:
    """Decimal(18, 9) as integers of 10⁻⁹, NULL is 0. The low 64 of 128 bits hold every such value."""
    limbs = np.frombuffer(memoryview(column.buffers()[1] or b""), dtype=np.int64).reshape(-1, 2)
    return np.where(is_known(column), limbs[column.offset : column.offset + len(column), 0], 0)


def money(values: Ints, known: Bools | None = None) -> Array:
    """Integers of 10⁻⁹ as Decimal(18, 9)."""
    values = np.clip(values if known is None else np.where(known, values, 0), -(10**18) + 1, 10**18 - 1)
    limbs = np.stack([values, values >> 63], axis=1)
    validity = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little").tobytes())
    found: Array = arrow.Array.from_buffers(
        pa.decimal128(18, 9), len(values), [validity, pa.py_buffer(limbs.tobytes())]
    )
    return found


def replaced(batch: pa.RecordBatch, columns: Mapping[str, Array]) -> pa.RecordBatch:
    """The batch with some of its columns exchanged."""
    arrays = [columns.get(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def copied(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows in memory of their own: any column or dictionary of a decoded batch keeps all of it alive."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


def together(parts: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """Batches as one."""
    if len(parts) == 1:
        return parts[0]
    table = pa.Table.from_batches(list(parts), schema=schema).unify_dictionaries().combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=schema)
