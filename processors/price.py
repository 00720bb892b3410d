"""What the usage of a span costs, in exact decimal arithmetic.

Rates come from the price table bundled with `genai-prices` (never from the network) or from overrides in the
configuration. A model neither of them knows has no price: nothing is guessed.

    cost = (input - cache_read - cache_write) x input rate + cache_read x read rate + cache_write x write rate
         + output x output rate (+ a fee a request, where the provider takes one)

Each difference is clamped at zero. Rates are integers of 10⁻¹⁵ USD a token, so sums are exact before they are
rounded, half to even, to the 10⁻⁹ USD that `cost_usd` holds.
"""

from __future__ import annotations

import re
import threading
import tomllib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any, Final, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import structlog
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, Provider, TieredPrices
from pydantic import BaseModel, ConfigDict, Field

from processors.columns import (
    Bools,
    Ints,
    compute,
    dense,
    encode,
    first_rows,
    from_vocabulary,
    is_known,
    is_one_of,
    money,
    numbers,
    replaced,
)
from spanwise.model import SpanBatch

_log = structlog.get_logger(__name__)

_K = TypeVar("_K")
_V = TypeVar("_V")

SOURCE_TABLE: Final = "genai-prices"
SOURCE_OVERRIDE: Final = "override"
SOURCE_UNKNOWN: Final = "unknown_model"
_SOURCES: Final = ("", SOURCE_TABLE, SOURCE_OVERRIDE, SOURCE_UNKNOWN)

TOKENS_MAX: Final = 10**11
"""A count above this is not a count. With rates up to 10⁴ USD a million tokens every sum fits 64 bits."""
RATE_USD_PER_MTOK_MAX: Final = 10_000
SLOT_S: Final = 900
"""Prices that depend on the time of day change at full or half hours; some time zones make that a quarter."""

CACHE_WRITE_1H: Final = "spanwise.usage.cache_write_1h.input_tokens"
AUDIO_INPUT: Final = "gen_ai.usage.audio.input_tokens"
AUDIO_OUTPUT: Final = "gen_ai.usage.audio.output_tokens"
AUDIO_CACHE_READ: Final = "gen_ai.usage.audio.cache_read.input_tokens"
_DETAILS: Final = (CACHE_WRITE_1H, AUDIO_INPUT, AUDIO_CACHE_READ, AUDIO_OUTPUT)

_TERMS: Final = (
    "input",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "audio_input",
    "audio_cache_read",
    "output",
    "reasoning",
    "audio_output",
    "request",
)
_INPUT, _READ, _WRITE, _WRITE_1H, _AUDIO, _AUDIO_READ, _OUTPUT, _REASONING, _AUDIO_OUTPUT, _REQUEST = range(len(_TERMS))

_PROVIDERS: Final = {
    "openai": "openai",
    "anthropic": "anthropic",
    "aws.bedrock": "aws",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "amazon-bedrock": "aws",
    "aws": "aws",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "azure": "azure",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google",
    "google": "google",
    "google-gla": "google",
    "google-vertex": "google",
    "google_genai": "google",
    "gemini": "google",
    "vertex_ai": "google",
    "vertexai": "google",
    "cohere": "cohere",
    "mistral_ai": "mistral",
    "mistral": "mistral",
    "mistralai": "mistral",
    "groq": "groq",
    "deepseek": "deepseek",
    "perplexity": "perplexity",
    "x_ai": "x-ai",
    "xai": "x-ai",
    "x-ai": "x-ai",
    "moonshot_ai": "moonshotai",
    "moonshot": "moonshotai",
    "moonshotai": "moonshotai",
    "openrouter": "openrouter",
    "together": "together",
    "together_ai": "together",
    "fireworks": "fireworks",
    "fireworks_ai": "fireworks",
    "cerebras": "cerebras",
    "voyage": "voyageai",
    "voyageai": "voyageai",
    "zai": "zai",
    "minimax": "minimax",
    "novita": "novita",
    "databricks": "databricks",
}
"""`gen_ai.provider.name` and the prefixes gateways write before a model -> provider of genai-prices. Its own matching
takes `azure.ai.openai` for OpenAI, which has other models."""

