"""The Compose files: their schema, and whether what they say fits the program and the folders beside them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from spanwise.config import load
from spanwise.journal import KafkaJournalConfig
from tests.deploy.conftest import DEPLOY, go_module, read_yaml, tool

FILES = ("compose.yaml", "compose.single.yaml")
VARIABLE = re.compile(r"\$\{(\w+)(:[?-])?[^}]*\}")


@pytest.fixture(params=FILES)
def compose(request: pytest.FixtureRequest) -> Any:
    return read_yaml(DEPLOY / request.param)


def test_it_has_the_schema_of_the_compose_specification(compose: Any) -> None:
    module = go_module("github.com/compose-spec/compose-go/v2", "v2.16.2")
    schema = json.loads((module / "schema" / "compose-spec.json").read_text(encoding="utf-8"))

    jsonschema.validate(compose, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**compose, "services": {"spanwise": {"imagee": "a"}}}, schema)


@pytest.mark.parametrize("name", FILES)
def test_no_secret_has_a_default(name: str) -> None:
    variables = VARIABLE.findall((DEPLOY / name).read_text(encoding="utf-8"))

    assert {variable for variable, kind in variables if kind != ":?"} == {"SPANWISE_VERSION"}
    assert {"SPANWISE_OTLP_TOKEN", "SPANWISE_API_TOKEN"} <= {variable for variable, kind in variables if kind == ":?"}


def test_images_are_pinned_to_a_release(compose: Any) -> None:
    tags = [service["image"].split(":", 1)[1] for service in compose["services"].values()]

    assert [tag for tag in tags if not re.search(r"\d+\.\d+", tag)] == []


def test_an_image_is_built_once(compose: Any) -> None:
    """Compose builds at once, and of two builds that write the same tag the second fails."""
    built = [service["image"] for service in compose["services"].values() if "build" in service]
    run = {service["image"] for service in compose["services"].values() if service["image"].startswith("spanwise:")}

    assert sorted(built) == sorted(run)


def test_ports_are_published_on_this_machine_only(compose: Any) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_everything_mounted_from_here_is_here(compose: Any) -> None:
    mounts = [volume for service in compose["services"].values() for volume in service.get("volumes", [])]
    sources = {mount.split(":")[0] for mount in mounts if mount.startswith(".")}

    assert [source for source in sources if not (DEPLOY / source).exists()] == []


def test_the_program_takes_the_options_it_is_given(compose: Any) -> None:
    for service in compose["services"].values():
        if not service["image"].startswith("spanwise:"):
            continue
        variables = {name: VARIABLE.sub("x", value) for name, value in service["environment"].items()}
        file = DEPLOY / "compose" / "spanwise.yaml" if "SPANWISE_CONFIG" in variables else None
        config = load(file, environ=variables | {"SPANWISE_RECEIVER__GRPC": "0.0.0.0:4317"})

        assert [token.env for token in config.receiver.tokens] == ["SPANWISE_OTLP_TOKEN"]
        assert [token.env for token in config.web.tokens] == ["SPANWISE_API_TOKEN"]
        if isinstance(config.journal, KafkaJournalConfig):
            assert config.store.dsn.get_secret_value() == "http://clickhouse:8123/spanwise"
            assert config.store.password is not None


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    promtool = tool("promtool", "it comes with Prometheus")
    text = (DEPLOY / "compose" / "prometheus.yaml").read_text(encoding="utf-8")
    token = tmp_path / "token"
    token.write_text("x")
    placed = tmp_path / "prometheus.yaml"
    text = text.replace("/etc/prometheus/rules", str(DEPLOY / "prometheus" / "rules"))
    placed.write_text(text.replace("/run/secrets/api_token", str(token)))
    done = subprocess.run([promtool, "check", "config", str(placed)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_grafana_reads_with_a_user_that_may_only_read() -> None:
    users = read_yaml(DEPLOY / "compose" / "clickhouse-users.yaml")["users"]
    grafana = dict(
        line.split("=", 1) for line in (DEPLOY / "grafana" / "server.env").read_text().splitlines() if "=" in line
    )

    assert users[grafana["CLICKHOUSE_USER"]]["grants"] == [{"query": "GRANT SELECT ON spanwise.*"}]
