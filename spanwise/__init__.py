"""Spanwise: OTLP in, canonical GenAI spans, explained agent failures and exact costs out."""