_SELF_HOSTED: Final = frozenset(
    {"ollama", "vllm", "lmstudio", "lm_studio", "llamacpp", "llama.cpp", "localai", "tgi", "sglang", "huggingface"}
)
"""Whoever serves a model himself pays no list price, whatever the model is called."""

_REGION: Final = re.compile(r"^(?:us|eu|apac|global|us-gov|jp|au|ca|sa|me|af)\.")
_BEDROCK: Final = re.compile(r"^(?:[a-z-]+\.)?(?:ai21|amazon|anthropic|cohere|deepseek|meta|mistral)\.[\w.-]+-v\d")
_DATE: Final = re.compile(r"[-@](?:20\d{6}|20\d\d-\d\d-\d\d)$")
_REVISION: Final = re.compile(r"(?:-v\d+)?:\d+$|-latest$")
_SHOWABLE: Final = re.compile(r"[\w./:@+-]{1,100}")
_MODEL_LENGTH_MAX: Final = 256


@cache
def pinned_context_windows() -> dict[tuple[str, str], int]:
    """(genai-prices provider, model) -> tokens, for models of which genai-prices does not say."""
    text = (resources.files("processors") / "data" / "context_windows.toml").read_text(encoding="utf-8")
    return {(row["provider"], row["model"]): row["tokens"] for row in tomllib.loads(text)["model"]}


class PriceOverride(BaseModel):
    """USD per million tokens for models that match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str = Field("", description="Canonical `gen_ai.provider.name`; empty matches every provider.")
    model: str = Field(description="Model as on the span or as cleaned up for the lookup; `*` and `?` are wildcards.")
    input: Decimal = Field(ge=0, le=RATE_USD_PER_MTOK_MAX, description="Input tokens.")
    output: Decimal = Field(Decimal(0), ge=0, le=RATE_USD_PER_MTOK_MAX, description="Output tokens.")
    cache_read: Decimal | None = Field(
        None, ge=0, le=RATE_USD_PER_MTOK_MAX, description="Input read from a cache; as `input` where not given."
    )
    cache_write: Decimal | None = Field(
        None, ge=0, le=RATE_USD_PER_MTOK_MAX, description="Input written to a cache; as `input` where not given."
    )


class PriceConfig(BaseModel):
    """Fill `cost_usd` and `cost_source`."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["price"] = "price"
    overrides: tuple[PriceOverride, ...] = Field(
        (), description="Prices that win over the table; the first match counts."
    )
    models_max: int = Field(4_096, ge=1, description="Looked-up models that are remembered.")
    rates_max: int = Field(16_384, ge=1, description="Rates of a model in a quarter of an hour that are remembered.")
    lookups_per_batch_max: int = Field(
        500, ge=1, description="New model names looked up in one batch; further ones count as unknown."
    )
    unknown_max: int = Field(1_000, ge=1, description="Unknown models that are listed and warned about.")

    def build(self) -> Price:
        return Price(self)


class _Rates(NamedTuple):
    """Rates of one model at one time: a band per input size, each with a rate per term in 10⁻¹⁵ USD."""

    starts: tuple[int, ...]
    """Band i + 1 holds for inputs above `starts[i]`."""
    bands: tuple[tuple[int, ...], ...]
    source: str


class _Found(NamedTuple):
    provider: Provider
    model: ModelInfo


_UNKNOWN: Final = _Rates((), ((0,) * len(_TERMS),), SOURCE_UNKNOWN)


