"""The reference of the dialects in `docs/`, written from the tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from processors.normalise.plan import TRANSFORMS, DialectTable, Log, Row, Rule, Tables

_HEAD: Final = """\
# Dialects

Generated from `processors/normalise/` by `python -m docs.generate`; a test fails when this page is out of date.

## What happens to a span

1. **Dialect.** Scope and resource decide, lowest priority number first; only if they say nothing, attributes, span
   name and events do. A span with some `gen_ai.*` attribute and no other evidence is `otel_genai`; a span with none
   of all that is passed through untouched (`dialect`, `operation` and `kind` are '').
2. **Operation and kind.** The rules of the dialect, first match wins; its marker attributes; markers of other
   dialects that count anywhere; `gen_ai.operation.name`; message events (chat); `gen_ai.tool.*` without model and
   usage (execute_tool); a model (chat or embeddings); the first word of the span name, if the scope told the dialect.
3. **Content**, see [messages](messages.md).
4. **Attributes.** Rows of the dialect, of `otel_genai`, fallback rows of the dialect, rows of `otel_genai_legacy`.
   The first that yields a value wins. What was sent is never changed; canonical values without a column are added
   beside it.
5. **Usage.** Brought to totals: input includes cache reads and writes, output includes reasoning. `input_basis` says
   how:
   - `inclusive`: the producer counts that way; nothing was done.
   - `exclusive_fixed`: the producer leaves the cache out (by the table, or because the cache is larger than the
     input); cache reads and writes were added.
   - `exclusive_unknown`: the producer leaves the cache out and does not say how large it was. The input is too low.
   - `unknown`: the producer does not say, and the numbers do not show it.
   - A call that worked and reports 0 input and 0 output tokens has unknown usage, not none.
   - Gemini: a total above input + output means that the thoughts are missing in the output; it becomes total - input.
6. **Finish reasons**, raw and canonical. A single `stop` whose output asks for a tool is `tool_call`.
7. **Errors.** `error.type` as stated, else the type of the last exception event, else `_OTHER`; the latter two only
   if the span status is error.
8. **Usage scope.** own, aggregate or none, from the tables. Where only the whole trace can tell (own? below),
   `usage_scope_reason` is `tentative` until it has been looked at: model calls start as own, what stands around them
   as aggregate.

## Log records

A log record is kept only if its event is listed with a dialect below; its columns mean what they mean on a span, and
`operation` and `kind` are those of the span it speaks about. It belongs to the span with its trace and span id when
there is one of that operation, else to the span of the same `conversation_id`, model and order. It never counts as
usage of its own: it fills what the span lacks, which is content where only events carry it, `reported_cost_usd` of
Claude Code and the thoughts of Gemini CLI (`output_tokens`, `reasoning_tokens`).
"""


def _code(items: list[str]) -> str:
    return ", ".join(f"`{item}`" for item in items)


def _source(row: Row) -> str:
    return " or ".join(f"`{name}`" if name else "any span" for name in row.from_)


def _condition(row: Row) -> Iterator[str]:
    if row.on:
        yield f"kind {', '.join(row.on)}"
    if row.not_on:
        yield f"not kind {', '.join(row.not_on)}"
    if row.equals:
        yield f"value {_code(row.equals)}"
    if row.scope:
        yield f"scope {_code(row.scope)}"
    if row.unless:
        yield f"without {_code(row.unless)}"
    if row.failed is not None:
        yield "span failed" if row.failed else "span did not fail"
    if row.fallback:
        yield "fallback"
    if row.aggregate:
        yield "aggregate"
    if row.outside:
        yield "outside the total"
    if row.basis:
        yield f"input basis {row.basis}"


def _evidence(dialect: DialectTable) -> Iterator[str]:
    for name, value in dialect.detect.model_dump().items():
        if isinstance(value, dict):
            for key, values in value.items():
                yield f"- {name.replace('_', ' ')} `{key}`: {_code(values)}"
        elif value:
            yield f"- {name.replace('_', ' ')}: {_code(value)}"


def _meaning(of: Rule | Log) -> str:
    kind = f" kind {of.kind}" if of.kind else ""
    return (f"{of.operation or '-'}{kind}").removeprefix("- ")


def _rules(dialect: DialectTable) -> Iterator[str]:
    for rule in dialect.rule:
        given = rule.when.model_dump(exclude_defaults=True)
        when = "; ".join(f"{name.replace('_', ' ')} `{value}`" for name, value in given.items()) or "any other span"
        yield f"| {_cell(when)} | {_meaning(rule)} | {rule.usage} | {_cell(rule.note)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _dialect(name: str, dialect: DialectTable) -> Iterator[str]:
    yield f"\n## {name}\n\n{dialect.title}. Priority {dialect.priority}, input basis {dialect.input_basis}"
    for scope, basis in dialect.input_basis_by_scope.items():
        yield f"; {basis} in scope `{scope}`"
    yield "."
    if dialect.note:
        yield f" {dialect.note}"
    if dialect.include:
        yield f" Rows, rules and markers of {_code(dialect.include)} follow its own."
    yield "\n\nRecognised by:\n\n" + "\n".join(_evidence(dialect)) + "\n"
    if dialect.rule:
        yield "\n| Span | Is | Usage | Note |\n|---|---|---|---|\n" + "\n".join(_rules(dialect)) + "\n"
    for marker in dialect.marker:
        yield f"\nMarker `{marker.key}` by the table `{marker.table}` of `tables/kinds.toml`"
        yield ", also on spans of other dialects.\n" if marker.anywhere else ".\n"
    if dialect.log:
        yield "\nLog events: " + "; ".join(f"`{log.event}` ({_meaning(log)})" for log in dialect.log) + ".\n"
    if dialect.row:
        yield "\n| From | To | How | When |\n|---|---|---|---|\n"
        for row in dialect.row:
            target = f"`{row.to}`" if row.to else "(not read)"
            condition = "; ".join(_condition(row))
            yield f"| {_cell(_source(row))} | {target} | {_cell(_code(row.how))} | {_cell(condition)} |\n"


def dialect_reference() -> str:
    """Markdown page of what is recognised, how, and which attribute means what."""
    tables = Tables()
    transforms = "".join(f"- `{name}`: {what}\n" for name, what in TRANSFORMS.items())
    dialects = "".join("".join(_dialect(name, dialect)) for name, dialect in tables.dialects.items())
    return f"{_HEAD}\n## Transforms\n\n{transforms}{dialects}"
