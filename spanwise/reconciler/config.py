"""When the reconciler decides, and how much at once."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ReconcilerConfig(BaseModel):
    """When a trace is decided and how much of that happens at once."""

    model_config = ConfigDict(extra="forbid")

    quiet_s: float = Field(1.0, ge=0, description="A trace is decided once nothing has arrived for it this long.")
    dirty_max_s: float = Field(10.0, ge=0, description="A trace that never goes quiet is decided this often.")
    tick_s: float = Field(0.25, gt=0, description="Pause between two rounds.")
    traces_per_round: int = Field(5_000, ge=1, description="Most traces decided in one round.")
    rows_per_round: int = Field(200_000, ge=1, description="Most spans decided in one round, but at least one trace.")
    dirty_traces_max: int = Field(
        200_000, ge=1, description="Traces waiting in memory; further ones are found again in the store."
    )
    cached_rows_max: int = Field(
        100_000, ge=0, description="Spans held in memory until their trace is decided; older ones are read back."
    )
    recent_calls_max: int = Field(
        100_000, ge=0, description="Model calls remembered to find the same call reported in another trace."
    )
    recent_calls_s: float = Field(120.0, ge=0, description="How long a model call is remembered for that.")
    records_max: int = Field(10_000, ge=1, description="Log records without a trace that wait for their trace at once.")
    retry_max_s: float = Field(30.0, ge=0.1, description="Longest pause after rounds that failed.")
    spans_per_trace_max: int = Field(
        200_000, ge=1, description="A trace with more spans is not read back: its summary says `oversized`."
    )
    aside_traces_max: int = Field(
        1_000, ge=1, description="Traces remembered that cannot be decided, or are oversized and go on."
    )
    aside_max_s: float = Field(
        600.0, ge=1, description="Longest pause between two attempts to decide or add up one of these."
    )
