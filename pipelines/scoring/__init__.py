"""Scores of predictions, made of small rows that any number of workers may count (spec data.md §5)."""