def lookup_names(provider: str, model: str) -> Iterator[tuple[str, str]]:
    """The (genai-prices provider or '', model) pairs under which a model may be listed, the most literal first.

    Undoes what gateways and clouds write around a name: `openai/gpt-4o`, `openai:gpt-4o`, resource paths, Bedrock
    regions, revisions and dates.
    """
    stated = _PROVIDERS.get(provider, provider)
    seen: set[tuple[str, str]] = set()

    def names(name: str) -> Iterator[tuple[str, str]]:
        for head, rest in (name.partition("/")[::2], name.partition(":")[::2]):
            if rest and head in _PROVIDERS:
                yield _PROVIDERS[head], rest
                yield stated, rest
        yield stated, name.rpartition("/")[2]
        if not stated and _BEDROCK.match(name):
            yield "aws", name

    pending = [(stated, model.strip().lower())]
    while pending:
        pair = pending.pop(0)
        if pair in seen or not pair[1] or len(seen) > 16:  # a name has only so many wrappings
            continue
        seen.add(pair)
        yield pair
        owner, name = pair
        pending += names(name)
        pending += [(owner, short) for rule in (_REGION, _REVISION, _DATE) if (short := rule.sub("", name)) != name]


@dataclass(frozen=True, slots=True)
class PriceStats:
    """Counts since the start."""

    unknown_overflow: int
    """Spans without a price of models that are not listed any more."""
    lookups_refused: int
    """New names of models that came when their batch had had its lookups."""


