"""Where results go. The union of configs is the registry: a new sink is a module and a line here."""

from __future__ import annotations

from typing import TypeAlias

from sinks.clickhouse import ClickHouseSink, ClickHouseSinkConfig

SinkConfig: TypeAlias = ClickHouseSinkConfig

__all__ = ["ClickHouseSink", "ClickHouseSinkConfig", "SinkConfig"]
