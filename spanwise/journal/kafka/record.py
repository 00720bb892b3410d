"""What stands in a record beside its OTLP request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from spanwise import _native
from spanwise.model import Signal
from spanwise.stage import Frame

TENANT: Final = "spanwise-tenant"
RECEIVED: Final = "spanwise-received-unix-nano"
ITEMS: Final = "spanwise-items"
REASON: Final = "spanwise-reason"
SIGNAL: Final = "spanwise-signal"
TOPIC: Final = "spanwise-topic"
PARTITION: Final = "spanwise-partition"
OFFSET: Final = "spanwise-offset"

HEADER_BYTES_MAX: Final = 256
"""Of a value of ours; what others put there may be of any size."""

Headers = Sequence[tuple[str, bytes]]
_NO_LIMIT: Final = 1 << 62


class Record(NamedTuple):
    """One record of a topic, as far as it matters here."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    headers: Headers
    value: bytes


def headers(tenant: str, received_unix_nano: int, items: int) -> list[tuple[str, bytes]]:
    return [(TENANT, tenant.encode()), (RECEIVED, b"%d" % received_unix_nano), (ITEMS, b"%d" % items)]


def text(found: Headers, name: str) -> str:
    return next((value.decode("utf-8", "replace") for key, value in found if key == name and value is not None), "")


def number(found: Headers, name: str, default: int) -> int:
    written = text(found, name)
    return int(written) if written.isascii() and written.isdigit() and len(written) < 20 else default


def frame(record: Record, signal: Signal, foreign_tenant: str) -> Frame:
    """The request of a record, OTLP/JSON transcoded. Raises ValueError if it is neither that nor OTLP protobuf."""
    body = record.value
    tenant = text(record.headers, TENANT)
    if len(tenant) > HEADER_BYTES_MAX:
        raise ValueError(f"its tenant is {len(tenant)} bytes long")
    # no export request begins with this byte, which would open a group; every OTLP/JSON request does
    if body[:1] == b"{":
        body = _native.json_to_protobuf(signal, body)
    _native.inspect(signal, body, items_max=_NO_LIMIT, attributes_max=_NO_LIMIT)
    return Frame(
        seq=record.offset,
        tenant=tenant or foreign_tenant,
        received_unix_nano=min(number(record.headers, RECEIVED, record.timestamp_ms * 1_000_000), (1 << 63) - 1),
        signal=signal,
        items=number(record.headers, ITEMS, 0),
        body=body,
    )