class Price:
    """Prices every span that has usage and a model, whatever its usage scope; sums take `own` only.

    Safe to share between threads. `unknown` maps (provider, model) to spans seen, for at most `unknown_max` pairs.
    """

    def __init__(self, config: PriceConfig | None = None) -> None:
        self._config = config or PriceConfig()
        self._providers = {provider.id: provider for provider in get_snapshot().providers}
        self._models: OrderedDict[tuple[str, str, str], _Found | _Rates | None] = OrderedDict()
        self._rates: OrderedDict[tuple[str, str, str, int], _Rates] = OrderedDict()
        self._lock = threading.Lock()
        self._budget = 0
        self.unknown: dict[tuple[str, str], int] = {}
        self._unknown_overflow = 0
        self._lookups_refused = 0

    def __call__(self, batch: SpanBatch) -> SpanBatch:
        rows = np.flatnonzero(_has_usage(batch) & _has_model(batch))
        cost = np.zeros(batch.num_rows, dtype=np.int64)
        priced = np.zeros(batch.num_rows, dtype=np.bool_)
        source = np.zeros(batch.num_rows, dtype=np.int8)
        if len(rows):
            cost[rows], priced[rows], source[rows] = self._price(batch.take(rows))
        changed = {"cost_usd": money(cost, priced), "cost_source": from_vocabulary(source, _SOURCES)}
        return replaced(batch, changed)

    def stats(self) -> PriceStats:
        return PriceStats(self._unknown_overflow, self._lookups_refused)

    def context_window(self, provider: str, model: str) -> int | None:
        """Tokens that fit into one call of a model; None if neither genai-prices nor our pinned table says."""
        with self._lock:
            found = _remembered(
                self._models,
                (provider.lower(), model, ""),
                self._config.models_max,
                lambda: self._find((provider.lower(), model, "")),
            )
        if not isinstance(found, _Found):
            return None
        return found.model.context_window or pinned_context_windows().get((found.provider.id, found.model.id))

    def _price(self, batch: SpanBatch) -> tuple[Ints, Bools, npt.NDArray[np.int8]]:
        table, inverse = self._rates_of(batch)
        tokens, known = _tokens(batch, table, inverse)
        band = table.first[inverse]
        total = _counts(batch, "input_tokens")[0]
        for start in table.starts:
            band += total > start[inverse]
        fine = np.zeros(len(band), dtype=np.int64)
        cost = np.zeros(len(band), dtype=np.int64)
        for term, counts in enumerate(tokens):
            cost += counts * table.nano[term][band]
            fine += counts * table.rest[term][band]
        up, left = np.divmod(fine, 10**6)
        cost += up
        half = 5 * 10**5
        cost += (left > half) | ((left == half) & (cost % 2 == 1))
        source = table.source[inverse]
        priced = known & (source != _SOURCES.index(SOURCE_UNKNOWN)) & (cost < 10**18)
        return cost, priced, source

    def _rates_of(self, batch: SpanBatch) -> tuple[_RateTable, Ints]:
        """Rates of the distinct (provider, models, time slot) of a batch, and which of them each row has."""
        columns = [encode(batch.column(name)) for name in ("provider", "response_model", "request_model")]
        slot = np.clip(numbers(batch.column("start_time")) // (SLOT_S * 10**9), 0, 2**31)
        inverse = dense(*(codes for codes, _ in columns), slot)
        first = first_rows(inverse)
        seen = np.bincount(inverse, minlength=len(first))
        rates: list[_Rates] = []
        with self._lock:
            self._budget = self._config.lookups_per_batch_max
            for row, count in zip(first.tolist(), seen.tolist(), strict=True):
                names = [str(values[codes[row]]) for codes, values in columns]
                rate = self._rate((names[0].lower(), names[1], names[2]), int(slot[row]))
                if rate.source == SOURCE_UNKNOWN:
                    self._count_unknown(names[0], names[1] or names[2], count)
                rates.append(rate)
        return _RateTable(rates), inverse

    def _rate(self, who: tuple[str, str, str], slot: int) -> _Rates:
        def at_slot() -> _Rates:
            found = _remembered(self._models, who, self._config.models_max, lambda: self._find(who))
            if isinstance(found, _Rates):
                return found
            if found is None:
                return _UNKNOWN
            return _resolve(found, datetime.fromtimestamp(slot * SLOT_S, tz=UTC)) or _UNKNOWN

        if who not in self._models:
            if self._budget == 0:
                self._lookups_refused += 1
                return _UNKNOWN
            self._budget -= 1
        return _remembered(self._rates, (*who, slot), self._config.rates_max, at_slot)

    def _find(self, who: tuple[str, str, str]) -> _Found | _Rates | None:
        provider, response_model, request_model = who
        models = [m for m in (response_model, request_model) if 0 < len(m) <= _MODEL_LENGTH_MAX]
        for override in self._config.overrides:
            if override.provider and override.provider.lower() != provider:
                continue
            pattern = override.model.lower()
            if any(fnmatchcase(name, pattern) for m in models for _, name in lookup_names(provider, m)):
                return _override_rates(override)
        if provider in _SELF_HOSTED:
            return None
        stated = _PROVIDERS.get(provider, provider)
        for model in models:
            pairs = list(lookup_names(provider, model))
            for owner, name in pairs:
                if owner and (found := self._listed(owner, name)):
                    return found
            if stated in ("", "openai") or stated not in self._providers:
                for _, name in pairs:
                    if found := self._only_maker(name):
                        return found
        return None

    def _listed(self, owner: str, name: str) -> _Found | None:
        provider = self._providers.get(owner)
        model = provider and provider.find_model(name, all_providers=list(self._providers.values()))
        return _Found(provider, model) if provider and model else None

    def _only_maker(self, name: str) -> _Found | None:
        """The maker to whom the bare name belongs, if it is the only one.

        For spans without a provider, and for OpenAI's client, which is also the client of everybody's compatible API.
        """
        makers = [p for p in self._providers.values() if p.model_match is not None]
        found = [p for p in makers if p.model_match and p.model_match.is_match(name)] or [
            p for p in makers if any(model.id == name for model in p.models)
        ]
        priced = [_Found(p, model) for p in found if (model := p.find_model(name))]
        return priced[0] if len(priced) == 1 else None

    def _count_unknown(self, provider: str, model: str, spans: int) -> None:
        key = (provider, model[:_MODEL_LENGTH_MAX])
        if key in self.unknown:
            self.unknown[key] += spans
        elif len(self.unknown) < self._config.unknown_max:
            self.unknown[key] = spans
            shown = model if _SHOWABLE.fullmatch(model) else "(not shown: not shaped like a model name)"
            _log.warning("no price for a model: add it to price.overrides", model=shown)
        else:
            self._unknown_overflow += spans


class _RateTable:
    """Rates of many models as columns, one row a band."""

    def __init__(self, rates: list[_Rates]) -> None:
        bands = np.array([band for rate in rates for band in rate.bands], dtype=np.int64).T
        sizes = np.array([len(rate.bands) for rate in rates], dtype=np.int64)
        self.first: Ints = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)[:-1]])
        self.nano: Ints = bands // 10**6
        self.rest: Ints = bands % 10**6
        never = np.iinfo(np.int64).max
        self.starts: list[Ints] = [
            np.array([r.starts[i] if i < len(r.starts) else never for r in rates], dtype=np.int64)
            for i in range(max(len(r.starts) for r in rates))
        ]
        self.source = np.array([_SOURCES.index(rate.source) for rate in rates], dtype=np.int8)
        self.input_is_free = _all_bands(rates, lambda band: band[_INPUT] == 0)
        self.output_is_free = _all_bands(rates, lambda band: band[_OUTPUT] == 0)
        self.needs_details = ~_all_bands(
            rates,
            lambda band: (
                (band[_WRITE], band[_INPUT], band[_OUTPUT]) == (band[_WRITE_1H], band[_AUDIO], band[_AUDIO_OUTPUT])
            ),
        )


