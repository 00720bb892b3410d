"""The native core: OTLP wire format in, Arrow out. All functions release the GIL and never raise on payload bytes
unless they say so."""

from collections.abc import Sequence
from typing import final

import pyarrow as pa

@final
class Inspection:
    """What a request holds, found by walking its wire format without decoding values."""

    items: int
    """Spans (traces) or log records (logs), including the ones in `rejects`."""
    attributes: int
    """Attributes of resources, scopes, spans, events and links together."""
    rejects: list[tuple[int, str]]
    """(index of the span in the request, reason) of spans that would be rejected; at most 100 are listed."""
    rejected: int
    repaired: int
    """Strings with invalid UTF-8, stored with U+FFFD in place of the bad bytes."""

def inspect(signal: str, body: bytes, *, items_max: int, attributes_max: int) -> Inspection:
    """Count and check a protobuf export request.

    Stops early and returns counts above the limits as soon as one is exceeded. Raises ValueError, saying at which
    byte, if the request as a whole is not a valid message.
    """

def cut_oversized(body: bytes, *, span_bytes_max: int) -> tuple[bytes, list[tuple[int, str, int, str]]]:
    """Cut the longest values of spans over `span_bytes_max` bytes, each to the same length.

    Returns the request (the same object if nothing was cut) and (span index, attribute key, original bytes, hash) of
    each cut value. The cut value is text that ends in `...[cut by spanwise: N bytes, xxh3 HASH]`. Values of events and
    links have keys like `events[0].exception.stacktrace`, fields of the span `name`, `trace_state`, `status.message`.
    Values of up to 1,024 bytes are never cut, so a span of very many of them stays larger. Raises ValueError if the
    request as a whole is not a valid message.
    """

def json_to_protobuf(signal: str, body: bytes) -> bytes:
    """Transcode an OTLP/JSON export request (hex ids, int64 as strings or numbers, enum names or numbers, unknown
    fields ignored) to protobuf.

    A span or log record with a field of the wrong type becomes one that `inspect` and `decode` reject, with a reason.
    Raises ValueError with the position if it is not JSON or not an export request.
    """

def split(
    signal: str, body: bytes, *, partitions: int, bytes_max: int
) -> tuple[list[tuple[int, int, bytes]], list[tuple[int, str, int, str]], list[int]]:
    """Split an export request for the partitions of a topic: encoded items are copied, resource and scope repeated.

    Returns (partition, items, request) of each part, at most `bytes_max` bytes long; the values that were cut because
    their item alone is larger, as `cut_oversized` does; and the indexes of items that do not fit even so and are left
    out. All items of a trace are in one partition, the one that Kafka's default partitioner gives to the 32 hex digits
    of the trace id as key; items without a valid trace id stay together. Raises ValueError like `inspect`.
    """

def partitions_of(trace_ids: Sequence[str], partitions: int) -> list[int]:
    """The partition of each trace, by its 32 lower-case hex digits."""

@final
class Decoded:
    spans: pa.RecordBatch
    content: pa.RecordBatch
    log_events: pa.RecordBatch
    rejects: list[tuple[int, int, str]]
    """(frame index, item index, reason), at most 1,000 listed."""
    rejected: int
    """Spans and log records left out; what follows an unreadable place of a frame counts as one."""
    ignored_logs: int
    """Log records without GenAI meaning."""

@final
class Decoder:
    """Decodes and normalises frames by a plan, see `processors.normalise.plan`."""

    def __init__(self, plan_json: bytes) -> None:
        """Raises ValueError naming the dialect and row if the plan is not valid."""
    def decode(self, frames: Sequence[tuple[str, int, str, bytes]]) -> Decoded:
        """(tenant, received_unix_nano, signal, body) of each frame; the same frames always give the same bytes.

        Raises ValueError only for a signal that is neither "traces" nor "logs" and for defects of ours.
        """

@final
class NativeBlocks:
    """Rewrites blocks of ClickHouse's Native format, as the embedded engine writes them, for a client's revision."""

    def __init__(self, revision: int) -> None: ...
    def feed(self, piece: bytes) -> bytes:
        """The blocks that are complete now. Raises ValueError naming the column whose type cannot be rewritten."""
    def finish(self) -> bytes:
        """The rest. Raises ValueError if it ends in the middle of a block."""

def compressed_frames(piece: bytes) -> bytes:
    """The piece in frames of ClickHouse's own compression (LZ4), as `compress=1` asks for."""
