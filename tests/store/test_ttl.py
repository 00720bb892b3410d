"""How long rows stay, with the merges that take them away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from spanwise.model import CONTENT, SPANS, TABLES
from spanwise.store import Store, TtlOptions
from spanwise.store.migrate import apply_options
from tests.store.rows import content, span, spans

DAY_MS = 86_400_000
CLASSES: Any = {
    "ttl_days": {"spans": 30, "content": 14},
    "ttl_failed": {"days": {"spans": 90, "content": 60}},
    "ttl_classes": [
        {"name": "trial", "tenants": ["sandbox", "o'hara \\"], "days": {"spans": 7, "content": 1}},
        {"name": "audit", "tenants": ["bank"], "days": {"spans": 0}, "failed_days": {"content": 365}},
    ],
}


@pytest.fixture
def store(open_config: Callable[..., Store]) -> Store:
    return open_config(**dict(TtlOptions.model_validate(CLASSES)))


def now_ms(store: Store) -> int:
    return int(store.read_arrow("SELECT toUnixTimestamp64Milli(now64(3)) AS ms").to_pylist()[0]["ms"])


def names(store: Store, table: str, column: str = "name") -> list[str]:
    store.command(f"OPTIMIZE TABLE {table} FINAL")
    return sorted(str(row[column]) for row in store.read_arrow(f"SELECT {column} FROM {table}").to_pylist())


def test_rows_of_a_class_go_and_stay_by_its_own_days(store: Store) -> None:
    now = now_ms(store)
    ages = {"common": (6, 29, 31), "sandbox": (6, 8, 31), "o'hara \\": (6, 8), "bank": (31, 4000)}
    rows = [
        span(100 * number + age, name=f"{tenant} {age}", tenant=tenant, received_at=now - age * DAY_MS)
        for number, (tenant, all_) in enumerate(ages.items())
        for age in all_
    ]
    store.insert(SPANS, spans(rows), "token")
    left = ["bank 31", "bank 4000", "common 29", "common 6", "o'hara \\ 6", "sandbox 6"]
    assert names(store, "spans") == left


def test_content_goes_before_its_spans(store: Store) -> None:
    received = now_ms(store) - 20 * DAY_MS
    store.insert(SPANS, spans([span(1, name="span", received_at=received)]), "token")
    store.insert(CONTENT, content([{"hash": "h", "value": "v", "received_at": received}]), "token")
    assert (names(store, "spans"), names(store, "content", "hash")) == (["span"], [])


def test_rows_of_two_classes_never_share_a_part(store: Store) -> None:
    rows = [span(n, tenant=("common", "sandbox", "bank")[n % 3], received_at=now_ms(store)) for n in range(9)]
    store.insert(SPANS, spans(rows), "token")
    store.command("OPTIMIZE TABLE spans FINAL")
    parts = store.read_arrow("SELECT _part, count(DISTINCT retention) AS classes FROM spans GROUP BY _part").to_pylist()
    assert [part["classes"] for part in parts] == [1, 1, 1]


def test_kept_copy_of_a_row_outlives_it_and_counts_once(store: Store) -> None:
    received = now_ms(store) - 20 * DAY_MS
    store.insert(SPANS, spans([span(1, name="failed", received_at=received)]), "token")
    columns = ", ".join(SPANS.names)
    store.command(f"INSERT INTO spans ({columns}, retention) SELECT {columns}, 'failed' FROM spans FINAL")
    seen = store.read_arrow("SELECT count() AS rows FROM spans FINAL").to_pylist()
    apply_options(store, TtlOptions.model_validate({"ttl_days": {"spans": 7}}))
    assert (seen, names(store, "spans", "retention")) == ([{"rows": 1}], ["failed"])


def test_moving_a_tenant_changes_rows_that_come_from_then_on(store: Store) -> None:
    now = now_ms(store)
    store.insert(SPANS, spans([span(1, tenant="bank", received_at=now)]), "one")
    apply_options(store, TtlOptions.model_validate({"ttl_classes": [{"name": "trial", "tenants": ["bank"]}]}))
    store.insert(SPANS, spans([span(2, tenant="bank", received_at=now)]), "two")
    rows = store.read_arrow("SELECT retention FROM spans ORDER BY span_id").to_pylist()
    assert [row["retention"] for row in rows] == ["audit", "trial"]


def test_same_options_again_take_no_statement(store: Store) -> None:
    assert apply_options(store, store.config) == []


def test_imported_history_is_cut_into_inserts_the_engine_takes(store: Store) -> None:
    tenants = ("a", "bank", "sandbox", "o'hara \\")
    received = now_ms(store)
    rows = [
        span(day * 4 + n, tenant=tenant, day=day, received_at=received)
        for day in range(20_000, 20_030)
        for n, tenant in enumerate(tenants)
    ]
    store.insert(SPANS, spans(rows), "token")
    assert store.read_arrow("SELECT count() AS rows FROM spans").to_pylist() == [{"rows": 120}]


def test_days_of_each_class() -> None:
    options = TtlOptions.model_validate(CLASSES)
    assert options.days("spans") == {"": 30, "trial": 7, "audit": 0, "failed": 90}
    assert options.days("content") == {"": 14, "trial": 1, "audit": 14, "failed": 60, "audit_failed": 365}
    assert options.kept_longer("content") == [("", "failed", 14), ("audit", "audit_failed", 14)]
    assert options.kept_longer("findings") == []
    assert (options.shortest_days("spans"), options.shortest_days("content")) == (7, 1)


def test_failed_traces_are_never_kept_shorter_than_others() -> None:
    options = TtlOptions.model_validate({"ttl_days": {"spans": 0}, "ttl_failed": {"days": {"spans": 30}}})
    assert (options.days("spans"), options.kept_longer("spans")) == ({"": 0, "failed": 0}, [])


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([{"name": "failed", "tenants": ["a"]}], "the name failed is taken"),
        ([{"name": "a", "tenants": ["x"]}, {"name": "a", "tenants": ["y"]}], "the name a is taken"),
        ([{"name": "a", "tenants": ["x"]}, {"name": "b", "tenants": ["x"]}], "the tenant x is in two classes"),
        ([{"name": "a_b", "tenants": ["x"]}], "pattern"),
        ([{"name": "a", "tenants": []}], "at least 1"),
    ],
)
def test_classes_that_contradict_each_other_are_refused(classes: list[Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TtlOptions.model_validate({"ttl_classes": classes})


def test_every_table_has_days() -> None:
    options = TtlOptions()
    assert all(options.days(table.name) for table in TABLES)
