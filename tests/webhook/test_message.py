"""What receivers get to read: all that matters of a finding, nothing of a payload, nothing that markup can abuse."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sinks.webhook import Alert, Message, WebhookConfig, compose
from tests.webhook.build import alert

DOCS = Path(__file__).parents[2] / "docs" / "webhooks.md"
TRACE_URL = "https://look.example.com/t/{tenant}/{trace_id}"
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def config(**options: Any) -> WebhookConfig:
    return WebhookConfig.model_validate({"name": "oncall", "url": "https://hooks.example.com/x", **options})


def slack(*alerts: Alert, **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(compose(alerts, config(**options), TRACE_URL).body)
    return body


def read_aloud(body: dict[str, Any]) -> list[str]:
    """Blocks as the kind and the texts in them."""
    lines = []
    for block in body["blocks"]:
        parts = (*block.get("fields", ()), *block.get("elements", ()), *filter(None, [block.get("text")]))
        lines.append(f"{block['type']}: " + " | ".join(part["text"].replace("\n", " ") for part in parts))
    return lines


def test_slack_is_told_what_matters_about_one_finding() -> None:
    body = slack(alert())
    assert body["text"] == (
        "[high] retry_loop.identical, agent buyer, tool search, model gpt-4o, service shop, count 4, "
        "wasted 12,345 tokens, 0.1250 USD"
    )
    assert read_aloud(body) == [
        "header: High: retry_loop.identical",
        "section: *Service* shop | *Agent* buyer 2 | *Tool* search | *Model* gpt-4o | *Tenant* default | *Count* 4 | "
        "*Wasted* 12,345 tokens, 0.1250 USD | *Basis* exact",
        "section: calls 4, seconds 1.5",
        f"context: <https://look.example.com/t/default/{alert().trace_id}|trace {alert().trace_id}> | "
        f"finding {alert().finding_id} | detected 2026-06-01T12:00:02Z",
    ]


def test_json_has_every_field_of_the_finding_and_the_link() -> None:
    body = json.loads(compose([alert()], config(format="json"), TRACE_URL).body)
    (finding,) = body["findings"]
    documented = json.loads(re.search(r"```json\n(.*?)```", DOCS.read_text(), re.DOTALL)[1])  # type: ignore[index]
    assert list(finding) == list(documented["findings"][0])
    assert finding["key"] == f"{alert().finding_id}-high"
    assert finding["trace_url"] == f"https://look.example.com/t/default/{alert().trace_id}"


def test_many_findings_are_one_message_with_the_worst_and_how_many_more() -> None:
    alerts = [alert(number, severity="critical" if number < 3 else "high") for number in range(1, 48)]
    body = slack(*alerts)
    assert body["text"] == "47 findings, the worst critical"
    assert body["blocks"][-1]["elements"][0]["text"] == "and 37 more: 47 retry_loop"
    assert len(body["blocks"]) <= 50
    everything = json.loads(compose(alerts, config(format="json"), "").body)
    assert [finding["finding_id"] for finding in everything["findings"]] == [one.finding_id for one in alerts]


def test_names_from_spans_cannot_mention_link_or_overflow() -> None:
    hostile = "<!channel> <https://evil.example|click> & \u202e\n" + "x" * 5_000
    body = slack(alert(service=hostile, agent_name=hostile, tool_name=hostile, model=hostile, agent_version=""))
    text = json.dumps(body)
    assert "<!channel" not in text
    assert "<https://evil" not in text
    assert "x" * 200 not in text
    assert "\\u202e" not in text
    for block in body["blocks"]:
        for part in (*block.get("fields", ()), *block.get("elements", ()), *filter(None, [block.get("text")])):
            assert len(part["text"]) <= 2_000
            assert part["type"] == "plain_text" or part["verbatim"]


@pytest.mark.parametrize("format_", ["slack", "json"])
def test_no_text_of_a_payload_is_sent_unless_asked_for(format_: str) -> None:
    quoting = alert(
        evidence={
            "calls": "4",
            "what": "secret words",
            f"input of {1:016x}": "secret words",
            "error of x": "secret words",
        }
    )
    assert b"secret words" not in compose([quoting], config(format=format_), "").body
    assert b"secret words" in compose([quoting], config(format=format_, excerpts=True), "").body


@pytest.mark.parametrize("count", [1, 2, 200])
def test_a_message_has_the_same_key_whenever_it_is_made_again(count: int) -> None:
    alerts = [alert(number) for number in range(count)]
    grown = [alert(number, count=99) for number in reversed(range(count))]
    assert compose(alerts, config(), "").key == compose(grown, config(), "").key
    worse = [alert(0, severity="critical"), *alerts[1:]]
    assert compose(worse, config(), "").key != compose(alerts, config(), "").key


# Signatures


def documented_check() -> Callable[..., bool]:
    """The receiver's side, as the documentation has it."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own page
    check: Callable[..., bool] = names["is_genuine"]
    return check


