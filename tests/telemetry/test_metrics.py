from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from processors.price import PriceStats
from receiver.observe import ReceiverObserver
from sinks.clickhouse import SinkObserver
from sinks.webhook import WebhookStats
from spanwise.budgets import BudgetsStats, BudgetState
from spanwise.detector import DetectorStats
from spanwise.journal import SqliteJournalConfig
from spanwise.journal.kafka.journal import KafkaStats
from spanwise.model import SPANS, SpanBatch
from spanwise.pipeline import PipelineObserver
from spanwise.reconciler import ReconcilerStats
from spanwise.retention import RetentionStats
from spanwise.rollups import RollupsStats
from spanwise.telemetry import OTHER, Telemetry, TelemetryConfig


def spans(*rows: Mapping[str, Any]) -> SpanBatch:
    """A batch of the given rows; a column that a row leaves out is '' if it is text, else NULL."""
    blank = {
        name: ""
        for name, field in zip(SPANS.names, SPANS.arrow, strict=True)
        if field.type == pa.utf8() or pa.types.is_dictionary(field.type)
    }
    filled = [blank | dict(row) for row in rows]
    return pa.RecordBatch.from_arrays(
        [
            pa.array([row.get(field.name) for row in filled], _plain(field.type)).cast(field.type)
            for field in SPANS.arrow
        ],
        schema=SPANS.arrow,
    )


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if isinstance(type_, pa.DictionaryType) else type_


CALL = {"service": "shop", "agent_name": "buyer", "operation": "chat", "kind": "llm", "request_model": "gpt-4o"}


def samples(telemetry: Telemetry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(telemetry.exposition().decode())
        for sample in family.samples
    }


def value(telemetry: Telemetry, name: str, **labels: str) -> float:
    return samples(telemetry).get((f"spanwise_{name}", tuple(sorted(labels.items()))), 0.0)


def gen_ai(telemetry: Telemetry, name: str, **labels: str) -> float:
    defaults = {"service": "shop", "agent": "buyer", "model": "gpt-4o", "operation": "chat"}
    return value(telemetry, f"gen_ai_{name}", **(defaults | labels))


def test_tokens_and_cost_count_only_spans_that_own_their_usage() -> None:
    telemetry = Telemetry()
    own = CALL | {"usage_scope": "own", "input_tokens": 100, "output_tokens": 7, "cost_usd": Decimal("0.25")}
    telemetry.count_gen_ai(spans(own, own, own | {"usage_scope": "aggregate"}, own | {"usage_scope": "none"}))

    assert gen_ai(telemetry, "tokens_total", type="input") == 200
    assert gen_ai(telemetry, "tokens_total", type="output") == 14
    assert gen_ai(telemetry, "cost_usd_total") == 0.5


def test_a_model_call_that_repeats_another_is_not_a_call_and_a_failed_one_without_usage_is() -> None:
    telemetry = Telemetry()
    telemetry.count_gen_ai(
        spans(
            CALL | {"usage_scope": "own"},
            CALL | {"usage_scope": "aggregate", "status": "error"},
            CALL | {"usage_scope": "none", "status": "error"},
            CALL | {"usage_scope": "none", "error_type": "429"},
        )
    )

    assert gen_ai(telemetry, "calls_total") == 3
    assert gen_ai(telemetry, "errors_total") == 2


def test_an_agent_that_repeats_its_children_is_still_a_call_of_that_agent() -> None:
    telemetry = Telemetry()
    telemetry.count_gen_ai(spans(CALL | {"kind": "agent", "operation": "invoke_agent", "usage_scope": "aggregate"}))

    assert gen_ai(telemetry, "calls_total", operation="invoke_agent") == 1


def test_spans_without_an_operation_are_not_gen_ai_calls() -> None:
    telemetry = Telemetry()
    telemetry.count_gen_ai(spans({"service": "shop", "name": "GET /"}))

    assert not [name for (name, _) in samples(telemetry) if name.startswith("spanwise_gen_ai")]


def test_the_answering_model_is_the_label_where_it_is_known() -> None:
    telemetry = Telemetry()
    telemetry.count_gen_ai(spans(CALL | {"usage_scope": "own", "response_model": "gpt-4o-2024-08-06"}))

    assert gen_ai(telemetry, "calls_total", model="gpt-4o-2024-08-06") == 1


