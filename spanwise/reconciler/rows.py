"""Rows by the trace they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import pyarrow as pa

from processors.columns import Array, compute, plain

Key = tuple[str, str]
"""Tenant and trace id."""

SECOND_NS: Final = 10**9
PARTNER_NS: Final = 600 * SECOND_NS
"""How far apart two reports of one call may lie."""
TIME_MAX: Final = 2**63 - 1


def ids_of(rows: pa.RecordBatch, names: Sequence[str] = ("tenant", "trace_id")) -> Array:
    """The columns that tell rows apart as one text a row."""
    columns = [plain(rows.column(name)).cast(pa.utf8()) for name in names]
    found: Array = compute.binary_join_element_wise(*columns, "\n")
    return found


def keys_by_row(rows: pa.RecordBatch) -> Iterator[Key]:
    columns = (plain(rows.column(name)).to_pylist() for name in ("tenant", "trace_id"))
    for tenant, trace in zip(*columns, strict=True):
        yield str(tenant), str(trace)


def keys_of(rows: pa.RecordBatch) -> Iterator[Key]:
    """Distinct traces of some rows."""
    for pair in compute.unique(ids_of(rows)).to_pylist():
        tenant, _, trace = pair.rpartition("\n")
        yield tenant, trace


def touches_of(rows: pa.RecordBatch, time: str) -> Iterator[tuple[Key, int, int, int, int]]:
    """(trace, earliest receipt, earliest time, latest time, rows) of each trace in a batch."""
    if rows.num_rows == 0:
        return
    columns: list[Array] = [
        plain(rows.column("tenant")),
        rows.column("trace_id"),
        rows.column("received_at").cast(pa.int64()),
        rows.column(time).cast(pa.int64()),
    ]
    table = pa.Table.from_arrays(columns, names=["tenant", "trace_id", "received", "time"])
    grouped = table.group_by(["tenant", "trace_id"]).aggregate(
        [("received", "min"), ("time", "min"), ("time", "max"), ("trace_id", "count")]
    )
    names = ("tenant", "trace_id", "received_min", "time_min", "time_max", "trace_id_count")
    for tenant, trace, received, low, high, count in zip(*(grouped[name].to_pylist() for name in names), strict=True):
        yield (str(tenant), str(trace)), received, low, high, count
