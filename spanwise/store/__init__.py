"""Where rows are kept: ClickHouse, embedded as chDB or on a server. The only package that talks to a driver."""

from __future__ import annotations

from spanwise.store.connect import Store, StoreConfig, load_sql
from spanwise.store.errors import QueryError, StoreConfigError, StoreError
from spanwise.store.migrate import open_store, prepare
from spanwise.store.ttl import TtlDays, TtlOptions

__all__ = [
    "QueryError",
    "Store",
    "StoreConfig",
    "StoreConfigError",
    "StoreError",
    "TtlDays",
    "TtlOptions",
    "load_sql",
    "open_store",
    "prepare",
]
