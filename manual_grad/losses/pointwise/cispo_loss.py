r"""Clipped importance sampling weights (CISPO).

**Where it comes from.** A token that :mod:`~manual_grad.losses.pointwise.ppo_clip_loss` clips has no slope. Those are
often the rare words at which reasoning turns ("however", "wait"), which a short update raises most. MiniMax [1] clip
instead the weight that corrects for the policy having moved since it sampled the token, and let every token learn: the
loss is REINFORCE, weighted.

**Definition.** :math:`x` is a token's log-probability, :math:`A` its advantage and :math:`r` the logarithm of its
probability relative to the one it was sampled with, a constant:

.. math::
    e(x) = -A\, c\, x, \qquad c = \min(e^r,\, M) \tag{1}

**Gradient.** It is that of PPO, but never 0 for a clipped token:

.. math::
    \frac{\partial e}{\partial x} = -A\, c \tag{2}

Neither the ratio nor the advantage gets a gradient.

**Second derivative.** It vanishes:

.. math::
    \frac{\partial^2 e}{\partial x^2} = 0 \tag{3}

There are no kinks: (1) is linear in what is differentiated.

**In floating point** (1) is computed as written: nothing cancels, and an overflowing exponential is clipped.

**Shapes and domain.** Log-probabilities and log-ratios have one shape, such as (completions, tokens). Advantages have
that shape, or lack the last dimension. :math:`M > 0`. In TRL and [1] the ratios are those of :math:`x` itself; so
:math:`r` is usually ``log_prob - old_log_prob``.

Sources:

1. MiniMax, "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention" (2025),
   equations 4 and 5, `arXiv:2506.13585 <https://arxiv.org/abs/2506.13585>`_.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments, policy
from manual_grad.engine.pointwise import PointwiseLoss


class CISPOLossFunction(PointwiseLoss):
    """``apply(x, r, A, w, None, most, reduction)``; w counts the tokens."""

    kernel = "cispo_loss"

    @staticmethod
    def elementwise(x: Tensor, r: Tensor, A: Tensor, w: Tensor | None, most: float) -> Tensor:
        return policy.counted(-A * r.exp().clamp_max(most) * x, w)  # (1)

    @staticmethod
    def first(x: Tensor, r: Tensor, A: Tensor, w: Tensor | None, most: float) -> tuple[Any, ...]:
        zero = torch.zeros_like(x)
        return policy.counted(-A * r.exp().clamp_max(most), w), zero, zero, zero  # (2)

    @staticmethod
    def second(x: Tensor, r: Tensor, A: Tensor, w: Tensor | None, most: float) -> tuple[tuple[int, ...], ...]:
        return ((0, 0, 0, 0),) * 4  # (3)


@arguments.functional
def cispo_loss(
    log_prob: Tensor,
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor | None = None,
    ratio_max: float = 5.0,
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Negative log-probability of each token, weighted by its advantage and a clipped importance weight.

    Args:
        log_prob: The policy's log-probabilities of the sampled tokens, a floating point tensor of any shape, usually
            (completions, tokens).
        log_ratio: The logarithms of the importance weights, of the same shape, usually ``log_prob - old_log_prob``.
            They are constants: they get no gradient.
        advantages: The advantages, one per completion: without the last dimension, or with a dimension of size 1; or
            one per token. They are constants, too.
        mask: Optional weight of each token, of any real dtype or bool, broadcast to the shape of ``log_prob``: 0 for a
            token that does not count, which may hold anything, even NaN. It gets no gradient.
        ratio_max: What an importance weight is at most; positive. TRL's epsilon_high.
        reduction: 'none', 'sum', 'mean' (the weighted mean over all tokens) or 'sequence' (the mean over sequences,
            along the last dimension, of each one's mean over its tokens).
        normalizer: What 'mean' divides by in place of the tokens of this call: a number or a scalar tensor.

    Returns:
        A scalar, or for 'none' a tensor of the shape of ``log_prob``, in the promoted dtype (float32 under autocast).
        Where no token counts, the means are 0.

    Raises:
        ValueError: ``reduction`` is unknown, ``ratio_max`` is not positive and finite, a shape does not fit, or there
            is a ``normalizer`` without reduction='mean'.
        RuntimeError: ``mask`` does not broadcast to the shape of ``log_prob``.
        TypeError: ``ratio_max`` is not a number.
        NotImplementedError: the log-probabilities are not real floating point.
    """
    arguments.same_shape("cispo_loss", "log_prob", log_prob, log_ratio=log_ratio)
    options = (arguments.positive("cispo_loss", "ratio_max", ratio_max),)
    X = log_prob, log_ratio.detach(), policy.of_tokens(advantages, log_prob)
    return policy.averaged("cispo_loss", CISPOLossFunction, X, mask, options, reduction, normalizer)


class CISPOLoss(torch.nn.Module):
    """:func:`cispo_loss` as a module."""

    def __init__(self, ratio_max: float = 5.0, reduction: str = "mean") -> None:
        super().__init__()
        self.ratio_max, self.reduction = ratio_max, reduction

    def forward(self, log_prob: Tensor, log_ratio: Tensor, advantages: Tensor, mask: Tensor | None = None) -> Tensor:
        return cispo_loss(log_prob, log_ratio, advantages, mask, self.ratio_max, self.reduction)

    def extra_repr(self) -> str:
        return f"ratio_max={self.ratio_max}, reduction={self.reduction!r}"
