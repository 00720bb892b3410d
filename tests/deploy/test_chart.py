"""The Helm chart: what it renders, what it refuses, and that the program takes what it is given by it."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from spanwise.config import load
from spanwise.journal import KafkaJournalConfig
from spanwise.server import STOP_S
from tests.deploy.conftest import go_module, read_yaml
from tests.deploy.render import CHART, HELM_VERSION, KUBERNETES, SNAPSHOTS, VALUES, chart_hash, helm, render, snapshot
from tests.running import ROOT
from tests.tools import from_go

Manifest = dict[str, Any]

SCHEMA = jsonschema.Draft202012Validator(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")))
CUSTOM = {
    "ServiceMonitor": (
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "PrometheusRule": (
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    "ScaledObject": ("github.com/kedacore/keda/v2", "v2.21.0", "config/crd/bases/keda.sh_scaledobjects.yaml"),
    "TriggerAuthentication": (
        "github.com/kedacore/keda/v2",
        "v2.21.0",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ),
}
SETS = tuple(VALUES)

pytestmark = pytest.mark.timeout(600)
"""The first test that needs helm waits until it is built."""


def manifests(name: str) -> list[Manifest]:
    text = (SNAPSHOTS / f"{name}.yaml").read_text(encoding="utf-8")
    return [found for found in yaml.safe_load_all(text) if found]


def pods(name: str) -> Iterator[tuple[str, Manifest]]:
    """(name, pod specification) of everything that runs."""
    for manifest in manifests(name):
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def program() -> str:
    return from_go("helm", "helm.sh/helm/v3/cmd/helm", HELM_VERSION)


# What is kept of it, with or without helm


def test_generated_files_are_current() -> None:
    wanted = runpy.run_path(str(ROOT / "helm" / "generate.py"))["files"]()

    assert {path: path.read_text(encoding="utf-8") for path in wanted} == wanted, "run `python -m docs.generate`"
    assert {path for path in wanted if path.suffix == ".yml"} == set((CHART / "files" / "rules").iterdir())


@pytest.mark.parametrize("name", SETS)
def test_snapshot_is_of_this_chart(name: str) -> None:
    first = (SNAPSHOTS / f"{name}.yaml").read_text(encoding="utf-8").split("\n", 1)[0]

    assert first == f"# chart {chart_hash()}", "run `python -m tests.deploy.render`, which needs helm"


@pytest.mark.parametrize("name", SETS)
def test_kubernetes_knows_every_field(name: str) -> None:
    for manifest in manifests(name):
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, KUBERNETES.rpartition(".")[0], strict=True)


@pytest.mark.parametrize("kind", ["ServiceMonitor", "ScaledObject", "TriggerAuthentication"])
def test_operators_know_every_field(kind: str) -> None:
    specification = _specification(kind)
    found = [manifest for name in SETS for manifest in manifests(name) if manifest["kind"] == kind]

    assert found
    for manifest in found:
        specification.validate(manifest["spec"])


def _specification(kind: str) -> jsonschema.Draft202012Validator:
    module, version, path = CUSTOM[kind]
    definition = read_yaml(go_module(module, version) / path)
    (served,) = [each for each in definition["spec"]["versions"] if each["storage"]]
    return jsonschema.Draft202012Validator(_closed(served["schema"]["openAPIV3Schema"])["properties"]["spec"])


def _closed(schema: Any) -> Any:
    """A custom resource's schema that refuses what it does not name, as `kubectl` warns."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if isinstance(schema, str):
        return schema.replace("^(?i)", "(?i)^")  # Go takes flags anywhere, Python in front
    if not isinstance(schema, dict):
        return schema
    found = {name: _closed(value) for name, value in schema.items()}
    named = "properties" in found and "additionalProperties" not in found
    if named and not found.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found


