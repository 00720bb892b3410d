"""Compiles the dialect tables into the plan that the native engine executes.

The tables are `tables/*.toml`, shared by all dialects, and `dialects/*.toml`, one file a dialect. Whatever the engine
could not execute fails here, with the file and the row.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from processors.detect.steps import ErrorClass, Finish
from processors.normalise.content import ContentRow

FALL_BACKS: Final = ("otel_genai", "otel_genai_legacy")
"""Dialects whose rows fill what the rows of the recognised one left open."""

HERE: Final = Path(__file__).parent

Scope = Literal["own", "own?", "aggregate", "none"]
Basis = Literal["inclusive", "exclusive", "provider_native", "vercel_native", "unknown"]
ValueType = Literal["text", "int", "float", "bool", "usd", "text_list", "any"]

TRANSFORMS: Final[dict[str, str]] = {
    "json": "json:<path> reads a dotted path of a JSON document or key-value list; json: decodes a JSON scalar",
    "pyrepr": "pyrepr:<path> reads a dotted path of a Python literal",
    "provider": "canonical provider name; frameworks and placeholders yield nothing",
    "map": "map:<table> looks up a table of tables/maps.toml, values that are not in it yield nothing",
    "const": "const:<text> whatever the value is",
    "ms_to_s": "milliseconds to seconds",
    "micros_to_usd": "millionths of a dollar to dollars",
    "iso_since_start": "ISO 8601 time minus the start of the span, in seconds",
    "url_host": "host of a URL",
    "join": "join:<separator> makes one text of a list",
    "text": "yields nothing for numbers and booleans",
    "split": "split:<separator> makes a list",
    "strip_class": "the name inside <class '...'>",
    "strip_prefix": "strip_prefix:<text> cuts the text off the front",
    "strip_suffix": "strip_suffix:<text> cuts the text off the end",
    "strip_provider": "cuts a leading '<provider>/' off a model name",
    "only_if_prefix": "only_if_prefix:<text> yields nothing for other values",
}
"""Name of a transform → what it does. `name:argument` in the tables."""


class PlanError(ValueError):
    """A table is wrong; the message names file and row."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _known_transform(how: str) -> str:
    name = how.partition(":")[0]
    if name not in TRANSFORMS:
        raise ValueError(f"unknown transform {how!r}")
    return how


Transform = Annotated[str, AfterValidator(_known_transform)]


class Meaning(_Table):
    """What a rule, marker value, operation name or log event says a span is."""

    operation: str = ""
    """Canonical `gen_ai.operation.name`."""
    kind: str = ""
    """Value of the column `kind`; left out, the class of the operation."""
    usage: Scope = "none"
    note: str = ""


class Target(_Table):
    """A canonical attribute that rows may write."""

    type: ValueType = "text"
    column: str | None = None
    """Column of `spans`; without one the value becomes an extra attribute."""


class Detect(_Table):
    """Evidence for a dialect. First pass: scope and resource; second pass, if that found nothing: the rest."""

    scope: list[str] = []
    scope_prefix: list[str] = []
    resource_equals: dict[str, list[str]] = {}
    resource_prefix: dict[str, list[str]] = {}
    any_attr: list[str] = []
    any_attr_prefix: list[str] = []
    attr_equals: dict[str, list[str]] = {}
    span_name_prefix: list[str] = []
    span_events: list[str] = []
    none_attr: list[str] = []
    none_attr_prefix: list[str] = []
    require_attr_prefix: list[str] = []


class When(_Table):
    """All that is given must hold."""

    scope: list[str] = []
    scope_prefix: str | None = None
    name: str | None = None
    name_prefix: str | None = None
    name_suffix: str | None = None
    name_regex: str | None = None
    attr: list[str] = []
    any_attr: list[str] = []
    any_attr_prefix: list[str] = []
    no_attr: list[str] = []
    attr_eq: dict[str, str] = {}
    root: bool | None = None


