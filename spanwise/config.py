"""One configuration for the whole program: a YAML file, `SPANWISE_*` environment variables and command line flags.

Every component describes its own options beside its code; `Config` only puts them together. `load` decides which
source wins (flags, then environment, then file, then default) and turns whatever is wrong into sentences that name the
source, the option and the nearest valid name. Values are never repeated in a message: they may be secrets.
"""

from __future__ import annotations

import difflib
import json
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeAlias
from urllib.parse import quote

import yaml
from pydantic import BaseModel, Discriminator, Field, SecretStr, Tag, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from processors.price import PriceConfig
from receiver.config import ReceiverConfig
from sinks.clickhouse import ClickHouseSinkConfig
from sinks.webhook import AlertsConfig
from spanwise.budgets import BudgetConfig
from spanwise.clickhouse_http import ClickHouseConfig
from spanwise.detector import DetectConfig
from spanwise.drift import QualityDriftConfig
from spanwise.journal import KafkaJournalConfig, SqliteJournalConfig
from spanwise.pipeline import PipelineConfig
from spanwise.reconciler import ReconcilerConfig
from spanwise.rollups import RollupsConfig
from spanwise.store import StoreConfig
from spanwise.telemetry import TelemetryConfig
from spanwise.web import WebConfig

ENV_PREFIX: Final = "SPANWISE_"
ENV_DELIMITER: Final = "__"

Location: TypeAlias = tuple[str | int, ...]


def _journal_kind(value: Any) -> Any:
    return value.get("kind", "sqlite") if isinstance(value, Mapping) else getattr(value, "kind", None)


JournalConfig: TypeAlias = Annotated[
    Annotated[SqliteJournalConfig, Tag("sqlite")] | Annotated[KafkaJournalConfig, Tag("kafka")],
    Discriminator(_journal_kind),
]


