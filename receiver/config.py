"""What an operator can set on the receiver, and the start-up checks that need no socket."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MIB = 1 << 20


class Address(NamedTuple):
    """A listening address; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True only for addresses that cannot be reached from another machine; names other than localhost count as
        reachable because what they resolve to can change."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """Read `HOST:PORT` or `[IPv6]:PORT`. Raises ValueError naming what is wrong."""
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>\d{1,5})", text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{text!r} is not an address: write HOST:PORT, or [HOST]:PORT for IPv6")
    return Address(match["v6"] or match["host"], int(match["port"]))


def _checked_address(text: str) -> str:
    parse_address(text)
    return text


HostPort = Annotated[str, AfterValidator(_checked_address)]
TENANT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class SecretConfig(BaseModel):
    """Where a bearer token is found; the configuration itself need not hold it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the token, 64 lower-case hex digits: `printf %s TOKEN | sha256sum`.",
    )
    env: str | None = Field(default=None, min_length=1, description="Environment variable that holds the token itself.")
    file: Path | None = Field(
        default=None,
        description="File that holds the token itself; white space around it is ignored. Read again when it changes.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.sha256, self.env, self.file)) != 1:
            raise ValueError(f"give exactly one of sha256, env or file for the token of {self.owner}")
        return self

    @property
    def owner(self) -> str:
        """Whose token it is, for messages."""
        raise NotImplementedError

    def digest(self) -> bytes:
        """SHA-256 of the token. Raises ValueError if its variable or file is missing or empty."""
        if self.sha256 is not None:
            return bytes.fromhex(self.sha256)
        if self.env is not None:
            token, place = os.environ.get(self.env, ""), f"environment variable {self.env}"
        else:
            assert self.file is not None  # noqa: S101 - the validator has seen to it
            place = f"file {self.file}"
            try:
                token = self.file.read_text(encoding="utf-8")
            except OSError as error:
                raise ValueError(f"cannot read the token of {self.owner} from {place}: {error.strerror}") from None
            except UnicodeDecodeError:
                raise ValueError(f"cannot read the token of {self.owner} from {place}: it is not UTF-8 text") from None
        if not token.strip():
            raise ValueError(f"cannot read the token of {self.owner}: {place} is empty or not set")
        return hashlib.sha256(token.strip().encode()).digest()


class TokenConfig(SecretConfig):
    """One bearer token: whose data it carries and where the token is found."""

    tenant: str = Field(
        pattern=TENANT_PATTERN,
        description="Tenant that everything sent with this token belongs to.",
    )

    @property
    def owner(self) -> str:
        return f"tenant {self.tenant!r}"


class TlsConfig(BaseModel):
    """Certificates for both listeners; TLS 1.2 is the oldest version spoken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cert: Path = Field(description="PEM file with the server certificate and its chain.")
    key: Path = Field(description="PEM file with the private key of `cert`.")
    client_ca: Path | None = Field(
        default=None,
        description="PEM file with the authorities of client certificates. Set, it makes them mandatory (mTLS).",
    )
    look_every_s: float = Field(
        default=10,
        gt=0,
        description="Seconds between two looks at the files. Changed ones are used for new connections; as long as "
        "they do not fit each other the old ones stay.",
    )


class LimitsConfig(BaseModel):
    """Where the receiver stops: sizes, counts and times that a sender cannot exceed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_bytes_max: int = Field(
        default=64 * MIB, ge=1024, description="Bytes of one request, as sent and after decompression."
    )
    span_bytes_max: int = Field(
        default=16 * MIB, ge=1024, description="Bytes of one span; the longest values of a bigger one are cut."
    )
    items_max: int = Field(default=100_000, ge=1, description="Spans, log records or data points in one request.")
    attributes_max: int = Field(
        default=1_000_000, ge=1, description="Attributes in one request, at all levels together."
    )
    in_flight_bytes_max: int = Field(
        default=256 * MIB, ge=1024, description="Bytes of all requests that are being read or made durable."
    )
    waiting_bytes_max: int = Field(
        default=128 * MIB, ge=0, description="Bytes of requests that may wait for room; more are refused at once."
    )
    wait_s: float = Field(
        default=0.08, ge=0, le=1, description="Seconds a request may wait for room before it is refused, newest first."
    )
    connections_max: int = Field(default=1000, ge=1, description="Open connections of each listener.")
    header_timeout_s: float = Field(
        default=10, gt=0, description="Seconds a connection may take to shake hands and to send its request headers."
    )
    body_timeout_s: float = Field(
        default=30,
        gt=0,
        description="Seconds a request body may take. One that falls far behind that pace is refused earlier.",
    )
    idle_timeout_s: float = Field(
        default=75, gt=0, description="Seconds an HTTP connection may stay open between requests."
    )
    connection_age_s: float = Field(
        default=300,
        ge=0,
        description="Seconds after which a connection is ended in good order, so that senders spread over receivers "
        "that were added; 0 for never.",
    )
    ack_timeout_s: float = Field(
        default=4,
        gt=0,
        description="Seconds the journal may take before the sender is told to try again. Shorter than the timeout of "
        "common exporters (5 s in the Collector, 10 s in the SDKs).",
    )

    @model_validator(mode="after")
    def _request_fits(self) -> Self:
        if self.request_bytes_max > self.in_flight_bytes_max:
            raise ValueError(
                f"limits.in_flight_bytes_max ({self.in_flight_bytes_max}) is below limits.request_bytes_max "
                f"({self.request_bytes_max}): the biggest request could never be admitted"
            )
        return self


class ReceiverConfig(BaseModel):
    """OTLP over gRPC and HTTP: where to listen, whom to trust, where to stop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grpc: HostPort = Field(
        default="127.0.0.1:4317", description="HOST:PORT for OTLP/gRPC; port 0 lets the system choose."
    )
    http: HostPort = Field(
        default="127.0.0.1:4318", description="HOST:PORT for OTLP/HTTP; port 0 lets the system choose."
    )
    tokens: tuple[TokenConfig, ...] = Field(
        default=(),
        description="Bearer tokens. Empty: no token is asked for and everything belongs to the tenant `default`. Two "
        "tokens per tenant may live side by side, so that one can be replaced without a gap.",
    )
    tls: TlsConfig | None = Field(
        default=None, description="Certificates; without them the listeners speak plain text."
    )
    insecure: bool = Field(
        default=False, description="Allow listening beyond this machine without tokens and without client certificates."
    )
    reflection: bool = Field(default=False, description="Serve gRPC reflection, for tools such as grpcurl.")
    cors_origins: tuple[str, ...] = Field(
        default=(), description="Web origins whose pages may send over HTTP, for instance `https://app.example.com`."
    )
    drain_s: float = Field(
        default=5, ge=0, description="Seconds that requests already admitted get to finish when the program stops."
    )
    limits: LimitsConfig = Field(default=LimitsConfig(), description="Where the receiver stops.")

    @model_validator(mode="after")
    def _two_tokens_a_tenant(self) -> Self:
        tenants = [token.tenant for token in self.tokens]
        for tenant in tenants:
            if tenants.count(tenant) > 2:
                raise ValueError(f"tokens: tenant {tenant!r} has more than two; remove the one that was replaced")
        return self

    @model_validator(mode="after")
    def _guarded_beyond_loopback(self) -> Self:
        guarded = self.insecure or self.tokens or (self.tls is not None and self.tls.client_ca is not None)
        for option in ("grpc", "http"):
            address: str = getattr(self, option)
            if not guarded and not parse_address(address).is_loopback:
                raise ValueError(
                    f"{option}: {address} can be reached from other machines and nobody is asked who they are; set "
                    "`tokens`, or `tls.client_ca`, or allow it with `insecure: true` (--insecure)"
                )
        return self
