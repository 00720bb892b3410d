"""Signatures as rules: conditions over the columns of spans, asked of the store for the traces that are examined.

A rule says which spans it is about, and how many of them, or how much of a number, make a finding, in a whole trace or
within some seconds of it. It reads deduplicated rows each time, so order and repeats do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from processors.detect.examine import Finding
from processors.detect.signature import Found, Severity
from spanwise.model import SPANS
from spanwise.store import load_sql

_SPANS_MAX: Final = 1_000
"""Matching spans of one trace that are looked at, the first ones."""
_TRACES_PER_QUERY: Final = 2_000

_TEXT: Final = {
    column.name
    for column in SPANS.columns
    if column.type in ("String", "LowCardinality(String)") and column.name != "fingerprint"
}
_NUMBERS: Final = {
    column.name
    for column in SPANS.columns
    if column.type.removeprefix("Nullable(").startswith(("UInt", "Float", "Decimal"))
}
_COMPARE: Final = {"eq": "=", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_SEARCH: Final = {"contains": "positionCaseInsensitiveUTF8", "starts_with": "startsWith", "matches": "match"}


class Reader(Protocol):
    def read_arrow(
        self, sql: str, params: Mapping[str, Any] | None = None, *, schema: pa.Schema | None = None
    ) -> pa.Table: ...


class Condition(BaseModel):
    """A test of one column, or of one original attribute, of a span."""

    model_config = ConfigDict(extra="forbid")

    column: str = Field("", description="A column of `spans` with text or a number.")
    attribute: str = Field("", description="Instead of a column: an attribute as it was sent.")
    op: Literal["eq", "ne", "in", "not_in", "gt", "gte", "lt", "lte", "contains", "starts_with", "matches"] = Field(
        "eq", description="How to compare. `contains` ignores case, `matches` takes a regular expression (RE2)."
    )
    value: str | float | list[str] = Field(description="With what; a list for `in` and `not_in`.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if bool(self.column) == bool(self.attribute):
            raise ValueError("give either column or attribute")
        if self.column and self.column not in _TEXT | _NUMBERS:
            raise ValueError(f"spans have no column {self.column!r} with text or a number")
        if (self.op in ("in", "not_in")) != isinstance(self.value, list):
            raise ValueError("`in` and `not_in` take a list, all others one value")
        if self.column in _NUMBERS:
            if self.op not in _COMPARE or not isinstance(self.value, float):
                raise ValueError(f"{self.column} is a number: compare it with a number by {', '.join(_COMPARE)}")
        elif isinstance(self.value, float):
            raise ValueError(f"{self.column or self.attribute} is text: put the value in quotes")
        if isinstance(self.value, str) and len(self.value) > 1_000:
            raise ValueError("a value has at most 1,000 characters")
        return self

    def sql(self, name: str, params: dict[str, Any]) -> str:
        """The test as SQL; its value is added to `params` under `name`."""
        params[name] = self.value
        if self.column in _NUMBERS:
            return f"toFloat64({self.column}) {_COMPARE[self.op]} {{{name}:Float64}}"
        params_attribute = f"{name}_key"
        left = f"toString({self.column})"
        if self.attribute:
            params[params_attribute] = self.attribute
            left = f"attributes[{{{params_attribute}:String}}]"
        if self.op in ("in", "not_in"):
            return f"{left} {'NOT ' if self.op == 'not_in' else ''}IN ({{{name}:Array(String)}})"
        if self.op in _SEARCH:
            return f"{_SEARCH[self.op]}({left}, {{{name}:String}}) > 0"
        return f"{left} {_COMPARE[self.op]} {{{name}:String}}"


class RuleConfig(BaseModel):
    """A signature without code."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern="^[a-z][a-z0-9_]{0,63}$", description="Name of the signature it becomes.")
    where: list[Condition] = Field(min_length=1, max_length=20, description="Conditions a span must meet, all of them.")
    count_min: int = Field(1, ge=1, le=_SPANS_MAX, description="Spans that make a finding.")
    sum_of: str = Field("", description="Column whose sum over these spans must reach `sum_min` as well.")
    sum_min: float = Field(0.0, description="That sum.")
    within_s: float = Field(0.0, ge=0, description="Seconds in which these spans must start; 0 is the whole trace.")
    severity: Severity = Field("warning", description="info, warning, high or critical.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.sum_of and self.sum_of not in _NUMBERS:
            raise ValueError(f"spans have no column {self.sum_of!r} with a number")
        if self.sum_min and not self.sum_of:
            raise ValueError("sum_min needs sum_of")
        return self

    def query(self) -> tuple[str, dict[str, Any]]:
        """The spans it is about, by trace, and the parameters of the text."""
        params: dict[str, Any] = {"most": _SPANS_MAX}
        tests = [condition.sql(f"p{number}", params) for number, condition in enumerate(self.where)]
        summed = f"ifNull(toFloat64({self.sum_of}), 0)" if self.sum_of else "toFloat64(0)"
        text = load_sql("spanwise", "rule").replace("{where}", "\n  AND ".join(tests)).replace("{summed}", summed)
        return text, params

    def find(self, spans: Sequence[tuple[int, int, float]]) -> Iterator[Found]:
        """Findings over matching spans, (start in ns, span id, number) in order of start.

        With `within_s`, each stretch in which the limits are reached somewhere is one finding.
        """
        inside: set[int] = set()
        first = 0
        for last in range(len(spans)):
            while self.within_s and spans[last][0] - spans[first][0] > self.within_s * 1e9:
                first += 1
            chosen = range(first, last + 1)
            if len(chosen) >= self.count_min and self._sum(spans, chosen) >= self.sum_min:
                inside.update(chosen)
        run: list[int] = []
        for position in [*sorted(inside), -1]:
            if run and position != run[-1] + 1:
                yield self._found(spans, run)
                run = []
            run.append(position)

    def _sum(self, spans: Sequence[tuple[int, int, float]], chosen: range) -> float:
        return sum(spans[position][2] for position in chosen) if self.sum_of else 0.0

    def _found(self, spans: Sequence[tuple[int, int, float]], run: Sequence[int]) -> Found:
        evidence: dict[str, str | int | float] = {"spans": len(run)}
        if self.sum_of:
            evidence[f"sum of {self.sum_of}"] = round(sum(spans[position][2] for position in run), 9)
        if self.within_s:
            evidence["within_s"] = self.within_s
        return Found(kind="", severity=self.severity, steps=tuple(run), count=len(run), evidence=evidence)


class Rules:
    """All rules, asked of one store."""

    def __init__(self, rules: Sequence[RuleConfig], store: Reader) -> None:
        self._rules = [(rule, *rule.query()) for rule in rules]
        self._store = store

    def examine(self, keys: Sequence[tuple[str, str]]) -> list[Finding]:
        """What the rules find in these traces; `trace` is the position among `keys`. Raises what the store raises."""
        found = []
        for rule, sql, params in self._rules:
            for start in range(0, len(keys), _TRACES_PER_QUERY):
                some = {key: start + place for place, key in enumerate(keys[start : start + _TRACES_PER_QUERY])}
                wanted = {"tenants": sorted({tenant for tenant, _ in some}), "traces": sorted({key[1] for key in some})}
                for row in self._store.read_arrow(sql, {**params, **wanted}).to_pylist():
                    number = some.get((row["tenant"], row["trace_id"]))
                    if number is None:
                        continue
                    columns = zip(row["starts"], row["spans"], row["numbers"], strict=True)
                    spans = [(at, int(span, 16), value) for at, span, value in columns]
                    found += [_finding(number, rule, one, spans) for one in rule.find(spans)]
        return found


def _finding(number: int, rule: RuleConfig, found: Found, spans: Sequence[tuple[int, int, float]]) -> Finding:
    ids = tuple(spans[position][1] for position in found.steps)
    return Finding(
        trace=number,
        signature=rule.name,
        rule_version=1,
        found=found,
        span_ids=ids,
        wasted=(),
        quotes=(),
        start=spans[found.steps[0]][0],
    )
