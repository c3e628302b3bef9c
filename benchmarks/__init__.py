"""``python -m benchmarks``: times each loss and its gradient against torch eager and torch.compile."""
