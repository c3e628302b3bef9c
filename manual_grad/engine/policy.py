"""What the losses of sampled tokens share: masks, and the ways in which libraries average.

A mask, or the weight of each token, is an input of these rules instead of the factor that every pointwise loss has: a
token that does not count may hold anything, even NaN, and 0 times NaN is not 0.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments, collectives, torch_private
from manual_grad.engine.dtypes import HALF, INTEGERS, in_dtype
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
    inputs = arguments.together(*X)
    x = inputs[0]
    arguments.require_floating(name, x)
    w, reduction, divisor = shares(name, mask, x, reduction, normalizer)
    if w is not None and w.is_floating_point():
        *inputs, w = arguments.together(*inputs, w, autocasts=False)
    how: str | float = reduction
    if divisor is not None and _is_number(divisor):  # then the kernel multiplies by its inverse
        how, divisor = 1 / float(divisor) if divisor else math.inf, None
    result = evaluate(loss, *inputs, w, None, *options, how)
    return in_dtype(result if divisor is None else result / divisor, x.dtype)


def shares(
    name: str, mask: Tensor | None, tokens: Tensor, reduction: str, normalizer: Tensor | float | None
) -> tuple[Tensor | None, str, Tensor | float | None]:
    """The weight of each token, or None; how to reduce the weighted losses; and what to divide the result by, or None.

    ``tokens`` has the shape and the dtype of the losses; its contents do not matter. A mask of integers is returned as
    it is, since a copy of it would take as long as the loss.
    """
    if reduction not in _REDUCTIONS:
        reduction = arguments.reduction_of(reduction)  # warns, or raises ValueError
    arguments.divides_a_mean(name, normalizer, reduction)
    arguments.broadcasts_into("mask", mask, tokens)
    w, divisor = None, normalizer
    if mask is not None:
        w = mask.detach()
        if w.dtype not in INTEGERS or tokens.dtype in HALF or reduction == "sequence":
            # half precision cannot count the tokens
            w = in_dtype(w, torch.float32 if tokens.dtype in HALF else tokens.dtype)
        w = w if w.shape == tokens.shape else w.expand_as(tokens)
        divisor = _divisor(w, reduction, normalizer)
        if divisor is not None and reduction == "sequence":
            return w / divisor, "sum", None
    if divisor is not None:
        return w, "sum", divisor
    # without a mask, all sequences have the same length
    return w, ("mean" if reduction == "sequence" else reduction), None


def _is_number(divisor: Tensor | float) -> bool:
    """Whether it can be read, and nobody asks for its gradient."""
    if not isinstance(divisor, Tensor):
        return True
    return not (torch_private.is_intercepted() or divisor.requires_grad) and arguments.readable(divisor)


def row_shares(
    name: str, mask: Tensor | None, rows: Tensor, reduction: str, normalizer: Tensor | float | None
) -> tuple[Tensor | None, str]:
    """:func:`shares` of rows, which are few beside their classes: any divisor is in the weights, or rounds twice."""
    w, reduction, divisor = shares(name, mask, rows, reduction, normalizer)
    dtype = torch.promote_types(rows.dtype, torch.float32)
    if divisor is not None:
        w = (torch.ones_like(rows, dtype=dtype) if w is None else in_dtype(w, dtype)) / divisor
    return (w if w is None else in_dtype(w, dtype)), reduction


def _divisor(w: Tensor, reduction: str, normalizer: Tensor | float | None) -> Tensor | float | None:
    """What the weight of each token is divided by, so that the mean becomes a sum."""
    if normalizer is not None or reduction in ("none", "sum") or not (w.numel() or collectives.batch_groups()):
        return normalizer
    if reduction == "mean":
        count = torch.as_tensor(collectives.of_batch(total(w), w))
        return torch.where(count == 0, 1, count)
    counts = w.sum(dim=-1, keepdim=True)
    return torch.where(counts == 0, 1, counts) * collectives.of_batch(counts.numel(), w)
