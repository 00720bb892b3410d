"""Who is sending: a bearer token names its tenant."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from receiver.answer import Kind, RefusedError
from receiver.config import TokenConfig

TENANT_DEFAULT = "default"


class Authenticator:
    """Maps an `authorization` value to a tenant. Raises ValueError at construction if a token cannot be read.

    Digests are compared, each in constant time and all of them always, so that neither the length nor the beginning of
    a token can be found by timing.
    """

    def __init__(self, tokens: Iterable[TokenConfig]) -> None:
        self._digests = [(token.digest(), token.tenant) for token in tokens]
        seen: dict[bytes, str] = {}
        for digest, tenant in self._digests:
            if seen.setdefault(digest, tenant) != tenant:
                raise ValueError(f"tokens: tenants {seen[digest]!r} and {tenant!r} have the same token")

    def tenant(self, values: list[str]) -> str:
        """Tenant of a request with these `authorization` values. Raises RefusedError if none of the tokens fits."""
        if not self._digests:
            return TENANT_DEFAULT
        found = None
        if len(values) == 1:
            scheme, _, token = values[0].partition(" ")
            presented = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
            for digest, tenant in self._digests:
                if hmac.compare_digest(digest, presented) and scheme.lower() == "bearer":
                    found = tenant
        if found is None:
            raise RefusedError(
                Kind.UNAUTHENTICATED,
                "unauthenticated",
                "send a valid token in the header `authorization: Bearer TOKEN`",
            )
        return found
