"""What the views promise to people who did not write the tables."""

from __future__ import annotations

from typing import Any

import pytest

from sinks import ClickHouseSinkConfig
from spanwise.store import Store
from tests.store.rows import NOW_NS, content, log_events, span, spans

# https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/exporter/clickhouseexporter
EXPORTER_COLUMNS = [
    ("Timestamp", "DateTime64(9, 'UTC')"),
    ("TraceId", "String"),
    ("SpanId", "String"),
    ("ParentSpanId", "String"),
    ("TraceState", "String"),
    ("SpanName", "LowCardinality(String)"),
    ("SpanKind", "LowCardinality(String)"),
    ("ServiceName", "LowCardinality(String)"),
    ("ResourceAttributes", "Map(LowCardinality(String), String)"),
    ("ScopeName", "LowCardinality(String)"),
    ("ScopeVersion", "LowCardinality(String)"),
    ("SpanAttributes", "Map(LowCardinality(String), String)"),
    ("Duration", "UInt64"),
    ("StatusCode", "LowCardinality(String)"),
    ("StatusMessage", "String"),
    ("Events.Timestamp", "Array(DateTime64(9, 'UTC'))"),
    ("Events.Name", "Array(String)"),
    ("Events.Attributes", "Array(Map(String, String))"),
    ("Links.TraceId", "Array(String)"),
    ("Links.SpanId", "Array(String)"),
    ("Links.TraceState", "Array(String)"),
    ("Links.Attributes", "Array(Map(String, String))"),
]


def reference(key: str, form: str, hash_: str) -> dict[str, Any]:
    return {"key": key, "form": form, "hash": hash_, "bytes": 300}


def write(store: Store, row: dict[str, Any], values: dict[str, str]) -> None:
    stored = [
        {"tenant": "t", "trace_id": row["trace_id"], "hash": key, "value": value} for key, value in values.items()
    ]
    ClickHouseSinkConfig().build(store).write("range", spans([row]), content(stored), log_events([]))


def test_otel_traces_has_the_columns_of_the_exporter(store: Store) -> None:
    rows = store.read_arrow(
        "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'otel_traces' "
        "ORDER BY position"
    ).to_pylist()
    assert [(row["name"], row["type"]) for row in rows] == EXPORTER_COLUMNS


def test_otel_traces_spells_kinds_and_codes_like_the_exporter(store: Store) -> None:
    event = {"time": NOW_NS, "name": "exception", "attributes": [("exception.type", "E")], "types": "s"}
    write(store, span(1, span_kind="client", status="error", events=[event, event]), {})
    rows = store.read_arrow(
        "SELECT SpanKind, StatusCode, `Events.Name` AS names, `Events.Attributes`[1]['exception.type'] AS type "
        "FROM otel_traces"
    ).to_pylist()
    assert rows == [{"SpanKind": "Client", "StatusCode": "Error", "names": ["exception", "exception"], "type": "E"}]


@pytest.mark.parametrize(
    ("references", "whole"),
    [
        ([reference("prompt", "text", "a")], "first"),
        ([reference("prompt", "item", "b"), reference("prompt", "item", "a")], "[second,first]"),
        ([reference("prompt", "item_sp", "a"), reference("prompt", "item_sp", "a")], "[first, first]"),
    ],
)
def test_span_content_restores_the_whole_value(store: Store, references: list[dict[str, Any]], whole: str) -> None:
    write(store, span(1, content=references), {"a": "first", "b": "second"})
    rows = store.read_arrow("SELECT span_id, key, value, missing FROM span_content").to_pylist()
    assert rows == [{"span_id": f"{1:016x}", "key": "prompt", "value": whole, "missing": 0}]


def test_span_content_counts_what_is_no_longer_stored(store: Store) -> None:
    write(
        store, span(1, content=[reference("prompt", "item", "a"), reference("prompt", "item", "gone")]), {"a": "first"}
    )
    assert store.read_arrow("SELECT missing FROM span_content").to_pylist() == [{"missing": 1}]


def test_span_content_of_one_trace_reads_one_trace(store: Store) -> None:
    """The filter reaches the keys of both tables: without it the view would join everything that is stored."""
    write(store, span(1, content=[reference("prompt", "text", "a")]), {"a": "first"})
    plan = "\n".join(
        row["explain"]
        for row in store.read_arrow(
            "EXPLAIN indexes = 1 SELECT * FROM span_content WHERE tenant = 't' AND trace_id = 'other'"
        ).to_pylist()
    )
    assert plan.count("trace_id in ['other', 'other']") == 2
