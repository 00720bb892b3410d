"""Wrong configuration stops the start with a sentence that names the option."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from receiver import Receiver, ReceiverConfig
from receiver.config import LimitsConfig, TlsConfig, TokenConfig, parse_address
from tests.receiver.doubles import MemoryJournal

DIGEST = hashlib.sha256(b"secret").hexdigest()
TLS = {"cert": "cert.pem", "key": "key.pem"}


def problem(**options: Any) -> str:
    with pytest.raises(ValidationError) as error:
        ReceiverConfig.model_validate(options)
    return str(error.value)


@pytest.mark.parametrize("option", ["grpc", "http"])
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.168.1.5", "example.com", "[2001:db8::1]"])
def test_listening_beyond_loopback_without_a_guard_stops_the_start(option: str, host: str) -> None:
    sentence = problem(**{option: f"{host}:4317"})

    assert f"{option}: {host}:4317 can be reached from other machines" in sentence
    assert all(name in sentence for name in ("tokens", "tls.client_ca", "insecure"))


@pytest.mark.parametrize(
    "guard",
    [
        {"insecure": True},
        {"tokens": [{"tenant": "a", "sha256": DIGEST}]},
        {"tls": {**TLS, "client_ca": "ca.pem"}},
    ],
)
def test_any_of_the_three_guards_allows_it(guard: dict[str, Any]) -> None:
    ReceiverConfig.model_validate({"grpc": "0.0.0.0:4317", "http": "[::]:4318", **guard})


def test_a_server_certificate_alone_asks_nobody_who_they_are() -> None:
    assert "can be reached" in problem(grpc="0.0.0.0:4317", tls=TLS)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]"])
def test_loopback_needs_no_guard(host: str) -> None:
    ReceiverConfig.model_validate({"grpc": f"{host}:0", "http": f"{host}:0"})


@pytest.mark.parametrize(
    "text", ["4317", "host", "host:", ":4317", "host:65536", "::1:4317", "[::1]", "a b:1", "[x]:1"]
)
def test_what_is_not_an_address_is_said_so(text: str) -> None:
    assert "is not an address: write HOST:PORT" in problem(grpc=text)


@pytest.mark.parametrize("text", ["127.0.0.1:4317", "[::1]:0", "localhost:65535"])
def test_addresses_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_address(text)) == text


def test_a_third_token_of_a_tenant_is_one_too_many() -> None:
    tokens = [{"tenant": "a", "sha256": f"{number:064x}"} for number in range(3)]

    ReceiverConfig.model_validate({"tokens": tokens[:2]})
    assert "tenant 'a' has more than two" in problem(tokens=tokens)


@pytest.mark.parametrize("sources", [{}, {"sha256": DIGEST, "env": "TOKEN"}, {"env": "TOKEN", "file": "token"}])
def test_a_token_has_exactly_one_source(sources: dict[str, str]) -> None:
    assert "exactly one of sha256, env or file" in problem(tokens=[{"tenant": "a", **sources}])


def test_tokens_come_from_digests_variables_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("SENDER_TOKEN", "secret")

    for source in ({"sha256": DIGEST}, {"env": "SENDER_TOKEN"}, {"file": tmp_path / "token"}):
        assert TokenConfig.model_validate({"tenant": "a", **source}).digest().hex() == DIGEST


def test_a_token_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for source, sentence in (
        ({"env": "SPANWISE_NO_SUCH_VARIABLE"}, "environment variable SPANWISE_NO_SUCH_VARIABLE is empty or not set"),
        ({"file": tmp_path / "missing"}, "No such file"),
        ({"file": tmp_path / "empty"}, "is empty or not set"),
    ):
        config = ReceiverConfig.model_validate({"tokens": [{"tenant": "a", **source}]})
        with pytest.raises(ValueError, match=sentence):
            Receiver(config, MemoryJournal())


def test_one_token_cannot_belong_to_two_tenants() -> None:
    config = ReceiverConfig.model_validate(
        {"tokens": [{"tenant": "a", "sha256": DIGEST}, {"tenant": "b", "sha256": DIGEST}]}
    )
    with pytest.raises(ValueError, match="tenant 'a' and tenant 'b' have the same token"):
        Receiver(config, MemoryJournal())


def test_a_budget_below_one_request_is_refused() -> None:
    assert "limits.in_flight_bytes_max" in problem(limits={"in_flight_bytes_max": 1 << 20})


def test_unknown_options_are_refused() -> None:
    assert "tokenz" in problem(tokenz=[])
    assert "limits.request_byte_max" in problem(limits={"request_byte_max": 1})


@pytest.mark.parametrize("model", [ReceiverConfig, LimitsConfig, TlsConfig, TokenConfig])
def test_every_option_is_described(model: type[BaseModel]) -> None:
    assert [name for name, option in model.model_fields.items() if not option.description] == []


def test_the_defaults_are_the_promised_limits() -> None:
    limits = ReceiverConfig().limits
    assert (limits.request_bytes_max, limits.span_bytes_max, limits.in_flight_bytes_max) == (
        64 << 20,
        16 << 20,
        256 << 20,
    )
    assert (limits.items_max, limits.attributes_max, limits.connections_max) == (100_000, 1_000_000, 1_000)
    assert (limits.header_timeout_s, limits.body_timeout_s) == (10, 30)
