"""What a span costs: exact against the price table's own arithmetic, never guessed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TieredPrices, TimeOfDateConstraint
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.price import (
    AUDIO_CACHE_READ,
    AUDIO_INPUT,
    AUDIO_OUTPUT,
    CACHE_WRITE_1H,
    SLOT_S,
    Price,
    PriceConfig,
    PriceOverride,
    PriceStats,
    lookup_names,
    pinned_context_windows,
)
from spanwise.model import SPANS
from tests.build import START, batch, llm, span

NANO = Decimal("1e-9")
PRICE = Price()


def cost(row: dict[str, Any], price: Price = PRICE) -> tuple[Decimal | None, str]:
    """(cost_usd, cost_source) of one span."""
    priced = price(batch([row]))
    return priced.column("cost_usd")[0].as_py(), priced.column("cost_source")[0].as_py()


def listed_models() -> Iterator[tuple[str, str]]:
    """(provider, model) of every listed model that is sold by tokens and found again under its own id."""
    for provider in get_snapshot().providers:
        for model in provider.models:
            prices = model.get_prices(datetime.fromtimestamp(START / 1e9, UTC))
            sold_by_tokens = getattr(prices, "input_mtok", None) or getattr(prices, "output_mtok", None)
            if sold_by_tokens and provider.find_model(model.id) is model:
                yield provider.id, model.id


def table_cost(provider: str, model: str, usage: Usage, at_ns: int = START) -> Decimal:
    at = datetime.fromtimestamp(at_ns // 10**9, UTC)
    return calc_price(usage, model, provider_id=provider, genai_request_timestamp=at).total_price


def test_costs_are_those_of_the_price_table_for_every_model_it_lists() -> None:
    usages = [
        (0, 0, 0, 0),
        (164, 24, 64, 0),
        (1272, 29, 1024, 211),
        (250_001, 4_001, 100_000, 50_000),
        (900_000, 1, 0, 0),
    ]
    models = list(listed_models())
    rows, expected = [], []
    for provider, model in models:
        for number, (total, output, read, write) in enumerate(usages):
            row = llm(
                number, provider=provider, request_model=model, response_model="", usage=(total, output), start=START
            )
            rows.append(row | {"cache_read_tokens": read, "cache_write_tokens": write})
            usage = Usage(input_tokens=total, output_tokens=output, cache_read_tokens=read, cache_write_tokens=write)
            expected.append(table_cost(provider, model, usage))
    price = Price(PriceConfig(lookups_per_batch_max=len(models)))
    got = price(batch(rows)).column("cost_usd").to_pylist()
    assert len(models) > 1_500
    wrong = [
        (row["provider"], row["request_model"], want, have)
        for row, want, have in zip(rows, expected, got, strict=True)
        # the table has rates of a sixth of a cent with 16 digits; ours keep nine after the point
        if have is None or abs(have - want) > Decimal("0.6e-9")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("at", "input_rate"),
    [("2026-09-09T23:59:59", "0.055"), ("2026-09-10T00:00:00", "0.11")],
)
def test_a_price_that_changes_on_a_day_is_the_one_of_the_start_of_the_span(at: str, input_rate: str) -> None:
    start = int(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()) * 10**9
    row = llm(1, provider="zhipuai", request_model="glm-5.3-flash", response_model="", usage=(10**6, 0), start=start)
    assert cost(row)[0] == Decimal(input_rate)


def test_a_price_that_changes_within_the_hour_changes_at_that_minute() -> None:
    changes = [
        (provider.id, model.id, conditional.constraint)
        for provider in get_snapshot().providers
        for model in provider.models
        if isinstance(model.prices, list)
        for conditional in model.prices
        if isinstance(conditional.constraint, TimeOfDateConstraint)
    ]
    assert changes
    for provider, model, constraint in changes:
        for edge in (constraint.start_time, constraint.end_time):
            assert (edge.hour * 3600 + edge.minute * 60 + edge.second) % SLOT_S == 0
        for hour in range(24):
            for minute in (0, 29, 30, 59):
                start = int(datetime(2025, 6, 3, hour, minute, tzinfo=UTC).timestamp()) * 10**9
                row = llm(1, provider=provider, request_model=model, response_model="", usage=(1_000, 10), start=start)
                want = table_cost(provider, model, Usage(input_tokens=1_000, output_tokens=10), start)
                assert cost(row)[0] == want.quantize(NANO, ROUND_HALF_EVEN)


def test_the_size_of_the_whole_input_picks_the_tier_of_every_rate() -> None:
    model = ("google", "gemini-2.5-pro")
    tiers = get_snapshot().find_provider_model(model[1], None, model[0], None)[1].get_prices(datetime.now(UTC))
    assert isinstance(tiers, ModelPrice)
    assert isinstance(tiers.input_mtok, TieredPrices)
    edge = tiers.input_mtok.tiers[0].start
    for total in (edge, edge + 1):
        row = llm(1, provider="gcp.gemini", request_model=model[1], response_model="", usage=(total, 1_000))
        want = table_cost(*model, Usage(input_tokens=total, output_tokens=1_000))
        assert cost(row)[0] == want.quantize(NANO, ROUND_HALF_EVEN)
    below = cost(llm(1, provider="gcp.gemini", request_model=model[1], response_model="", usage=(edge, 0)))[0]
    above = cost(llm(1, provider="gcp.gemini", request_model=model[1], response_model="", usage=(edge + 1, 0)))[0]
    assert below is not None
    assert above is not None
    assert above > below * 3 / 2


def test_cache_reads_and_writes_are_part_of_the_input_and_have_their_own_rates() -> None:
    # claude-sonnet-4-5: 3 in, 15 out, 0.30 read, 3.75 write; Claude Code itself reported 0.00164445 for this call
    row = llm(1, provider="anthropic", request_model="claude-sonnet-4-5", response_model="", usage=(1272, 29))
    assert cost(row | {"cache_read_tokens": 1024, "cache_write_tokens": 211})[0] == Decimal("0.001644450")


def test_an_hour_of_cache_costs_more_than_five_minutes() -> None:
    row = llm(1, provider="anthropic", request_model="claude-sonnet-4-5", response_model="", usage=(1_000, 0))
    row |= {"cache_write_tokens": 1_000}
    hour = row | {"attributes": [(CACHE_WRITE_1H, "400")], "attribute_types": "I"}
    assert cost(row)[0] == Decimal("0.00375")
    assert cost(hour)[0] == Decimal("0.00465")


def test_audio_tokens_have_their_own_rates() -> None:
    attributes = [(AUDIO_INPUT, "60"), (AUDIO_CACHE_READ, "10"), (AUDIO_OUTPUT, "30"), ("other", "5")]
    row = llm(1, request_model="gpt-realtime", response_model="", usage=(100, 40), attributes={})
    row |= {"attributes": attributes, "attribute_types": "IIII", "cache_read_tokens": 25}
    usage = Usage(
        input_tokens=100,
        output_tokens=40,
        cache_read_tokens=25,
        input_audio_tokens=60,
        cache_audio_read_tokens=10,
        output_audio_tokens=30,
    )
    assert cost(row)[0] == table_cost("openai", "gpt-realtime", usage).quantize(NANO, ROUND_HALF_EVEN)


def test_an_unknown_model_has_no_price_and_is_listed() -> None:
    price = Price()
    rows = [llm(n, request_model="wonder-1", response_model="") for n in range(3)]
    priced = price(batch([*rows, llm(9)]))
    assert priced.column("cost_usd").to_pylist()[:3] == [None] * 3
    assert priced.column("cost_source").to_pylist() == ["unknown_model"] * 3 + ["genai-prices"]
    assert price.unknown == {("openai", "wonder-1"): 3}


def test_the_list_of_unknown_models_and_the_lookups_of_a_batch_are_bounded() -> None:
    price = Price(PriceConfig(unknown_max=2, lookups_per_batch_max=3, models_max=2, rates_max=2))
    rows = [llm(n, request_model=f"wonder-{n}", response_model="") for n in range(10)]
    assert price(batch(rows)).column("cost_source").to_pylist() == ["unknown_model"] * 10
    assert len(price.unknown) == 2
    assert price.stats() == PriceStats(unknown_overflow=8, lookups_refused=7)


def test_a_model_refused_for_lack_of_budget_is_found_in_the_next_batch() -> None:
    price = Price(PriceConfig(lookups_per_batch_max=1))
    rows = [llm(1, request_model="gpt-4o", response_model=""), llm(2, request_model="gpt-4o-mini", response_model="")]
    price(batch(rows))
    assert price(batch(rows)).column("cost_source").to_pylist() == ["genai-prices"] * 2


def test_models_one_serves_oneself_have_no_list_price() -> None:
    assert cost(llm(1, provider="ollama", request_model="gpt-4o", response_model="gpt-4o")) == (None, "unknown_model")


@pytest.mark.parametrize(
    ("provider", "model", "owner", "listed"),
    [
        ("openai", "gpt-4o-mini-2024-07-18", "openai", "gpt-4o-mini"),
        ("", "gpt-4o", "openai", "gpt-4o"),
        ("openai", "anthropic/claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("", "openai:gpt-4o", "openai", "gpt-4o"),
        ("", "azure/gpt-4o", "azure", "gpt-4o"),
        ("azure.ai.openai", "gpt-4o", "azure", "gpt-4o"),
        ("litellm", "openai/gpt-4o", "openai", "gpt-4o"),
        ("openrouter", "openai/gpt-4o", "openrouter", "openai/gpt-4o"),
        ("gcp.gemini", "models/gemini-2.5-flash", "google", "gemini-2.5-flash"),
        ("gcp.vertex_ai", "projects/p/publishers/google/models/gemini-2.5-flash", "google", "gemini-2.5-flash"),
        ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", "anthropic", "claude-sonnet-4-5"),
        ("aws.bedrock", "anthropic.claude-3-haiku-20240307-v1:0", "aws", "anthropic.claude-3-haiku-20240307-v1:0"),
        ("aws.bedrock", "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
         "aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("", "anthropic.claude-3-haiku-20240307-v1:0", "aws", "anthropic.claude-3-haiku-20240307-v1:0"),
        ("", "text-embedding-3-small", "openai", "text-embedding-3-small"),
        ("", "claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("openai", "claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("", "gemini-2.5-flash", "google", "gemini-2.5-flash"),
        ("openai", "deepseek-chat", "deepseek", "deepseek-chat"),
        ("mock", "gpt-5-codex", "openai", "gpt-5-codex"),
    ],
)  # fmt: skip
def test_what_gateways_and_clouds_write_around_a_model_name_does_not_hide_its_price(
    provider: str, model: str, owner: str, listed: str
) -> None:
    got, source = cost(llm(1, provider=provider, request_model=model, response_model="", usage=(10_000, 1_000)))
    assert source == "genai-prices"
    assert got == table_cost(owner, listed, Usage(input_tokens=10_000, output_tokens=1_000)).quantize(NANO)


def test_a_provider_that_does_not_list_the_model_does_not_get_another_providers_price() -> None:
    assert cost(llm(1, provider="groq", request_model="gpt-4o", response_model="")) == (None, "unknown_model")


def test_the_model_that_answered_counts_before_the_model_that_was_asked_for() -> None:
    row = llm(1, request_model="gpt-4o", response_model="gpt-4o-mini", usage=(10**6, 0))
    assert cost(row)[0] == Decimal("0.15")
    assert cost(row | {"response_model": "some-deployment"})[0] == Decimal("2.5")


def test_an_override_wins() -> None:
    override = PriceOverride(model="gpt-4o*", input=Decimal("1"), output=Decimal("2"), cache_read=Decimal("0.1"))
    price = Price(PriceConfig(overrides=(override,)))
    row = llm(1, usage=(1_000_000, 500_000), cache_read_tokens=400_000, cache_write_tokens=100_000)
    assert cost(row, price) == (Decimal("1.64"), "override")
    only_azure = override.model_copy(update={"provider": "azure.ai.openai"})
    assert cost(row, Price(PriceConfig(overrides=(only_azure,))))[1] == "genai-prices"


def test_unknown_counts_have_no_price_unless_the_model_does_not_sell_them() -> None:
    assert cost(llm(1) | {"output_tokens": None}) == (None, "genai-prices")
    assert cost(llm(1) | {"input_tokens": None}) == (None, "genai-prices")
    embedding: dict[str, Any] = {"kind": "embedding", "request_model": "text-embedding-3-small", "response_model": ""}
    assert cost(llm(1, usage=(10**6, 0), **embedding) | {"output_tokens": None})[0] == Decimal("0.02")


def test_spans_without_usage_or_model_are_left_alone() -> None:
    assert cost(span(1, kind="tool")) == (None, "")
    assert cost(llm(1, request_model="", response_model="")) == (None, "")
    assert cost(llm(1) | {"input_tokens": None, "output_tokens": None}) == (None, "")


def test_an_aggregate_is_priced_like_its_own() -> None:
    assert cost(llm(1, usage_scope="aggregate")) == cost(llm(1))


def test_a_cache_larger_than_the_input_never_makes_a_cost_negative() -> None:
    row = llm(1, usage=(10, 0), cache_read_tokens=1_000_000)
    assert cost(row)[0] == Decimal("1.25")


def test_an_impossible_count_has_no_price_and_no_overflow() -> None:
    assert cost(llm(1, usage=(2**64 - 1, 2**64 - 1)))[0] is None
    # o1-pro: 150 in, 600 out
    largest = llm(1, request_model="o1-pro", response_model="", usage=(10**11, 10**11))
    assert cost(largest)[0] == Decimal(75_000_000)


def test_prices_never_come_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a price lookup opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert cost(llm(1), Price())[1] == "genai-prices"


@pytest.mark.parametrize(
    ("provider", "model", "tokens"),
    [("openai", "gpt-4o", 128_000), ("gcp.gemini", "models/gemini-2.5-pro", 1_048_576), ("openai", "wonder-1", None)],
)
def test_the_context_window_of_a_model_is_stated_or_unknown(provider: str, model: str, tokens: int | None) -> None:
    assert PRICE.context_window(provider, model) == tokens


def test_pinned_context_windows_are_those_that_the_price_table_lacks() -> None:
    for provider, model in pinned_context_windows():
        listed = get_snapshot().find_provider_model(model, None, provider, None)[1]
        assert (listed.id, listed.context_window) == (model, None)


def test_rows_of_the_whole_schema_come_back_with_only_the_cost_changed() -> None:
    rows = batch([llm(1), span(2)])
    priced = PRICE(rows)
    assert priced.schema == SPANS.arrow
    kept = [name for name in SPANS.names if not name.startswith("cost_")]
    assert priced.select(kept) == rows.select(kept)
    assert PRICE(priced) == priced
    assert PRICE(rows.slice(0, 0)).num_rows == 0


counts = st.integers(0, 3_000_000)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(counts, counts, counts, counts), min_size=1, max_size=20))
def test_a_cost_is_the_exact_sum_rounded_half_even_and_the_same_in_any_batch(calls: list[tuple[int, ...]]) -> None:
    million = 10**6
    rows = [
        llm(n, provider="anthropic", request_model="claude-sonnet-4-5", response_model="", usage=(total, output))
        | {"cache_read_tokens": read, "cache_write_tokens": write}
        for n, (total, output, read, write) in enumerate(calls)
    ]
    together = PRICE(batch(rows)).column("cost_usd").to_pylist()
    assert together == [cost(row)[0] for row in rows]
    for (total, output, read, write), got in zip(calls, together, strict=True):
        high = total > 200_000
        rates = ("6", "22.5", "0.6", "7.5") if high else ("3", "15", "0.3", "3.75")
        in_rate, out_rate, read_rate, write_rate = (Fraction(rate) / million for rate in rates)
        exact = max(total - read - write, 0) * in_rate + read * read_rate + write * write_rate + output * out_rate
        assert Fraction(got) * 10**9 == round(exact * 10**9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 5_000)), min_size=2, max_size=30))
def test_costs_add_up_to_the_cost_of_the_sum(calls: list[tuple[int, int]]) -> None:
    # gpt-4o: 2.5 and 10 USD a million tokens, so that no call needs rounding
    total = (sum(call[0] for call in calls), sum(call[1] for call in calls))
    parts: list[Any] = PRICE(batch(llm(n, usage=usage) for n, usage in enumerate(calls))).column("cost_usd").to_pylist()
    assert sum(parts) == cost(llm(1, usage=total))[0]


@given(st.text(max_size=300), st.text(max_size=30))
def test_no_model_name_takes_long_to_clean_up(model: str, provider: str) -> None:
    assert len(list(lookup_names(provider, model))) <= 17


def test_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [llm(n, cache_read_tokens=3, attributes={f"k{i}": "v" for i in range(12)}) for n in range(500)]
    rows += [span(n, kind="tool") for n in range(500)]
    table = pa.Table.from_batches([batch(rows)] * 100).combine_chunks()
    big = pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=SPANS.arrow)
    PRICE(big)
    started = time.perf_counter()
    PRICE(big)
    spent = time.perf_counter() - started
    with capsys.disabled():
        print(f"\nprice: {big.num_rows / spent / 1e6:.1f}M rows/s")
