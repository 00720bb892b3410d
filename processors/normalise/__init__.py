"""Which attribute of which instrumentation dialect means what.

The tables in `dialects/` and `tables/` are compiled to one plan; the native engine executes it for every span:
dialect, operation and kind, attributes, token usage, finish reasons, errors, usage scope.
"""

from __future__ import annotations

from functools import cache

from processors.normalise.plan import PlanError, compile_plan

__all__ = ["PlanError", "plan_json"]


@cache
def plan_json() -> bytes:
    """The plan for `spanwise._native.Decoder`, compiled once. Raises PlanError naming the file and row."""
    return compile_plan()
