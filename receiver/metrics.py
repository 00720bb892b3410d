"""Counts the data points of a metrics request, which is all Spanwise does with them: it keeps no metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import orjson

_POINTS: Final = {5, 7, 9, 10, 11}
"""Fields of `Metric` that hold data points: gauge, sum, histogram, exponential histogram, summary."""
_KINDS: Final = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")


def count_protobuf(body: bytes, *, items_max: int) -> int:
    """Data points of an `ExportMetricsServiceRequest`; stops just above `items_max`. Raises ValueError if it is none.

    Messages at all levels are counted against the limit too, so that a body of empty ones costs no more.
    """
    view = memoryview(body)
    points = seen = 0
    pending: list[tuple[int, Iterator[tuple[int, memoryview]]]] = [(0, _messages(view))]
    while pending:
        level, fields = pending[-1]
        for field, message in fields:
            is_point = level == 4 and field == 1
            points += is_point
            seen += 1
            if seen > items_max * 4 or points > items_max:
                return items_max + 1
            wanted = (field == 1 if level == 0 else field == 2) if level < 3 else field in _POINTS
            if level < 4 and wanted:
                pending.append((level + 1, _messages(message)))
                break
        else:
            pending.pop()
    return points


def count_json(body: bytes) -> int:
    """Data points of an OTLP/JSON metrics request. Raises ValueError if it is none."""
    request = orjson.loads(body)
    points = 0
    try:
        for resource in request.get("resourceMetrics", ()):
            for scope in resource.get("scopeMetrics", ()):
                for metric in scope.get("metrics", ()):
                    points += sum(len(metric[kind].get("dataPoints", ())) for kind in _KINDS if kind in metric)
    except (AttributeError, TypeError):
        raise ValueError("not an OTLP/JSON metrics request") from None
    return points


def _messages(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        wire = key & 7
        if wire == 0:
            _, at = _varint(view, at)
        elif wire in {1, 5}:
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _varint(view, at)
            if at + size > len(view):
                raise ValueError("protobuf message is cut short")
            yield key >> 3, view[at : at + size]
            at += size
        else:
            raise ValueError("not a protobuf message")
        if at > len(view):
            raise ValueError("protobuf message is cut short")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise ValueError("protobuf message is cut short")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("not a protobuf message")
