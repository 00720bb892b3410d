"""Who is there: a bearer token names its holder. Tokens kept in files are read again when the files change."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from receiver.answer import Kind, RefusedError
from receiver.config import SecretConfig, TokenConfig

log = structlog.get_logger(__name__)

TENANT_DEFAULT = "default"
_LOOK_EVERY_S: Final = 1.0

Holder = TypeVar("Holder", bound=SecretConfig)
Signature = tuple[int, int, int]


def signature(path: Path) -> Signature | None:
    """Changes when the file, or what a link to it points at, is written or replaced. None: it cannot be seen."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


class Tokens(Generic[Holder]):
    """Finds the holder of a bearer token. Raises ValueError at construction if a token cannot be read, or two holders
    have the same.

    Digests are compared, each in constant time and all of them always, so that neither the length nor the beginning of
    a token can be found by timing. Files are looked at once a second at the most, when somebody asks; one that cannot
    be used leaves the token that was read before.
    """

    def __init__(self, holders: Sequence[Holder], clock: Callable[[], float] = time.monotonic) -> None:
        self._holders = holders
        self._clock = clock
        self._looking = threading.Lock()
        self._signatures = self._look()
        self._looked_s = clock()
        self._digests = [holder.digest() for holder in holders]
        self._refuse_repeated(self._digests)

    def __bool__(self) -> bool:
        """Whether a token is asked for at all."""
        return bool(self._holders)

    def holder(self, authorization: str) -> Holder | None:
        """Whose token the value of an `authorization` header is."""
        self._refresh()
        scheme, _, token = authorization.partition(" ")
        presented = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        found = [
            holder
            for holder, digest in zip(self._holders, self._digests, strict=True)
            if hmac.compare_digest(digest, presented)
        ]
        return found[0] if found and scheme.lower() == "bearer" else None

    def _look(self) -> list[Signature | None]:
        return [signature(holder.file) if holder.file else None for holder in self._holders]

    def _refresh(self) -> None:
        if self._clock() - self._looked_s < _LOOK_EVERY_S or not self._looking.acquire(blocking=False):
            return
        try:
            self._looked_s = self._clock()
            now = self._look()
            if now == self._signatures:
                return
            digests = [
                self._digest(holder, before) for holder, before in zip(self._holders, self._digests, strict=True)
            ]
            self._refuse_repeated(digests)
            self._signatures, self._digests = now, digests
            log.info("tokens_read_again")
        except ValueError as error:
            self._signatures = now
            log.warning("tokens_not_read_again", error=str(error))
        finally:
            self._looking.release()

    @staticmethod
    def _digest(holder: Holder, before: bytes) -> bytes:
        if holder.file is None:
            return before
        try:
            return holder.digest()
        except ValueError as error:
            log.warning("token_not_read_again", error=str(error))
            return before

    def _refuse_repeated(self, digests: Sequence[bytes]) -> None:
        seen: dict[bytes, str] = {}
        for holder, digest in zip(self._holders, digests, strict=True):
            if seen.setdefault(digest, holder.owner) != holder.owner:
                raise ValueError(f"tokens: {seen[digest]} and {holder.owner} have the same token")


class Authenticator:
    """Maps an `authorization` value to a tenant. Raises ValueError at construction if a token cannot be used."""

    def __init__(self, tokens: Sequence[TokenConfig]) -> None:
        self._tokens = Tokens(tokens)

    def tenant(self, values: list[str]) -> str:
        """Tenant of a request with these `authorization` values. Raises RefusedError if none of the tokens fits."""
        if not self._tokens:
            return TENANT_DEFAULT
        holder = self._tokens.holder(values[0]) if len(values) == 1 else None
        if holder is None:
            raise RefusedError(
                Kind.UNAUTHENTICATED,
                "unauthenticated",
                "send a valid token in the header `authorization: Bearer TOKEN`",
            )
        return holder.tenant
