"""Every dashboard, by the name of its SQL file and of its generated JSON."""

from __future__ import annotations

from typing import Final

from deploy.grafana.boards.agent import AGENT
from deploy.grafana.boards.cost import COST
from deploy.grafana.boards.failures import FAILURES
from deploy.grafana.boards.fleet import FLEET
from deploy.grafana.boards.ingestion import INGESTION
from deploy.grafana.boards.model_tool import MODEL_TOOL
from deploy.grafana.boards.trace import TRACE
from deploy.grafana.panels import Dashboard

DASHBOARDS: Final[dict[str, Dashboard]] = {
    "fleet": FLEET,
    "cost": COST,
    "failures": FAILURES,
    "agent": AGENT,
    "model_tool": MODEL_TOOL,
    "trace": TRACE,
    "ingestion": INGESTION,
}
