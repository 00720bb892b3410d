"""What Spanwise says about itself: Prometheus metrics and structured logs.

A `Telemetry` owns its registry and is passed to whoever counts something; nothing here is global. Figures are per
process and start at zero with it. The `gen_ai` counters are approximate on purpose: they are taken from each batch
before late duplicates and trace-level corrections are known. The truth about money is in the store.
"""

from spanwise.telemetry.config import LogLevel, TelemetryConfig
from spanwise.telemetry.logs import configure_logging
from spanwise.telemetry.metrics import OTHER, Telemetry, version
from spanwise.telemetry.reference import metric_reference

__all__ = ["OTHER", "LogLevel", "Telemetry", "TelemetryConfig", "configure_logging", "metric_reference", "version"]