class Rule(Meaning):
    """Decides operation, kind and usage scope before the markers do; first match wins."""

    when: When


class Marker(_Table):
    """An attribute whose value names the kind of span."""

    key: str
    table: str
    """A table of tables/kinds.toml."""
    how: list[Transform] = []
    anywhere: bool = False
    """Also on spans of other dialects that have no marker of their own."""
    suffix: bool = False
    """Compare the end of the value, first entry wins, '*' matches everything."""


class Row(_Table):
    """Where a canonical attribute comes from; of the rows for one target the first that yields a value wins."""

    from_: list[str] = Field(alias="from", default=[""])
    """Attribute keys, first present wins. `prefix*`, `prefix*suffix`, `event:<event>/<attribute>`, `resource:<key>` and
    `span:name` too."""
    to: str = ""
    action: Literal["copy", "take", "drop"] = "copy"
    """take also hides the source from the rows that follow, drop only does that."""
    how: list[Transform] = []
    on: list[str] = []
    """Kinds of span the row holds for, all if empty."""
    not_on: list[str] = []
    equals: list[str] = []
    """Values of the source the row holds for; `text*` compares the start."""
    scope: list[str] = []
    unless: list[str] = []
    """Attributes that must be absent."""
    failed: bool | None = None
    """Only for spans with status error, or only for others."""
    fallback: bool = False
    """Only if the canonical attribute itself is absent: the row follows those of `otel_genai`."""
    aggregate: bool = False
    """Usage under this key repeats other spans."""
    outside: bool = False
    """The cache or reasoning count is not inside its total."""
    basis: Basis | None = None
    """Input basis of the span if this row yields."""
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, data: Any) -> Any:
        if isinstance(data, dict):
            data = dict(data)
            for name in ("from", "how", "on", "not_on", "equals", "scope", "unless"):
                if name in data:
                    data[name] = _one_or_many(data[name])
        return data

    @model_validator(mode="after")
    def _complete(self) -> Row:
        if (self.action == "drop") == bool(self.to):
            raise ValueError("a row has either a target or the action drop")
        return self


class Log(Meaning):
    """A log event that says something about a span; records of other events are not kept."""

    event: str
    """EventName, attribute `event.name` or the body, whichever is known."""
    require: list[str] = []
    """Attributes without which the record says nothing."""


class DialectTable(_Table):
    """One file of dialects/."""

    title: str
    priority: int
    """Lowest first; unique."""
    include: list[str] = []
    """Dialects whose rows, rules and markers follow this one's own."""
    input_basis: Basis = "unknown"
    input_basis_by_scope: dict[str, Basis] = {}
    note: str = ""
    detect: Detect = Detect()
    rule: list[Rule] = []
    marker: list[Marker] = []
    row: list[Row] = []
    content: list[ContentRow] = []
    log: list[Log] = []


class Kinds(_Table):
    """tables/kinds.toml"""

    kinds: list[str]
    """Values of the column `kind`."""
    operation: dict[str, str]
    """Canonical operation → kind."""
    operation_name: dict[str, Meaning]
    """`gen_ai.operation.name` as found, lower case."""
    table: dict[str, dict[str, Meaning]]


class Providers(_Table):
    """tables/providers.toml"""

    canonical: dict[str, list[str]]
    """Canonical name → lower-case spellings."""
    not_providers: list[str]


class FinishReasons(_Table):
    """tables/finish_reasons.toml"""

    canonical: dict[str, list[str]]


class ErrorTexts(_Table):
    """What tells one class of errors."""

    name: str
    """A member of `ErrorClass`, lower case."""
    says: list[str] = []
    veto: list[str] = []
    status: list[int] = []
    only_status: list[int] = []
    veto_status: list[int] = []

    @field_validator("name")
    @classmethod
    def _is_class(cls, name: str) -> str:
        if name.upper() not in ErrorClass.__members__:
            raise ValueError(f"there is no error class {name!r}")
        return name


