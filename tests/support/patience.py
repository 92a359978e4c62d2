"""How long tests wait for another process before they call it hung."""

PATIENCE = 1800
"""Seconds: more than anything takes on the slowest and busiest machine that runs the tests. It measures nothing; with
less, tests fail on a busy machine though all is well."""
