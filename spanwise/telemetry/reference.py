"""`docs/metrics.md`, made from the metrics themselves."""

from __future__ import annotations

from typing import Final

from spanwise.telemetry.config import TelemetryConfig
from spanwise.telemetry.metrics import OTHER, Telemetry

_REFERENCE_HEAD: Final = """# Metrics

`GET /metrics` on the web port, Prometheus text format. Figures are per process and start at zero with it.

The `spanwise_gen_ai_*` counters are for dashboards and alerts, not for bills: they are taken from each batch as it
passes, before late duplicates and trace-level corrections are known. Ask the store for exact sums:
`SELECT sum(cost_usd) FROM spans FINAL WHERE usage_scope = 'own'`.

Label values come from the senders, so their number is bounded: the first {values} of each `gen_ai` label are kept
(`telemetry.label_values_max`), as are the first {series:,} combinations (`telemetry.gen_ai_series_max`). The rest is
counted under `{other}` and in `spanwise_label_overflow_total`. Combinations of the labels of findings are bounded by
`telemetry.findings_series_max`.

A series with such labels begins with its first event, not with a zero before it, so `rate()` and `increase()` do not
see that event. [The recording rules](../deploy/prometheus/rules/signatures.yml) count it; copy them for your own.

This page is generated from the program; a test compares them.

| Metric | Type | Labels | What it says |
|---|---|---|---|"""


def metric_reference() -> str:
    """The page."""
    config = TelemetryConfig()
    rows = [
        f"| `{metric.name}` | {metric.type} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.doc} |"
        for metric in Telemetry().reference
    ]
    head = _REFERENCE_HEAD.format(values=config.label_values_max, series=config.gen_ai_series_max, other=OTHER)
    return "\n".join([head, *rows, ""])