class ConfigError(Exception):
    """The configuration is wrong; one sentence a problem, fit to be shown to the person who wrote it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Config(BaseSettings):
    """All options of `spanwise up`. Building one directly reads neither environment nor files; `load` does."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENV_PREFIX, env_nested_delimiter=ENV_DELIMITER
    )

    data_dir: Path = Field(Path("spanwise-data"), description="Folder of the journal and the embedded store.")
    receiver: ReceiverConfig = Field(default_factory=ReceiverConfig, description="OTLP over gRPC and HTTP.")
    journal: JournalConfig = Field(
        default_factory=SqliteJournalConfig,
        description="Where requests are durable until they are stored. `journal.kind` is `sqlite` (one machine, the "
        "default) or `kafka` (a fleet).",
    )
    pipeline: PipelineConfig = Field(default_factory=PipelineConfig, description="What is stored together.")
    price: PriceConfig = Field(default_factory=PriceConfig, description="Prices of models, and yours instead of them.")
    detect: DetectConfig = Field(default_factory=DetectConfig, description="Failure signatures in traces.")
    quality_drift: QualityDriftConfig = Field(
        default_factory=QualityDriftConfig, description="Agents that fail more often than they used to."
    )
    alerts: AlertsConfig = Field(default_factory=AlertsConfig, description="Who is told about findings.")
    reconcile: ReconcilerConfig = Field(default_factory=ReconcilerConfig, description="Traces decided as a whole.")
    rollups: RollupsConfig = Field(default_factory=RollupsConfig, description="Sums of each minute.")
    budgets: list[BudgetConfig] = Field(
        default_factory=list, max_length=100, description="Limits of cost and tokens, and when to warn."
    )
    store: StoreConfig = Field(
        default_factory=StoreConfig,
        description="ClickHouse, embedded or on a server. Without a `dsn` it is embedded, in `data_dir`.",
    )
    sink: ClickHouseSinkConfig = Field(default_factory=ClickHouseSinkConfig, description="How rows are inserted.")
    web: WebConfig = Field(default_factory=WebConfig, description="The HTTP API, health and metrics.")
    clickhouse: ClickHouseConfig = Field(
        default_factory=ClickHouseConfig,
        description="The embedded store as a read-only ClickHouse over HTTP, for Grafana, ClickHouse clients and BI "
        "tools. Its tokens are `web.tokens`.",
    )
    telemetry: TelemetryConfig = Field(default_factory=TelemetryConfig, description="Metrics and logs of the process.")

    @field_validator("budgets")
    @classmethod
    def _budget_names_differ(cls, budgets: list[BudgetConfig]) -> list[BudgetConfig]:
        names = [budget.name for budget in budgets]
        if again := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two budgets are named {again[0]}: give each a name of its own")
        return budgets

    @model_validator(mode="after")
    def _brokers_answer_first(self) -> Self:
        journal, receiver_s = self.journal, self.receiver.limits.ack_timeout_s
        if isinstance(journal, KafkaJournalConfig) and journal.ack_timeout_s >= receiver_s:
            raise ValueError(
                f"journal.ack_timeout_s ({journal.ack_timeout_s:g}) must be below receiver.limits.ack_timeout_s "
                f"({receiver_s:g}), or senders are refused before the spool is tried"
            )
        return self

    @model_validator(mode="after")
    def _batches_are_fetched(self) -> Self:
        journal, batch_bytes = self.journal, self.pipeline.batch_bytes
        if isinstance(journal, KafkaJournalConfig) and batch_bytes > journal.buffer_bytes_max:
            raise ValueError(
                f"pipeline.batch_bytes ({batch_bytes}) must not exceed journal.buffer_bytes_max "
                f"({journal.buffer_bytes_max}), or a worker waits for more than it fetches"
            )
        return self

    @model_validator(mode="after")
    def _clickhouse_guarded_beyond_loopback(self) -> Self:
        if self.clickhouse.needs_tokens and not self.web.tokens:
            raise ValueError(
                f"clickhouse.address {self.clickhouse.address} can be reached from other machines and anybody could "
                "read everything; set `web.tokens`, or allow it with `clickhouse.insecure: true` (--insecure)"
            )
        return self

    @property
    def journal_dir(self) -> Path:
        return self.data_dir / "journal"

    @property
    def dead_letter_dir(self) -> Path:
        """Requests that can never be decoded or stored, as files."""
        return self.data_dir / "dead-letters"

    @property
    def store_config(self) -> StoreConfig:
        """`store` with the DSN of the embedded store filled in where none is given."""
        if self.store.dsn.get_secret_value():
            return self.store
        dsn = f"chdb://{quote(str((self.data_dir / 'store').resolve()))}"
        return self.store.model_copy(update={"dsn": SecretStr(dsn)})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def load(
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Build the configuration.

    `flags` are values by dotted option path (`{"web.address": "127.0.0.1:0"}`); None means "not given". Raises
    ConfigError with every problem found.
    """
    environ = os.environ if environ is None else environ
    sources = _Sources(file, {path: value for path, value in (flags or {}).items() if value is not None})
    tree = _read_file(file, sources) if file else {}
    _merge(tree, _environment(environ, sources))
    for path, value in sources.flags.items():
        _merge(tree, _nested(path.split("."), value))
    try:
        config = Config(**tree)
    except ValidationError as error:
        sources.problems.extend(_sentence(detail, sources) for detail in error.errors())
    if sources.problems:
        raise ConfigError(sources.problems)
    return config


@dataclass
class _Sources:
    """Where each value came from, to say so when it is wrong."""

    file: Path | None
    flags: dict[str, Any]
    lines: dict[Location, int] = field(default_factory=dict)
    variables: dict[Location, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def of(self, location: Location) -> str:
        """The source of the value at a location, or of the nearest section around it."""
        for depth in range(len(location), 0, -1):
            at = location[:depth]
            dotted = ".".join(map(str, at))
            if dotted in self.flags:
                return "command line"
            if at in self.variables:
                return f"environment variable {self.variables[at]}"
            if at in self.lines:
                return f"{self.file}:{self.lines[at]}"
        return str(self.file) if self.file else "configuration"


# The file


def _read_file(file: Path, sources: _Sources) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{file}: cannot read this configuration file: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: is not UTF-8 text"]) from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError([f"{file}{line}: is not YAML: {error.problem}"]) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError([f"{file}: holds no options; expected lines like `data_dir: spanwise-data`"])
    for location, at_line, repeated in _places(root, ()):
        sources.lines[location] = at_line
        if repeated:
            dotted = ".".join(map(str, location))
            sources.problems.append(f"{file}:{at_line}: {dotted}: is given twice; remove one of them")
    return tree


def _places(node: yaml.Node | None, location: Location) -> Iterator[tuple[Location, int, bool]]:
    """(location, line, repeated) of every value."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            at = (*location, str(key.value))
            yield at, key.start_mark.line + 1, at in seen
            seen.add(at)
            yield from _places(value, at)
    elif isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            yield (*location, index), entry.start_mark.line + 1, False
            yield from _places(entry, (*location, index))


# The environment


class _Environment(EnvSettingsSource):
    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        super().__init__(Config)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._variables.items()}


