"""From an agent that loops to the person on call: the server, Prometheus, Alertmanager and a webhook, all real."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from spanwise.telemetry import Telemetry
from tests.prometheus.conftest import PLANTED
from tests.prometheus.monitoring import Monitoring
from tests.prometheus.rules import FOLDER, RULE_FILES, alerts, installed, metric_names, rules
from tests.running import RunningServer
from tests.shared import ROOT

RAISED = {
    "SpanwiseRetryLoop",
    "SpanwiseToolCycle",
    "SpanwiseLlmRepetition",
    "SpanwiseDelegationLoop",
    "SpanwiseToolErrorBurst",
    "SpanwiseInvalidToolCall",
    "SpanwiseContextLimit",
    "SpanwiseCascade",
    "SpanwiseRunLimit",
}
"""What one planted run of each failure raises at once."""


def exposed(server: RunningServer) -> set[str]:
    """Names of the series the server has, or will have once something is counted."""
    text = server.exposition()
    names = set(re.findall(r"(?m)^([a-z_:]+)[{ ]", text))
    return names | {name for name, type_ in re.findall(r"(?m)^# TYPE (\S+) (\w+)$", text) if type_ != "histogram"}


def of_kafka() -> set[str]:
    """These are only there with brokers; that they are exposed is tested with telemetry."""
    return {metric.name for metric in Telemetry().reference if metric.name.startswith("spanwise_kafka_")}


def dashboard_expressions() -> list[str]:
    """PromQL of the dashboards."""
    quoted = re.compile(r'"expr": ("(?:\\.|[^"\\])*")')
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "deploy" / "grafana").rglob("*.json")]
    return [json.loads(expression) for text in texts for expression in quoted.findall(text)]


def test_rules_and_dashboards_ask_for_series_that_there_are(server: RunningServer) -> None:
    known = exposed(server) | of_kafka() | {rule["record"] for rule in rules() if "record" in rule} | {"up"}
    expressions = [*(rule["expr"] for rule in rules(*RULE_FILES)), *dashboard_expressions()]
    assert {name for expression in expressions for name in metric_names(expression)} <= known


@pytest.fixture(scope="module")
def monitoring(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitoring]:
    programs = {"prometheus": installed("prometheus"), "alertmanager": installed("prometheus-alertmanager")}
    directory = tmp_path_factory.mktemp("monitoring")
    with Monitoring(directory, target=server.web.removeprefix("http://"), **programs) as running:
        yield running


def test_a_loop_that_still_runs_is_told_in_chat_and_on_call_once_it_gets_worse(
    server: RunningServer, monitoring: Monitoring
) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "looping"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"http://{server.grpc}", insecure=True)))
    tracer = provider.get_tracer("agents")

    def call(times: int) -> None:
        for _ in range(times):
            with tracer.start_as_current_span("execute_tool search") as span:
                span.set_attribute("gen_ai.operation.name", "execute_tool")
                span.set_attribute("gen_ai.agent.name", "buyer")
                span.set_attribute("gen_ai.tool.name", "search")
                span.set_attribute("gen_ai.tool.call.arguments", '{"query": "cats"}')
                span.set_attribute("gen_ai.tool.call.result", "Error: quota exceeded")

    loop = {"alertname": "SpanwiseRetryLoop", "service": "looping", "agent": "buyer", "kind": "identical"}
    with tracer.start_as_current_span("invoke_agent buyer") as root:
        root.set_attribute("gen_ai.operation.name", "invoke_agent")
        call(3)
        monitoring.on_call.wait_for("/chat", loop | {"severity": "warning"})
        call(2)
        exported = time.monotonic()
        alert = monitoring.on_call.wait_for("/on-call", loop | {"severity": "high"})
        print(f"the person on call was told {time.monotonic() - exported:.1f} s after the fifth call")
        # nobody had to wait for the agent to end
        assert server.count("SELECT count() FROM spans FINAL WHERE service = 'looping' AND kind = 'agent'") == 0
    provider.shutdown()

    monitoring.wait_until(
        lambda: monitoring.suppressed(loop | {"severity": "warning"}), "it is not told as a warning too"
    )
    assert alert["annotations"]["summary"] == "Agent buyer of looping repeats a tool call"
    assert alert["annotations"]["runbook_url"].endswith("/docs/signatures/retry_loop.md")


def test_one_run_of_each_failure_raises_what_it_should(monitoring: Monitoring) -> None:
    def firing() -> set[str]:
        known = [alert["labels"] for alert in monitoring.ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {labels["alertname"] for labels in known if labels.get("service") == PLANTED}

    monitoring.wait_until(lambda: firing() >= RAISED, "alerts for the planted failures are raised")
    assert firing() <= RAISED


def test_a_budget_that_is_used_up_is_told(monitoring: Monitoring) -> None:
    budget = {"alertname": "SpanwiseBudgetUsedUp", "budget": "pocket-money", "severity": "high"}
    monitoring.on_call.wait_for("/on-call", budget)


def test_every_rule_can_be_evaluated_on_real_series(monitoring: Monitoring) -> None:
    expected = {rule.get("alert", rule.get("record")) for path in RULE_FILES for rule in rules(path)} - {
        "SpanwiseGoalDrift"
    }

    def evaluated() -> bool:
        return all(rule["health"] != "unknown" for rule in monitoring.rules())

    monitoring.wait_until(evaluated, "all rules are evaluated")
    known = monitoring.rules()
    assert {rule["name"] for rule in known} == expected
    assert [rule for rule in known if rule["health"] != "ok"] == []


def test_a_healthy_server_raises_nothing_about_itself(monitoring: Monitoring) -> None:
    """Not even for a moment, except of the disk, which is that of the machine that tests."""
    own = alerts(FOLDER / "rules" / "ingestion.yml")
    raised = {alert["labels"]["alertname"] for alert in monitoring.ask("alerts")["alerts"]}
    assert raised & own.keys() <= {"SpanwiseDiskFilling", "SpanwiseDiskNearlyFull"}
