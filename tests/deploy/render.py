"""Render the chart with each of its `ci` value sets and keep the manifests: `python -m tests.deploy.render` needs helm.

What is kept says which chart it was made of, so that a test finds out without helm that it is out of date. Rules of
alerts and the schema of values are not part of it: they have tests of their own and change with other things.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from tests.running import ROOT

CHART: Final = ROOT / "helm" / "spanwise"
SNAPSHOTS: Final = Path(__file__).parent / "snapshots"
VALUES: Final = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*.yaml"))}
KUBERNETES: Final = "1.33.0"
HELM_VERSION: Final = "v3.22.0"


def helm(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def render(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ("template", "demo", str(CHART), "--namespace", "agents", "--kube-version", KUBERNETES)
    return helm(program, *command, *arguments)


def chart_hash() -> str:
    """Of everything that decides what is rendered."""
    found = hashlib.sha256()
    own = (CHART / "Chart.yaml", CHART / "values.yaml", *(CHART / "templates").iterdir())
    for path in sorted([*own, *VALUES.values()]):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def snapshot(rendered: str) -> str:
    """The manifests, without rules, under the hash of the chart."""
    kept = [f"# chart {chart_hash()}"]
    for text in re.split(r"^---\n", rendered, flags=re.MULTILINE):
        manifest: Any = yaml.safe_load(text)
        if manifest is not None and manifest["kind"] == "PrometheusRule":
            manifest["spec"]["groups"] = []
            kept.append(yaml.safe_dump(manifest, sort_keys=False).strip())
        elif manifest is not None:
            kept.append(text.strip("\n"))
    return "\n---\n".join(kept) + "\n"


def main() -> None:
    SNAPSHOTS.mkdir(exist_ok=True)
    for name, values in VALUES.items():
        done = render("helm", "--values", str(values))
        if done.returncode:
            raise SystemExit(done.stderr)
        (SNAPSHOTS / f"{name}.yaml").write_text(snapshot(done.stdout), encoding="utf-8")


if __name__ == "__main__":
    main()
