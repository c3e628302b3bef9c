r"""Asymmetric loss.

**Where it comes from.** An image has few of the many possible labels, so almost every element of a multi-label problem
is a negative, and most negatives are easy. Ridnik et al. [1] treat the two kinds differently. As in
:mod:`~manual_grad.losses.pointwise.sigmoid_focal_loss`, well-classified elements are down-weighted, but negatives more
strongly than positives, and negatives with a probability below a margin :math:`c` are ignored.

**Definition.** A logit :math:`x` represents the probability :math:`p`, with :math:`n = 1 - p`. For negatives the
probability is shifted by the margin:

.. math::
    p = \frac{1}{1 + e^{-x}}, \qquad n = \frac{1}{1 + e^x}, \qquad s = \max(p - c,\, 0) \tag{1}

.. math::
    e(x, t) = t\, A + (1 - t)\, B, \qquad A = -n^{\gamma_1} \log p, \qquad
    B = -s^{\gamma_0} \log(1 - s) \tag{2}

Targets between 0 and 1 interpolate between the two. (The code published with [1] interpolates the powers as well. For
labels 0 and 1 it computes (2), with the logarithms clamped at :math:`\log 10^{-8}`. It has an option to treat the
powers as constants in the gradient. Here (2) itself is differentiated, as in [1].)

**Gradient.** With :math:`p' = p\,n` and :math:`n' = -p\,n`

.. math::
    \frac{\partial e}{\partial x} = t\, \frac{\partial A}{\partial x} + (1 - t)\, \frac{\partial B}{\partial x}, \qquad
    \frac{\partial e}{\partial t} = A - B, \qquad
    \frac{\partial A}{\partial x} = n^{\gamma_1} (\gamma_1\, p \log p - n) \tag{3}

.. math::
    \frac{\partial B}{\partial x} = \begin{cases}
        s^{\gamma_0} \Big( \gamma_0\, p\, n\, \frac{l}{s} + \frac{p\, n}{1 - s} \Big) & p > c \\ 0 & p \le c
    \end{cases}, \qquad l = -\log(1 - s) \tag{4}

The quotient :math:`l / s` tends to 1 at the margin. Written with this quotient the slope is finite there, whereas
:math:`s^{\gamma_0 - 1}` would be infinite for :math:`\gamma_0 < 1`.

**Stable form.** :math:`p`, :math:`n` and their logarithms are computed from the exponential that cannot overflow:

.. math::
    p = \begin{cases} 1 / (1 + u) & x \ge 0 \\ u / (1 + u) & x < 0 \end{cases}, \qquad
    n = \begin{cases} u / (1 + u) & x \ge 0 \\ 1 / (1 + u) & x < 0 \end{cases}, \qquad u = e^{-|x|} \tag{5}

.. math::
    -\log p = \max(-x, 0) + \log(1 + u), \qquad -\log n = \max(x, 0) + \log(1 + u) \tag{6}

Above the margin :math:`1 - s = n + c` is a sum, which keeps the digits that :math:`1 - p` would lose. :math:`l` is
minus its logarithm for :math:`s > 1/2`, and minus ``log1p`` of :math:`-s` for smaller :math:`s`. The terms of the
slopes of A and B have the same sign. The only cancellation is in the shifted probability, which passes through 0 at the
margin:

.. math::
    p - c = (1 - c) - n \tag{7}

The side with the smaller terms is used; it loses no more digits than the rounding of :math:`x` already has.

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = t\, \frac{\partial^2 A}{\partial x^2}
        + (1 - t)\, \frac{\partial^2 B}{\partial x^2}, \qquad
    \frac{\partial^2 e}{\partial x\, \partial t} = \frac{\partial A}{\partial x} - \frac{\partial B}{\partial x}, \qquad
    \frac{\partial^2 e}{\partial t^2} = 0 \tag{8}

.. math::
    \frac{\partial^2 A}{\partial x^2} = n^{\gamma_1}\, p\, \bigl( (2 \gamma_1 + 1)\, n
        - \gamma_1\, (\gamma_1\, p - n) \log p \bigr) \tag{9}

.. math::
    \frac{\partial^2 B}{\partial x^2} = [\,p > c\,]\, \bigg( s^{\gamma_0} \bigg( \frac{\gamma_0\, v}{s}
        \Big( l\, \Big( (\gamma_0 - 1)\, \frac vs + n - p \Big) + 2 h \Big)
        + \frac{\partial h}{\partial x} \bigg) \bigg), \qquad
    v = p\, n, \qquad h = \frac{v}{n + c}, \qquad
    \frac{\partial h}{\partial x} = h\, \Big( n - \frac{c\, p}{n + c} \Big) \tag{10}

**Kinks.** At the margin, :math:`p = c`, the slope is continuous for :math:`\gamma_0 > 0`. For :math:`\gamma_0 = 0` it
jumps from 0 to :math:`p\,n`, and 0 is chosen: a negative at the margin is ignored. The curvature jumps for
:math:`\gamma_0 = 1` and is infinite on the upper side for smaller :math:`\gamma_0`; again 0 is chosen. Without a
margin, :math:`c = 0`, there are no kinks.

**Shapes and domain.** Input and target have the same shape. Logits may be any number; at infinite ones all results are
the limits. Targets lie in :math:`[0, 1]`, :math:`\gamma_1, \gamma_0 \ge 0`, :math:`0 \le c < 1`. A weight multiplies
:math:`e` and broadcasts.

Sources:

1. Tal Ridnik, Emanuel Ben-Baruch, Nadav Zamir, Asaf Noy, Itamar Friedman, Matan Protter and Lihi Zelnik-Manor,
   "Asymmetric Loss For Multi-Label Classification", ICCV (2021),
   `arXiv:2009.14119 <https://arxiv.org/abs/2009.14119>`_.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.elementary import power, size, times
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class AsymmetricLossFunction(PointwiseLoss):
    """``apply(input, target, weight, gamma_neg, gamma_pos, clip, reduction)``."""

    kernel = "asymmetric_loss"
    special: ClassVar = {"gamma_neg": (4.0,), "gamma_pos": (1.0,)}

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, gamma_neg: float, gamma_pos: float, clip: float) -> Tensor:
        p, n, minus_log_p, minus_log_n = _probabilities(x)
        s, _, loss = _shifted(x, p, n, minus_log_n, clip)
        A, B = power(n, gamma_pos) * minus_log_p, power(s, gamma_neg) * loss
        return times(t, A) + times(1 - t, B)  # (2)

    @staticmethod
    def first(x: Tensor, t: Tensor, gamma_neg: float, gamma_pos: float, clip: float) -> tuple[Tensor, Tensor]:
        p, n, minus_log_p, minus_log_n = _probabilities(x)
        s, _, loss = _shifted(x, p, n, minus_log_n, clip)
        A, B = power(n, gamma_pos) * minus_log_p, power(s, gamma_neg) * loss
        A_x, B_x = _slopes(x, gamma_neg, gamma_pos, clip)
        return t * A_x + (1 - t) * B_x, A - B  # (3)

    @staticmethod
    def second(
        x: Tensor, t: Tensor, gamma_neg: float, gamma_pos: float, clip: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, int]]:
        p, n, minus_log_p, minus_log_n = _probabilities(x)
        A_xx = power(n, gamma_pos) * (
            (2 * gamma_pos + 1) * p * n + gamma_pos * (gamma_pos * p - n) * times(p, minus_log_p)
        )  # (9)
        s, divisor, loss = _shifted(x, p, n, minus_log_n, clip)
        kept = _kept(n, clip)
        h, v_over_s = p * kept, p * n / divisor
        B_xx = power(divisor, gamma_neg) * (
            gamma_neg * times(v_over_s, loss) * ((gamma_neg - 1) * v_over_s + n - p)
            + 2 * gamma_neg * v_over_s * h
            + h * (n - p * (1 - kept))
        )  # (10)
        A_x, B_x = _slopes(x, gamma_neg, gamma_pos, clip)
        xt = A_x - B_x
        return (t * A_xx + (1 - t) * torch.where(s == 0, 0, B_xx), xt), (xt, 0)  # (8)


def _probabilities(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """p, n, -log p and -log n."""
    u = (-size(x)).exp()
    left, one, log1p_u = x < 0, 1 + u, u.log1p()
    p, n = torch.where(left, u, 1) / one, torch.where(left, 1, u) / one  # (5)
    return p, n, torch.where(left, -x, 0) + log1p_u, torch.where(left, 0, x) + log1p_u  # (6)


def _shifted(x: Tensor, p: Tensor, n: Tensor, minus_log_n: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor]:
    """s, s with 0 replaced by 1, and -log(1 - s)."""
    s = torch.where(x < 0, p - clip, (1 - clip) - n).clamp_min(0)  # (7)
    if clip == 0:
        loss = minus_log_n
    else:
        large = torch.minimum(-(n + clip).log(), minus_log_n)  # the latter if clip rounds to 0
        loss = torch.where(s > 0.5, large, -(-s.clamp_max(0.5)).log1p())
    return s, torch.where(s == 0, 1, s), loss


def _slopes(x: Tensor, gamma_neg: float, gamma_pos: float, clip: float) -> tuple[Tensor, Tensor]:
    """The slopes of A and B."""
    p, n, minus_log_p, minus_log_n = _probabilities(x)
    A_x = -power(n, gamma_pos) * (gamma_pos * times(p, minus_log_p) + n)  # (3)
    s, divisor, loss = _shifted(x, p, n, minus_log_n, clip)
    B_x = power(divisor, gamma_neg) * (gamma_neg * times(p * n / divisor, loss) + p * _kept(n, clip))  # (4)
    return A_x, torch.where(s == 0, 0, B_x)


def _kept(n: Tensor, clip: float) -> Tensor:
    """n / (n + c), which is 1 without a margin."""
    return torch.where(n + clip == 0, 1, n / (n + clip))


@arguments.functional
def asymmetric_loss(
    input: Tensor,
    target: Tensor,
    gamma_neg: float = 4,
    gamma_pos: float = 1,
    clip: float = 0.05,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Focal loss of multi-label logits that down-weights negatives and positives differently.

    Args:
        input: Logits (any real numbers, not probabilities), a floating point tensor of any shape.
        target: Probabilities of each label in [0, 1], of the same shape; labels 0 and 1 may be integers.
        gamma_neg: How strongly a well-classified negative is down-weighted; not negative.
        gamma_pos: The same for a positive.
        clip: A margin in [0, 1). Negatives with a probability up to it have loss 0; the probability of other negatives
            is reduced by it.
        reduction: 'none', 'mean' (over the number of elements, even with a weight) or 'sum'.
        weight: Optional factor of each element's loss; broadcast to the input's shape.

    Returns:
        A scalar, or for 'none' a tensor of the input's shape, in the promoted dtype (float32 under autocast). All
        three tensors may require a gradient.

    Raises:
        ValueError: ``reduction`` is unknown, ``gamma_neg``, ``gamma_pos`` or ``clip`` lies outside its domain, or
            ``target`` does not have the input's shape.
        RuntimeError: ``weight`` does not broadcast to the input's shape.
        TypeError: ``gamma_neg``, ``gamma_pos`` or ``clip`` is not a number.
        NotImplementedError: the input is not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    gamma_neg, gamma_pos, clip = _gamma("gamma_neg", gamma_neg), _gamma("gamma_pos", gamma_pos), _clip(clip)
    if target.shape != input.shape:
        raise ValueError(f"Target size ({target.size()}) must be the same as input size ({input.size()})")
    arguments.require_floating("asymmetric_loss", input)
    arguments.broadcasts_into("weight", weight, input)
    x, t, w = arguments.together(input, target, weight)
    arguments.require_floating("asymmetric_loss", x)
    return evaluate(AsymmetricLossFunction, x, t, w, gamma_neg, gamma_pos, clip, reduction)


def _gamma(name: str, value: float) -> float:
    gamma = arguments.real("asymmetric_loss", name, value)
    if not 0 <= gamma < math.inf:
        raise ValueError(f"asymmetric_loss(): argument '{name}' must be finite and not negative, but got {gamma}")
    return gamma


def _clip(value: float) -> float:
    clip = arguments.real("asymmetric_loss", "clip", value)
    if not 0 <= clip < 1:
        raise ValueError(f"asymmetric_loss(): argument 'clip' must be at least 0 and below 1, but got {clip}")
    return clip


class AsymmetricLoss(torch.nn.Module):
    """:func:`asymmetric_loss` as a module."""

    def __init__(self, gamma_neg: float = 4, gamma_pos: float = 1, clip: float = 0.05, reduction: str = "mean") -> None:
        super().__init__()
        self.gamma_neg, self.gamma_pos = _gamma("gamma_neg", gamma_neg), _gamma("gamma_pos", gamma_pos)
        self.clip, self.reduction = _clip(clip), reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return asymmetric_loss(input, target, self.gamma_neg, self.gamma_pos, self.clip, self.reduction)

    def extra_repr(self) -> str:
        return f"gamma_neg={self.gamma_neg}, gamma_pos={self.gamma_pos}, clip={self.clip}, reduction={self.reduction!r}"
