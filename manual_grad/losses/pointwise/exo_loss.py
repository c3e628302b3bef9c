r"""Efficient exact optimization (EXO), for a pair.

**Where it comes from.** :mod:`~manual_grad.losses.pointwise.dpo_loss` fits the policy to a target distribution by the
forward divergence, which covers all modes of the target. Reinforcement learning minimizes the reverse one, which seeks
a mode, and that is also what a policy of limited capacity needs. Ji et al. [1] do so directly. For two completions both
distributions are coins: the policy's says that the chosen completion wins with probability :math:`p`, and the target's
with probability :math:`1 - \epsilon`.

**Definition.** :math:`x` and :math:`y` are the policy's log-probabilities of the chosen and of the rejected completion,
:math:`\bar x` and :math:`\bar y` those of the reference:

.. math::
    e(x, y, \bar x, \bar y) = p\, \log \frac{p}{1 - \epsilon} + (1 - p)\, \log \frac{1 - p}{\epsilon}, \qquad
    p = \frac{1}{1 + e^{-z}}, \qquad z = \beta\, \bigl( (x - \bar x) - (y - \bar y) \bigr) \tag{1}

**Gradient.** Let :math:`l` be the logit of the target:

.. math::
    \frac{\partial e}{\partial x} = \frac{\partial e}{\partial \bar y} = -\frac{\partial e}{\partial y}
    = -\frac{\partial e}{\partial \bar x} = \beta\, p\, (1 - p)\, (z - l), \qquad
    l = \log \frac{1 - \epsilon}{\epsilon} \tag{2}

A pair about which the policy is sure has almost no slope, even if it is wrong.

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial y^2}
    = -\frac{\partial^2 e}{\partial x\, \partial y} = -\frac{\partial^2 e}{\partial x\, \partial \bar x}
    = \beta^2\, p\, (1 - p)\, \bigl( 1 + (1 - 2 p)\, (z - l) \bigr) \tag{3}

**Stable form.** The loss does not change if the two completions change roles, :math:`z` and :math:`l` their signs. With
:math:`d` the way from :math:`z` to :math:`l` where :math:`z` is negative, and its opposite elsewhere, it is the gap
between :math:`s(z) = \log(1 + e^z)` and its tangent:

.. math::
    e = c - \log(1 + u) - n\, d, \qquad
    d = \begin{cases} l - z & z < 0 \\ z - l & z \ge 0 \end{cases}, \qquad
    c = \begin{cases} -\log \epsilon & z < 0 \\ -\log(1 - \epsilon) & z \ge 0 \end{cases}, \qquad
    n = \frac{u}{1 + u}, \qquad u = e^{-m}, \qquad m = |z| \tag{4}

Near the minimum :math:`d` is small and the difference cancels to :math:`n\, (1 - n)\, d^2 / 2`. There

.. math::
    e = n\, k(d) - k(w), \qquad w = \log \bigl( 1 + n\, (d + k(d)) \bigr), \qquad k(v) = e^v - 1 - v \tag{5}

with a series for :math:`k`. Since :math:`n \le 1/2`, at most one bit is lost.

There are no kinks.

**Shapes and domain.** The four log-probabilities have one shape; they are real and usually negative. :math:`\beta > 0`
and :math:`0 < \epsilon < 1`: for 0 the loss would be infinite. A weight multiplies :math:`e` and broadcasts.

Sources:

1. Haozhe Ji, Cheng Lu, Yilin Niu, Pei Ke, Hongning Wang, Jun Zhu, Jie Tang and Minlie Huang, "Towards Efficient Exact
   Optimization of Language Model Alignment", ICML (2024), equation 16,
   `arXiv:2402.00856 <https://arxiv.org/abs/2402.00856>`_.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manual_grad.engine import arguments, preference
from manual_grad.engine.elementary import exp_remainder, size, times
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class EXOLossFunction(PointwiseLoss):
    """``apply(x, y, x0, y0, weight, beta, right, wrong, reduction)``; the target is e^-right and e^-wrong."""

    kernel = "exo_loss"

    @staticmethod
    def elementwise(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float, right: float, wrong: float) -> Tensor:
        z = beta * ((x - x0) - (y - y0))
        left, way = z < 0, (wrong - right) - z
        d = torch.where(left, way, -way)
        u = (-size(z)).exp()
        n = u / (1 + u)
        near = size(d) < 0.5
        v = torch.where(near, d, 0)
        k = exp_remainder(v)
        gap = n * k - exp_remainder((n * (v + k)).log1p())  # (5)
        far = torch.where(left, torch.full_like(z, wrong), right) - u.log1p() - times(n, d)  # (4)
        return torch.where(near, gap, far)

    @staticmethod
    def first(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float, right: float, wrong: float) -> preference.Four:
        z = beta * ((x - x0) - (y - y0))
        d = beta * times(preference.bell(z), z - (wrong - right))  # (2)
        return preference.slopes(d, -d)

    @staticmethod
    def second(
        x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float, right: float, wrong: float
    ) -> tuple[preference.Four, ...]:
        z = beta * ((x - x0) - (y - y0))
        h = beta * beta * (preference.bell(z) + times(preference.bend(z), z - (wrong - right)))  # (3)
        return preference.curvatures(h, -h, h)


def _epsilon(label_smoothing: float) -> float:
    epsilon = preference.smoothing("exo_loss", label_smoothing)
    if epsilon == 0:
        raise ValueError("exo_loss(): argument 'label_smoothing' must be positive, but got 0")
    return epsilon


@arguments.functional
def exo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 1e-3,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Reverse divergence of the policy's choice between two completions from the label, softened by epsilon.

    Args:
        policy_chosen_logps: The policy's log-probabilities of the chosen completions, a floating point tensor of any
            shape, usually (batch,). They are sums over the tokens of a completion.
        policy_rejected_logps, ref_chosen_logps, ref_rejected_logps: Those of the rejected completions, and both of the
            reference, of the same shape. They may require a gradient.
        beta: How much the policy pays for leaving the reference; positive.
        label_smoothing: The probability epsilon of the rejected completion in the target, above 0 and below 1.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of pairs, even with a weight.
        weight: Optional factor of each pair's loss; broadcast to the shape of the log-probabilities.

    Returns:
        A scalar, or for 'none' a tensor of the shape of the log-probabilities, in the promoted dtype (float32 under
        autocast).

    Raises:
        ValueError: ``reduction`` is unknown, ``beta`` or ``label_smoothing`` lies outside its domain, or the log-
            probabilities differ in shape.
        RuntimeError: ``weight`` does not broadcast to the shape of the log-probabilities.
        TypeError: ``beta`` or ``label_smoothing`` is not a number.
        NotImplementedError: the log-probabilities are not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    beta = arguments.positive("exo_loss", "beta", beta)
    epsilon = _epsilon(label_smoothing)
    x, y, x0, y0, w = preference.together(
        "exo_loss", weight, policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    return evaluate(EXOLossFunction, x, y, x0, y0, w, beta, -math.log1p(-epsilon), -math.log(epsilon), reduction)


class EXOLoss(preference.ReferencedPairLoss):
    """:func:`exo_loss` as a module."""

    loss = staticmethod(exo_loss)
    options = ("beta", "label_smoothing", "reduction")

    def __init__(self, beta: float = 0.1, label_smoothing: float = 1e-3, reduction: str = "mean") -> None:
        super().__init__(beta, reduction)
        self.label_smoothing = label_smoothing