@pytest.mark.parametrize("name", SETS)
def test_the_program_takes_what_it_is_given(name: str, tmp_path: Path) -> None:
    texts = {
        manifest["metadata"]["name"]: manifest["data"].get("spanwise.yaml")
        for manifest in manifests(name)
        if manifest["kind"] == "ConfigMap"
    }
    for pod, spec in pods(name):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        container = spec["containers"][0]
        file = tmp_path / f"{pod}.yaml"
        file.write_text(texts[volumes["config"]["configMap"]["name"]])
        variables = {each["name"]: each.get("value", "pod-0") for each in container["env"]}
        config = load(file, environ=variables)

        ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        assert config.web.address.rpartition(":")[2] == str(ports.get("web", 8080))
        mounted = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
        assert Path(str(config.data_dir)) in mounted
        assert Path(variables["SPANWISE_CONFIG"]).parent in mounted
        assert all(_below(file, mounted) for file in _files(config))
        if container["args"] == ["work"]:
            assert isinstance(config.journal, KafkaJournalConfig)
            assert config.journal.member
            assert config.store.dsn.get_secret_value()
        if name == "fleet-scaled":
            assert config.store.migrate == (container["args"] == ["migrate"])


def _files(config: Any) -> list[Path]:
    tokens = [token.file for token in (*config.receiver.tokens, *config.web.tokens)]
    tls = config.receiver.tls
    found = [*tokens, *((tls.cert, tls.key, tls.client_ca) if tls else ()), config.store.password_file]
    found += [config.store.tls.ca, config.store.tls.cert, config.store.tls.key] if config.store.tls else []
    if isinstance(config.journal, KafkaJournalConfig):
        found += [config.journal.sasl.password_file] if config.journal.sasl else []
        found += [config.journal.tls.ca, config.journal.tls.cert, config.journal.tls.key] if config.journal.tls else []
    return [Path(file) for file in found if file is not None]


def _below(file: Path, folders: list[Path]) -> bool:
    return any(file.is_relative_to(folder) for folder in folders)


@pytest.mark.parametrize("name", SETS)
def test_every_container_may_do_little(name: str) -> None:
    for _, spec in pods(name):
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            allowed = container["securityContext"]
            assert allowed["readOnlyRootFilesystem"] is True
            assert allowed["allowPrivilegeEscalation"] is False
            assert allowed["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", SETS)
def test_pods_get_the_time_that_ending_takes(name: str) -> None:
    for _, spec in pods(name):
        if spec.get("restartPolicy") == "Never":
            continue
        before = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)

        assert spec["terminationGracePeriodSeconds"] >= before + STOP_S


@pytest.mark.parametrize("name", SETS)
def test_it_makes_no_secret_and_selects_its_own_pods_only(name: str) -> None:
    found = manifests(name)
    selectors = [
        json.dumps(manifest["spec"]["selector"]["matchLabels"], sort_keys=True)
        for manifest in found
        if manifest["kind"] in ("Deployment", "StatefulSet")
    ]

    assert [manifest for manifest in found if manifest["kind"] == "Secret"] == []
    assert len(selectors) == len(set(selectors))
    assert all(manifest["metadata"].get("namespace", "agents") == "agents" for manifest in found)


def test_what_is_not_asked_for_is_not_there() -> None:
    kinds = {name: {manifest["kind"] for manifest in manifests(name)} for name in SETS}

    assert kinds["single"] == {"ConfigMap", "ServiceAccount", "Service", "StatefulSet"}
    assert {"HorizontalPodAutoscaler", "ScaledObject", "Job"} <= kinds["fleet-scaled"]
    assert {"NetworkPolicy", "ServiceMonitor", "PrometheusRule", "Ingress"} <= kinds["fleet-guarded"]
    assert "Job" not in kinds["fleet-insecure"]


