"""What a signature is: a pure function from the known steps of a trace to findings.

The same steps give the same findings, whatever order they arrived in and however often. While a trace is open it is
examined again and again with what is known so far; the last examination has the last word, and a finding that late
steps contradict is withdrawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from processors.detect.steps import Steps, Trace

Severity: TypeAlias = Literal["info", "warning", "high", "critical"]
Basis: TypeAlias = Literal["exact", "proxy"]
Part: TypeAlias = Literal["input", "output", "error"]
Bools: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Found:
    """What a signature found in a trace; agent, tool, model, tokens, cost and excerpts are filled in from the spans."""

    kind: str
    """One of the signature's kinds, '' if it has none."""
    severity: Severity
    steps: tuple[int, ...]
    """Positions in the trace of the steps that show it, in order. The first one anchors the finding's id."""
    count: int
    """How often it happened: repetitions, errors, calls."""
    evidence: Mapping[str, str | int | float] = field(default_factory=dict)
    """The numbers that made it fire, by name."""
    quotes: tuple[tuple[int, Part], ...] = ()
    """Which text to show beside them, shortened: (position, part)."""
    wasted: tuple[int, ...] = ()
    """Positions whose own tokens and cost were spent for nothing."""
    basis: Basis = "exact"


class SignatureConfig(BaseModel):
    """Options every signature has."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(True, description="Look for it.")


class Signature(Protocol):
    """One way to fail. Holds thresholds and nothing else: `find` is called from any thread."""

    name: ClassVar[str]
    """Public: metric label, column, file in docs/signatures."""
    kinds: ClassVar[tuple[str, ...]]
    version: ClassVar[int]
    """Grows when the rule changes what it finds."""

    def candidates(self, steps: Steps) -> Bools:
        """Steps without which a trace cannot hold the signature: whole columns, no Python per step.

        `find` is called only for traces with a candidate, and must find nothing in others.
        """

    def find(self, trace: Trace) -> Iterable[Found]:
        """What one trace shows."""
