"""`alerts test`: send a made-up finding as a running server would send a real one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TextIO

from sinks.webhook import Alert, Outcome, WebhookClient, WebhookConfig, compose
from spanwise.cli.client import CommandError
from spanwise.cli.settings import configured


def send_sample(file: Path | None, name: str, out: TextIO) -> None:
    """Send it. Raises CommandError if there is no such webhook or it was not taken."""
    alerts = configured(file, {}).alerts
    webhook = next((webhook for webhook in alerts.webhooks if webhook.name == name), None)
    if webhook is None:
        names = ", ".join(webhook.name for webhook in alerts.webhooks)
        hint = f"has {names}" if names else "has none: is --config FILE the right one?"
        raise CommandError(f"there is no webhook {name!r}", f"`alerts.webhooks` {hint}")
    try:
        outcome = asyncio.run(_send(webhook, alerts.trace_url))
    except ValueError as error:
        raise CommandError(str(error)) from None
    if not outcome.taken:
        raise CommandError(f"webhook {name!r} did not take the message ({outcome.reason}): {outcome.hint}")
    out.write(f"webhook {name!r} took the message\n")


async def _send(webhook: WebhookConfig, trace_url: str) -> Outcome:
    client = WebhookClient(webhook)
    await client.open()
    try:
        return await client.send(compose([_sample()], webhook, trace_url))
    finally:
        await client.close()


def _sample() -> Alert:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    spans = tuple(token_hex(8) for _ in range(3))
    return Alert(
        finding_id=token_hex(16),
        tenant="default",
        trace_id=token_hex(16),
        signature="retry_loop",
        kind="identical",
        severity="high",
        basis="exact",
        service="spanwise-test",
        agent_name="sample",
        agent_version="",
        tool_name="search",
        model="",
        conversation_id="",
        first_span_id=spans[0],
        last_span_id=spans[-1],
        span_ids=spans,
        count=3,
        wasted_tokens=0,
        wasted_cost_usd="0",
        evidence={"calls": "3"},
        rule_version=1,
        started_at=now,
        detected_at=now,
    )
