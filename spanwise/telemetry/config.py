"""Options of what the process says about itself."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LogLevel = Literal["debug", "info", "warning", "error"]


class TelemetryConfig(BaseModel):
    """Metrics and logs of the process itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label_values_max: int = Field(
        200, ge=1, description="Distinct values kept of each gen_ai label; later ones are counted as `other`."
    )
    label_bytes_max: int = Field(128, ge=8, description="Longer label values are cut to this many characters.")
    gen_ai_series_max: int = Field(
        2_000, ge=1, description="Distinct combinations of the gen_ai labels; later ones are counted as `other`."
    )
    findings_series_max: int = Field(
        2_000, ge=1, description="The same for the labels of findings; later ones keep signature, kind and severity."
    )
    log_level: LogLevel = Field("info", description="Least severe log line that is written.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is `console` on a terminal and `json` elsewhere."
    )