def test_token_counts_that_would_wrap_a_64_bit_sum_stay_positive() -> None:
    telemetry = Telemetry()
    call = CALL | {"usage_scope": "own", "input_tokens": 2**64 - 1}
    telemetry.count_gen_ai(spans(call, call))

    assert gen_ai(telemetry, "tokens_total", type="input") == pytest.approx(2.0**65)


def test_unknown_amounts_are_not_counted_and_negative_ones_do_not_stop_the_batch() -> None:
    telemetry = Telemetry()
    telemetry.count_gen_ai(spans(CALL | {"usage_scope": "own", "cost_usd": Decimal("-1")}))

    assert gen_ai(telemetry, "cost_usd_total") == 0
    assert gen_ai(telemetry, "calls_total") == 1


@pytest.mark.parametrize("label", ["service", "agent", "model", "operation"])
def test_a_label_has_at_most_its_limit_of_values_and_the_rest_counts_as_other(label: str) -> None:
    telemetry = Telemetry(TelemetryConfig(label_values_max=200))
    column = {"service": "service", "agent": "agent_name", "model": "request_model", "operation": "operation"}[label]
    telemetry.count_gen_ai(spans(*(CALL | {"usage_scope": "own", column: f"v{n}"} for n in range(1000))))

    calls = {labels: n for (name, labels), n in samples(telemetry).items() if name == "spanwise_gen_ai_calls_total"}
    assert len(calls) == 201
    assert sum(calls.values()) == 1000
    assert gen_ai(telemetry, "calls_total", **{label: OTHER}) == 800
    assert value(telemetry, "label_overflow_total", label=label) == 800


def test_combinations_of_labels_are_bounded_too() -> None:
    telemetry = Telemetry(TelemetryConfig(gen_ai_series_max=10))
    telemetry.count_gen_ai(
        spans(*(CALL | {"agent_name": f"a{a}", "request_model": f"m{m}"} for a in range(10) for m in range(10)))
    )

    calls = {labels: n for (name, labels), n in samples(telemetry).items() if name == "spanwise_gen_ai_calls_total"}
    assert len(calls) == 11
    assert sum(calls.values()) == 100
    assert value(telemetry, "label_overflow_total", label="series") == 90


def test_a_long_label_value_is_cut() -> None:
    telemetry = Telemetry(TelemetryConfig(label_bytes_max=8))
    telemetry.count_gen_ai(spans(CALL | {"request_model": "m" * 10_000}))

    assert gen_ai(telemetry, "calls_total", model="m" * 8) == 1


FOUND = {"signature": "retry_loop", "kind": "identical", "severity": "high", "service": "shop", "agent": "buyer"}


def test_a_finding_that_grows_is_counted_as_written_again_and_not_as_found_again() -> None:
    telemetry = Telemetry()
    telemetry.found(**FOUND)
    telemetry.grew(**FOUND)

    assert value(telemetry, "findings_total", **FOUND) == 1
    assert value(telemetry, "findings_written_total", **FOUND) == 2


def test_what_findings_wasted_adds_up_by_signature_and_agent() -> None:
    telemetry = Telemetry()
    for tokens, cost_usd in ((1_000, Decimal("0.25")), (200, Decimal(0)), (0, Decimal("-1"))):
        telemetry.wasted(signature="retry_loop", service="shop", agent="buyer", tokens=tokens, cost_usd=cost_usd)

    labels = {"signature": "retry_loop", "service": "shop", "agent": "buyer"}
    assert value(telemetry, "wasted_tokens_total", **labels) == 1_200
    assert value(telemetry, "wasted_cost_usd_total", **labels) == 0.25


def test_combinations_of_the_labels_of_findings_are_bounded() -> None:
    telemetry = Telemetry(TelemetryConfig(findings_series_max=10))
    for number in range(100):
        telemetry.found(**FOUND | {"agent": f"a{number % 10}", "service": f"s{number // 10}"})

    found = {labels: n for (name, labels), n in samples(telemetry).items() if name == "spanwise_findings_total"}
    assert len(found) == 11
    assert sum(found.values()) == 100
    assert value(telemetry, "findings_total", **FOUND | {"agent": OTHER, "service": OTHER}) == 90
    assert value(telemetry, "label_overflow_total", label="findings") == 90


