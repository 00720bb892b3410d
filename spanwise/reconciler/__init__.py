"""Decides traces again when they have gone quiet: usage scopes, joined log records, summaries."""

from spanwise.reconciler.config import ReconcilerConfig
from spanwise.reconciler.parts import Territory
from spanwise.reconciler.reconciler import WATERMARK, Reconciler, ReconcilerStats

__all__ = ["WATERMARK", "Reconciler", "ReconcilerConfig", "ReconcilerStats", "Territory"]
