"""One trace with something of every kind that OTLP can say about a span."""

from __future__ import annotations

import json
from typing import Any

NOW_NS = 1_795_219_200_000_000_000
_LONG = "é" * 300


def value(**of: Any) -> dict[str, Any]:
    return of


def attribute(key: str, **of: Any) -> dict[str, Any]:
    return {"key": key, "value": of}


_NESTED = [
    attribute("a", intValue="-1"),
    attribute("a", stringValue="twice"),
    attribute("list", arrayValue={"values": [{"doubleValue": 1.0}, {"boolValue": False}, {}]}),
    attribute("long", stringValue=_LONG),
]
ATTRIBUTES = [
    attribute("text", stringValue='a "quoted"\n\u0001 line'),
    attribute("empty", stringValue=""),
    attribute("yes", boolValue=True),
    attribute("no", boolValue=False),
    attribute("int", intValue="-9223372036854775808"),
    attribute("double", doubleValue=1e22),
    attribute("whole double", doubleValue=3.0),
    attribute("nan", doubleValue="NaN"),
    attribute("infinite", doubleValue="-Infinity"),
    attribute("bytes", bytesValue="AAH/"),
    attribute("nothing"),
    attribute("list", arrayValue={"values": [{"stringValue": "x"}, {"intValue": "2"}]}),
    attribute("long list", arrayValue={"values": [{"stringValue": f"{n} {_LONG}"} for n in range(3)]}),
    attribute("map", kvlistValue={"values": _NESTED}),
    attribute("long text", stringValue=_LONG),
    attribute("spaced", stringValue=json.dumps([{"role": "user", "content": _LONG}] * 2)),
    attribute("compact", stringValue=json.dumps([{"role": "user", "content": _LONG}] * 2, separators=(",", ":"))),
]


def request(**changes: Any) -> bytes:
    """Spans of two resources, one scope with a version, attributes and a schema."""
    call = {
        "traceId": "5" * 32,
        "spanId": "2" * 16,
        "parentSpanId": "1" * 16,
        "traceState": "a=1,b=2",
        "flags": 257,
        "name": "chat",
        "kind": 3,
        "startTimeUnixNano": str(NOW_NS + 1),
        "endTimeUnixNano": str(NOW_NS + 1_000_001),
        "status": {"code": 2, "message": "too long"},
        "attributes": [
            attribute("gen_ai.operation.name", stringValue="chat"),
            attribute("gen_ai.request.model", stringValue="gpt-4o"),
            attribute("gen_ai.usage.input_tokens", intValue="1200"),
            attribute("gen_ai.usage.output_tokens", intValue="7"),
            attribute(
                "gen_ai.input.messages",
                stringValue=json.dumps([{"role": "user", "parts": [{"type": "text", "content": _LONG}]}]),
            ),
            *ATTRIBUTES,
        ],
        "events": [
            {"timeUnixNano": str(NOW_NS + 5), "name": "first", "attributes": ATTRIBUTES},
            {"timeUnixNano": str(NOW_NS + 6), "name": "second"},
        ],
        "links": [
            {
                "traceId": "6" * 32,
                "spanId": "7" * 16,
                "traceState": "c=3",
                "attributes": [attribute("long", stringValue=_LONG)],
            }
        ],
        "droppedAttributesCount": 1,
        "droppedEventsCount": 2,
        "droppedLinksCount": 3,
        **changes,
    }
    root = {"traceId": "5" * 32, "spanId": "1" * 16, "name": "agent", "startTimeUnixNano": str(NOW_NS)}
    root["endTimeUnixNano"] = str(NOW_NS - 5)  # a clock that went back
    timeless = {"traceId": "5" * 32, "spanId": "3" * 16, "name": "no time"}
    scope = {"name": "my.scope", "version": "1.2", "attributes": [attribute("tier", stringValue=_LONG)]}
    return json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {
                        "attributes": [
                            attribute("service.name", stringValue="shop"),
                            attribute("big", stringValue=_LONG),
                        ]
                    },
                    "scopeSpans": [
                        {
                            "scope": scope,
                            "schemaUrl": "https://opentelemetry.io/schemas/1.37.0",
                            "spans": [call, timeless],
                        }
                    ],
                },
                {"scopeSpans": [{"spans": [root]}]},
            ]
        }
    ).encode()
