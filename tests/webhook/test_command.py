"""`spanwise alerts test` says in a sentence whether a webhook works."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from spanwise.cli import app
from tests.webhook.receiver import Receiver, status


def run(tmp_path: Path, url: str, name: str = "oncall", options: str = "allow_private: true") -> Result:
    file = tmp_path / "spanwise.yaml"
    file.write_text(f"alerts: {{webhooks: [{{name: oncall, url: '{url}', allow_http: true, {options}}}]}}\n")
    return CliRunner().invoke(app, ["alerts", "test", name, "--config", str(file)])


def test_a_sample_is_sent_as_a_finding_would_be(tmp_path: Path) -> None:
    with Receiver() as receiver:
        result = run(tmp_path, receiver.url)
    assert (result.exit_code, result.output) == (0, "webhook 'oncall' took the message\n")
    (got,) = receiver.got
    assert got.json["text"].startswith("[high] retry_loop.identical, agent sample")


def test_a_refusal_is_a_sentence(tmp_path: Path) -> None:
    with Receiver(status(404)) as receiver:
        result = run(tmp_path, receiver.url)
    assert result.exit_code == 1
    assert "webhook 'oncall' did not take the message (http_404): it answered 404" in result.output


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("oncal", "allow_private: true", "there is no webhook 'oncal'; `alerts.webhooks` has oncall"),
        ("oncall", "secret_file: /nowhere", "cannot read its secret from file /nowhere: No such file or directory"),
        ("oncall", "allow_private: false", "its address is a private or loopback address, see `allow_private`"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, options: str, sentence: str) -> None:
    result = run(tmp_path, "http://127.0.0.1:1/", name, options)
    assert result.exit_code == 1
    assert sentence in result.output
