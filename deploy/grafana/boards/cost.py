"""The dashboard Cost and tokens."""

from __future__ import annotations

from typing import Final

from deploy.grafana.boards.common import (
    BEGAN,
    COST_BAR,
    COUNT,
    FILTERS,
    SHARE,
    TO_AGENT,
    TO_MODEL,
    TOKEN_COLORS,
    TRACE_ID,
    USD,
)
from deploy.grafana.panels import ORANGE, Column, Dashboard, Row, bars, lines, stat, table

COST: Final = Dashboard(
    "spanwise-cost",
    "Spanwise / Cost and tokens",
    "What every tenant, service, agent, version and model costs. Each call is counted once.",
    (
        Row(
            "Now",
            (
                stat(
                    "Cost",
                    "Price of all usage in the time range. No data if nothing of it has a known price.",
                    "cost",
                    "currencyUSD",
                ),
                stat(
                    "30 days at this pace",
                    "What 30 days would cost if they went on as this time range did. A forecast, not a bill.",
                    "pace",
                    "currencyUSD",
                ),
                stat(
                    "Cost per trace",
                    "Mean over the traces that began in the time range. Filters choose whole traces: other agents "
                    "and models in them count too.",
                    "cost_per_trace",
                    "currencyUSD",
                ),
                stat("Tokens", "Input and output tokens, cached and reasoning tokens included.", "tokens"),
                stat(
                    "Input from cache",
                    "Share of input tokens that were read from a provider's cache, which costs a fraction. No data "
                    "without input.",
                    "cache_share",
                    "percentunit",
                ),
                stat(
                    "Calls without a price",
                    "Calls whose model has no known price: their cost is missing from every figure here. Add prices "
                    "with `price.overrides`.",
                    "unpriced_calls",
                    steps={1: ORANGE},
                ),
            ),
        ),
        Row(
            "Over time",
            (
                bars(
                    "Cost by agent",
                    "The ten most expensive agents by name. A bar is the sum of its interval.",
                    "cost_by_agent",
                    "currencyUSD",
                    links=[],
                ),
                bars(
                    "Cost by model",
                    "The ten most expensive models by name. A bar is the sum of its interval.",
                    "cost_by_model",
                    "currencyUSD",
                ),
                bars(
                    "Cost by service",
                    "The ten most expensive services by name. A bar is the sum of its interval.",
                    "cost_by_service",
                    "currencyUSD",
                ),
                bars(
                    "Cost by tenant",
                    "The ten most expensive tenants by name. A bar is the sum of its interval.",
                    "cost_by_tenant",
                    "currencyUSD",
                ),
                bars(
                    "Tokens by type",
                    "Fresh input is what was neither read from nor written to a cache; output is without reasoning. "
                    "A bar is the sum of its interval.",
                    "tokens_by_type",
                    colors=TOKEN_COLORS,
                ),
                lines(
                    "Input from cache by model",
                    "Share of input tokens read from a cache. The line breaks where there was no input.",
                    "cache_share_by_model",
                    "percentunit",
                    maximum=1,
                ),
            ),
        ),
        Row(
            "Who",
            (
                table(
                    "Spend",
                    "Every combination of service, agent and model with usage, the most expensive first. Share is of "
                    "the cost of the rows shown. Empty cost: no known price.",
                    "spend",
                    {
                        "Agent": Column(links=(TO_AGENT,)),
                        "Model": Column(links=(TO_MODEL,)),
                        "Calls": COUNT,
                        "Input": COUNT,
                        "From cache": SHARE,
                        "Output": COUNT,
                        "Cost": COST_BAR,
                        "Share": SHARE,
                        "Per call": USD,
                        "Per 1M tokens": Column("currencyUSD", 120),
                    },
                    height=10,
                ),
                table(
                    "Tenants",
                    "Cost and tokens of each tenant.",
                    "tenants",
                    {"Input": COUNT, "Output": COUNT, "Cost": COST_BAR, "Share": SHARE},
                    width=10,
                ),
                table(
                    "Agent versions",
                    "What a run costs in each version of an agent. The model filter leaves only that model's usage, "
                    "and no runs.",
                    "versions",
                    {
                        "Agent": Column(links=(TO_AGENT,)),
                        "Runs": COUNT,
                        "Tokens": COUNT,
                        "Cost": COST_BAR,
                        "Tokens per run": Column("short", 120),
                        "Cost per run": Column("currencyUSD", 110),
                    },
                    width=14,
                ),
                table(
                    "Most expensive traces",
                    "Traces that began in the time range; filters choose whole traces.",
                    "dear_traces",
                    {
                        "Began": BEGAN,
                        "Trace": TRACE_ID,
                        "Model calls": Column("short", 100),
                        "Tokens": COUNT,
                        "Cost": COST_BAR,
                    },
                ),
                table(
                    "Most expensive conversations",
                    "Conversations by the cost of their traces that began in the time range; `Latest` is the last of "
                    "these.",
                    "dear_conversations",
                    {
                        "Traces": COUNT,
                        "Latest": TRACE_ID,
                        "Model calls": Column("short", 100),
                        "Tokens": COUNT,
                        "Cost": COST_BAR,
                    },
                    width=14,
                ),
                table(
                    "Models without a price",
                    "Usage that no cost figure includes. None is good news.",
                    "unpriced",
                    {"Model": Column(links=(TO_MODEL,)), "Calls": COUNT, "Tokens": COUNT},
                    width=10,
                    empty="every model has a price",
                ),
            ),
        ),
    ),
    FILTERS,
    time_from="now-24h",
)
