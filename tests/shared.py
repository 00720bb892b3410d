"""The folder of recorded telemetry beside the repository, where there is one."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SPANWISE_SHARED", ROOT.parent / "shared"))
CORPUS = SHARED / "corpus"
