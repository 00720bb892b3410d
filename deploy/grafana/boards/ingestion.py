"""The dashboard Ingestion health."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panels import GREEN, RED, YELLOW, Dashboard, Row, Variable, metric, metric_stat

_JOB: Final = 'job=~"$job", instance=~"$instance"'


def _rate(metric: str, by: str = "", where: str = "") -> str:
    """Events a second, over all chosen processes or by labels."""
    inner = f"rate({metric}{{{_JOB}{', ' + where if where else ''}}}[$__rate_interval])"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


_ZERO: Final = f" or 0 * sum(spanwise_build_info{{{_JOB}}})"
"""A counter that never counted has no series: 0, but only while something is scraped."""


def _now(metric: str, aggregate: str = "sum") -> str:
    return f"{aggregate}({metric}{{{_JOB}}})"


def _p(level: float, metric: str, by: str = "") -> str:
    return f"histogram_quantile({level}, {_rate(metric + '_bucket', ', '.join(filter(None, ('le', by))))})"


INGESTION: Final = Dashboard(
    "spanwise-ingestion",
    "Spanwise / Ingestion health",
    "Whether spans are taken, kept and stored in time. From Prometheus; every figure counts the chosen processes.",
    (
        Row(
            "Now",
            (
                metric_stat(
                    "Processes up",
                    "Processes that Prometheus can scrape, of those it knows.",
                    f"sum(up{{{_JOB}}}) / count(up{{{_JOB}}})",
                    "percentunit",
                    steps={0: RED, 1: GREEN},
                ),
                metric_stat(
                    "Oldest not stored",
                    "Age of the oldest acknowledged request that is not stored yet. It is safe in the journal, and "
                    "not in any query.",
                    _now("spanwise_journal_oldest_age_seconds", "max"),
                    "s",
                    steps={30: YELLOW, 120: RED},
                ),
                metric_stat(
                    "Journal fill",
                    "Size of the fullest journal, of the size at which it refuses requests.",
                    f"max(spanwise_journal_bytes{{{_JOB}}} / spanwise_journal_bytes_max{{{_JOB}}})",
                    "percentunit",
                    steps={0.5: YELLOW, 0.8: RED},
                ),
                metric_stat(
                    "Refused",
                    "Items turned away a second; conforming exporters keep and send them again.",
                    _rate("spanwise_receiver_refused_items_total") + _ZERO,
                    "cps",
                    steps={0.001: YELLOW, 100: RED},
                ),
                metric_stat(
                    "Failed inserts",
                    "Attempts to store a range that failed in the last hour; they are repeated.",
                    f"sum(increase(spanwise_insert_errors_total{{{_JOB}}}[1h]))" + _ZERO,
                    "short",
                    steps={1: YELLOW, 10: RED},
                ),
                metric_stat(
                    "Set aside",
                    "Requests written to files because they cannot be decoded or stored, in the last day. Somebody "
                    "has to look.",
                    f"sum(increase(spanwise_dead_letter_requests_total{{{_JOB}}}[1d]))" + _ZERO,
                    "short",
                    steps={1: RED},
                ),
            ),
        ),
        Row(
            "Taking in",
            (
                metric(
                    "Spans and log records",
                    "Acknowledged, stored, refused for now and rejected for good. Stored falls behind acknowledged "
                    "while the journal fills.",
                    {
                        "acknowledged": _rate("spanwise_receiver_accepted_items_total"),
                        "spans stored": _rate("spanwise_stored_spans_total"),
                        "refused": _rate("spanwise_receiver_refused_items_total"),
                        "rejected": _rate("spanwise_receiver_rejected_items_total"),
                    },
                    "cps",
                ),
                metric(
                    "Refused, by reason",
                    "Why items were turned away, and requests by the journal. No line is good news.",
                    {
                        "receiver: {{reason}}": _rate("spanwise_receiver_refused_items_total", "reason"),
                        "journal: {{reason}}": _rate("spanwise_journal_refused_requests_total", "reason"),
                    },
                    "cps",
                ),
                metric(
                    "Time to acknowledge",
                    "From the last byte of a request to its durable answer.",
                    {
                        "p50": _p(0.5, "spanwise_receiver_ack_seconds"),
                        "p99": _p(0.99, "spanwise_receiver_ack_seconds"),
                    },
                    "s",
                    steps={1: RED},
                ),
                metric(
                    "Bytes",
                    "Bytes of accepted requests a second, after decompression, by transport.",
                    {"{{transport}}": _rate("spanwise_receiver_received_bytes_total", "transport")},
                    "Bps",
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Journal",
            (
                metric(
                    "Waiting requests",
                    "Durable requests that are not taken out yet.",
                    {"waiting": _now("spanwise_journal_depth_requests")},
                    "short",
                    width=8,
                ),
                metric(
                    "Age of the oldest",
                    "How long the oldest acknowledged request has not been stored.",
                    {"{{instance}}": f"max by (instance) (spanwise_journal_oldest_age_seconds{{{_JOB}}})"},
                    "s",
                    width=8,
                    steps={120: RED},
                ),
                metric(
                    "Size",
                    "On disk, by process, against the limit.",
                    {
                        "{{instance}}": f"max by (instance) (spanwise_journal_bytes{{{_JOB}}})",
                        "limit": f"min(spanwise_journal_bytes_max{{{_JOB}}})",
                    },
                    "bytes",
                    width=8,
                ),
                metric(
                    "Kafka lag",
                    "Records not stored yet, by topic. No data where the journal is a local file.",
                    {"{{topic}}": f"sum by (topic) (spanwise_kafka_lag_records{{{_JOB}}})"},
                    "short",
                ),
                metric(
                    "Damage",
                    "Journal files set aside, requests saved from them and requests lost. No line above zero is good "
                    "news.",
                    {
                        "files": _rate("spanwise_journal_damaged_files_total"),
                        "saved": _rate("spanwise_journal_salvaged_requests_total"),
                        "lost": _rate("spanwise_journal_lost_requests_total"),
                    },
                    "cps",
                ),
            ),
        ),
        Row(
            "Storing",
            (
                metric(
                    "Time to store",
                    "Decoding, processing and storing one range, 95th percentile.",
                    {
                        "decode": _p(0.95, "spanwise_decode_seconds"),
                        "process": _p(0.95, "spanwise_process_seconds"),
                        "store": _p(0.95, "spanwise_store_seconds"),
                    },
                    "s",
                ),
                metric(
                    "Rows inserted",
                    "By table, corrections and summaries included.",
                    {"{{table}}": _rate("spanwise_insert_rows_total", "table")},
                    "cps",
                    stacked=True,
                ),
                metric(
                    "Traces waiting for a decision",
                    "Traces to be reconciled: usage scope, log joins, findings, summary. Those that cannot be decided, "
                    "or are too large for it, are apart.",
                    {
                        "waiting": _now("spanwise_reconcile_dirty_traces"),
                        "cannot be decided": _now("spanwise_reconcile_failed_traces"),
                        "oversized": _now("spanwise_reconcile_oversized_traces"),
                    },
                    "short",
                    width=8,
                ),
                metric(
                    "Reconciliation lag",
                    "How long the trace that waits longest has been waiting: how late findings are.",
                    {"{{instance}}": f"max by (instance) (spanwise_reconcile_lag_seconds{{{_JOB}}})"},
                    "s",
                    width=8,
                    steps={60: RED},
                ),
                metric(
                    "Errors",
                    "Inserts and rounds of reconciliation that failed and are repeated, signatures that raised. No "
                    "line above zero is good news.",
                    {
                        "insert: {{reason}}": _rate("spanwise_insert_errors_total", "reason"),
                        "reconcile": _rate("spanwise_reconcile_errors_total"),
                        "signature: {{signature}}": _rate("spanwise_detect_signature_failures_total", "signature"),
                    },
                    "cps",
                    width=8,
                ),
            ),
        ),
        Row(
            "Process",
            (
                metric(
                    "CPU",
                    "Cores used, by process.",
                    {"{{instance}}": _rate("process_cpu_seconds_total", "instance")},
                    "short",
                    width=8,
                ),
                metric(
                    "Memory",
                    "Resident, by process.",
                    {"{{instance}}": f"max by (instance) (process_resident_memory_bytes{{{_JOB}}})"},
                    "bytes",
                    width=8,
                ),
                metric(
                    "Labels over the limit",
                    "Label values counted as `other` because their limit was reached: figures by label are "
                    "incomplete then.",
                    {"{{label}}": _rate("spanwise_label_overflow_total", "label")},
                    "cps",
                    width=8,
                ),
            ),
        ),
    ),
    (
        Variable(
            "prometheus",
            "Data source",
            "The Prometheus that scrapes Spanwise.",
            kind="datasource",
            plugin="prometheus",
        ),
        Variable("job", "Job", "Scrape jobs of Spanwise.", "label_values(spanwise_build_info, job)"),
        Variable(
            "instance",
            "Process",
            "Processes of these jobs.",
            'label_values(spanwise_build_info{job=~"$job"}, instance)',
        ),
    ),
    prometheus=True,
    time_from="now-3h",
    refresh="30s",
)
