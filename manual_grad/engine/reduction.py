"""Reductions of values that no rule here differentiates: integers, and complex inputs."""

from __future__ import annotations

from torch import Tensor


def reduced(values: Tensor, reduction: str, weight: Tensor | None = None) -> Tensor:
    """'none', 'mean' (by weight) or 'sum' by torch's own ops, which refuse the mean of integers."""
    if weight is not None:
        values = weight * values
        if reduction == "mean":
            return values.sum() / weight.sum()
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()