class Before(_Table):
    before: list[str]


class Heads(_Table):
    heads: list[str]


class ResultTexts(_Table):
    error_heads: list[str]
    error_within: list[str]
    exit_codes: list[str]
    exit_labels: list[str]
    empty: list[str]
    empty_heads: list[str]
    payloads: list[str]


class RawFinish(_Table):
    context_window: list[str]
    malformed: list[str]


class Errors(_Table):
    """data/errors.toml, which explains itself."""

    class_: list[ErrorTexts] = Field(alias="class")
    status: Before
    result: ResultTexts
    stop: Heads
    finish: RawFinish
    compaction: Heads


Model = TypeVar("Model", bound=BaseModel)


def _read(path: Path, model: type[Model]) -> Model:
    name = f"{path.parent.name}/{path.name}"
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{name}: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise PlanError(f"{name}: {where}: {problem['msg']}") from error


class Tables:
    """All tables of a directory, validated one by one and against each other.

    Raises PlanError.
    """

    def __init__(self, directory: Path = HERE) -> None:
        tables = directory / "tables"
        self.kinds = _read(tables / "kinds.toml", Kinds)
        self.providers = _read(tables / "providers.toml", Providers)
        self.finish_reasons = _read(tables / "finish_reasons.toml", FinishReasons)
        self.targets: dict[str, Target] = dict(_read(tables / "targets.toml", _Targets).target)
        self.errors = _read(HERE.parent / "data" / "errors.toml", Errors)
        self.maps: dict[str, dict[str, str]] = _read(tables / "maps.toml", _Maps).map
        paths = sorted((directory / "dialects").glob("*.toml"))
        found = {path.stem: _read(path, DialectTable) for path in paths}
        self.dialects = dict(sorted(found.items(), key=lambda item: item[1].priority))
        rows = (row for dialect in self.dialects.values() for row in dialect.row)
        for name in {row.to for row in rows if row.to.startswith("spanwise.metadata.")}:
            self.targets.setdefault(name, Target(type="any"))
        for file, message in self._problems():
            raise PlanError(f"{file}: {message}")

    def _problems(self) -> Iterator[tuple[str, str]]:
        names = list(self.dialects)
        for one, other in pairwise(names):
            if self.dialects[one].priority == self.dialects[other].priority:
                yield f"dialects/{other}.toml", f"priority {self.dialects[other].priority} is also that of {one}"
        yield from self._meanings("tables/kinds.toml", "operation_name", self.kinds.operation_name.items())
        for table, values in self.kinds.table.items():
            yield from self._meanings("tables/kinds.toml", table, values.items())
        for name, dialect in self.dialects.items():
            file = f"dialects/{name}.toml"
            yield from self._meanings(file, "rule", enumerate(dialect.rule))
            yield from self._meanings(file, "log", enumerate(dialect.log))
            for included in dialect.include:
                if included not in self.dialects:
                    yield file, f"include: there is no dialect {included!r}"
            for n, marker in enumerate(dialect.marker):
                if marker.table not in self.kinds.table:
                    yield file, f"marker.{n}: unknown table {marker.table!r}"
            for n, row in enumerate(dialect.row):
                for message in self._row(row):
                    yield file, f"row.{n}: {message}"

    def _meanings(self, file: str, what: str, meanings: Any) -> Iterator[tuple[str, str]]:
        for n, meaning in meanings:
            if meaning.operation and meaning.operation not in self.kinds.operation:
                yield file, f"{what}.{n}: unknown operation {meaning.operation!r}"
            if meaning.kind and meaning.kind not in self.kinds.kinds:
                yield file, f"{what}.{n}: unknown kind {meaning.kind!r}"

    def _row(self, row: Row) -> Iterator[str]:
        if row.to and row.to not in self.targets:
            yield f"unknown target {row.to!r}"
        for kind in (*row.on, *row.not_on):
            if kind not in self.kinds.kinds:
                yield f"unknown kind {kind!r}"
        for how in row.how:
            name, _, argument = how.partition(":")
            if name == "map" and argument not in self.maps:
                yield f"unknown map {argument!r}"

    def _chain(self, name: str) -> list[DialectTable]:
        dialect = self.dialects[name]
        return [dialect, *(part for included in dialect.include for part in self._chain(included))]

    def plan(self) -> dict[str, Any]:
        """The plan as the engine reads it, includes resolved."""

        def collect(name: str, get: Callable[[DialectTable], list[Any]]) -> list[Any]:
            return [item for dialect in self._chain(name) for item in get(dialect)]

        return {
            "format": 1,
            "kinds": ["", *self.kinds.kinds],
            "operations": self.kinds.operation,
            "operation_names": [[name, _meaning(m)] for name, m in self.kinds.operation_name.items()],
            "targets": {name: t.model_dump(include={"column", "type"}) for name, t in sorted(self.targets.items())},
            "providers": {raw: name for name, spellings in self.providers.canonical.items() for raw in spellings}
            | dict.fromkeys(self.providers.not_providers, ""),
            "finish_reasons": {
                raw: name for name, spellings in self.finish_reasons.canonical.items() for raw in spellings
            },
            "maps": self.maps,
            "errors": _errors(self.errors),
            "dialects": [
                {
                    "name": name,
                    "priority": dialect.priority,
                    "detect": dialect.detect.model_dump(),
                    "basis": {"default": dialect.input_basis, "scopes": dialect.input_basis_by_scope},
                    "rules": [
                        {"when": rule.when.model_dump(), "meaning": _meaning(rule)}
                        for rule in collect(name, lambda d: d.rule)
                    ],
                    "markers": [
                        {
                            "key": marker.key,
                            "how": marker.how,
                            "anywhere": marker.anywhere,
                            "suffix": marker.suffix,
                            "table": [[v, _meaning(m)] for v, m in self.kinds.table[marker.table].items()],
                        }
                        for marker in collect(name, lambda d: d.marker)
                    ],
                    "rows": [row.model_dump(by_alias=True, exclude={"note"}) for row in collect(name, lambda d: d.row)],
                    "content": [
                        row.model_dump(mode="json", by_alias=True)
                        for part in dict.fromkeys((name, *FALL_BACKS))
                        for row in collect(part, lambda d: d.content)
                    ],
                    "logs": [
                        {"event": log.event, "meaning": _meaning(log), "require": log.require}
                        for log in collect(name, lambda d: d.log)
                    ],
                }
                for name, dialect in self.dialects.items()
            ],
        }


class _Targets(_Table):
    target: dict[str, Target]


class _Maps(_Table):
    map: dict[str, dict[str, str]]


def _errors(errors: Errors) -> dict[str, Any]:
    other = {"code": int(ErrorClass.OTHER), "says": [], "veto": [], "status": [], "only_status": [], "veto_status": []}
    return {
        "class": [
            *(one.model_dump(exclude={"name"}) | {"code": int(ErrorClass[one.name.upper()])} for one in errors.class_),
            other,
        ],
        "status_before": errors.status.before,
        **errors.result.model_dump(),
        "stop_heads": errors.stop.heads,
        "compaction_heads": errors.compaction.heads,
        "finish": dict.fromkeys(errors.finish.context_window, int(Finish.CONTEXT_WINDOW))
        | dict.fromkeys(errors.finish.malformed, int(Finish.MALFORMED)),
    }


def _meaning(meaning: Meaning) -> dict[str, str]:
    return {"operation": meaning.operation, "kind": meaning.kind, "usage": meaning.usage}


def compile_plan(directory: Path = HERE) -> bytes:
    """The plan of the tables in `directory` as JSON. Raises PlanError naming the file and row that is wrong."""
    return orjson.dumps(Tables(directory).plan())
