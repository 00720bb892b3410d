from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from spanwise.config import Config, ConfigError, config_reference, load
from spanwise.journal import KafkaJournalConfig, SqliteJournalConfig


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "spanwise.yaml"


def problems(file: Path | None = None, text: str = "", **sources: Any) -> list[str]:
    if file is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, sources.get("flags"), sources.get("environ", {}))
    return [problem.replace(f"{file}", "FILE") for problem in caught.value.problems]


def test_nothing_given_means_the_defaults() -> None:
    assert load(environ={}) == Config()


def test_an_empty_file_means_the_defaults(file: Path) -> None:
    file.write_text("# nothing yet\n")

    assert load(file, environ={}) == Config()


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(file: Path) -> None:
    environ = {"SPANWISE_WEB__SQL_BYTES_MAX": "7000", "SPANWISE_WEB__ADDRESS": "127.0.0.1:2"}
    file.write_text("web: {address: '127.0.0.1:1', sql_bytes_max: 5000, reads_concurrent: 2}\n")

    config = load(file, {"web.address": "127.0.0.1:3", "data_dir": None}, environ)

    assert config.web.address == "127.0.0.1:3"
    assert config.web.sql_bytes_max == 7000
    assert config.web.reads_concurrent == 2
    assert config.data_dir == Path("spanwise-data")


def test_every_option_is_an_environment_variable() -> None:
    environ = {
        "SPANWISE_DATA_DIR": "/srv/spans",
        "SPANWISE_TELEMETRY__LOG_LEVEL": "debug",
        "SPANWISE_WEB__TOKENS": '[{"name": "grafana", "env": "GRAFANA_TOKEN"}]',
    }

    config = load(environ=environ)

    assert config.data_dir == Path("/srv/spans")
    assert config.telemetry.log_level == "debug"
    assert config.web.tokens[0].name == "grafana"


def test_a_list_of_sections_is_a_variable_too() -> None:
    config = load(environ={"SPANWISE_BUDGETS": '[{"name": "all", "limit_usd": 10}]'})

    assert [(budget.name, budget.limit_usd) for budget in config.budgets] == [("all", Decimal(10))]


def test_building_a_config_directly_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPANWISE_DATA_DIR", "/elsewhere")

    assert Config().data_dir == Path("spanwise-data")


@pytest.mark.parametrize("name", ["SPANWISE_WEB", "SPANWISE_PORT", "SPANWISE_SERVICE_HOST", "SPANWISEX__Y"])
def test_variables_that_others_set_are_left_alone(name: str) -> None:
    assert load(environ={name: "http://127.0.0.1:1"}) == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web:\n  adress: x\n", ["FILE:2: web.adress: there is no such option; did you mean `address`?"]),
        ("wb: {}\n", ["FILE:1: wb: there is no such option; did you mean `web`?"]),
        (
            "web:\n\n  reads_concurrent: many\n",
            ["FILE:3: web.reads_concurrent: must be a valid integer, unable to parse string as an integer"],
        ),
        ("web: {reads_concurrent: 0}\n", ["FILE:1: web.reads_concurrent: must be greater than or equal to 1"]),
        (
            "telemetry:\n  log_level: loud\n",
            ["FILE:2: telemetry.log_level: must be 'debug', 'info', 'warning' or 'error'"],
        ),
        (
            "web:\n  address: localhost\n",
            ["FILE:2: web.address: 'localhost' is not an address: write HOST:PORT, or [HOST]:PORT for IPv6"],
        ),
        (
            "web:\n  address: 0.0.0.0:8080\n",
            [
                "FILE:1: web: address 0.0.0.0:8080 can be reached from other machines and anybody could read "
                "everything; set `tokens`, or allow it with `insecure: true` (--insecure)"
            ],
        ),
        (
            "web:\n  tokens:\n    - name: a\n    - name: b\n      fil: c\n",
            [
                "FILE:3: web.tokens.0: give exactly one of sha256, env or file for the token of reader 'a'",
                "FILE:5: web.tokens.1.fil: there is no such option; did you mean `file`?",
            ],
        ),
        ("web: {a: 1, address: 'x'}\n", None),
        ("data_dir: a\ndata_dir: b\n", ["FILE:2: data_dir: is given twice; remove one of them"]),
        ("web: [1]\n", ["FILE:1: web: must be a valid dictionary or instance of WebConfig"]),
        ("- 1\n", ["FILE: holds no options; expected lines like `data_dir: spanwise-data`"]),
        ("web: {\n", ["FILE:2: is not YAML: expected the node content, but found '<stream end>'"]),
        ("web: !!python/object/apply:os.system [ls]\n", None),
    ],
)
def test_a_wrong_file_is_told_by_line_and_option(file: Path, text: str, expected: list[str] | None) -> None:
    told = problems(file, text)

    assert told == expected or (expected is None and all(problem.startswith("FILE:1: ") for problem in told))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"SPANWISE_WEB__ADRESS": "x"},
            "environment variable SPANWISE_WEB__ADRESS: web.adress: there is no such option; did you mean `address`?",
        ),
        (
            {"SPANWISE_WEV__ADDRESS": "x"},
            "environment variable SPANWISE_WEV__ADDRESS: there is no section `wev`; did you mean "
            "SPANWISE_WEB__ADDRESS?",
        ),
        (
            {"SPANWISE_WEB__READS_QUEUE": "-1"},
            "environment variable SPANWISE_WEB__READS_QUEUE: web.reads_queue: must be greater than or equal to 0",
        ),
        (
            {"SPANWISE_WEB__TOKENS": "[{"},
            "environment variable SPANWISE_WEB__TOKENS: is not valid JSON for this option",
        ),
    ],
)
def test_a_wrong_variable_is_told_by_name(environ: dict[str, str], expected: str) -> None:
    assert problems(environ=environ) == [expected]


