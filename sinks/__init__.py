"""Where results go: rows to ClickHouse, findings to people."""

from __future__ import annotations

from sinks.clickhouse import ClickHouseSink, ClickHouseSinkConfig
from sinks.webhook import Alerts, AlertsConfig

__all__ = ["Alerts", "AlertsConfig", "ClickHouseSink", "ClickHouseSinkConfig"]
