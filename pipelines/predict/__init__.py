"""Prepared data to predictions, on the streaming engine."""