def _all_bands(rates: list[_Rates], holds: Callable[[tuple[int, ...]], bool]) -> Bools:
    return np.array([all(holds(band) for band in rate.bands) for rate in rates], dtype=np.bool_)


def _tokens(batch: SpanBatch, table: _RateTable, inverse: Ints) -> tuple[list[Ints], Bools]:
    """Tokens of each term, disjoint, and whether enough is known to price the row."""
    total, has_input = _counts(batch, "input_tokens")
    output, has_output = _counts(batch, "output_tokens")
    read, _ = _counts(batch, "cache_read_tokens")
    write, _ = _counts(batch, "cache_write_tokens")
    reasoning, _ = _counts(batch, "reasoning_tokens")
    hour, audio_in, audio_read, audio_out = _details(batch, table.needs_details[inverse])
    zero = np.int64(0)
    hour = np.minimum(hour, write)
    audio_read = np.minimum(audio_read, read)
    audio_in = np.maximum(audio_in - audio_read, zero)
    audio_out = np.minimum(audio_out, output)
    reasoning = np.minimum(reasoning, output - audio_out)
    text = np.maximum(total - read - write - audio_in, zero)
    tokens: list[Ints] = [text] * len(_TERMS)
    tokens[_READ] = read - audio_read
    tokens[_WRITE] = write - hour
    tokens[_WRITE_1H] = hour
    tokens[_AUDIO] = audio_in
    tokens[_AUDIO_READ] = audio_read
    tokens[_OUTPUT] = output - reasoning - audio_out
    tokens[_REASONING] = reasoning
    tokens[_AUDIO_OUTPUT] = audio_out
    tokens[_REQUEST] = np.ones(len(total), dtype=np.int64)
    counted = (has_input | table.input_is_free[inverse]) & (has_output | table.output_is_free[inverse])
    one_way = is_one_of(batch.column("kind"), ("embedding", "rerank"))
    plausible = np.ones(len(total), dtype=np.bool_)
    for counts in (total, output, read, write, audio_in):
        plausible &= counts <= TOKENS_MAX
    return [np.minimum(t, TOKENS_MAX) for t in tokens], (counted | (one_way & has_input)) & plausible