def _environment(environ: Mapping[str, str], sources: _Sources) -> dict[str, Any]:
    variables = {}
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX):
            continue
        path = tuple(name.removeprefix(ENV_PREFIX).lower().split(ENV_DELIMITER))
        nested = len(path) > 1
        known = path[0] in Config.model_fields
        # A bare section name is not an option (SPANWISE_WEB tells the commands where the server is), and orchestrators
        # add variables like SPANWISE_PORT on their own: only a name with the delimiter can be meant for us.
        if not nested and not (known and _is_plain(Config.model_fields[path[0]])):
            continue
        if not known:
            near = _nearest(path[0], Config.model_fields)
            hint = f"; did you mean {ENV_PREFIX}{ENV_DELIMITER.join((near, *path[1:])).upper()}?" if near else ""
            sources.problems.append(f"environment variable {name}: there is no section `{path[0]}`{hint}")
            continue
        variables[name] = value
        sources.variables[path] = name
    try:
        return _Environment(variables)()
    except SettingsError as error:
        field_name = str(error).split('"')[1] if '"' in str(error) else ""
        names = [name for at, name in sources.variables.items() if at[0] == field_name] or sorted(variables)
        sources.problems.append(f"environment variable {', '.join(names)}: is not valid JSON for this option")
        return {}


# Merging


def _nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    head, *rest = path
    return {head: _nested(rest, value) if rest else value}


def _merge(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, Mapping) and isinstance(tree.get(name), dict):
            _merge(tree[name], value)
        else:
            tree[name] = value


# Sentences


def _sentence(detail: ErrorDetails, sources: _Sources) -> str:
    location = _untagged(detail["loc"])
    where = f"{sources.of(location)}: " + ".".join(map(str, location))
    if detail["type"] == "extra_forbidden":
        names = _section(location[:-1])
        near = _nearest(str(location[-1]), names)
        hint = f"did you mean `{near}`?" if near else f"the options here are {', '.join(sorted(names))}"
        return f"{where}: there is no such option; {hint}"
    if detail["type"] == "value_error":
        return f"{where.removesuffix(': ')}: {detail['ctx']['error']}"
    if detail["type"] == "union_tag_invalid":
        return f"{where}.kind: must be one of {detail['ctx']['expected_tags']}"
    message = detail["msg"].removeprefix("Input should be ")
    return f"{where}: must be {message}" if message != detail["msg"] else f"{where}: {message[0].lower()}{message[1:]}"


def _untagged(location: Location) -> Location:
    """A location without the kinds that pydantic puts into it where there is a choice of models."""
    found: list[str | int] = []
    models: list[type[BaseModel]] = [Config]
    for name in location:
        if len(models) > 1 and (chosen := [model for model in models if _kind(model) == name]):
            models = chosen
            continue
        found.append(name)
        if not isinstance(name, int):
            models = _members(models, name)
    return tuple(found)


def _section(location: Location) -> list[str]:
    """The options at a location, of all models it may have."""
    models: list[type[BaseModel]] = [Config]
    for name in location:
        if not isinstance(name, int):
            models = _members(models, name)
    return [name for model in models for name in model.model_fields]


def _members(models: Sequence[type[BaseModel]], name: str) -> list[type[BaseModel]]:
    return [found for model in models if name in model.model_fields for found in _models(model.model_fields[name])]


def _kind(model: type[BaseModel]) -> Any:
    info = model.model_fields.get("kind")
    return next(iter(typing.get_args(info.annotation)), None) if info else None


def _models(info: FieldInfo) -> list[type[BaseModel]]:
    """The models of a section, or of its elements if it is a list of them: one, or a choice. Empty: a plain option."""
    found = [type_ for type_ in _flat(info.annotation) if isinstance(type_, type) and issubclass(type_, BaseModel)]
    return list(dict.fromkeys(found))


