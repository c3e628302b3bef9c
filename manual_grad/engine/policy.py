"""What the losses of sampled tokens share: masks, and the ways in which libraries average.

A mask, or the weight of each token, is an input of these rules instead of the factor that every pointwise loss has: a
token that does not count may hold anything, even NaN, and 0 times NaN is not 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.dtypes import HALF
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss
from manual_grad.engine.reduction import total

_REDUCTIONS = ("none", "mean", "sum", "sequence")


def counted(e: Tensor, w: Tensor | None) -> Tensor:
    """w e, but 0 where w is 0."""
    return e if w is None else torch.where(w == 0, 0, w * e)


def of_tokens(advantages: Tensor, log_prob: Tensor) -> Tensor:
    """The advantages, constants, in a shape that broadcasts."""
    return arguments.unreduced("advantages", advantages.detach(), log_prob)


def averaged(
    name: str,
    loss: type[PointwiseLoss],
    X: tuple[Tensor, ...],
    mask: Tensor | None,
    options: tuple[Any, ...],
    reduction: str,
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """The loss of each token, reduced.

    ========================  ==========================================================================
    'none', 'sum'             per token, with 0 where the mask is; and the sum of that
    'mean'                    the sum, divided by that of the mask, or by ``normalizer``
    'sequence'                the mean over sequences, the rows, of the mean over the tokens of each
    ========================  ==========================================================================

    Where nothing counts, the means are 0; of no tokens at all they are NaN, as torch's.
    """
    if reduction not in _REDUCTIONS:
        reduction = arguments.reduction_of(reduction)  # warns, or raises ValueError
    if normalizer is not None and reduction != "mean":
        raise ValueError(f"{name}(): argument 'normalizer' needs reduction='mean', but got {reduction!r}")
    inputs = arguments.together(*X)
    x = inputs[0]
    arguments.require_floating(name, x)
    w = None
    arguments.broadcasts_into("mask", mask, x)
    if mask is not None:
        # half precision cannot count the tokens
        w = mask.detach().to(torch.float32 if x.dtype in HALF else x.dtype).expand_as(x)
        divisor = _divisor(w, reduction, normalizer)
        if divisor is not None:
            w, reduction = w / divisor, "sum"
        *inputs, w = arguments.together(*inputs, w, autocasts=False)
    elif normalizer is not None:
        return (evaluate(loss, *inputs, None, None, *options, "sum") / normalizer).to(x.dtype)
    if reduction == "sequence":  # all have the same length
        reduction = "mean"
    return evaluate(loss, *inputs, w, None, *options, reduction).to(x.dtype)


def _divisor(w: Tensor, reduction: str, normalizer: Tensor | float | None) -> Tensor | float | None:
    """What the weight of each token is divided by, so that the mean becomes a sum."""
    if normalizer is not None or reduction in ("none", "sum") or not w.numel():
        return normalizer
    count = total(w) if reduction == "mean" else w.sum(dim=-1, keepdim=True)
    divisor = torch.where(count == 0, 1, count)
    return divisor if reduction == "mean" else divisor * count.numel()