def test_what_scales_has_no_fixed_number() -> None:
    scaled = {m["metadata"]["name"]: m["spec"] for m in manifests("fleet-scaled") if "template" in m.get("spec", {})}
    fixed = {m["metadata"]["name"]: m["spec"] for m in manifests("fleet") if "template" in m.get("spec", {})}

    assert "replicas" not in scaled["demo-spanwise-receiver"]
    assert "replicas" not in scaled["demo-spanwise-worker"]
    assert (fixed["demo-spanwise-receiver"]["replicas"], fixed["demo-spanwise-worker"]["replicas"]) == (2, 2)


def test_only_otlp_is_reached_from_outside() -> None:
    services = {m["metadata"]["name"]: m["spec"] for m in manifests("single-tuned") if m["kind"] == "Service"}
    ports = {name: {port["name"] for port in spec["ports"]} for name, spec in services.items()}

    assert {name: spec["type"] for name, spec in services.items()} == {
        "traces-single": "LoadBalancer",
        "traces-single-web": "ClusterIP",
    }
    assert ports == {"traces-single": {"otlp", "otlp-http"}, "traces-single-web": {"clickhouse", "web"}}


@pytest.mark.parametrize("name", SETS)
def test_what_a_way_leads_to_is_there(name: str) -> None:
    found = manifests(name)
    services = {m["metadata"]["name"]: {p["name"] for p in m["spec"]["ports"]} for m in found if m["kind"] == "Service"}
    open_ports = {port["name"] for _, spec in pods(name) for port in spec["containers"][0].get("ports", [])}
    ways = [
        path["backend"]["service"]
        for manifest in found
        if manifest["kind"] == "Ingress"
        for rule in manifest["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]

    assert all(way["port"]["name"] in services[way["name"]] for way in ways)
    assert {port for ports in services.values() for port in ports} == open_ports
    assert all(m["spec"]["serviceName"] in services for m in found if m["kind"] == "StatefulSet")


@pytest.mark.parametrize("name", SETS)
def test_what_the_job_needs_is_there_before_it(name: str) -> None:
    """Before an install there is nothing of the chart but hooks, in the order of their weights."""
    found = manifests(name)
    hooks = [m for m in found if "helm.sh/hook" in m["metadata"].get("annotations", {})]
    weights = {m["kind"]: int(m["metadata"]["annotations"].get("helm.sh/hook-weight", 0)) for m in hooks}
    made = {(m["kind"], m["metadata"]["name"]) for m in found if m not in hooks}
    for job in (m for m in hooks if m["kind"] == "Job"):
        spec = job["spec"]["template"]["spec"]
        (config,) = [volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume]

        assert ("ConfigMap", config) in {(m["kind"], m["metadata"]["name"]) for m in hooks}
        assert ("ServiceAccount", spec.get("serviceAccountName")) not in made
        assert all(weight < weights["Job"] for kind, weight in weights.items() if kind != "Job")
        assert {m["metadata"]["annotations"]["helm.sh/hook"] for m in hooks} == {"pre-install,pre-upgrade"}


def test_keda_asks_the_brokers_as_the_workers_do(tmp_path: Path) -> None:
    found = manifests("fleet-scaled")
    (scaled,) = [m["spec"] for m in found if m["kind"] == "ScaledObject"]
    (shown,) = [m for m in found if m["kind"] == "TriggerAuthentication"]
    texts = next(m["data"] for m in found if m["kind"] == "ConfigMap" and m["metadata"]["name"] == "demo-spanwise")
    file = tmp_path / "spanwise.yaml"
    file.write_text(texts["spanwise.yaml"])
    journal = load(file, environ={"SPANWISE_CLICKHOUSE__ADDRESS": "off"}).journal
    assert isinstance(journal, KafkaJournalConfig)
    assert journal.sasl is not None
    triggers = [trigger["metadata"] for trigger in scaled["triggers"]]

    assert [trigger["topic"] for trigger in triggers] == [journal.traces_topic, journal.logs_topic]
    assert {trigger["consumerGroup"] for trigger in triggers} == {journal.group}
    assert {trigger["bootstrapServers"] for trigger in triggers} == {",".join(journal.servers)}
    assert {(trigger["sasl"], trigger["tls"]) for trigger in triggers} == {("scram_sha512", "enable")}
    assert journal.sasl.mechanism == "SCRAM-SHA-512"
    assert {t["authenticationRef"]["name"] for t in scaled["triggers"]} == {shown["metadata"]["name"]}
    assert shown["spec"] == {
        "configMapTargetRef": [{"parameter": "username", "name": "demo-spanwise", "key": "kafka-username"}],
        "secretTargetRef": [
            {"parameter": "password", "name": "spanwise-kafka", "key": "password"},
            {"parameter": "ca", "name": "kafka-certificates", "key": "ca.crt"},
            {"parameter": "cert", "name": "kafka-certificates", "key": "tls.crt"},
            {"parameter": "key", "name": "kafka-certificates", "key": "tls.key"},
        ],
    }
    assert texts["kafka-username"] == journal.sasl.username


# Its schema


def _values(name: str) -> Any:
    found = read_yaml(CHART / "values.yaml")

    def merge(into: Any, over: Any) -> None:
        for key, value in over.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value

    merge(found, read_yaml(VALUES[name]))
    return found


@pytest.mark.parametrize("name", SETS)
def test_schema_takes_the_values(name: str) -> None:
    SCHEMA.validate(_values(name))


TYPOS = {
    "replicacount": {"receiver": {"replicacount": 3}},
    "an option": {"config": {"detect": {"signatures": {"retry_loop": {"calls_mim": 3}}}}},
    "a section": {"config": {"recieve": {}}},
    "a type": {"worker": {"replicaCount": "three"}},
    "a mode": {"mode": "cluster"},
    "an address of the chart": {"config": {"web": {"address": "0.0.0.0:1"}}},
    "a kind of journal": {"config": {"journal": {"kind": "kafak", "servers": ["kafka:9092"]}}},
    "an option of Kafka": {"config": {"journal": {"kind": "kafka", "server": "kafka:9092"}}},
    "a password of ClickHouse": {"config": {"store": {"password": "x"}}},
    "a password of Kafka": {"config": {"journal": {"kind": "kafka", "sasl": {"username": "a", "password": "x"}}}},
    "no worker": {"worker": {"keda": {"minReplicas": 0}}},
    "a digest": {"image": {"digest": "latest"}},
    "a path": {"ingress": {"hosts": [{"host": "a", "paths": [{"path": "/", "port": "grpc"}]}]}},
}


@pytest.mark.parametrize("typo", TYPOS)
def test_schema_refuses(typo: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        SCHEMA.validate(TYPOS[typo])


# With helm


@pytest.mark.parametrize("name", SETS)
def test_lint_has_nothing_to_say(program: str, name: str) -> None:
    done = helm(program, "lint", "--strict", "--kube-version", KUBERNETES, "--values", str(VALUES[name]), str(CHART))

    assert done.returncode == 0, done.stdout
    assert re.findall(r"\[(?:WARNING|ERROR)\].*", done.stdout) == []


@pytest.mark.parametrize("name", SETS)
def test_it_renders_what_is_kept(program: str, name: str) -> None:
    done = render(program, "--values", str(VALUES[name]))

    assert done.returncode == 0, done.stderr
    assert snapshot(done.stdout) == (SNAPSHOTS / f"{name}.yaml").read_text(encoding="utf-8")


def test_rules_are_those_of_prometheus(program: str) -> None:
    done = render(program, "--values", str(VALUES["single-tuned"]))
    (rule,) = [found for found in yaml.safe_load_all(done.stdout) if found and found["kind"] == "PrometheusRule"]
    files = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))

    assert rule["spec"]["groups"] == [group for path in files for group in read_yaml(path)["groups"]]
    _specification("PrometheusRule").validate(rule["spec"])


def test_runbooks_can_be_read_where_the_docs_are(program: str) -> None:
    docs = "prometheusRule.defaultRules.docsUrl=https://git.example.com/docs/"
    done = render(program, "--values", str(VALUES["single-tuned"]), "--set", docs)

    assert "runbook_url: https://git.example.com/docs/signatures/retry_loop.md\n" in done.stdout
    assert "spanwise.example" not in done.stdout


def test_large_numbers_reach_keda_as_digits(program: str) -> None:
    """Numbers of a values file are floating point, which is printed as 1e+06."""
    large = "worker.keda.lagThreshold=1000000"
    done = render(program, "--values", str(VALUES["fleet-scaled"]), "--set-json", large)

    assert done.stdout.count('lagThreshold: "1000000"') == 2


def test_one_pod_may_keep_its_rows_in_a_server(program: str) -> None:
    store = "config.store.dsn=https://clickhouse:8443/spanwise,config.store.user=spanwise"
    done = render(program, "--values", str(VALUES["single"]), "--set", store)
    found = [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]
    (pod,) = [m["spec"]["template"]["spec"] for m in found if m["kind"] == "StatefulSet"]
    variables = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}

    # It would not start: who wants SQL from a server asks the server.
    assert variables["SPANWISE_CLICKHOUSE__ADDRESS"] == "off"
    assert "clickhouse" not in done.stdout.split("kind: Service\n", 1)[1].replace("clickhouse:8443", "")


