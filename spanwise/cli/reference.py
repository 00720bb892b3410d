"""`docs/cli.md`, made from the commands themselves."""

from __future__ import annotations

import re
from typing import Final

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from spanwise.cli import app

_HEAD: Final = """# Commands

Exit codes: 0 done, 1 it could not be done (one sentence on standard error says why and what to do), 2 wrong usage.
Text is drawn for a terminal and plain elsewhere. `SPANWISE_TOKEN` holds the token of the API, `SPANWISE_OTLP_TOKEN` the
token that `import` sends, where the server asks for them.

This page is generated from the program; a test compares them.

"""


def command_reference() -> str:
    """The help of every command as one page."""
    command = get_command(app)
    page = get_docs_for_click(obj=command, ctx=typer.Context(command), name="spanwise", indent=1)
    # Typer's own list of commands cuts their sentences; each follows in full.
    page = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", page)
    return _HEAD + page.rstrip() + "\n"
