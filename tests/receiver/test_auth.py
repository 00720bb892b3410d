"""Tokens: who gets in, and as whom."""

from __future__ import annotations

import hashlib

import pytest

from receiver.answer import Kind, RefusedError
from receiver.auth import Authenticator
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
