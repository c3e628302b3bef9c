"""Reductions of values that are not differentiated by a rule of this package: integer and complex inputs."""

from __future__ import annotations

from torch import Tensor


def reduced(values: Tensor, reduction: str, weight: Tensor | None = None) -> Tensor:
    """'none', 'mean' (weighted) or 'sum' by torch's own ops, which reject the mean of integers."""
    if weight is not None:
        values = weight * values
        if reduction == "mean":
            return values.sum() / weight.sum()
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()
