"""Stands in for `spanwise._native` until it is built."""

from __future__ import annotations

import json as jsonlib
from types import SimpleNamespace

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def inspect(signal, body, *, items_max, attributes_max):
    try:
        if signal == "traces":
            request = ExportTraceServiceRequest.FromString(body)
            spans = [s for r in request.resource_spans for sc in r.scope_spans for s in sc.spans]
        else:
            request = ExportLogsServiceRequest.FromString(body)
            spans = [s for r in request.resource_logs for sc in r.scope_logs for s in sc.log_records]
    except DecodeError as e:
        raise ValueError("not a valid message at byte 0") from e
    rejects = (
        [(i, "trace id is not 16 bytes") for i, s in enumerate(spans) if len(s.trace_id) != 16]
        if signal == "traces"
        else []
    )
    return SimpleNamespace(
        items=len(spans),
        attributes=sum(len(s.attributes) for s in spans),
        rejects=rejects[:100],
        rejected=len(rejects),
        repaired=0,
    )


def cut_oversized(body, *, span_bytes_max):
    return body, []


def json_to_protobuf(signal, body):
    import base64

    kind = ExportTraceServiceRequest if signal == "traces" else ExportLogsServiceRequest
    try:
        doc = jsonlib.loads(body)
        for r in doc.get("resourceSpans", []):
            for s in r.get("scopeSpans", []):
                for sp in s.get("spans", []):
                    for k in ("traceId", "spanId", "parentSpanId"):
                        if k in sp:
                            sp[k] = base64.b64encode(bytes.fromhex(sp[k])).decode()
        return json_format.ParseDict(doc, kind(), ignore_unknown_fields=True).SerializeToString()
    except Exception as e:
        raise ValueError("not an export request") from e
