"""Tokens: who gets in, and as whom."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.answer import Kind, RefusedError
from receiver.auth import Authenticator, Tokens
from receiver.config import TokenConfig


def token(tenant: str, secret: str) -> TokenConfig:
    return TokenConfig(tenant=tenant, sha256=hashlib.sha256(secret.encode()).hexdigest())


AUTHENTICATOR = Authenticator([token("a", "old"), token("a", "new"), token("b", "other")])


@pytest.mark.parametrize(
    ("value", "tenant"),
    [("Bearer old", "a"), ("Bearer new", "a"), ("Bearer other", "b"), ("bearer other", "b"), ("BEARER  other ", "b")],
)
def test_each_live_token_names_its_tenant(value: str, tenant: str) -> None:
    assert AUTHENTICATOR.tenant([value]) == tenant


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        ["Bearer wrong"],
        ["Basic other"],
        ["other"],
        ["Bearer other\0"],
        ["Bearer \udcff"],
        ["Bearer other", "Bearer other"],
        ["Bearer " + hashlib.sha256(b"other").hexdigest()],
    ],
)
def test_anything_else_is_unauthenticated(values: list[str]) -> None:
    with pytest.raises(RefusedError) as refused:
        AUTHENTICATOR.tenant(values)
    assert refused.value.kind is Kind.UNAUTHENTICATED


def test_without_tokens_everybody_is_the_default_tenant() -> None:
    assert Authenticator([]).tenant([]) == Authenticator([]).tenant(["Bearer whatever"]) == "default"


# Tokens in files


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def linked(path: Path, text: str) -> Path:
    """As Kubernetes mounts a secret: a link that is exchanged."""
    target = written(path.with_name(f"{path.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"), text)
    fresh = path.with_name("fresh")
    fresh.symlink_to(target)
    fresh.replace(path)
    return path


@pytest.mark.parametrize("put", [written, linked])
def test_a_changed_file_changes_the_token_within_a_second(
    tmp_path: Path, clock: Clock, put: Callable[[Path, str], Path]
) -> None:
    file = put(tmp_path / "token", "old")
    tokens = Tokens([TokenConfig(tenant="a", file=file)], clock)
    put(file, "newer")
    clock.now = 1.1

    assert tokens.holder("Bearer newer") is not None
    assert tokens.holder("Bearer old") is None


@pytest.mark.parametrize("text", [None, "", "\udcff"])
def test_a_file_that_cannot_be_used_leaves_the_token_there_was(tmp_path: Path, clock: Clock, text: str | None) -> None:
    file = written(tmp_path / "token", "old")
    tokens = Tokens([TokenConfig(tenant="a", file=file)], clock)
    if text is None:
        file.unlink()
    else:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
    clock.now = 1.1

    assert tokens.holder("Bearer old") is not None

    written(file, "newest")
    clock.now = 2.2
    assert tokens.holder("Bearer newest") is not None


def test_a_file_that_takes_the_token_of_another_holder_is_not_used(tmp_path: Path, clock: Clock) -> None:
    file = written(tmp_path / "token", "old")
    tokens = Tokens([TokenConfig(tenant="a", file=file), token("b", "other")], clock)
    written(file, "other")
    clock.now = 1.1

    found = tokens.holder("Bearer other")

    assert found is not None
    assert found.tenant == "b"


def test_two_holders_with_one_token_stop_the_start() -> None:
    with pytest.raises(ValueError, match="tenant 'a' and tenant 'b' have the same token"):
        Authenticator([token("a", "same"), token("b", "same")])
