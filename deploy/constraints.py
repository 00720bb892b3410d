"""Write `constraints.txt`: the versions of everything an image installs, as this environment has them.

Run it in the environment that passed the tests: `python deploy/constraints.py`.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).parent


def constraints() -> dict[str, str]:
    """Version by name of all that the program needs to run, directly or through others."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = {}
    waiting = [Requirement(text) for text in project["dependencies"]]
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        distribution = metadata.distribution(wanted.name)
        found[re.sub(r"[-_.]+", "-", wanted.name).lower()] = distribution.version
        for text in distribution.requires or []:
            needed = Requirement(text)
            extras = wanted.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return dict(sorted(found.items()))


def main() -> None:
    lines = ["# Made by `python deploy/constraints.py`.", *(f"{name}=={v}" for name, v in constraints().items()), ""]
    (HERE / "constraints.txt").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
