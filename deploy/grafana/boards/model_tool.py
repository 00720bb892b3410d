"""The dashboard Model and tool."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from deploy.grafana.boards.common import (
    BEGAN,
    COST_BAR,
    COUNT,
    FAILED_STEPS,
    FINDING,
    MODELS,
    OUTCOME,
    QUANTILES,
    SERVICES,
    SEVERITIES,
    SOURCE,
    SUCCESS_STEPS,
    TENANTS,
    TO_AGENT,
    TOKEN_COLORS,
    TRACE_ID,
)
from deploy.grafana.panels import ORANGE, Column, Dashboard, Row, Variable, bars, lines, stat, table

MODEL_TOOL: Final = Dashboard(
    "spanwise-model-tool",
    "Spanwise / Model and tool",
    "One model and one tool: how much, how fast, how often wrong, and for whom.",
    (
        Row(
            "Model $model",
            (
                stat("Calls", "Model calls, repeats by a second instrumentation left out.", "model_calls"),
                stat(
                    "Failed",
                    "Share of calls that ended in an error. No data without calls.",
                    "model_failed",
                    "percentunit",
                    steps=FAILED_STEPS,
                ),
                stat("p95", "95th percentile of the duration, at most 1 % off.", "model_p95", "ns"),
                stat(
                    "p95 to first token",
                    "95th percentile of the time to the first chunk of streamed answers. No data where none reports "
                    "it.",
                    "model_first_chunk",
                    "ns",
                ),
                stat("Cost", "No data if the model has no known price.", "model_cost", "currencyUSD"),
                stat("Tokens", "Input and output tokens.", "model_tokens"),
                bars(
                    "Model calls",
                    "Calls by outcome. A bar is the sum of its interval.",
                    "model_calls_over_time",
                    colors=OUTCOME,
                ),
                lines(
                    "Duration of model calls",
                    "The line breaks where there were no calls.",
                    "model_duration",
                    "ns",
                    colors=QUANTILES,
                ),
                bars(
                    "Tokens by type", "A bar is the sum of its interval.", "model_tokens_by_type", colors=TOKEN_COLORS
                ),
                lines(
                    "Time to first token",
                    "Of streamed answers that report it. The line breaks where there were none.",
                    "model_first_chunk_over_time",
                    "ns",
                    colors=QUANTILES,
                ),
                table(
                    "Who calls the model",
                    "Services and agents, the most expensive first; (none) is work outside any agent.",
                    "model_agents",
                    {
                        "Agent": Column(links=(TO_AGENT,)),
                        "Calls": COUNT,
                        "Failed": Column("percentunit", 80, steps=FAILED_STEPS, decimals=1),
                        "Mean": Column("ns", 100),
                        "Tokens": COUNT,
                        "Cost": COST_BAR,
                    },
                ),
            ),
        ),
        Row(
            "Tool $tool",
            (
                stat("Tool calls", "Calls of the tool.", "tool_calls"),
                stat(
                    "Success",
                    "Share that succeeded, by what the producer states, else by the status of the span. No data "
                    "without calls.",
                    "tool_success",
                    "percentunit",
                    steps=SUCCESS_STEPS,
                ),
                stat("p50", "Median duration, at most 1 % off.", "tool_p50", "ns"),
                stat("p95", "95th percentile of the duration, at most 1 % off.", "tool_p95", "ns"),
                stat(
                    "Findings",
                    "Failures of severity warning or worse that name the tool.",
                    "tool_findings",
                    steps={1: ORANGE},
                ),
                stat(
                    "Wasted cost",
                    "Cost of work that findings with this tool call wasted.",
                    "tool_wasted",
                    "currencyUSD",
                ),
                bars(
                    "Calls of the tool",
                    "Calls by outcome. A bar is the sum of its interval.",
                    "tool_calls_over_time",
                    colors=OUTCOME,
                ),
                lines(
                    "Duration of tool calls",
                    "The line breaks where there were no calls.",
                    "tool_duration",
                    "ns",
                    colors=QUANTILES,
                ),
                table(
                    "Who calls the tool",
                    "Services and agents, the most frequent first; (none) is work outside any agent.",
                    "tool_agents",
                    {
                        "Agent": Column(links=(TO_AGENT,)),
                        "Calls": COUNT,
                        "Success": Column("percentunit", 90, steps=SUCCESS_STEPS, decimals=1),
                        "Mean": Column("ns", 100),
                    },
                    width=10,
                ),
                table(
                    "Latest findings with the tool",
                    "The last 50, with their evidence.",
                    "tool_latest_findings",
                    {
                        "Began": BEGAN,
                        "Severity": Column(width=90, colors=SEVERITIES),
                        "Finding": FINDING,
                        "Agent": Column(links=(TO_AGENT,)),
                        "Times": Column("short", 70),
                        "Trace": TRACE_ID,
                        "Evidence": Column(wrap=True, width=420),
                    },
                    width=14,
                    empty="no findings in this time range",
                ),
            ),
        ),
    ),
    (
        SOURCE,
        TENANTS,
        SERVICES,
        replace(MODELS, multi=False),
        Variable("tool", "Tool", "`gen_ai.tool.name`.", "choose_tools", multi=False),
    ),
)