def _details(batch: SpanBatch, wanted: Bools) -> list[Ints]:
    """Counts that have no column, of the rows whose price depends on them."""
    found = [np.zeros(batch.num_rows, dtype=np.int64) for _ in _DETAILS]
    rows = np.flatnonzero(wanted)
    if len(rows) == 0:
        return found
    maps: Any = batch.column("attributes").take(rows)
    which = compute.index_in(maps.keys, pa.array(_DETAILS))
    at = np.flatnonzero(which.is_valid().to_numpy(zero_copy_only=False))
    if len(at) == 0:
        return found
    offsets = maps.offsets.to_numpy()
    owner = rows[np.searchsorted(offsets, at + offsets[0], side="right") - 1]
    values = maps.items.take(pa.array(at))
    for row, detail, text in zip(owner.tolist(), which.take(pa.array(at)).to_pylist(), values.to_pylist(), strict=True):
        if text.isascii() and text.isdigit() and len(text) <= 12:
            found[detail][row] = int(text)
    return found


def _resolve(found: _Found, at: datetime) -> _Rates | None:
    """Rates of a listed model at a time, None if it is not sold by tokens."""
    price = found.model.get_prices(at)

    def listed(*keys: str) -> Decimal | TieredPrices | None:
        return next((value for key in keys if (value := getattr(price, key, None)) is not None), None)

    terms: dict[int, Decimal | TieredPrices | None] = {
        _INPUT: listed("input_mtok"),
        _READ: listed("cache_read_mtok", "input_mtok"),
        _WRITE: listed("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
        _WRITE_1H: listed("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
        _AUDIO: listed("input_audio_mtok", "input_mtok"),
        _AUDIO_READ: listed("cache_audio_read_mtok", "cache_read_mtok", "input_audio_mtok", "input_mtok"),
        _OUTPUT: listed("output_mtok"),
        _REASONING: listed("output_reasoning_mtok", "output_mtok"),
        _AUDIO_OUTPUT: listed("output_audio_mtok", "output_mtok"),
    }
    if terms[_INPUT] is None and terms[_OUTPUT] is None:
        return None
    starts = tuple(sorted({t.start for p in terms.values() if isinstance(p, TieredPrices) for t in p.tiers}))
    fee = getattr(price, "requests_kcount", None)
    fee_units = int(fee * 10**12) if isinstance(fee, Decimal) else 0
    bands = tuple(
        (*(_units(_at_size(terms[term], start)) for term in range(_REQUEST)), fee_units)
        for start in (0, *(s + 1 for s in starts))
    )
    return _Rates(starts, bands, SOURCE_TABLE)


def _at_size(price: Decimal | TieredPrices | None, size: int) -> Decimal:
    if isinstance(price, TieredPrices):
        return next((tier.price for tier in reversed(price.tiers) if size > tier.start), price.base)
    return price if price is not None else Decimal(0)


def _units(usd_per_mtok: Decimal) -> int:
    """10⁻¹⁵ USD a token."""
    return int((min(usd_per_mtok, Decimal(RATE_USD_PER_MTOK_MAX)) * 10**9).to_integral_value())


def _override_rates(override: PriceOverride) -> _Rates:
    own = _units(override.input)
    read = own if override.cache_read is None else _units(override.cache_read)
    write = own if override.cache_write is None else _units(override.cache_write)
    out = _units(override.output)
    return _Rates((), ((own, read, write, write, own, read, out, out, out, 0),), SOURCE_OVERRIDE)


def _remembered(cache: OrderedDict[_K, _V], key: _K, size: int, make: Callable[[], _V]) -> _V:
    if key in cache:
        cache.move_to_end(key)
        return cache[key]
    cache[key] = value = make()
    if len(cache) > size:
        cache.popitem(last=False)
    return value


def _has_usage(batch: SpanBatch) -> Bools:
    return is_known(batch.column("input_tokens")) | is_known(batch.column("output_tokens"))


def _has_model(batch: SpanBatch) -> Bools:
    return ~(is_one_of(batch.column("response_model"), ("",)) & is_one_of(batch.column("request_model"), ("",)))


def _counts(batch: SpanBatch, name: str) -> tuple[Ints, Bools]:
    column = batch.column(name)
    counts = np.minimum(numbers(column), np.uint64(TOKENS_MAX + 1))
    return counts.astype(np.int64), is_known(column)
