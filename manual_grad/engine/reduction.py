"""Reductions by torch's ops: of values that no rule of this package differentiates, and of a few numbers per row."""

from __future__ import annotations

from torch import Tensor

from manual_grad.engine import collectives


def reduced(values: Tensor, reduction: str, weight: Tensor | None = None) -> Tensor:
    """'none', 'mean' (weighted) or 'sum' by torch's own ops, which reject the mean of integers."""
    if weight is not None:
        values = weight * values
        if reduction == "mean":
            return values.sum() / collectives.of_batch(weight.sum(), weight)
    if reduction == "none":
        return values
    if reduction == "mean" and collectives.batch_groups():
        return values.sum() / collectives.of_batch(values.numel(), values)
    return values.mean() if reduction == "mean" else values.sum()


_BLOCK = 4096
_BY_ONE_THREAD = 1 << 15  # up to so many elements torch uses one thread


def total(values: Tensor) -> Tensor:
    """The sum, in an order that does not depend on the number of threads."""
    if values.numel() <= _BY_ONE_THREAD:
        return values.sum()
    values = values.flatten()
    whole = len(values) // _BLOCK * _BLOCK
    return total(values[:whole].view(-1, _BLOCK).sum(1)) + values[whole:].sum()
