"""Somebody on call learns of a loop while it still runs."""

from __future__ import annotations

import time

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.running import RunningServer


def test_a_running_loop_is_reported_soon_after_its_third_call(server: RunningServer) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "looping"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"http://{server.grpc}", insecure=True)))
    tracer = provider.get_tracer("agents")

    def call(number: int) -> None:
        with tracer.start_as_current_span("execute_tool search") as span:
            span.set_attribute("gen_ai.operation.name", "execute_tool")
            span.set_attribute("gen_ai.tool.name", "search")
            span.set_attribute("gen_ai.tool.call.arguments", '{"query": "cats"}')
            span.set_attribute("gen_ai.tool.call.result", "Error: quota exceeded")
            span.set_attribute("gen_ai.tool.call.id", f"call-{number}")

    with tracer.start_as_current_span("invoke_agent buyer") as root:
        root.set_attribute("gen_ai.operation.name", "invoke_agent")
        root.set_attribute("gen_ai.agent.name", "buyer")
        for number in range(3):
            call(number)
        exported = time.monotonic()
        server.wait_for("SELECT count() FROM findings FINAL WHERE service = 'looping'", 1)
        waited = time.monotonic() - exported
        # the agent still runs: its own span has not ended
        assert server.count("SELECT count() FROM spans FINAL WHERE service = 'looping' AND kind = 'agent'") == 0
        print(f"a loop was reported {waited:.1f} s after its third call")
        call(3)
    provider.shutdown()

    server.wait_for("SELECT max(count) FROM findings FINAL WHERE service = 'looping'", 4)
    (row,) = server.sql("SELECT signature, kind, agent_name, tool_name FROM findings FINAL WHERE service = 'looping'")
    assert row == {"signature": "retry_loop", "kind": "identical", "agent_name": "buyer", "tool_name": "search"}
