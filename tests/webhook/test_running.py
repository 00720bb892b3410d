"""A real server tells a real receiver while traces go on, whatever dies in between."""

from __future__ import annotations

import json
from pathlib import Path

import urllib3
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.running import RunningServer
from tests.webhook.receiver import Receiver


def loop(server: RunningServer, service: str) -> None:
    """An agent that calls a tool three times in the same way."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{server.http}/v1/traces")))
    tracer = provider.get_tracer("agents")
    with tracer.start_as_current_span("invoke_agent buyer") as root:
        root.set_attribute("gen_ai.operation.name", "invoke_agent")
        root.set_attribute("gen_ai.agent.name", "buyer")
        for number in range(3):
            with tracer.start_as_current_span("execute_tool search") as span:
                span.set_attribute("gen_ai.operation.name", "execute_tool")
                span.set_attribute("gen_ai.tool.name", "search")
                span.set_attribute("gen_ai.tool.call.arguments", '{"query": "cats"}')
                span.set_attribute("gen_ai.tool.call.result", "Error: quota exceeded")
                span.set_attribute("gen_ai.tool.call.id", f"call-{number}")
    provider.shutdown()


def test_a_finding_reaches_the_webhook_through_kill_9_between_its_answer_and_the_record_of_it(tmp_path: Path) -> None:
    with Receiver() as receiver:
        (tmp_path / "secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        oncall = {"name": "oncall", "url": receiver.url, "format": "json", "allow_http": True, "allow_private": True}
        oncall |= {"timeout_s": 60, "signatures": ["retry_loop"], "secret_file": str(tmp_path / "secret")}
        inside = {"name": "inside", "url": "http://127.0.0.1:1/secret-path", "allow_http": True}
        webhooks = json.dumps([oncall, inside])
        server = RunningServer(tmp_path / "data", SPANWISE_ALERTS__WEBHOOKS=webhooks)
        server.start()
        try:
            # Detection does not wait: a second failure is found while the message about the first one hangs.
            receiver.answers.append(receiver.hang)
            loop(server, "first")
            (taken,) = receiver.wait_for(1)
            loop(server, "second")
            server.wait_for("SELECT uniqExact(trace_id) FROM findings FINAL WHERE signature = 'retry_loop'", 2, 60)
            assert len(receiver.got) == 1

            server.kill()
            receiver.released.set()
            server.start()
            first, second = receiver.wait_for(3)[1:]
            assert {first.key, second.key} > {taken.key}
            assert {got.json["findings"][0]["service"] for got in (first, second)} == {"first", "second"}

            server.wait_for("SELECT count() FROM alert_deliveries WHERE outcome = 'sent'", 2, 60)
            metrics = server.metrics()
            assert 'spanwise_alerts_sent_messages_total{webhook="oncall"} 2.0' in metrics
            assert 'spanwise_alerts_waiting_findings{webhook="oncall"} 0.0' in metrics
            server.kill()
            server.start()
            loop(server, "third")
            assert receiver.wait_for(4)[-1].json["findings"][0]["service"] == "third"
            assert len(receiver.got) == 4
            assert all("webhook-signature" in got.headers for got in receiver.got)

            assert '"reason": "address_refused"' in server.log()
            status = urllib3.request("GET", f"{server.web}/api/v1/status").data.decode()
            assert "secret-path" not in server.log() + status
            assert "MfKQ9r8" not in server.log() + status
        finally:
            server.kill()
