"""Who is told about findings, and how."""

from __future__ import annotations

import base64
import binascii
import os
import re
import ssl
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

SEVERITIES: Final = ("info", "warning", "high", "critical")
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what comes before one
_KEY_BYTES_MIN: Final = 16


class WebhookConfig(BaseModel):
    """A receiver of findings over HTTP."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
        description="Name in metrics and logs, and the key under which it is kept what was sent. A new name starts "
        "with what is found from then on.",
    )
    url: SecretStr | None = Field(None, description="Where to POST. A Slack URL is a secret: prefer the next two.")
    url_env: str | None = Field(None, min_length=1, description="Environment variable that holds the URL.")
    url_file: Path | None = Field(None, description="File that holds the URL.")
    format: Literal["slack", "json"] = Field(
        "slack", description="`slack` is text and blocks, `json` the finding with all its fields."
    )
    secret_env: str | None = Field(
        None, min_length=1, description="Environment variable that holds the secret for signatures."
    )
    secret_file: Path | None = Field(
        None,
        description="File that holds the secret for signatures, read before each message. Two lines are two secrets, "
        "and messages are signed with both, so that one can be replaced without a gap.",
    )
    signatures: tuple[str, ...] = Field(
        (), description="Only findings of these, as `signature` or `signature.kind`. Empty: of all."
    )
    min_severity: Literal["info", "warning", "high", "critical"] = Field(
        "warning", description="Only findings this severe or worse."
    )
    tenants: tuple[str, ...] = Field((), description="Only findings of these tenants. Empty: of all.")
    excerpts: bool = Field(
        False, description="Send excerpts of inputs, outputs and errors too, as far as `detect.excerpts` keeps any."
    )
    messages_per_minute: int = Field(
        10, ge=1, le=600, description="Most messages; what is found beyond that is told together in one."
    )
    timeout_s: float = Field(10.0, gt=0, le=60, description="Longest wait for an answer, connecting included.")
    retry_max_s: float = Field(
        300.0, ge=1, le=3600, description="Longest pause between attempts, unless the receiver asks for a longer one."
    )
    give_up_after_h: float = Field(
        24.0, gt=0, le=24 * 14, description="A finding that could not be sent for this long is not sent any more."
    )
    allow_http: bool = Field(False, description="Allow a URL without TLS.")
    allow_private: bool = Field(False, description="Allow loopback, private and shared address ranges.")
    ca_file: Path | None = Field(
        None, description="PEM file with the authorities of its certificate, instead of the system's."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.url, self.url_env, self.url_file)) != 1:
            raise ValueError(f"give exactly one of url, url_env or url_file for webhook {self.name!r}")
        if self.secret_env is not None and self.secret_file is not None:
            raise ValueError(f"give secret_env or secret_file for webhook {self.name!r}, not both")
        if self.url is not None:
            self.checked_url(self.url.get_secret_value(), "url")
        return self

    def read_url(self) -> str:
        """Where to send. Raises ValueError if the variable, the file or the URL in it is wrong."""
        if self.url is not None:
            return self.url.get_secret_value()
        text, place = self._read("URL", self.url_env, self.url_file)
        return self.checked_url(text.strip(), place)

    def read_keys(self) -> list[bytes]:
        """Keys to sign with, none if messages are not signed. Raises ValueError if the variable or file is wrong."""
        if self.secret_env is None and self.secret_file is None:
            return []
        text, place = self._read("secret", self.secret_env, self.secret_file)
        return [self._key(line, place) for line in text.split()]

    def tls(self) -> ssl.SSLContext:
        """Whom to trust. Raises ValueError if `ca_file` cannot be used."""
        try:
            return ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        except OSError as error:
            raise ValueError(f"webhook {self.name!r}: cannot use ca_file {self.ca_file}: {error.strerror}") from None

    def checked_url(self, url: str, place: str) -> str:
        """The URL if it can be used. Raises ValueError that does not repeat it: it may be a secret."""
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise ValueError(f"webhook {self.name!r}: {place} is not a URL") from None
        if parts.scheme not in {"https", "http"} or not parts.hostname or re.search(r"[\s\x00-\x1f]", url):
            raise ValueError(f"webhook {self.name!r}: {place} is not a URL: write https://HOST/PATH")
        if parts.scheme == "http" and not self.allow_http:
            raise ValueError(f"webhook {self.name!r}: {place} is not https; allow that with `allow_http: true`")
        return url

    def _read(self, what: str, variable: str | None, file: Path | None) -> tuple[str, str]:
        if variable is not None:
            text, place = os.environ.get(variable, ""), f"environment variable {variable}"
        else:
            place = f"file {file}"
            try:
                text = Path(str(file)).read_text(encoding="utf-8")
            except OSError as error:
                raise ValueError(
                    f"webhook {self.name!r}: cannot read its {what} from {place}: {error.strerror}"
                ) from None
            except UnicodeDecodeError:
                raise ValueError(f"webhook {self.name!r}: {place} is not UTF-8 text") from None
        if not text.strip():
            raise ValueError(f"webhook {self.name!r}: {place} is empty or not set")
        return text, place

    def _key(self, secret: str, place: str) -> bytes:
        """As Standard Webhooks writes secrets; one without the prefix stands for its own bytes."""
        try:
            key = (
                base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
                if secret.startswith(SECRET_PREFIX)
                else secret.encode()
            )
        except (binascii.Error, ValueError):
            raise ValueError(f"webhook {self.name!r}: the secret of {place} is not base64 after whsec_") from None
        if len(key) < _KEY_BYTES_MIN:
            raise ValueError(f"webhook {self.name!r}: the secret of {place} is shorter than {_KEY_BYTES_MIN} bytes")
        return key


class AlertsConfig(BaseModel):
    """Who is told about findings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trace_url: str = Field(
        "",
        description="Where people look at a trace: a URL with `{trace_id}` in it, and `{tenant}` if needed. Messages "
        "link to it.",
    )
    poll_s: float = Field(
        10.0,
        gt=0,
        le=300,
        description="Seconds between two looks for what others found; what this process finds is sent at once.",
    )
    webhooks: tuple[WebhookConfig, ...] = Field((), max_length=20, description="Receivers of findings.")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [webhook.name for webhook in self.webhooks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"webhooks: two have the name {twice[0]!r}")
        return self

    @model_validator(mode="after")
    def _link_has_a_place(self) -> Self:
        if self.trace_url and (
            "{trace_id}" not in self.trace_url or not re.match(r"https?://[^\s<>|]+$", self.trace_url)
        ):
            raise ValueError("trace_url must be a http or https URL with {trace_id} in it")
        return self
