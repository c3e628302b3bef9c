"""Losses that other libraries ship, audited: ``python -m benchmarks.field benchmarks/results/field.json``."""
