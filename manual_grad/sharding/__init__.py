"""Losses of tensors that are spread over processes."""
