"""Write what the chart takes from the program: `values.schema.json`, and its copies of the alert rules.

`python helm/generate.py`; a test compares. The schema of `config` is that of the program's own options, less those the
chart decides (addresses and the data folder) and passwords, so a typo is refused when the chart renders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from spanwise.config import Config

CHART: Final = Path(__file__).parent / "spanwise"
RULES: Final = Path(__file__).parents[1] / "deploy" / "prometheus" / "rules"

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}
_MAP: Final[Schema] = {"type": "object"}
_LIST: Final[Schema] = {"type": "array"}
_TEXTS: Final[Schema] = {"type": "array", "items": _TEXT}
_LABELS: Final[Schema] = {"type": "object", "additionalProperties": _TEXT}
_PORT: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 65535}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_SOME: Final[Schema] = {"type": "integer", "minimum": 1}
_QUANTITY: Final[Schema] = {"type": "string", "pattern": "^[0-9.]+([KMGTPE]i?|m)?$"}
_RESOURCES: Final[Schema] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"requests": _MAP, "limits": _MAP, "claims": _LIST},
}


def _only(properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    found: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return found | ({"required": list(required)} if required else {})


_TLS: Final = _only({"existingSecret": _TEXT, "caKey": _TEXT, "certKey": _TEXT, "keyKey": _TEXT})
_BUDGET: Final = _only(
    {
        "enabled": _FLAG,
        "minAvailable": {"type": ["integer", "string"]},
        "maxUnavailable": {"type": ["integer", "string"]},
    }
)
_POD: Final[Schema] = {
    "podAnnotations": _LABELS,
    "podLabels": _LABELS,
    "nodeSelector": _LABELS,
    "tolerations": _LIST,
    "affinity": _MAP,
    "topologySpreadConstraints": _LIST,
    "priorityClassName": _TEXT,
    "runtimeClassName": _TEXT,
    "podSecurityContext": _MAP,
    "securityContext": _MAP,
    "extraEnvs": _LIST,
    "extraEnvsFrom": _LIST,
    "extraVolumes": _LIST,
    "extraVolumeMounts": _LIST,
    "extraContainers": _LIST,
    "initContainers": _LIST,
    "preStopSeconds": _COUNT,
    "terminationGracePeriodSeconds": _COUNT,
    "startupProbe": _MAP,
    "livenessProbe": _MAP,
    "readinessProbe": _MAP,
}


def _role(**own: Schema) -> Schema:
    return _only(_POD | {"resources": _RESOURCES} | own)


def _port() -> Schema:
    return _only({"containerPort": _PORT, "servicePort": _PORT, "appProtocol": _TEXT})


def config_schema() -> Schema:
    """The options that can be given under `config`: it becomes a ConfigMap, so passwords cannot."""
    schema = Config.model_json_schema(ref_template="#/$defs/{model}")
    for section, names in ((schema, ("data_dir",)), (schema["$defs"]["ReceiverConfig"], ("grpc", "http"))):
        for name in names:
            del section["properties"][name]
    for model in ("WebConfig", "ClickHouseConfig"):
        del schema["$defs"][model]["properties"]["address"]
    for model in ("StoreConfig", "KafkaSaslConfig"):
        del schema["$defs"][model]["properties"]["password"]
    return schema


def values_schema() -> Schema:
    config = config_schema()
    definitions = config.pop("$defs")
    properties = {
        **_POD,
        "mode": {"enum": ["", "single", "fleet"]},
        "nameOverride": _TEXT,
        "fullnameOverride": _TEXT,
        "config": config,
        "image": _only(
            {
                "repository": _TEXT,
                "tag": _TEXT,
                "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
                "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
            }
        ),
        "imagePullSecrets": _LIST,
        "auth": _only(
            {
                "existingSecret": _TEXT,
                "otlpTokens": {
                    "type": "array",
                    "items": _only({"key": _TEXT, "tenant": _TEXT}, ("key", "tenant")),
                },
                "apiTokens": {
                    "type": "array",
                    "minItems": 1,
                    "items": _only({"key": _TEXT, "name": _TEXT, "tenant": _TEXT}, ("key", "name")),
                },
            }
        ),
        "tls": _only({"existingSecret": _TEXT, "clientCaKey": _TEXT}),
        "clickhouse": _only({"existingSecret": _TEXT, "passwordKey": _TEXT, "tls": _TLS}),
        "kafka": _only({"existingSecret": _TEXT, "passwordKey": _TEXT, "tls": _TLS}),
        "presets": _only(
            {
                "spool": _only({"enabled": _FLAG, "size": _QUANTITY, "storageClassName": _TEXT}),
                "topologySpread": _only({"enabled": _FLAG}),
            }
        ),
        "migrations": _only(
            {
                "enabled": _FLAG,
                "createTopics": _FLAG,
                "user": _TEXT,
                "existingSecret": _TEXT,
                "backoffLimit": _COUNT,
                "activeDeadlineSeconds": _COUNT,
                "podAnnotations": _LABELS,
                "podLabels": _LABELS,
                "resources": _RESOURCES,
            }
        ),
        "serviceAccount": _only({"create": _FLAG, "name": _TEXT, "annotations": _LABELS}),
        "additionalLabels": _LABELS,
        "bindAddress": _TEXT,
        "ports": _only({"otlp": _port(), "otlp-http": _port(), "web": _port(), "clickhouse": _port()}),
        "extraManifests": _LIST,
        "single": _role(
            persistence=_only(
                {"size": _QUANTITY, "storageClassName": _TEXT, "accessModes": _TEXTS, "annotations": _LABELS}
            )
        ),
        "receiver": _role(
            replicaCount=_COUNT,
            autoscaling=_only(
                {
                    "enabled": _FLAG,
                    "minReplicas": _COUNT,
                    "maxReplicas": _COUNT,
                    "targetCPUUtilizationPercentage": {"type": "integer", "minimum": 1, "maximum": 100},
                    "behavior": _MAP,
                }
            ),
            podDisruptionBudget=_BUDGET,
        ),
        "worker": _role(
            replicaCount=_COUNT,
            keda=_only(
                {
                    "enabled": _FLAG,
                    "minReplicas": _SOME,
                    "maxReplicas": _SOME,
                    "lagThreshold": _SOME,
                    "behavior": _MAP,
                    "authenticationRef": _TEXT,
                    "metadata": _LABELS,
                }
            ),
            podDisruptionBudget=_BUDGET,
        ),
        "service": _only(
            {
                "type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
                "clusterIP": _TEXT,
                "annotations": _LABELS,
                "loadBalancerClass": _TEXT,
                "loadBalancerSourceRanges": _TEXTS,
                "internalTrafficPolicy": {"enum": ["Cluster", "Local"]},
            }
        ),
        "ingress": _only(
            {
                "enabled": _FLAG,
                "ingressClassName": _TEXT,
                "annotations": _LABELS,
                "hosts": {
                    "type": "array",
                    "items": _only(
                        {
                            "host": _TEXT,
                            "paths": {
                                "type": "array",
                                "items": _only(
                                    {
                                        "path": _TEXT,
                                        "pathType": {"enum": ["Exact", "Prefix", "ImplementationSpecific"]},
                                        "port": {"enum": ["otlp", "otlp-http", "web", "clickhouse"]},
                                    },
                                    ("path", "port"),
                                ),
                            },
                        },
                        ("host", "paths"),
                    ),
                },
                "tls": _LIST,
            }
        ),
        "serviceMonitor": _only(
            {
                "enabled": _FLAG,
                "interval": _TEXT,
                "scrapeTimeout": _TEXT,
                "extraLabels": _LABELS,
                "relabelings": _LIST,
                "metricRelabelings": _LIST,
            }
        ),
        "prometheusRule": _only(
            {
                "enabled": _FLAG,
                "defaultRules": _only({"enabled": _FLAG, "docsUrl": _TEXT}),
                "groups": _LIST,
                "extraLabels": _LABELS,
            }
        ),
        "networkPolicy": _only(
            {
                "enabled": _FLAG,
                "allowIngressFrom": _LIST,
                "allowWebFrom": _LIST,
                "extraIngressRules": _LIST,
                "egressRules": _LIST,
            }
        ),
        # What charts above this one hand down to all of theirs.
        "global": _MAP,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the Spanwise chart",
        **_only(properties),
        "$defs": definitions,
    }


def files() -> dict[Path, str]:
    """Every generated file of the chart and what belongs into it."""
    rules = {
        CHART / "files" / "rules" / path.name: path.read_text(encoding="utf-8") for path in sorted(RULES.glob("*.yml"))
    }
    schema = json.dumps(values_schema(), indent=1, ensure_ascii=False) + "\n"
    return {CHART / "values.schema.json": schema, **rules}


def main() -> None:
    wanted = files()
    for path in (CHART / "files" / "rules").glob("*.yml"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