def signed(message: Message, secret: str = SECRET, *, now_s: int | None = None, tmp: Path) -> dict[str, str]:
    file = tmp / "secret"
    file.write_text(secret)
    keys = config(secret_file=file).read_keys()
    return message.headers(keys, now_s=int(time.time()) if now_s is None else now_s)


def test_the_documented_check_takes_what_we_sign_and_nothing_else(tmp_path: Path) -> None:
    is_genuine = documented_check()
    message = compose([alert()], config(), "")
    headers = signed(message, tmp=tmp_path)
    assert is_genuine(headers, message.body, SECRET)
    assert not is_genuine(headers, message.body.replace(b"buyer", b"buyes"), SECRET)
    assert not is_genuine(headers | {"webhook-id": "another"}, message.body, SECRET)
    assert not is_genuine(
        headers, message.body, "whsec_" + base64.b64encode(b"another secret of 32 bytes length").decode()
    )


def test_a_message_that_was_overheard_cannot_be_sent_again_later(tmp_path: Path) -> None:
    is_genuine = documented_check()
    message = compose([alert()], config(), "")
    old = int(time.time()) - 301
    headers = signed(message, now_s=old, tmp=tmp_path)
    assert not is_genuine(headers, message.body, SECRET)
    assert not is_genuine(headers | {"webhook-timestamp": str(int(time.time()))}, message.body, SECRET)


def test_a_secret_is_replaced_without_a_gap_by_signing_with_both(tmp_path: Path) -> None:
    is_genuine = documented_check()
    other = "whsec_" + base64.b64encode(b"another secret of 32 bytes length").decode()
    message = compose([alert()], config(), "")
    headers = signed(message, f"{SECRET}\n{other}\n", tmp=tmp_path)
    assert is_genuine(headers, message.body, SECRET)
    assert is_genuine(headers, message.body, other)


def test_the_signature_is_the_one_of_standard_webhooks() -> None:
    """Made with its reference implementation, `standardwebhooks` 1.0.0: `Webhook(secret).sign(id, time, body)`."""
    message = Message("msg_1", (alert(),), b'{"test": 2432232314}')
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = message.headers([key], now_s=1614265330)
    assert headers["webhook-signature"] == "v1,9o7UeFkn1GjVbcY4emAJruJCYqgH2EIf8u/slvVRBZI="


def test_without_a_secret_nothing_is_signed() -> None:
    assert "webhook-signature" not in compose([alert()], config(), "").headers([], now_s=1)


# Configuration


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://hooks.example.com/x"}, "not https; allow that with `allow_http: true`"),
        ({"url": "ftp://hooks.example.com/x"}, "write https://HOST/PATH"),
        ({"url": "https://hooks.example.com:port/"}, "is not a URL"),
        ({"url": None}, "exactly one of url, url_env or url_file"),
        ({"url_env": "X"}, "exactly one of url, url_env or url_file"),
        ({"secret_env": "X", "secret_file": "x"}, "not both"),
        ({"name": "On Call"}, "should match pattern"),
    ],
)
def test_a_wrong_webhook_is_refused_with_a_sentence_that_keeps_its_url_secret(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        config(**options)
    detail = caught.value.errors()[0]  # type: ignore[attr-defined]
    assert "hooks.example.com" not in detail["msg"]


@pytest.mark.parametrize(
    ("secret", "words"),
    [("whsec_***", "not base64"), ("sesame", "shorter than 16 bytes"), ("  \n", "empty or not set")],
)
def test_a_secret_that_cannot_be_used_is_named_not_shown(secret: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(secret)
    with pytest.raises(ValueError, match=words) as caught:
        config(secret_file=file).read_keys()
    assert secret.strip() not in str(caught.value) or not secret.strip()
