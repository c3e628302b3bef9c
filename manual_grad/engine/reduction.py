"""Reductions of values that no rule here differentiates: integers, and complex inputs."""

from __future__ import annotations

from torch import Tensor


def reduced(values: Tensor, reduction: str) -> Tensor:
    """'none', 'mean' or 'sum' by torch's own ops, which refuse the mean of integers."""
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()