def test_a_wrong_flag_is_told_as_one() -> None:
    (problem,) = problems(flags={"web.address": "nowhere"})

    assert problem.startswith("command line: web.address: 'nowhere' is not an address")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read this configuration file: No such file or directory"):
        load(tmp_path / "none.yaml", environ={})


def test_values_are_not_repeated_where_they_may_be_secrets(file: Path) -> None:
    (problem,) = problems(file, "web: {tokens: [{name: a, sha256: hunter2}]}\n")

    assert "hunter2" not in problem


def test_all_problems_are_told_at_once(file: Path) -> None:
    told = problems(file, "web: {reads_queue: -1}\ntelemetry: {log_levl: info}\n", environ={"SPANWISE_WEV__X": "1"})

    assert len(told) == 3


def test_the_embedded_store_lives_in_the_data_directory_unless_a_store_is_named(tmp_path: Path) -> None:
    embedded = load(flags={"data_dir": tmp_path / "a b"}, environ={})
    server = load(environ={"SPANWISE_STORE__DSN": "http://user:secret@db:8123/spans"})

    assert embedded.store_config.dsn.get_secret_value() == f"chdb://{tmp_path}/a%20b/store"
    assert server.store_config.dsn.get_secret_value() == "http://user:secret@db:8123/spans"
    assert "secret" not in repr(server)


def test_every_option_says_what_it_does() -> None:
    reference = config_reference()

    rows = [line for line in reference.splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row for row in rows if row.endswith("|  |")] == []


def test_a_journal_is_in_sqlite_unless_a_kind_is_named(file: Path) -> None:
    file.write_text("journal:\n  file_bytes_max: 1000000\n")
    assert load(file, environ={}).journal == SqliteJournalConfig(file_bytes_max=1_000_000)

    file.write_text("journal:\n  kind: kafka\n  servers: [a:1, b:2]\n  topics: {partitions: 3}\n")
    journal = load(
        file, environ={"SPANWISE_JOURNAL__SASL__USERNAME": "me", "SPANWISE_JOURNAL__SASL__PASSWORD": "x"}
    ).journal
    assert isinstance(journal, KafkaJournalConfig)
    assert journal.servers == ("a:1", "b:2")
    assert journal.topics.partitions == 3
    assert journal.sasl is not None
    assert journal.sasl.secret() == "x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("journal:\n  kind: kafak\n", "FILE:1: journal.kind: must be one of 'sqlite', 'kafka'"),
        (
            "journal:\n  kind: kafka\n  server: [a:1]\n",
            "FILE:3: journal.server: there is no such option; did you mean `servers`?",
        ),
        (
            "journal:\n  kind: kafka\n  topics:\n    partitions: many\n",
            "FILE:4: journal.topics.partitions: must be a valid integer, unable to parse string as an integer",
        ),
        (
            "journal:\n  kind: kafka\n  topics: {replicas: 1}\n",
            "FILE:3: journal.topics: in_sync_replicas_min (2) must not exceed replicas (1)",
        ),
        (
            "journal:\n  kind: kafka\n  ack_timeout_s: 4\n",
            "FILE: journal.ack_timeout_s (4) must be below receiver.limits.ack_timeout_s (4), or senders are "
            "refused before the spool is tried",
        ),
        (
            "journal:\n  kind: kafka\npipeline:\n  batch_bytes: 134217728\n",
            "FILE: pipeline.batch_bytes (134217728) must not exceed journal.buffer_bytes_max (67108864), or a worker "
            "waits for more than it fetches",
        ),
        (
            "journal:\n  kind: kafka\n  sasl: {username: me, password: hush, mechanism: PLAIN}\n",
            "FILE:1: journal: sasl.mechanism PLAIN shows the password to the network: set `tls` too",
        ),
    ],
)
def test_a_wrong_kafka_journal_is_told_by_line_and_option(file: Path, text: str, expected: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as wrong:
        load(file, environ={})
    assert [problem.replace(str(file), "FILE") for problem in wrong.value.problems] == [expected]


def test_the_clickhouse_endpoint_listens_beyond_this_machine_only_with_tokens_or_insecure() -> None:
    open_ = {"clickhouse.address": "0.0.0.0:0"}
    tokens = [{"name": "grafana", "sha256": "0" * 64}]

    with pytest.raises(ConfigError, match=r"clickhouse.address 0\.0\.0\.0:0 can be reached .* set `web.tokens`"):
        load(flags=open_, environ={})
    assert load(flags=open_ | {"clickhouse.insecure": True}, environ={}).clickhouse.listens
    assert load(flags=open_ | {"web.tokens": tokens}, environ={}).clickhouse.listens
    assert not load(flags={"clickhouse.address": "off"}, environ={}).clickhouse.listens
