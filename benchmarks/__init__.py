"""``python -m benchmarks``: each loss with its gradient, timed beside torch eager and torch.compile."""
