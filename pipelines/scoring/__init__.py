"""Scores of predictions: small rows that any number of workers compute, and figures made of them (spec data.md §5)."""
