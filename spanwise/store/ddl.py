"""The first migration, written from the column tables of `spanwise.model`: `python -m spanwise.store.ddl`.

A migration is a file that never changes once a release contains it. Until then `0001_tables.sql` follows the model,
and a test says when it no longer does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from spanwise.model import RETENTION, TABLES, Column, Table
from spanwise.store.connect import DEDUPLICATION_WINDOW

FIRST: Final = Path(__file__).with_name("migrations") / "0001_tables.sql"

_INDEXES: Final = {
    "spans": (
        "INDEX by_trace_id trace_id TYPE bloom_filter(0.001) GRANULARITY 1",
        "INDEX by_conversation_id conversation_id TYPE bloom_filter(0.01) GRANULARITY 1",
        "INDEX by_response_id response_id TYPE bloom_filter(0.01) GRANULARITY 1",
        "INDEX by_start_time start_time TYPE minmax GRANULARITY 1",
    ),
    "log_events": ("INDEX by_response_id response_id TYPE bloom_filter(0.01) GRANULARITY 1",),
    "traces": (
        "INDEX by_start_time start_time TYPE minmax GRANULARITY 1",
        "INDEX by_conversation_id conversation_id TYPE bloom_filter(0.01) GRANULARITY 1",
    ),
    "findings": (
        "INDEX by_trace_id trace_id TYPE bloom_filter(0.001) GRANULARITY 1",
        # what webhooks ask: written since
        "INDEX by_version version TYPE minmax GRANULARITY 1",
    ),
}

_SETTINGS: Final = {
    # One file instead of about 250 for an insert: 1.4 times the insert rate with fsync, see docs/adr.
    "spans": {"min_bytes_for_wide_part": 128 << 20},
    "log_events": {"min_bytes_for_wide_part": 128 << 20},
    # Granules and merge blocks are counted in rows by default, which is gigabytes of prompts.
    "content": {
        "min_bytes_for_wide_part": 128 << 20,
        "index_granularity_bytes": 64 << 20,
        "merge_max_block_size_bytes": 64 << 20,
    },
}

_COLUMN_SETTINGS: Final = {
    # ZSTD can only find a repeated prompt inside one block.
    ("content", "value"): "min_compress_block_size = 16777216, max_compress_block_size = 16777216",
}


def create_table(table: Table) -> str:
    """The `CREATE TABLE IF NOT EXISTS` statement of a table, without a database name and without its TTL."""
    parts = [_column(table, column) for column in table.stored]
    parts += _INDEXES.get(table.name, ())
    settings = {
        "non_replicated_deduplication_window": DEDUPLICATION_WINDOW,
        "ttl_only_drop_parts": 1,
        "materialize_ttl_recalculate_only": 1,
        **_SETTINGS.get(table.name, {}),
    }
    body = ",\n    ".join(parts)
    return (
        f"CREATE TABLE IF NOT EXISTS {table.name}\n(\n    {body}\n)\n"
        f"ENGINE = ReplacingMergeTree({', '.join(filter(None, (table.version, table.deleted)))})\n"
        "PARTITION BY (day, retention)\n"
        f"ORDER BY ({', '.join(table.order_by)})\n"
        f"SETTINGS {', '.join(f'{name} = {value}' for name, value in settings.items())}\n"
        f"COMMENT {_quoted(table.doc)};\n"
    )


def _column(table: Table, column: Column) -> str:
    codec = f" CODEC({column.codec})" if column.codec else ""
    settings = _COLUMN_SETTINGS.get((table.name, column.name), "")
    default = " DEFAULT ''" if column is RETENTION else ""
    return (
        f"`{column.name}` {column.type}{default} COMMENT {_quoted(column.doc)}{codec}"
        f"{f' SETTINGS ({settings})' if settings else ''}"
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def render() -> str:
    """The text of `0001_tables.sql`."""
    return "\n".join(create_table(table) for table in TABLES)


if __name__ == "__main__":
    FIRST.write_text(render(), encoding="utf-8")
