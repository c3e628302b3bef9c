r"""Noise contrastive alignment (NCA), for a pair.

**Where it comes from.** :mod:`~manual_grad.losses.pointwise.dpo_loss` sees only the difference between two completions;
the probabilities of both may fall, as long as that of the rejected one falls faster. Chen et al. [1] make each
completion answer a question of its own: was it drawn from the policy, or from the reference? The chosen one is the
sample, and both are noise.

**Definition.** :math:`x` and :math:`y` are the policy's log-probabilities of the chosen and of the rejected completion,
:math:`\bar x` and :math:`\bar y` those of the reference. A completion's reward is :math:`\beta` times its log-ratio:

.. math::
    e(x, y, \bar x, \bar y) = s(-a) + \frac12\, s(a) + \frac12\, s(b), \qquad s(z) = \log(1 + e^z), \qquad
    a = \beta\, (x - \bar x), \qquad b = \beta\, (y - \bar y) \tag{1}

**Gradient.**

.. math::
    \frac{\partial e}{\partial x} = -\frac{\partial e}{\partial \bar x}
    = \beta\, \Big( \frac12\, \sigma(a) - \sigma(-a) \Big), \qquad
    \frac{\partial e}{\partial y} = -\frac{\partial e}{\partial \bar y} = \frac\beta2\, \sigma(b), \qquad
    \sigma(z) = \frac{1}{1 + e^{-z}} \tag{2}

The chosen completion is pulled towards :math:`\sigma(a) = 2/3`, a reward of :math:`\log 2`.

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = -\frac{\partial^2 e}{\partial x\, \partial \bar x}
    = \frac{3 \beta^2}2\, \sigma(a)\, \sigma(-a), \qquad
    \frac{\partial^2 e}{\partial y^2} = -\frac{\partial^2 e}{\partial y\, \partial \bar y}
    = \frac{\beta^2}2\, \sigma(b)\, \sigma(-b), \qquad
    \frac{\partial^2 e}{\partial x\, \partial y} = 0 \tag{3}

**Stable form.** With the size of :math:`a` in the exponent, nothing overflows, and no term of the loss cancels:

.. math::
    s(-a) + \frac12\, s(a) = c\, |a| + \frac32 \log(1 + u), \qquad u = e^{-|a|}, \qquad
    c = \begin{cases} 1/2 & a \ge 0 \\ 1 & a < 0 \end{cases} \tag{4}

.. math::
    \frac12\, \sigma(a) - \sigma(-a) = \begin{cases}
        \dfrac{1/2 - u}{1 + u} & a \ge 0 \\[2ex] \dfrac{u/2 - 1}{1 + u} & a < 0
    \end{cases} \tag{5}

There are no kinks.

**Shapes and domain.** The four log-probabilities have one shape; they are real and usually negative. :math:`\beta > 0`.
A weight multiplies :math:`e` and broadcasts.

Sources:

1. Huayu Chen, Guande He, Lifan Yuan, Ganqu Cui, Hang Su and Jun Zhu, "Noise Contrastive Alignment of Language Models
   with Explicit Rewards", NeurIPS (2024), `arXiv:2402.05369 <https://arxiv.org/abs/2402.05369>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments, preference
from manual_grad.engine.elementary import size
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class NCALossFunction(PointwiseLoss):
    """``apply(x, y, x0, y0, weight, beta, reduction)``."""

    kernel = "nca_loss"

    @staticmethod
    def elementwise(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float) -> Tensor:
        a = beta * (x - x0)
        m = size(a)
        chosen = torch.where(a < 0, m, 0.5 * m) + 1.5 * (-m).exp().log1p()  # (4)
        return chosen + 0.5 * preference.softplus(beta * (y - y0))  # (1)

    @staticmethod
    def first(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float) -> preference.Four:
        a = beta * (x - x0)
        u = (-size(a)).exp()
        da = torch.where(a < 0, 0.5 * u - 1, 0.5 - u) / (1 + u)  # (5)
        return preference.slopes(beta * da, 0.5 * beta * preference.sigmoid(beta * (y - y0)))  # (2)

    @staticmethod
    def second(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float) -> tuple[preference.Four, ...]:
        aa = 1.5 * beta * beta * preference.bell(beta * (x - x0))
        bb = 0.5 * beta * beta * preference.bell(beta * (y - y0))
        return preference.curvatures(aa, 0, bb)  # (3)


@arguments.functional
def nca_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Noise contrastive alignment of each pair of completions.

    Args:
        policy_chosen_logps: The policy's log-probabilities of the chosen completions, a floating point tensor of any
            shape, usually (batch,). They are sums over the tokens of a completion.
        policy_rejected_logps, ref_chosen_logps, ref_rejected_logps: Those of the rejected completions, and both of the
            reference, of the same shape. They may require a gradient.
        beta: The reward of a completion per unit of its log-ratio; positive.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of pairs, even with a weight.
        weight: Optional factor of each pair's loss; broadcast to the shape of the log-probabilities.

    Returns:
        A scalar, or for 'none' a tensor of the shape of the log-probabilities, in the promoted dtype (float32 under
        autocast).

    Raises:
        ValueError: ``reduction`` is unknown, ``beta`` is not positive and finite, or the log-probabilities differ in
            shape.
        RuntimeError: ``weight`` does not broadcast to the shape of the log-probabilities.
        TypeError: ``beta`` is not a number.
        NotImplementedError: the log-probabilities are not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    beta = arguments.positive("nca_loss", "beta", beta)
    x, y, x0, y0, w = preference.together(
        "nca_loss", weight, policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    return evaluate(NCALossFunction, x, y, x0, y0, w, beta, reduction)


class NCALoss(preference.ReferencedPairLoss):
    """:func:`nca_loss` as a module."""

    loss = staticmethod(nca_loss)