def test_reasons_to_set_requests_aside_are_there_before_the_first_one() -> None:
    """A counter that is born at 1 shows no increase."""
    assert samples(Telemetry())["spanwise_dead_letter_requests_total", (("reason", "store"),)] == 0


def test_receiver_outcomes_are_told_apart_by_signal_transport_and_reason() -> None:
    telemetry = Telemetry()
    telemetry.accepted("traces", "grpc", items=3, body_bytes=900, seconds=0.004)
    telemetry.refused("traces", "http", "journal_full", items=5)
    telemetry.rejected("logs", "http", "too_large")
    telemetry.rejected_items("traces", "grpc", "invalid_span", items=2)

    assert value(telemetry, "receiver_accepted_items_total", signal="traces", transport="grpc") == 3
    assert value(telemetry, "receiver_received_bytes_total", signal="traces", transport="grpc") == 900
    assert value(telemetry, "receiver_ack_seconds_count", signal="traces", transport="grpc") == 1
    refused = {"signal": "traces", "transport": "http", "reason": "journal_full"}
    assert value(telemetry, "receiver_refused_items_total", **refused) == 5
    assert value(telemetry, "receiver_refused_requests_total", **refused) == 1
    rejected = {"signal": "logs", "transport": "http", "reason": "too_large"}
    assert value(telemetry, "receiver_rejected_requests_total", **rejected) == 1
    partial = {"signal": "traces", "transport": "grpc", "reason": "invalid_span"}
    assert value(telemetry, "receiver_rejected_items_total", **partial) == 2
    assert value(telemetry, "receiver_rejected_requests_total", **partial) == 0


async def test_the_journal_is_asked_at_each_scrape(tmp_path: Path) -> None:
    journal = SqliteJournalConfig(bytes_max=1 << 30, free_bytes_min=0, free_fraction_min=0).build(tmp_path)
    telemetry = Telemetry()
    telemetry.watch_journal(journal)
    try:
        await journal.append("default", "traces", 1, b"x" * 1000)
        waiting = value(telemetry, "journal_depth_requests"), value(telemetry, "journal_open_ranges")
        taken = journal.seal(bytes_max=1 << 20, timeout_s=5)
        assert taken is not None
        sealed = value(telemetry, "journal_depth_requests"), value(telemetry, "journal_open_ranges")
        journal.done(taken)
        stored = value(telemetry, "journal_depth_requests"), value(telemetry, "journal_open_ranges")
    finally:
        journal.close()

    assert (waiting, sealed, stored) == ((1, 0), (0, 1), (0, 0))
    assert value(telemetry, "journal_committed_bytes_total") == 1000
    assert value(telemetry, "journal_bytes_max") == 1 << 30
    assert value(telemetry, "journal_refused_requests_total", reason="cap") == 0
    families = {family.name for family in text_string_to_metric_families(telemetry.exposition().decode())}
    journal_metrics = {metric.name.removesuffix("_total") for metric in telemetry.reference if "journal" in metric.name}
    assert journal_metrics <= families


def test_two_telemetries_share_nothing() -> None:
    first, second = Telemetry(), Telemetry()
    first.sink.stored("spans", rows=10, bytes_=100, seconds=0.1)

    assert value(first, "insert_rows_total", table="spans") == 10
    assert value(second, "insert_rows_total", table="spans") == 0


class _Watched:
    """A part all of whose figures are 1."""

    def __init__(
        self, kind: type[ReconcilerStats | DetectorStats | RollupsStats | RetentionStats | PriceStats]
    ) -> None:
        self._kind = kind

    def stats(self) -> object:
        names = (field.name for field in dataclasses.fields(self._kind))
        return self._kind(**dict.fromkeys(names, 1))  # type: ignore[arg-type]


class _WatchedKafka:
    def stats(self) -> KafkaStats:
        figures: dict[str, Any] = dict.fromkeys((field.name for field in dataclasses.fields(KafkaStats)), 1)
        return KafkaStats(**(figures | {"lag": {("otlp_spans", 3): 1}, "refused": {"away": 1}}))


class _WatchedAlerts:
    def stats(self) -> Mapping[str, WebhookStats]:
        figures = WebhookStats(
            waiting=1, failing=1, sent=1, findings=1, digests=1, expired=1, rejected=1, failures={"http_500": 1}
        )
        return {"oncall": figures}


