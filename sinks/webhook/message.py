"""What is said about findings: bodies and headers, made from rows alone, nothing sent.

What spans say in names (services, agents, tools, models) is not trusted: in Slack's markup it is escaped, shortened and
never parsed for links or mentions. Text of prompts and answers is left out unless `excerpts` asks for it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from sinks.webhook.config import SEVERITIES, WebhookConfig

_LISTED_MAX: Final = 10
_NAME_CHARS: Final = 80
_EXCERPT_CHARS: Final = 200
_SPAN_IDS_MAX: Final = 20
_EXCERPT: Final = re.compile(r"(input|output|error) of [0-9a-f]{16}")
_NUMBER: Final = re.compile(r"-?[0-9][0-9.]*")
_NO_NAME: Final = "-"


@dataclass(frozen=True, slots=True)
class Alert:
    """A finding as receivers get to see it. Times are RFC 3339, money is a decimal number as text."""

    finding_id: str
    tenant: str
    trace_id: str
    signature: str
    kind: str
    severity: str
    basis: str
    service: str
    agent_name: str
    agent_version: str
    tool_name: str
    model: str
    conversation_id: str
    first_span_id: str
    last_span_id: str
    span_ids: tuple[str, ...]
    count: int
    wasted_tokens: int
    wasted_cost_usd: str
    evidence: Mapping[str, str]
    rule_version: int
    started_at: str
    detected_at: str

    @property
    def key(self) -> str:
        """What makes it news: the finding and how bad it is. The same whenever it is sent again."""
        return f"{self.finding_id}-{self.severity}"

    @property
    def name(self) -> str:
        return f"{self.signature}.{self.kind}" if self.kind else self.signature


@dataclass(frozen=True, slots=True)
class Message:
    """One POST. `key` is the same for the same alerts, so that a receiver can tell a repetition."""

    key: str
    alerts: tuple[Alert, ...]
    body: bytes

    def headers(self, keys: Sequence[bytes], *, now_s: int) -> dict[str, str]:
        """Headers of one attempt: what it is, and a signature of that with the time, as Standard Webhooks 1.0 says."""
        found = {
            "Content-Type": "application/json",
            "Idempotency-Key": self.key,
            "webhook-id": self.key,
            "webhook-timestamp": str(now_s),
        }
        if len(self.alerts) == 1:
            found["X-Spanwise-Finding-Id"] = self.alerts[0].finding_id
        if keys:
            signed = f"{self.key}.{now_s}.".encode() + self.body
            digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
            found["webhook-signature"] = " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
        return found


def compose(alerts: Sequence[Alert], config: WebhookConfig, trace_url: str) -> Message:
    """One message about these alerts; of many, Slack is told the worst and how many more there are."""
    shown = tuple(_shown(alert, excerpts=config.excerpts) for alert in alerts)
    body = _slack(shown, trace_url) if config.format == "slack" else _json(shown, trace_url)
    if len(shown) == 1:
        key = shown[0].key
    else:
        together = "\n".join(sorted(alert.key for alert in shown))
        key = f"digest-{hashlib.blake2b(together.encode(), digest_size=16).hexdigest()}"
    return Message(key, tuple(alerts), orjson.dumps(body))


def _shown(alert: Alert, *, excerpts: bool) -> Alert:
    """Without text of payloads. Custom signatures and rules may put some into their evidence: only numbers pass."""
    evidence = {
        name: text[:_EXCERPT_CHARS]
        for name, text in alert.evidence.items()
        if excerpts or (_NUMBER.fullmatch(text) and not _EXCERPT.fullmatch(name))
    }
    changed = {"evidence": evidence, "span_ids": alert.span_ids[:_SPAN_IDS_MAX]}
    return Alert(**{**{name: getattr(alert, name) for name in Alert.__slots__}, **changed})


def _link(alert: Alert, trace_url: str) -> str:
    if not trace_url or not alert.trace_id:
        return ""
    return trace_url.replace("{trace_id}", alert.trace_id).replace("{tenant}", alert.tenant)


# JSON


def _json(alerts: Sequence[Alert], trace_url: str) -> dict[str, Any]:
    findings = [{"key": alert.key, **asdict(alert), "trace_url": _link(alert, trace_url)} for alert in alerts]
    return {"type": "spanwise.findings", "findings": findings}


# Slack


def _slack(alerts: Sequence[Alert], trace_url: str) -> dict[str, Any]:
    blocks = _about_one(alerts[0], trace_url) if len(alerts) == 1 else _about_many(alerts, trace_url)
    text = _line(alerts[0]) if len(alerts) == 1 else _heading(alerts)
    return {"text": _escaped(text), "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def _about_one(alert: Alert, trace_url: str) -> list[dict[str, Any]]:
    fields = {
        "Service": alert.service,
        "Agent": " ".join(filter(None, (alert.agent_name, alert.agent_version))),
        "Tool": alert.tool_name,
        "Model": alert.model,
        "Tenant": alert.tenant,
        "Count": f"{alert.count:,}",
        "Wasted": _wasted(alert),
        "Basis": alert.basis,
    }
    blocks = [
        _header(f"{alert.severity.capitalize()}: {alert.name}"),
        {
            "type": "section",
            "fields": [_markup(f"*{label}*\n{_escaped(_name(text))}") for label, text in fields.items() if text],
        },
    ]
    numbers = [f"{name} {text}" for name, text in alert.evidence.items() if not _EXCERPT.fullmatch(name)]
    if numbers:
        blocks.append({"type": "section", "text": _plain(", ".join(numbers))})
    blocks += [
        {"type": "section", "text": _plain(f"{name}: {text}")}
        for name, text in alert.evidence.items()
        if _EXCERPT.fullmatch(name)
    ]
    place = [_trace(alert, trace_url)] if alert.trace_id else []
    ids = " | ".join([*place, f"finding {alert.finding_id}", f"detected {alert.detected_at}"])
    return [*blocks, {"type": "context", "elements": [_markup(ids)]}]


def _about_many(alerts: Sequence[Alert], trace_url: str) -> list[dict[str, Any]]:
    lines = []
    for alert in alerts[:_LISTED_MAX]:
        place = f" ({_trace(alert, trace_url)})" if alert.trace_id else ""
        lines.append({"type": "section", "text": _markup(f"{_escaped(_line(alert))}{place}")})
    more = len(alerts) - len(lines)
    rest = [{"type": "context", "elements": [_plain(f"and {more:,} more: {_census(alerts)}")]}] if more else []
    return [_header(_heading(alerts)), *lines, *rest]


def _trace(alert: Alert, trace_url: str) -> str:
    link = _link(alert, trace_url)
    return f"<{_escaped(link)}|trace {alert.trace_id}>" if link else f"trace {alert.trace_id}"


def _heading(alerts: Sequence[Alert]) -> str:
    return f"{len(alerts):,} findings, the worst {max((alert.severity for alert in alerts), key=SEVERITIES.index)}"


def _line(alert: Alert) -> str:
    """All that matters in one line, for receivers that show `text` alone."""
    who = [
        f"{what} {_name(text)}"
        for what, text in (
            ("agent", alert.agent_name),
            ("tool", alert.tool_name),
            ("model", alert.model),
            ("service", alert.service),
        )
        if text
    ]
    wasted = _wasted(alert)
    parts = [
        f"[{alert.severity}] {alert.name}",
        *who,
        f"count {alert.count:,}",
        *([f"wasted {wasted}"] if wasted else []),
    ]
    return ", ".join(parts)


def _wasted(alert: Alert) -> str:
    tokens = f"{alert.wasted_tokens:,} tokens" if alert.wasted_tokens else ""
    money = f"{float(alert.wasted_cost_usd):.4f} USD" if float(alert.wasted_cost_usd) else ""
    return ", ".join(filter(None, (tokens, money)))


def _census(alerts: Sequence[Alert]) -> str:
    """How many of each signature there are, the most frequent first."""
    counts: dict[str, int] = {}
    for alert in alerts:
        counts[alert.signature] = counts.get(alert.signature, 0) + 1
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{number:,} {name}" for name, number in ordered[:_LISTED_MAX])


def _name(text: str) -> str:
    """One line of at most 80 characters."""
    flat = _flat(text)
    return (flat if len(flat) <= _NAME_CHARS else f"{flat[: _NAME_CHARS - 1]}…") or _NO_NAME


def _escaped(text: str) -> str:
    """Slack reads mentions, channels and links only between < and >."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(text: str, chars: int = 2_900) -> dict[str, Any]:
    return {"type": "plain_text", "text": _flat(text)[:chars] or _NO_NAME, "emoji": False}


def _header(text: str) -> dict[str, Any]:
    return {"type": "header", "text": _plain(text, 150)}


def _flat(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _markup(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text[:1_900], "verbatim": True}
