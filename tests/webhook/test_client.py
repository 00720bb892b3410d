"""One attempt ends in time and says what became of it, whatever is at the other end."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult

from sinks.webhook import Outcome, WebhookClient, WebhookConfig, compose
from tests.webhook.build import alert
from tests.webhook.receiver import Got, Receiver, status


class Names(AbstractResolver):
    """Answers each question with the next list of addresses, as a name does that is made to rebind."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in self.answers.pop(0)
        ]

    async def close(self) -> None:
        pass


def send(url: str, *, times: int = 1, resolver: AbstractResolver | None = None, **options: Any) -> list[Outcome]:
    """Make attempts with one client and return what became of each."""
    defaults = {"name": "oncall", "url": url, "allow_http": True, "allow_private": True, "timeout_s": 20}
    config = WebhookConfig.model_validate(defaults | options)
    message = compose([alert()], config, "")

    async def attempts() -> list[Outcome]:
        client = await WebhookClient(config, resolver=resolver).open()
        try:
            return [await client.send(message) for _ in range(times)]
        finally:
            await client.close()

    return asyncio.run(attempts())


def test_a_message_is_posted_with_its_headers() -> None:
    with Receiver() as receiver:
        assert send(receiver.url) == [Outcome()]
    (got,) = receiver.got
    assert got.path == "/hook"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["idempotency-key"] == got.headers["webhook-id"] == f"{alert().finding_id}-high"
    assert got.headers["x-spanwise-finding-id"] == alert().finding_id


@pytest.mark.parametrize(
    ("code", "rejected"),
    [(400, True), (422, True), (413, True), (401, False), (404, False), (410, False), (429, False), (500, False)],
)
def test_a_refusal_says_whether_it_is_for_good(code: int, rejected: bool) -> None:
    with Receiver(status(code)) as receiver:
        (outcome,) = send(receiver.url)
    assert (outcome.reason, outcome.rejected) == (f"http_{code}", rejected)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (lambda: "7", 7, 7),
        (lambda: email.utils.formatdate(time.time() + 60, usegmt=True), 55, 61),
        (lambda: email.utils.formatdate(time.time() - 60, usegmt=True), 0, 0),
        (lambda: "999999999999", 3600, 3600),
        (lambda: "soon", 0, 0),
    ],
    ids=["seconds", "a date", "a date gone by", "years", "nonsense"],
)
def test_retry_after_is_read_and_has_an_end(value: Callable[[], str], low: float, high: float) -> None:
    with Receiver(status(429, Retry_After=value())) as receiver:
        (outcome,) = send(receiver.url)
    assert low <= outcome.retry_after_s <= high


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(code: int) -> None:
    with Receiver() as elsewhere, Receiver(status(code, Location=elsewhere.url)) as receiver:
        (outcome,) = send(receiver.url)
    assert (outcome.reason, outcome.rejected) == (f"http_{code}", False)
    assert elsewhere.connections == 0


@pytest.mark.parametrize("behaviour", ["hang", "drip"])
def test_a_receiver_that_never_answers_costs_the_timeout_and_no_more(behaviour: str) -> None:
    with Receiver() as receiver:
        receiver.answers.append(getattr(receiver, behaviour))
        (outcome,) = send(receiver.url, timeout_s=0.3)
    assert outcome.reason == "timeout"


def test_an_endless_answer_is_not_read() -> None:
    def endless(handler: Any, _: Got) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65_536)

    with Receiver(endless) as receiver:
        assert send(receiver.url) == [Outcome()]


def test_nobody_there_is_a_failure_with_a_word_for_it() -> None:
    with Receiver() as receiver:
        url = receiver.url
    assert send(url)[0].reason == "connect"


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert send(receiver.url) == [Outcome()]
    assert proxy.connections == 0
    assert len(receiver.got) == 1


# Addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]"])
def test_no_connection_is_made_to_this_machine_however_it_is_written(host: str) -> None:
    with Receiver() as receiver:
        (outcome,) = send(f"http://{host}:{receiver.port}/", allow_private=False)
    assert not outcome.taken
    assert receiver.connections == 0


def test_a_name_that_rebinds_between_attempts_is_refused_when_it_turns_private() -> None:
    """The name is looked up once an attempt, and what is judged is what the socket is made for."""
    names = Names(["127.0.0.1"], ["::ffff:127.0.0.1", "127.0.0.1"], ["64:ff9b::7f00:1"])
    with Receiver() as receiver:
        outcomes = send(f"http://hooks.example.com:{receiver.port}/", times=3, resolver=names, allow_private=False)
    assert [outcome.reason for outcome in outcomes] == ["address_refused"] * 3
    assert names.asked == 3
    assert receiver.connections == 0


def test_the_same_name_works_where_private_addresses_are_allowed() -> None:
    names = Names(["127.0.0.1"])
    with Receiver() as receiver:
        assert send(f"http://hooks.example.com:{receiver.port}/", resolver=names) == [Outcome()]
    assert receiver.connections == 1


def test_of_several_addresses_of_a_name_only_allowed_ones_are_tried() -> None:
    names = Names(["169.254.169.254", "127.0.0.1"])
    with Receiver() as receiver:
        assert send(f"http://hooks.example.com:{receiver.port}/", resolver=names) == [Outcome()]


# TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def serving(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def test_https_with_a_trusted_certificate_is_taken(authority: trustme.CA, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    with Receiver(tls=serving(authority, "127.0.0.1")) as receiver:
        assert send(receiver.url, ca_file=file, allow_http=False) == [Outcome()]
    assert len(receiver.got) == 1


def test_a_certificate_nobody_vouches_for_or_of_another_name_gets_no_message(
    authority: trustme.CA, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    with Receiver(tls=serving(authority, "127.0.0.1")) as receiver:
        assert send(receiver.url)[0].reason == "tls"
    with Receiver(tls=serving(authority, "hooks.example.com")) as receiver:
        assert send(receiver.url, ca_file=file)[0].reason == "tls"
    assert receiver.got == []


def test_a_secret_that_disappears_is_an_outcome_not_an_exception(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    config = WebhookConfig(name="oncall", url_env="SPANWISE_TEST_HOOK", secret_file=file)

    async def attempt() -> Outcome:
        client = await WebhookClient(config).open()
        file.unlink()
        try:
            return await client.send(compose([alert()], config, ""))
        finally:
            await client.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPANWISE_TEST_HOOK", "https://hooks.example.com/")
        outcome = asyncio.run(attempt())
    assert (outcome.reason, outcome.rejected) == ("config", False)
