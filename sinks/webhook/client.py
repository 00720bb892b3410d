"""One POST to one receiver, within a deadline, to an address that is allowed, following nothing.

Proxies of the environment are not used: through one the address could not be judged.
"""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from dataclasses import dataclass
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver

from sinks.webhook.address import RefusedAddressError, guarded_socket
from sinks.webhook.config import WebhookConfig
from sinks.webhook.message import Message

_RETRY_AFTER_MAX_S: Final = 3600.0
_REJECTED: Final = frozenset({400, 413, 414, 415, 422})
"""This message will never be taken. Other refusals (401, 404, 410 ...) are about the receiver, and somebody may mend
them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt. `reason` is a fixed word, or `http_` and the status; '' if it was taken."""

    reason: str = ""
    rejected: bool = False
    """It will never be taken."""
    retry_after_s: float = 0.0
    """How long the receiver asks to be left alone."""
    hint: str = ""
    """For people: what is wrong, never an address or text of the answer."""

    @property
    def taken(self) -> bool:
        return not self.reason


class WebhookClient:
    """Sends messages of one webhook. Raises ValueError from `open` if its URL or certificates cannot be used."""

    def __init__(self, config: WebhookConfig, *, resolver: AbstractResolver | None = None) -> None:
        self._config = config
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> Self:
        config = self._config
        config.read_url()
        config.read_keys()
        tls: ssl.SSLContext = await asyncio.to_thread(config.tls)
        connector = aiohttp.TCPConnector(
            ssl=tls,
            limit=1,
            force_close=True,
            use_dns_cache=False,
            resolver=self._resolver,
            socket_factory=guarded_socket(allow_private=config.allow_private),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=config.timeout_s),
            headers={"User-Agent": "spanwise"},
        )
        return self

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, message: Message) -> Outcome:
        """Try once. Raises nothing that a receiver, a resolver or a file with a secret can cause."""
        assert self._session is not None  # noqa: S101 - opened first
        try:
            url = self._config.read_url()
            headers = message.headers(self._config.read_keys(), now_s=int(time.time()))
        except ValueError as error:
            return Outcome("config", hint=str(error))
        try:
            async with self._session.post(url, data=message.body, headers=headers, allow_redirects=False) as response:
                return _outcome(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return self._trouble(error)

    def _trouble(self, error: Exception) -> Outcome:
        match error:
            case TimeoutError():
                reason, hint = "timeout", f"no answer within {self._config.timeout_s:g} s"
            case aiohttp.ClientConnectorCertificateError():
                reason, hint = "tls", "its certificate is not trusted"
            case aiohttp.ClientConnectorSSLError():
                reason, hint = "tls", "no TLS connection could be made"
            case aiohttp.ClientConnectorDNSError():
                reason, hint = "dns", "its name cannot be resolved"
            case aiohttp.ClientConnectorError(os_error=RefusedAddressError() as cause):
                reason, hint = "address_refused", f"its address is {cause.strerror}, see `allow_private`"
            case aiohttp.ClientConnectorError(os_error=cause):
                reason, hint = "connect", f"no connection: {cause.strerror or type(cause).__name__}"
            case _:
                reason, hint = "connection", type(error).__name__
        return Outcome(reason, hint=hint)


def _outcome(response: aiohttp.ClientResponse) -> Outcome:
    status = response.status
    if 200 <= status < 300:
        return Outcome()
    hint = f"it answered {status}"
    if 300 <= status < 400:
        hint += ", and redirects are not followed"
    return Outcome(
        f"http_{status}",
        rejected=status in _REJECTED,
        retry_after_s=_retry_after(response.headers.get("Retry-After", "")),
        hint=hint,
    )


def _retry_after(text: str) -> float:
    """Seconds, of a header that has seconds or a date; 0 if it has neither. An hour at most."""
    if text.strip().isdecimal():
        return min(float(text[:9]), _RETRY_AFTER_MAX_S)
    try:
        at = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return 0.0
    if at.tzinfo is None:
        return 0.0
    return min(max(0.0, at.timestamp() - time.time()), _RETRY_AFTER_MAX_S)
