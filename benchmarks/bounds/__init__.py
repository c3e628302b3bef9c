"""``python -m benchmarks.bounds``: what bounds the speed of a kernel, in instructions, cycles and page faults."""
