"""Reads for people and programs: a user's SQL, and the few questions the API and the CLI ask themselves."""

from spanwise.query.ask import (
    ConfinedError,
    FindingFilter,
    ManyTracesError,
    NoSuchTraceError,
    Queries,
    TraceFilter,
)
from spanwise.query.reads import StoreQueries

__all__ = [
    "ConfinedError",
    "FindingFilter",
    "ManyTracesError",
    "NoSuchTraceError",
    "Queries",
    "StoreQueries",
    "TraceFilter",
]
