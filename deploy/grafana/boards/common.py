"""What the dashboards share: variables, links, colours and columns."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panels import GREEN, KEPT, ORANGE, RED, YELLOW, Column, Link, Variable

SEVERITIES: Final = {"critical": "dark-red", "high": RED, "warning": ORANGE, "info": "blue"}
FAILED_STEPS: Final = {0.02: YELLOW, 0.1: RED}
SUCCESS_STEPS: Final = {0: RED, 0.9: YELLOW, 0.98: GREEN}


def opened(title: str, uid: str, **variables: str) -> Link:
    """A link to another dashboard with the time and what is chosen kept, and these variables set."""
    chosen = "".join(f"&var-{name}={value}" for name, value in variables.items())
    return Link(title, f"/d/{uid}?{KEPT}{chosen}")


VALUE: Final = "${__value.raw:percentencode}"
TO_AGENT: Final = opened("What this agent does", "spanwise-agent", agent=VALUE)
TO_MODEL: Final = opened("How this model does", "spanwise-model-tool", model=VALUE)
TO_TOOL: Final = opened("How this tool does", "spanwise-model-tool", tool=VALUE)
TO_FAILURES: Final = opened("Look at the findings", "spanwise-failures")

SOURCE: Final = Variable(
    "datasource",
    "Data source",
    "The ClickHouse that Spanwise writes to.",
    kind="datasource",
    plugin="grafana-clickhouse-datasource",
)
TENANTS: Final = Variable("tenant", "Tenant", "Owners of the spans, from the senders' tokens.", "choose_tenants")
SERVICES: Final = Variable("service", "Service", "`service.name`; (none) where it was not sent.", "choose_services")
AGENTS: Final = Variable("agent", "Agent", "`gen_ai.agent.name`; (none) is work outside any agent.", "choose_agents")
MODELS: Final = Variable("model", "Model", "The model that answered, or else the one that was asked.", "choose_models")
FILTERS: Final = (SOURCE, TENANTS, SERVICES, AGENTS, MODELS)

BEGAN: Final = Column("dateTimeAsIso", 170)
TRACE_ID: Final = Column(width=280, links=(opened("Open this trace", "spanwise-trace", trace_id=VALUE),))
FINDING: Final = Column(width=200)
USD: Final = Column("currencyUSD", 100)
COST_BAR: Final = Column("currencyUSD", 110, bar=True)
COUNT: Final = Column("short", 90)
SHARE: Final = Column("percentunit", 90, decimals=1)
TOKEN_COLORS: Final = {
    "fresh input": "blue",
    "cache read": "light-blue",
    "cache write": "purple",
    "output": ORANGE,
    "reasoning": "dark-orange",
}
OUTCOME: Final = {"ok": GREEN, "failed": RED}
QUANTILES: Final = {"p50": GREEN, "p95": YELLOW, "p99": RED}
