"""``python -m benchmarks.scaling``: how time and memory scale, and the effect of dtype and threads."""