REFUSED = {
    "mode must be set": (),
    "anybody could send": ("--set", "mode=single"),
    "anybody could read": ("--set", "mode=single,config.receiver.insecure=true"),
    "a fleet needs a ClickHouse": ("--set", "mode=fleet,auth.existingSecret=a"),
    "a fleet needs Kafka": ("--set", "mode=fleet,auth.existingSecret=a,config.store.dsn=http://b"),
    "put it into a Secret": ("--set", "mode=fleet,auth.existingSecret=a,config.store.dsn=http://user:word@b"),
    "belong together": ("--values", str(VALUES["fleet"]), "--set", "migrations.user=owner"),
    "of single (20) must be 30 at least": (
        "--values",
        str(VALUES["single"]),
        "--set",
        "terminationGracePeriodSeconds=20",
    ),
    "of receiver (20) must be 30 at least": (
        "--values",
        str(VALUES["fleet"]),
        "--set",
        "receiver.terminationGracePeriodSeconds=20",
    ),
    "holds a password": ("--values", str(VALUES["single"]), "--set", "config.store.dsn=https://user:word@b"),
    "must be 1 GiB at least above": ("--values", str(VALUES["single"]), "--set", "single.resources.limits.memory=4Gi"),
    "not bound to a tenant": (
        "--values",
        str(VALUES["single"]),
        "--set",
        "serviceMonitor.enabled=true,auth.apiTokens[0].key=a,auth.apiTokens[0].name=a,auth.apiTokens[0].tenant=b",
    ),
    "run `spanwise topics create` yourself": (
        "--values",
        str(VALUES["fleet"]),
        "--set",
        "migrations.enabled=false,migrations.createTopics=true",
    ),
    "KEDA asks the brokers too": (
        "--values",
        str(VALUES["fleet"]),
        "--set",
        "worker.keda.enabled=true,config.journal.sasl.username=a",
    ),
    "13 workers cannot share 12 partitions": ("--values", str(VALUES["fleet"]), "--set", "worker.replicaCount=13"),
    "out of reach": ("--values", str(VALUES["fleet-spool"]), "--set", "receiver.autoscaling.enabled=true"),
    "set presets.spool.enabled": ("--values", str(VALUES["fleet-spool"]), "--set", "presets.spool.enabled=false"),
    "config.journal.sasl.username": ("--values", str(VALUES["fleet"]), "--set", "kafka.existingSecret=c"),
    "additional properties 'replicacount' not allowed": ("--set", "receiver.replicacount=3"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_it_refuses_and_says_what_to_do(program: str, said: str) -> None:
    done = render(program, *REFUSED[said])

    assert done.returncode != 0
    assert said in done.stderr
