"""Options of the SQLite journal."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spanwise.journal.sqlite import Limits, SqliteJournal

_MIB = 1 << 20
_GIB = 1 << 30


class SqliteJournalConfig(BaseModel):
    """Keep accepted requests in SQLite files on a local disk until they are stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["sqlite"] = "sqlite"
    bytes_max: int = Field(10 * _GIB, gt=0, description="Disk the journal may use; requests are refused above it.")
    file_bytes_max: int = Field(
        256 * _MIB,
        gt=0,
        description="Size at which a new file is begun. A file is deleted whole once everything in it is stored.",
    )
    free_bytes_min: int = Field(
        _GIB, ge=0, description="Requests are refused while the disk has less free space than this."
    )
    free_fraction_min: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="The same as a share of the whole disk. The larger of the two counts.",
    )
    ballast_bytes: int = Field(
        64 * _MIB,
        ge=0,
        description="Space held in reserve and given up when the disk is full, so that stored data can be forgotten.",
    )
    waiting_bytes_max: int = Field(
        128 * _MIB, gt=0, description="Bytes of requests that may wait for their commit; more are refused at once."
    )
    cache_bytes_max: int = Field(
        64 * _MIB, ge=0, description="Bytes of committed requests kept in memory so that they are not read back."
    )
    group_bytes_max: int = Field(4 * _MIB, gt=0, description="Bytes of requests in one commit; one larger goes alone.")
    group_ms: float = Field(
        2, ge=0, le=1000, description="How long the first request of a commit waits for company, in milliseconds."
    )
    damaged_files_max: int = Field(
        8, ge=1, description="Damaged files kept for inspection; the oldest is deleted beyond that."
    )

    @model_validator(mode="after")
    def _files_fit(self) -> Self:
        if self.file_bytes_max > self.bytes_max:
            msg = f"file_bytes_max ({self.file_bytes_max}) must not exceed bytes_max ({self.bytes_max})"
            raise ValueError(msg)
        return self

    def build(self, directory: Path) -> SqliteJournal:
        """Open the journal in `directory`. Raises JournalError if another process has it open."""
        return SqliteJournal(directory, Limits(**self.model_dump(exclude={"kind"})))
