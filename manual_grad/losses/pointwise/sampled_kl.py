r"""Divergence of a policy from a reference, estimated from samples.

**Where it comes from.** The divergence :math:`\mathrm{KL}(\pi, \pi_0)` of a policy from a reference is a mean over what
the policy writes. Where only the sampled tokens' log-probabilities are known, it is estimated from them. Schulman [1]
compares three estimators and calls them k1, k2 and k3.

**Definition.** :math:`x` is the policy's log-probability of a token that it has sampled, :math:`\bar x` that of the
reference. The estimator with the number :math:`j` is

.. math::
    e(x, \bar x) = \begin{cases} -d & j = 1 \\ d^2 / 2 & j = 2 \\ k & j = 3 \end{cases}, \qquad
    k = e^d - 1 - d, \qquad d = \bar x - x \tag{1}

The first is unbiased, but may be negative and varies much. The second is neither negative nor unbiased. The third adds
to the first what has the mean 0, :math:`e^d - 1`, and is both.

**Gradient.** As a penalty, an estimator is differentiated with the samples fixed:

.. math::
    \frac{\partial e}{\partial x} = -\frac{\partial e}{\partial \bar x}
    = \begin{cases} 1 & j = 1 \\ -d & j = 2 \\ -(e^d - 1) & j = 3 \end{cases} \tag{2}

The mean of this gradient over the samples is that of the divergence for k2 only. For k1 it is 0. For k3 it is that of
the other divergence, :math:`\mathrm{KL}(\pi_0, \pi)`, if the policy can write whatever the reference can.

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial \bar x^2}
    = -\frac{\partial^2 e}{\partial x\, \partial \bar x}
    = \begin{cases} 0 & j = 1 \\ 1 & j = 2 \\ e^d & j = 3 \end{cases} \tag{3}

**Stable form.** Most tokens have almost the log-probability of the reference. For :math:`d = 10^{-4}` the difference
:math:`e^d - 1 - d` of float32 numbers has no right digit. For :math:`|d| < 1` the series of :math:`k`, in powers of
:math:`d`, takes its place, and in (2)

.. math::
    e^d - 1 = d + k \tag{4}

>>> import torch
>>> from manual_grad.functional import sampled_kl
>>> x, reference = torch.tensor([-2.0]), torch.tensor([-2.0001])
>>> d = reference - x
>>> d.exp() - d - 1
tensor([0.])
>>> sampled_kl(x, reference)
tensor(4.9896e-09)

There are no kinks.

**Shapes and domain.** The log-probabilities have one shape, such as (sequences, tokens), and are real. If only the
policy excludes a token, k2 and k3 are infinite; if both exclude it, the result is NaN.

Sources:

1. John Schulman, "Approximating KL Divergence" (2020),
   `joschu.net/blog/kl-approx.html <http://joschu.net/blog/kl-approx.html>`_.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from manual_grad.engine import arguments, policy
from manual_grad.engine.elementary import exp_minus_1, exp_remainder
from manual_grad.engine.pointwise import PointwiseLoss


class SampledKLFunction(PointwiseLoss):
    """``apply(x, x0, w, None, j, reduction)``; w counts the tokens."""

    kernel = "sampled_kl"
    special: ClassVar = {"j": (1.0, 2.0)}

    @staticmethod
    def elementwise(x: Tensor, x0: Tensor, w: Tensor | None, j: float) -> Tensor:
        d = x0 - x
        return policy.counted(-d if j == 1 else 0.5 * d * d if j == 2 else exp_remainder(d), w)  # (1)

    @staticmethod
    def first(x: Tensor, x0: Tensor, w: Tensor | None, j: float) -> tuple[Tensor, Tensor, Tensor]:
        d = x0 - x
        dx0 = policy.counted(torch.full_like(x, -1) if j == 1 else d if j == 2 else exp_minus_1(d), w)  # (2)
        return -dx0, dx0, torch.zeros_like(x)

    @staticmethod
    def second(x: Tensor, x0: Tensor, w: Tensor | None, j: float) -> tuple[tuple[Tensor | int, ...], ...]:
        bent = torch.zeros_like(x) if j == 1 else torch.ones_like(x) if j == 2 else (x0 - x).exp()
        h = policy.counted(bent, w)  # (3)
        return (h, -h, 0), (-h, h, 0), (0, 0, 0)


_ESTIMATORS = {"k1": 1.0, "k2": 2.0, "k3": 3.0}


@arguments.functional
def sampled_kl(
    log_prob: Tensor,
    ref_log_prob: Tensor,
    mask: Tensor | None = None,
    estimator: str = "k3",
    reduction: str = "mean",
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Estimate from each sampled token of the divergence of a policy from a reference.

    Args:
        log_prob: The policy's log-probabilities of tokens that it has sampled, a floating point tensor of any shape,
            usually (sequences, tokens).
        ref_log_prob: Those of the reference, of the same shape.
        mask: Optional weight of each token, of any real dtype or bool, broadcast to the shape of ``log_prob``: 0 for a
            token that does not count, which may hold anything, even NaN. It gets no gradient.
        estimator: 'k1', the log-ratio; 'k2', half its square; or 'k3', which is unbiased and not negative.
        reduction: 'none', 'sum', 'mean' (the weighted mean over all tokens) or 'sequence' (the mean over sequences,
            along the last dimension, of each one's mean over its tokens).
        normalizer: What 'mean' divides by in place of the tokens of this call: a number or a scalar tensor.

    Returns:
        A scalar, or for 'none' a tensor of the shape of ``log_prob``, in the promoted dtype (float32 under autocast).
        Where no token counts, the means are 0.

    Raises:
        ValueError: ``reduction`` or ``estimator`` is unknown, the log-probabilities differ in shape, or there is a
            ``normalizer`` without reduction='mean'.
        RuntimeError: ``mask`` does not broadcast to the shape of ``log_prob``.
        NotImplementedError: the log-probabilities are not real floating point.
    """
    arguments.same_shape("sampled_kl", "log_prob", log_prob, ref_log_prob=ref_log_prob)
    if estimator not in _ESTIMATORS:
        raise ValueError(f"sampled_kl(): argument 'estimator' must be 'k1', 'k2' or 'k3', but got {estimator!r}")
    options = (_ESTIMATORS[estimator],)
    return policy.averaged(
        "sampled_kl", SampledKLFunction, (log_prob, ref_log_prob), mask, options, reduction, normalizer
    )


class SampledKL(torch.nn.Module):
    """:func:`sampled_kl` as a module."""

    def __init__(self, estimator: str = "k3", reduction: str = "mean") -> None:
        super().__init__()
        self.estimator, self.reduction = estimator, reduction

    def forward(self, log_prob: Tensor, ref_log_prob: Tensor, mask: Tensor | None = None) -> Tensor:
        return sampled_kl(log_prob, ref_log_prob, mask, self.estimator, self.reduction)

    def extra_repr(self) -> str:
        return f"estimator={self.estimator!r}, reduction={self.reduction!r}"