class _WatchedBudgets:
    def stats(self) -> BudgetsStats:
        budget = BudgetState(name="all", unit="usd", limit=1, spent=1, forecast=1, used_ratio=1)
        return BudgetsStats(budgets=(budget,), looked_at_s=1, failures=1)


def _every_method(telemetry: Telemetry) -> None:
    telemetry.queried("ok", 0.1)
    telemetry.queries_running(1, 2)
    telemetry.connection_refused("slow_header")
    telemetry.watch_kafka(_WatchedKafka())
    telemetry.watch_reconciler(_Watched(ReconcilerStats))
    telemetry.watch_detector(_Watched(DetectorStats))
    telemetry.watch_alerts(_WatchedAlerts())
    telemetry.watch_budgets(_WatchedBudgets())
    telemetry.watch_rollups(_Watched(RollupsStats))
    telemetry.watch_retention(_Watched(RetentionStats))
    telemetry.watch_price(_Watched(PriceStats))
    telemetry.found(signature="retry_loop", kind="identical", severity="high", service="shop", agent="buyer")
    telemetry.wasted(signature="retry_loop", service="shop", agent="buyer", tokens=1, cost_usd=Decimal(1))
    telemetry.signature_failed("retry_loop")
    telemetry.accepted("traces", "grpc", items=1, body_bytes=1, seconds=0.1)
    telemetry.refused("traces", "grpc", "full", items=1)
    telemetry.rejected("traces", "grpc", "bad", items=1)
    telemetry.inflight_bytes(1)
    telemetry.decoded(frames=1, bytes_=1, spans=1, rejected=1, ignored_logs=1, seconds=0.1)
    telemetry.inserted(spans=1, content=1, log_events=1, seconds=0.1)
    telemetry.sink.stored("spans", rows=1, bytes_=1, seconds=0.1)
    telemetry.sink.refused("spans", rows=1, reason="TOO_LARGE_STRING_SIZE")
    telemetry.insert_failed(reason="OSError")
    telemetry.dead_lettered(frames=1, reason="decode")
    telemetry.reconciled(traces=1, seconds=0.1)
    telemetry.reconcile_failed()
    telemetry.processed(spans(CALL), seconds=0.1)
    telemetry.count_gen_ai(
        spans(
            CALL
            | {"usage_scope": "own", "status": "error", "cost_source": "unknown_model", "cost_usd": Decimal("0.1")}
            | dict.fromkeys(
                ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"), 1
            )
        )
    )


def test_every_method_moves_a_metric_of_the_reference_and_every_metric_of_the_reference_moves() -> None:
    telemetry = Telemetry()
    before = samples(telemetry)
    _every_method(telemetry)
    after = samples(telemetry)

    moved = {name for (name, labels), n in after.items() if n != before.get((name, labels), 0.0)}
    promised = [
        metric.name + ("_count" if metric.type == "histogram" else "")
        for metric in telemetry.reference
        if metric.name.startswith("spanwise_") and not metric.name.startswith(("spanwise_build", "spanwise_journal"))
    ]
    assert [name for name in promised if name not in moved and name != "spanwise_label_overflow_total"] == []
    families = {family.name for family in text_string_to_metric_families(telemetry.exposition().decode())}
    documented = {metric.name.removesuffix("_total") for metric in telemetry.reference}
    assert {name for name in families if name.startswith("spanwise_")} <= documented


def test_process_and_build_figures_are_there() -> None:
    names = {name for (name, _) in samples(Telemetry())}

    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "spanwise_build_info"} <= names


def test_telemetry_is_the_observer_of_every_component() -> None:
    telemetry = Telemetry()
    receiver: ReceiverObserver = telemetry
    pipeline: PipelineObserver = telemetry
    sink: SinkObserver = telemetry.sink

    assert (receiver, pipeline, sink) == (telemetry, telemetry, telemetry.sink)  # the claim is what mypy checks


def test_counting_a_batch_costs_the_same_python_calls_whatever_its_rows() -> None:
    def python_calls(rows: Sequence[Mapping[str, Any]]) -> int:
        batch, telemetry, calls = spans(*rows), Telemetry(), 0

        def profile(_frame: object, event: str, _arg: object) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(profile)
        try:
            telemetry.count_gen_ai(batch)
        finally:
            sys.setprofile(None)
        return calls

    call = CALL | {"usage_scope": "own", "input_tokens": 1}
    few = python_calls([call] * 2)
    assert python_calls([call] * 5_000) <= few
