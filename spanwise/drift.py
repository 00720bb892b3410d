"""`quality_drift`: an agent version that fails, is cut off or refused more often than agents of that name used to.

No single trace shows it. Rates of the last hour are compared with those of the day before, for each service, agent,
agent version and model, in the store and on deduplicated spans: a two-proportion z test, and a change large enough to
matter. It says that something changed, not why, and nothing about whether answers are right: a proxy.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

import pyarrow as pa
import structlog
from pydantic import BaseModel, ConfigDict, Field

from spanwise.detector import DetectObserver, FindingSink
from spanwise.model import FINDINGS
from spanwise.rounds import Rounds
from spanwise.store import Store, load_sql
from spanwise.store.reading import read

log = structlog.get_logger(__name__)

_HOUR_MS: Final = 3_600_000


class QualityDriftConfig(BaseModel):
    """When a rate has changed."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(True, description="Look for it.")
    every_s: float = Field(300.0, ge=1, description="Seconds between two comparisons.")
    recent_hours: float = Field(1.0, gt=0, le=24, description="How much is compared.")
    baseline_hours: float = Field(24.0, gt=0, le=24 * 14, description="With how much before it.")
    samples_min: int = Field(100, ge=10, description="Calls needed on both sides.")
    z_min: float = Field(4.0, gt=0, description="Standard errors between the two rates that are a warning.")
    z_high: float = Field(8.0, gt=0, description="Standard errors that are of severity high.")
    change_min: float = Field(0.05, gt=0, le=1, description="Least increase of the rate, as a share of all calls.")


class QualityDrift:
    """Compares on a thread of its own, through the bounded connections of readers. `tick` compares once."""

    name: ClassVar[str] = "quality_drift"
    version: ClassVar[int] = 1

    def __init__(
        self,
        config: QualityDriftConfig,
        *,
        store: Store,
        sink: FindingSink,
        observer: DetectObserver,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._config = config
        self._store = store
        self._sink = sink
        self._observer = observer
        self._wall_ns = wall_ns
        self._known: dict[str, int] = {}
        """When each finding of this hour and the last was first found, in ms."""
        self._rounds = Rounds("spanwise-drift", self._turn, config.every_s)

    def start(self) -> None:
        if self._config.enabled:
            self._rounds.start()

    def stop(self, timeout_s: float) -> bool:
        return self._rounds.stop(timeout_s)

    def _turn(self) -> float:
        try:
            self.tick()
        except Exception as error:  # whatever a driver raises: the next comparison is a new one
            self._observer.signature_failed(self.name)
            log.warning("quality_drift_failed", error=type(error).__name__)
        return self._config.every_s

    def tick(self) -> int:
        """Compare; returns how many rates have changed. Raises what the store raises."""
        now_ms = self._wall_ns() // 10**6
        recent_ms = now_ms - int(self._config.recent_hours * _HOUR_MS)
        params = {
            "now_ms": now_ms,
            "recent_ms": recent_ms,
            "baseline_ms": recent_ms - int(self._config.baseline_hours * _HOUR_MS),
            "samples_min": self._config.samples_min,
            "z_min": self._config.z_min,
            "change_min": self._config.change_min,
        }
        answer = read(self._store, load_sql("spanwise", "quality_drift"), params, "JSONEachRow")
        rows = [self._row(json.loads(line), now_ms) for line in answer.splitlines()]
        if rows:
            token = hashlib.blake2b(f"{now_ms} {[row['finding_id'] for row in rows]}".encode(), digest_size=16)
            batch = pa.RecordBatch.from_pylist(rows, schema=FINDINGS.arrow)
            self._sink.write_findings(batch, f"drift-{token.hexdigest()}")
        for row in rows:
            labels = {name: row[name] for name in ("signature", "kind", "severity", "service")}
            if row["finding_id"] in self._known:
                self._observer.grew(agent=row["agent_name"], **labels)
            else:
                self._known[row["finding_id"]] = now_ms
                self._observer.found(agent=row["agent_name"], **labels)
        current = {row["finding_id"] for row in rows}
        self._known = {known: at for known, at in self._known.items() if known in current or at > now_ms - 2 * _HOUR_MS}
        return len(rows)

    def _row(self, drift: dict[str, Any], now_ms: int) -> dict[str, Any]:
        hour_ms = now_ms - now_ms % _HOUR_MS
        group = [drift[name] for name in ("tenant", "service", "agent_name", "agent_version", "model", "metric")]
        finding_id = hashlib.blake2b("\n".join([self.name, *group, str(hour_ms)]).encode(), digest_size=16).hexdigest()
        evidence = {
            "rate": f"{drift['rate']:.4f}",
            "rate_before": f"{drift['base_rate']:.4f}",
            "calls": str(drift["total"]),
            "calls_before": str(drift["base_total"]),
            "z": f"{drift['z']:.1f}",
        }
        return {
            "tenant": drift["tenant"],
            "trace_id": "",
            "finding_id": finding_id,
            "signature": self.name,
            "kind": drift["metric"],
            "severity": "high" if drift["z"] >= self._config.z_high else "warning",
            "basis": "proxy",
            "service": drift["service"],
            "agent_name": drift["agent_name"],
            "agent_version": drift["agent_version"],
            "tool_name": "",
            "model": drift["model"],
            "conversation_id": "",
            "first_span_id": "",
            "last_span_id": "",
            "span_ids": [],
            "count": drift["bad"],
            "wasted_tokens": 0,
            "wasted_cost_usd": 0,
            "evidence": sorted(evidence.items()),
            "rule_version": self.version,
            "started_at": hour_ms * 10**6,
            "detected_at": self._known.get(finding_id, now_ms),
            "day": hour_ms // 86_400_000,
            "received_at": hour_ms,
            "version": now_ms,
            "withdrawn": 0,
        }
