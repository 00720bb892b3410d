"""The dashboard Fleet."""

from __future__ import annotations

from typing import Final

from deploy.grafana.boards.common import (
    FAILED_STEPS,
    FILTERS,
    SEVERITIES,
    SUCCESS_STEPS,
    TO_AGENT,
    TO_FAILURES,
    TO_MODEL,
    TO_TOOL,
    VALUE,
    opened,
)
from deploy.grafana.panels import GREEN, ORANGE, RED, YELLOW, Column, Dashboard, Row, bars, lines, stat, table

FLEET: Final = Dashboard(
    "spanwise-fleet",
    "Spanwise / Fleet",
    "All agents at a glance: what runs, what fails, what it costs.",
    (
        Row(
            "Now",
            (
                stat("Traces", "Traces that began in the time range.", "traces"),
                stat(
                    "Traces with findings",
                    "Share of these traces in which a failure signature of severity warning or worse was found. No "
                    "data without traces.",
                    "traces_with_findings",
                    "percentunit",
                    steps={0.05: YELLOW, 0.2: RED},
                    links=[TO_FAILURES],
                ),
                stat(
                    "Failed model calls",
                    "Share of model calls that ended in an error. No data without model calls.",
                    "model_errors",
                    "percentunit",
                    steps=FAILED_STEPS,
                ),
                stat(
                    "Tool success",
                    "Share of tool calls that succeeded, by what the producer states, else by the status of the "
                    "span. The model filter does not apply. No data without tool calls.",
                    "tool_success",
                    "percentunit",
                    steps=SUCCESS_STEPS,
                ),
                stat(
                    "Cost",
                    "Price of all usage, each call counted once. No data if nothing of it has a known price.",
                    "cost",
                    "currencyUSD",
                    links=[opened("Look at cost and tokens", "spanwise-cost")],
                ),
                stat("Tokens", "Input and output tokens, each call counted once.", "tokens"),
            ),
        ),
        Row(
            "Over time",
            (
                bars("Calls", "Calls by class of span. A bar is the sum of its interval.", "calls_by_kind"),
                bars(
                    "Failed calls",
                    "Calls that ended in an error, by class of span. A bar is the sum of its interval; none is good "
                    "news.",
                    "errors_by_kind",
                ),
                bars(
                    "Cost by service",
                    "Price of the usage of each service, the ten most expensive by name. A bar is the sum of its "
                    "interval.",
                    "cost_by_service",
                    "currencyUSD",
                ),
                lines(
                    "Duration of model calls",
                    "Median, 95th and 99th percentile, at most 1 % off. The line breaks where there were no calls.",
                    "model_latency",
                    "ns",
                    colors={"p50": GREEN, "p95": YELLOW, "p99": RED},
                ),
                bars(
                    "Findings",
                    "Failures by severity, at the time they began.",
                    "findings_by_severity",
                    colors=SEVERITIES,
                    links=[TO_FAILURES],
                ),
                table(
                    "What fails",
                    "Failure signatures, the worst first. Wasted is the cost of work that was for nothing, as far as "
                    "its price is known.",
                    "signatures",
                    {
                        "Signature": Column(
                            width=220, links=(opened("Look at these findings", "spanwise-failures", signature=VALUE),)
                        ),
                        "Severity": Column(width=90, colors=SEVERITIES),
                        "Findings": Column("short", 90),
                        "Wasted": Column("currencyUSD", 90),
                        "Last": Column("dateTimeFromNow"),
                    },
                    width=12,
                ),
            ),
        ),
        Row(
            "Who",
            (
                table(
                    "Agents",
                    "Agents of each service, the most expensive first; (none) is work outside any agent. Failed is "
                    "the share of all its calls, findings are those of severity warning or worse. Empty cells have "
                    "nothing to measure, or no known price.",
                    "agents",
                    {
                        "Agent": Column(links=(TO_AGENT,)),
                        "Runs": Column("short", 80),
                        "Model calls": Column("short", 100),
                        "Tool calls": Column("short", 90),
                        "Failed": Column("percentunit", 80, steps=FAILED_STEPS, decimals=1),
                        "Tool success": Column("percentunit", 110, steps=SUCCESS_STEPS, decimals=1),
                        "Mean run": Column("ns", 100),
                        "Tokens": Column("short", 90),
                        "Cost": Column("currencyUSD", 100, bar=True),
                        "Cost per run": Column("currencyUSD", 110),
                        "Findings": Column("short", 90, steps={1: ORANGE}),
                    },
                    height=10,
                ),
                table(
                    "Hand-offs",
                    "Agents that agents called, the most frequent first. Runs are those of the called agent.",
                    "handoffs",
                    {
                        "From": Column(links=(TO_AGENT,)),
                        "To": Column(links=(TO_AGENT,)),
                        "Runs": Column("short", 80),
                        "Failed": Column("percentunit", 80, steps=FAILED_STEPS, decimals=1),
                        "Mean": Column("ns", 100),
                    },
                    empty="no agent called another",
                ),
                table(
                    "Models",
                    "Model calls, the most expensive model first.",
                    "models",
                    {
                        "Model": Column(links=(TO_MODEL,)),
                        "Calls": Column("short", 80),
                        "Failed": Column("percentunit", 80, steps=FAILED_STEPS, decimals=1),
                        "p95": Column("ns", 90),
                        "Tokens": Column("short", 90),
                        "Cost": Column("currencyUSD", 100, bar=True),
                    },
                    width=12,
                ),
                table(
                    "Tools",
                    "Tool calls, the most called first. The model filter does not apply.",
                    "tools",
                    {
                        "Tool": Column(links=(TO_TOOL,)),
                        "Calls": Column("short", 80),
                        "Success": Column("percentunit", 90, steps=SUCCESS_STEPS, decimals=1),
                        "p50": Column("ns", 90),
                        "p95": Column("ns", 90),
                    },
                    width=12,
                ),
            ),
        ),
    ),
    FILTERS,
)