def _flat(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in typing.get_args(annotation):
        yield from _flat(argument)


def _nearest(name: str, names: Any) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)), None)


# The reference


def config_reference() -> str:
    """`docs/config.md`, made from the options themselves."""
    lines = [_REFERENCE_HEAD]
    lines += _table("", {name: info for name, info in Config.model_fields.items() if not _models(info)})
    for name, info in Config.model_fields.items():
        models = _models(info)
        if models:
            lines += ["", f"## {name}", "", info.description or "", ""]
        for model in models:
            if _is_list(info):
                name = f"{name}[]"  # noqa: PLW2901
            if len(models) > 1:
                lines += [f"### `{name}.kind: {_kind(model)}`", "", f"{model.__doc__}", ""]
            lines += [*_section_tables(name, model), *([""] if model is not models[-1] else [])]
    return "\n".join([*lines, ""])


def options_table(path: str) -> str:
    """The options of one section, `detect.signatures.retry_loop` or `budgets[]` for instance, as a Markdown table."""
    models: list[type[BaseModel]] = [Config]
    for name in path.split("."):
        models = _members(models, name.removesuffix("[]"))
    plain = {name: info for model in models for name, info in _shown(model).items() if not _models(info)}
    return "\n".join(_table(f"{path}.", plain))


def _shown(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Options that can be chosen: a `kind` with one value only tells components apart."""
    return {
        name: info
        for name, info in model.model_fields.items()
        if len(typing.get_args(info.annotation)) != 1 or typing.get_origin(info.annotation) is not typing.Literal
    }


def _section_tables(path: str, model: type[BaseModel]) -> Iterator[str]:
    options = _shown(model)
    yield from _table(f"{path}.", {name: info for name, info in options.items() if not _models(info)})
    for name, info in options.items():
        for nested in _models(info):
            many = _is_list(info)
            yield from (
                "",
                f"### {path}.{name}",
                "",
                (info.description or "") + (" A list; each entry:" if many else ""),
                "",
            )
            yield from _section_tables(f"{path}.{name}[]" if many else f"{path}.{name}", nested)


def _is_plain(info: FieldInfo) -> bool:
    """Whether an option has a value of its own, as a list of sections has, and is no section."""
    return not _models(info) or _is_list(info)


def _is_list(info: FieldInfo) -> bool:
    return typing.get_origin(info.annotation) in (tuple, list)


def _table(prefix: str, options: Mapping[str, FieldInfo]) -> Iterator[str]:
    yield "| Option | Type | Default | What it does |"
    yield "|---|---|---|---|"
    for name, info in options.items():
        cells = (f"`{prefix}{name}`", _annotation_name(info.annotation), _default(info), info.description or "")
        yield "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"


def _annotation_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_annotation_name(argument) for argument in arguments if argument is not types.NoneType)
    if origin is typing.Annotated:
        return _annotation_name(arguments[0])
    if origin in (list, tuple, set, frozenset):
        return f"list of {_annotation_name(arguments[0])}"
    if origin in (dict, Mapping):
        return f"map of {_annotation_name(arguments[0])} to {_annotation_name(arguments[1])}"
    return _TYPE_NAMES[annotation]


def _default(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, (list, tuple, dict)):
        return f"`{json.dumps(default, default=str)}`" if default else "none"
    return f"`{default}`" if str(default) else "''"


_TYPE_NAMES: Final[Mapping[Any, str]] = {
    Any: "any value",
    str: "text",
    SecretStr: "text (secret)",
    int: "whole number",
    float: "number",
    Decimal: "number",
    bool: "true, false",
    Path: "path",
}

_REFERENCE_HEAD: Final = """# Configuration

`spanwise up --config FILE` reads one YAML file. Every option is also an environment variable: `SPANWISE_` and the path
in capitals with two underscores for each dot (`web.address` is `SPANWISE_WEB__ADDRESS`; lists and maps are JSON). A
flag wins over the environment, the environment over the file, the file over the default. `spanwise check FILE` says
what is wrong with a file, by line and option, without starting anything.

This page is generated from the program; a test compares them.
"""
