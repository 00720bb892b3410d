"""Where rows are kept: ClickHouse, embedded as chDB or on a server. The only package that talks to a driver."""

from __future__ import annotations

from spanwise.store.connect import Store, StoreConfig, TtlDays, load_sql
from spanwise.store.errors import QueryError, StoreConfigError, StoreError
from spanwise.store.migrate import open_store, prepare

__all__ = [
    "QueryError",
    "Store",
    "StoreConfig",
    "StoreConfigError",
    "StoreError",
    "TtlDays",
    "load_sql",
    "open_store",
    "prepare",
]
