"""Write the generated pages of this folder, and what the Helm chart takes from the program.

Tests compare each with what `python -m docs.generate` would write.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from deploy.grafana.reference import dashboard_reference
from docs.signature_pages import SECTIONS, signature_page
from processors.normalise.reference import dialect_reference
from spanwise.cli.reference import command_reference
from spanwise.config import config_reference
from spanwise.store.reference import table_reference
from spanwise.telemetry import metric_reference

PAGES: Final[dict[str, Callable[[], str]]] = {
    "cli.md": command_reference,
    "config.md": config_reference,
    "dashboards.md": dashboard_reference,
    "dialects.md": dialect_reference,
    "metrics.md": metric_reference,
    "tables.md": table_reference,
    **{f"signatures/{name}.md": partial(signature_page, name) for name in SECTIONS},
}


def main() -> None:
    for name, page in PAGES.items():
        (Path(__file__).parent / name).write_text(page(), encoding="utf-8")
    runpy.run_path(str(Path(__file__).parents[1] / "helm" / "generate.py"), run_name="__main__")


if __name__ == "__main__":
    main()
