"""What the store promises, embedded and behind HTTP."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sinks import ClickHouseSink, ClickHouseSinkConfig
from spanwise.model import ALERT_DELIVERIES, CONTENT, FINDINGS, LOG_EVENTS, ROLLUP_1M, SPANS, TABLES, TRACES, Table
from spanwise.stage import OverloadedError, RejectedError
from spanwise.store import Store, StoreConfig, StoreConfigError, StoreError, TtlDays, TtlOptions, open_store
from spanwise.store.migrate import Migration, apply_options, migrate, migrations, prove_deduplication
from tests.store.clickhouse_http import ClickHouseHTTP, Fault
from tests.store.rows import DAY, NOW_NS, content, log_events, span, spans, traces


def scalar(store: Store, sql: str) -> Any:
    return store.read_arrow(sql).column(0)[0].as_py()


@pytest.fixture
def sink(store: Store) -> ClickHouseSink:
    return ClickHouseSinkConfig().build(store)


def full(number: int) -> dict[str, Any]:
    """A span with something in every column, edges of the types included."""
    edges = (0, 1, -1, 2**63 - 1)
    times = [edges[number % 4], NOW_NS + number]
    return {
        **{
            field.name: f"{field.name} {number % 3} é\0"
            for field in SPANS.arrow
            if pa.types.is_string(field.type) or pa.types.is_dictionary(field.type)
        },
        **{field.name: 2**32 - 1 for field in SPANS.arrow if field.type == pa.uint32()},
        **{field.name: 2**64 - 1 - number for field in SPANS.arrow if field.type == pa.uint64()},
        **span(number),
        "start_time": times[0],
        "received_at": edges[number % 2] or NOW_NS // 1_000_000,
        "day": dt.date(1970, 1, 1) if number % 2 else dt.date(2149, 6, 6),
        "cost_usd": Decimal("-999999999.999999999"),
        "reported_cost_usd": None if number % 2 else Decimal("0.000000001"),
        "time_to_first_chunk_s": 0.1,
        "finish_reasons": ["stop", "", "stop"],
        "finish_reasons_raw": [],
        "content": [{"key": "k", "form": "item_sp", "hash": "f" * 32, "bytes": 2**32 - 1}] * 2,
        "attributes": [("a", "1"), ("", ""), ("b", "x\n'\\")],
        "resource_attributes": [],
        "scope_attributes": [("a", "1"), ("a", "2")],
        "events": [{"time": time, "name": "e", "attributes": [("k", "v")], "types": "s"} for time in times],
        "links": [
            {"trace_id": "a", "span_id": "b", "trace_state": "c", "attributes": [("k", "v")]},
            {"trace_id": "", "span_id": "", "trace_state": "", "attributes": []},
        ],
        "version": 2**64 - 1,
    }


def sorted_rows(table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: (row["span_id"], row["version"]))


# Migrations and options


def test_second_start_applies_nothing(open_config: Callable[..., Store]) -> None:
    open_config()
    again = open_config()
    assert (migrate(again), apply_options(again, again.config)) == ([], [])


def test_racing_starts_record_each_migration_once(open_config: Callable[..., Store], config: StoreConfig) -> None:
    stores = [Store(config) for _ in range(4)]
    threads = [threading.Thread(target=migrate, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = scalar(stores[0], "SELECT count() FROM schema_migrations FINAL")
    for store in stores:
        store.close()
    assert counted == len(migrations())


def test_newer_schema_is_refused_with_a_sentence(fresh: Store) -> None:
    migrate(fresh, [*migrations(), Migration(len(migrations()) + 1, "0009_future", "SELECT 1;\n")])
    with pytest.raises(StoreConfigError, match="run the newer program"):
        migrate(fresh)


def test_changed_migration_is_refused_with_a_sentence(fresh: Store) -> None:
    first, *rest = migrations()
    with pytest.raises(StoreConfigError, match="another version of migration 0001_tables"):
        migrate(fresh, [Migration(first.id, first.name, first.text + "-- edited\n"), *rest])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_migrated_table_has_the_columns_of_the_model(store: Store, table: Table) -> None:
    rows = store.read_arrow(
        "SELECT name, type, comment FROM system.columns WHERE database = currentDatabase() AND table = {table:String} "
        "ORDER BY position",
        {"table": table.name},
    ).to_pylist()
    assert [(row["name"], row["type"], row["comment"]) for row in rows] == [
        (column.name, column.type, column.doc) for column in table.stored
    ]


def test_start_refuses_a_store_that_does_not_deduplicate(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    insert = store.insert
    tokens = iter(["one", "two"])
    monkeypatch.setattr(store, "insert", lambda table, batch, _token: insert(table, batch, next(tokens)))
    with pytest.raises(StoreConfigError, match="does not deduplicate repeated inserts"):
        prove_deduplication(store)


def test_self_test_leaves_nothing_behind(store: Store) -> None:
    assert (
        scalar(store, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name LIKE 'probe%'")
        == 0
    )


# Writing


def test_same_token_again_stores_nothing(store: Store, sink: ClickHouseSink) -> None:
    batch = (
        spans([span(n) for n in range(50)]),
        content([{"tenant": "t", "trace_id": "a", "hash": str(n), "value": "v"} for n in range(9)]),
        log_events([{"tenant": "t", "trace_id": "a", "record_id": str(n)} for n in range(7)]),
    )
    for _ in range(3):
        sink.write("range 1", *batch)
    counts = store.read_arrow(
        "SELECT (SELECT count() FROM spans) AS spans, (SELECT count() FROM content) AS content, "
        "(SELECT count() FROM log_events) AS log_events"
    ).to_pylist()
    assert counts == [{"spans": 50, "content": 9, "log_events": 7}]


def test_same_token_again_stores_nothing_behind_a_materialised_view(fresh: Store) -> None:
    sink = ClickHouseSinkConfig().build(fresh)
    fresh.command(
        "CREATE TABLE per_name (name String, spans UInt64) ENGINE = SummingMergeTree ORDER BY name "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    fresh.command(
        "CREATE MATERIALIZED VIEW per_name_view TO per_name AS SELECT name, count() AS spans FROM spans GROUP BY name"
    )
    for _ in range(3):
        sink.write("range 1", spans([span(n) for n in range(50)]), content([]), log_events([]))
    assert scalar(fresh, "SELECT sum(spans) FROM per_name") == 50


def test_other_token_with_equal_rows_is_one_row_a_span_for_readers(store: Store, sink: ClickHouseSink) -> None:
    batch = spans([span(n) for n in range(50)])
    sink.write("range 1", batch, content([]), log_events([]))
    sink.write("range 2", batch, content([]), log_events([]))
    assert scalar(store, "SELECT count() FROM spans FINAL") == 50


def test_empty_batches_insert_nothing(store: Store, sink: ClickHouseSink) -> None:
    sink.write("range 1", spans([]), content([]), log_events([]))
    assert scalar(store, "SELECT count() FROM spans") == 0


def test_highest_version_wins_in_any_order(store: Store, sink: ClickHouseSink) -> None:
    for version in (2, 3, 1):
        sink.rewrite(spans([span(1, version=version, usage_scope=f"v{version}")]), f"v{version}")
    assert scalar(store, "SELECT usage_scope FROM spans FINAL") == "v3"


def test_trace_summary_wins_across_days(store: Store, sink: ClickHouseSink) -> None:
    row = {"tenant": "t", "trace_id": "a", "cost_usd": Decimal(0), "reported_cost_usd": Decimal(0)}
    sink.write_traces(traces([{**row, "span_count": 1, "version": 1}]), "first")
    sink.write_traces(traces([{**row, "span_count": 2, "version": 2, "day": DAY - dt.timedelta(days=1)}]), "second")
    assert store.read_arrow("SELECT span_count FROM traces FINAL").to_pylist() == [{"span_count": 2}]


def test_history_of_more_days_than_one_insert_may_touch_is_stored_once(store: Store) -> None:
    sink = ClickHouseSinkConfig(insert_days_max=5).build(store)
    history = [span(n, day=DAY - dt.timedelta(days=100 * (n % 12))) for n in range(24)]
    for _ in range(2):
        sink.write("import", spans(history), content([]), log_events([]))
    counts = store.read_arrow("SELECT count() AS spans, uniqExact(day) AS days FROM spans").to_pylist()
    assert counts == [{"spans": 24, "days": 12}]


def test_rows_are_cut_by_day_the_same_way_whatever_their_order(store: Store) -> None:
    sent: list[tuple[str, set[dt.date]]] = []

    class Recorder:
        def stored(self, table: str, *, rows: int, bytes_: int, seconds: float) -> None: ...
        def refused(self, table: str, *, rows: int, reason: str) -> None: ...

    sink = ClickHouseSinkConfig(insert_days_max=3).build(store, Recorder())
    rows = [span(n, day=DAY - dt.timedelta(days=n % 7)) for n in range(14)]
    for order in (rows, rows[::-1]):
        sent.append(("", set()))
        for part, some in sink._parts(spans(order)):
            sent.append((part, {day for day in some.column("day").to_pylist() if day}))
    half = len(sent) // 2
    assert sent[:half] == sent[half:]
    assert max(len(days) for _, days in sent) == 3


def test_refused_row_is_left_out_and_counted(fresh: Store) -> None:
    refused: list[tuple[str, int, str]] = []

    class Recorder:
        def stored(self, table: str, *, rows: int, bytes_: int, seconds: float) -> None: ...
        def refused(self, table: str, *, rows: int, reason: str) -> None:
            refused.append((table, rows, reason))

    fresh.command("ALTER TABLE spans ADD CONSTRAINT no_poison CHECK name != 'poison'")
    sink = ClickHouseSinkConfig().build(fresh, Recorder())
    rows = [span(n, name="poison" if n in {3, 12} else "fine") for n in range(16)]
    for _ in range(2):
        sink.write("range 1", spans(rows), content([]), log_events([]))
    assert scalar(fresh, "SELECT count() FROM spans") == 14
    assert refused == [("spans", 2, "VIOLATED_CONSTRAINT")] * 2


def test_batch_of_refused_rows_is_rejected_after_a_bounded_search(fresh: Store) -> None:
    fresh.command("ALTER TABLE spans ADD CONSTRAINT no_poison CHECK name != 'poison'")
    sink = ClickHouseSinkConfig(isolate_inserts_max=10).build(fresh)
    with pytest.raises(RejectedError, match="too many of"):
        sink.write("range 1", spans([span(n, name="poison") for n in range(1000)]), content([]), log_events([]))


def test_errors_never_quote_stored_values(fresh: Store) -> None:
    fresh.command("ALTER TABLE spans ADD CONSTRAINT no_poison CHECK name != 'my secret'")
    with pytest.raises(StoreError) as caught:
        fresh.insert(SPANS, spans([span(1, name="my secret")]), "token")
    assert "secret" not in repr(caught.value)
    assert caught.value.permanent


def test_missing_table_is_retried_not_rejected(fresh: Store) -> None:
    fresh.command("DROP TABLE content")
    with pytest.raises(StoreError) as caught:
        fresh.insert(CONTENT, content([{"hash": "a"}]), "token")
    assert not caught.value.permanent


# Reading rows back


def test_rows_read_back_and_inserted_again_are_the_same_rows(store: Store) -> None:
    original = spans([full(n) for n in range(16)])
    store.insert(SPANS, original, "original")
    first = store.read_arrow(f"SELECT {', '.join(SPANS.names)} FROM spans FINAL", schema=SPANS.arrow)
    store.command("TRUNCATE TABLE spans")
    store.insert(SPANS, first.combine_chunks().to_batches()[0], "copy")
    again = store.read_arrow(f"SELECT {', '.join(SPANS.names)} FROM spans FINAL", schema=SPANS.arrow)
    assert first.schema == SPANS.arrow
    assert sorted_rows(first) == sorted_rows(original)
    assert sorted_rows(again) == sorted_rows(original)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_answer_without_rows_has_the_schema_that_was_asked_for(store: Store, table: Table) -> None:
    answer = store.read_arrow(f"SELECT {', '.join(table.names)} FROM {table.name}", schema=table.arrow)
    assert answer.schema == table.arrow


def test_parameters_are_values_never_sql(store: Store) -> None:
    hostile = "x' OR 1=1 -- \\'; DROP TABLE spans"
    rows = store.read_arrow(
        "SELECT {text:String} AS text, {many:Array(String)} AS many", {"text": hostile, "many": [hostile, "b"]}
    ).to_pylist()
    assert rows == [{"text": hostile, "many": [hostile, "b"]}]


def test_readers_answer_while_rows_are_written(store: Store, sink: ClickHouseSink) -> None:
    stop = threading.Event()
    seen: list[int] = []
    failed: list[Exception] = []

    def read() -> None:
        while not stop.is_set():
            try:
                with store.reader() as client:
                    seen.append(int(client.raw_query("SELECT count() FROM spans FINAL")))
            except Exception as error:
                failed.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(10):
        sink.write(f"range {n}", spans([span(n * 100 + k) for k in range(100)]), content([]), log_events([]))
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert seen
    assert scalar(store, "SELECT count() FROM spans FINAL") == 1000


def test_busy_readers_refuse_the_next_query(open_config: Callable[..., Store]) -> None:
    store = open_config(readers=1, reader_wait_s=0.01)
    with store.reader() as client, pytest.raises(OverloadedError, match=r"raise store\.readers"), store.reader():
        client.raw_query("SELECT 1")


def test_a_failed_query_does_not_disturb_the_next(store: Store) -> None:
    for _ in range(3):
        with pytest.raises(Exception, match="Limit for result exceeded"), store.reader() as client:
            client.raw_query("SELECT number FROM numbers(100000000)")
        with store.reader() as client:
            assert client.raw_query("SELECT 'next'") == b"next\n"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO spans (name) VALUES ('x')",
        "DROP TABLE spans",
        "ALTER TABLE spans DELETE WHERE 1",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SET readonly = 0",
    ],
)
def test_reader_connections_cannot_write_or_leave_the_engine(store: Store, statement: str) -> None:
    with pytest.raises(Exception, match=r"(?i)readonly"), store.reader() as client:
        client.raw_query(statement)


# TTL


def test_old_events_that_arrive_today_stay(open_config: Callable[..., Store]) -> None:
    store = open_config(ttl_days=TtlDays(spans=7))
    now_ms = scalar(store, "SELECT toUnixTimestamp64Milli(now64(3))")
    day_ms = 86_400_000
    store.insert(
        SPANS,
        spans(
            [
                span(1, name="history", start_time=0, day=dt.date(1970, 1, 1), received_at=now_ms),
                span(2, name="expired", received_at=now_ms - 8 * day_ms),
            ]
        ),
        "token",
    )
    store.command("OPTIMIZE TABLE spans FINAL")
    assert store.read_arrow("SELECT name FROM spans").to_pylist() == [{"name": "history"}]


def test_ttl_of_no_days_keeps_rows_for_ever(open_config: Callable[..., Store]) -> None:
    store = open_config(ttl_days=TtlDays(spans=7))
    apply_options(store, TtlOptions(ttl_days=TtlDays(spans=0)))
    engine = scalar(
        store, "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'spans'"
    )
    assert "TTL" not in engine


def test_changed_ttl_is_one_statement_a_table(open_config: Callable[..., Store]) -> None:
    store = open_config(ttl_days=TtlDays(spans=7))
    assert apply_options(store, TtlOptions(ttl_days=TtlDays(spans=9))) == [
        "ALTER TABLE spans MODIFY TTL "
        "toDateTime(received_at) + toIntervalDay(transform(retention, ['failed'], [90], 9))"
    ]


# Only embedded


def test_changed_ttl_rewrites_no_column_of_large_parts(open_config: Callable[..., Store], config: StoreConfig) -> None:
    if not config.dsn.get_secret_value().startswith("chdb"):
        pytest.skip("needs the files of the store")
    store = open_config(ttl_days=TtlDays(content=30))
    store.command("ALTER TABLE content MODIFY SETTING min_bytes_for_wide_part = 0")  # as large parts are
    now_ms = scalar(store, "SELECT toUnixTimestamp64Milli(now64(3))")
    store.insert(
        CONTENT, content([{"hash": str(n), "value": "v" * 1000, "received_at": now_ms} for n in range(100)]), "t"
    )

    def data_inode() -> int:
        path = scalar(
            store,
            "SELECT path FROM system.parts WHERE active AND database = currentDatabase() AND table = 'content'",
        )
        return (Path(path) / "value.bin").stat().st_ino

    def ttl_max() -> int:
        return int(
            scalar(
                store,
                "SELECT toUnixTimestamp(delete_ttl_info_max) FROM system.parts WHERE active "
                "AND database = currentDatabase() AND table = 'content'",
            )
        )

    before, before_ttl = data_inode(), ttl_max()
    apply_options(store, TtlOptions(ttl_days=TtlDays(content=60)))
    for _ in range(100):
        if ttl_max() != before_ttl:
            break
        threading.Event().wait(0.02)
    assert ttl_max() - before_ttl == 30 * 86_400
    assert data_inode() == before


# Only behind HTTP: what a network adds


@pytest.fixture
def remote(engine: Store, endpoint: ClickHouseHTTP) -> StoreConfig:
    return StoreConfig.model_validate(
        {
            "dsn": f"http://127.0.0.1:{endpoint.port}/remote_{endpoint.port}",
            "ttl_days": TtlDays(spans=0, content=0),
            "insert_timeout_s": 1,
        }
    )


def write_until_stored(sink: ClickHouseSink, token: str, batch: pa.RecordBatch) -> None:
    """What the pipeline does: the same range again until it is stored."""
    for _ in range(10):
        try:
            sink.write(token, batch, content([]), log_events([]))
        except StoreError:
            continue
        return
    raise AssertionError("never stored")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("error", code=210),
        Fault("error", code=252),
        Fault("cut_before_commit"),
        Fault("cut_after_commit"),
        Fault("stall_after_commit", seconds=1.5),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.code}",
)
def test_insert_that_failed_on_the_way_is_stored_once(
    remote: StoreConfig, endpoint: ClickHouseHTTP, fault: Fault
) -> None:
    store = open_store(Store(remote))
    sink = ClickHouseSinkConfig().build(store)
    endpoint.faults.append(fault)
    before = endpoint.seen.inserts
    write_until_stored(sink, "range 1", spans([span(n) for n in range(20)]))
    counted = scalar(store, "SELECT count() FROM spans")
    store.close()
    assert (endpoint.seen.inserts - before, counted) == (2, 20)


def test_every_insert_carries_its_settings(remote: StoreConfig, endpoint: ClickHouseHTTP) -> None:
    store = open_store(Store(remote))
    ClickHouseSinkConfig().build(store).write("range 1", spans([span(1)]), content([]), log_events([]))
    store.close()
    sent = endpoint.seen.settings[-1]
    assert {name: sent.get(name) for name in ("async_insert", "insert_deduplication_token")} == {
        "async_insert": "0",
        "insert_deduplication_token": "range 1:spans",
    }
    assert sent["deduplicate_blocks_in_dependent_materialized_views"] == "1"


def test_server_that_is_away_is_a_store_error_without_the_password() -> None:
    with pytest.raises(StoreError) as caught:
        Store(StoreConfig.model_validate({"dsn": "http://me:hunter2@127.0.0.1:9/spanwise"}))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("", "store.dsn is empty"),
        ("chdb:relative", "chdb:///directory"),
        ("mysql://x/y", "has the scheme 'mysql'"),
        ("http://host:notaport/", "not a URL"),
        ("http://host/bad-name", "letters, digits"),
    ],
)
def test_bad_dsn_is_refused_with_a_sentence(dsn: str, words: str) -> None:
    with pytest.raises(StoreConfigError, match=words):
        Store(StoreConfig.model_validate({"dsn": dsn}))


def test_tables_are_the_ones_of_the_model() -> None:
    assert TABLES == (SPANS, CONTENT, LOG_EVENTS, TRACES, FINDINGS, ALERT_DELIVERIES, ROLLUP_1M)
