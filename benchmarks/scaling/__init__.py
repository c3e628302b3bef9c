"""``python -m benchmarks.scaling``: how time and memory grow, and what a change of dtype or of threads costs."""
