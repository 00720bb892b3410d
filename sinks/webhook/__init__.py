"""Findings told to people and programs over HTTP: Slack-compatible or plain JSON, signed, at least once."""

from __future__ import annotations

from sinks.webhook.client import Outcome, WebhookClient
from sinks.webhook.config import AlertsConfig, WebhookConfig
from sinks.webhook.deliver import Alerts, WebhookStats
from sinks.webhook.message import Alert, Message, compose

__all__ = [
    "Alert",
    "Alerts",
    "AlertsConfig",
    "Message",
    "Outcome",
    "WebhookClient",
    "WebhookConfig",
    "WebhookStats",
    "compose",
]
