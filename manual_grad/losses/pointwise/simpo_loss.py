r"""Simple preference optimization (SimPO).

**Where it comes from.** A policy generates by the mean log-probability of its tokens, more or less, while
:mod:`~manual_grad.losses.pointwise.dpo_loss` rewards sums, which grow with the length of a completion. Meng et al. [1]
take that mean as the reward, which needs no reference, and ask for a margin between the chosen and the rejected
completion.

**Definition.** :math:`x` and :math:`y` are the policy's log-probabilities of the chosen and of the rejected completion,
each divided by its number of tokens:

.. math::
    e(x, y) = (1 - q)\, s(-z) + q\, s(z), \qquad s(z) = \log(1 + e^z), \qquad
    z = \beta\, (x - y) - \gamma \tag{1}

:math:`q` is the label smoothing, 0 in [1].

**Gradient.**

.. math::
    \frac{\partial e}{\partial x} = -\frac{\partial e}{\partial y} = \beta\, d, \qquad
    d = q - \sigma(-z), \qquad \sigma(z) = \frac{1}{1 + e^{-z}} \tag{2}

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial y^2}
    = -\frac{\partial^2 e}{\partial x\, \partial y}
    = \beta^2\, \sigma(z)\, \sigma(-z) \tag{3}

**Stable form.** That of :mod:`~manual_grad.losses.pointwise.dpo_loss`: with the size of :math:`z` in the exponent,
nothing overflows, and without smoothing nothing cancels:

.. math::
    e = c\, |z| + \log(1 + u), \qquad u = e^{-|z|}, \qquad
    c = \begin{cases} q & z \ge 0 \\ 1 - q & z < 0 \end{cases} \tag{4}

There are no kinks.

**Shapes and domain.** Both log-probabilities have one shape; they are real and usually negative. :math:`\beta > 0`,
:math:`\gamma` is finite, and :math:`0 \le q < 1`. A weight multiplies :math:`e` and broadcasts.

Sources:

1. Yu Meng, Mengzhou Xia and Danqi Chen, "SimPO: Simple Preference Optimization with a Reference-Free Reward", NeurIPS
   (2024), equation 6, `arXiv:2405.14734 <https://arxiv.org/abs/2405.14734>`_.
"""

from __future__ import annotations

import math

from torch import Tensor

from manual_grad.engine import arguments, preference
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class SimPOLossFunction(PointwiseLoss):
    """``apply(x, y, weight, beta, gamma, q, reduction)``."""

    kernel = "simpo_loss"

    @staticmethod
    def elementwise(x: Tensor, y: Tensor, beta: float, gamma: float, q: float) -> Tensor:
        return preference.logistic(beta * (x - y) - gamma, q)  # (4)

    @staticmethod
    def first(x: Tensor, y: Tensor, beta: float, gamma: float, q: float) -> tuple[Tensor, Tensor]:
        d = beta * preference.logistic_slope(beta * (x - y) - gamma, q)  # (2)
        return d, -d

    @staticmethod
    def second(
        x: Tensor, y: Tensor, beta: float, gamma: float, q: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        h = beta * beta * preference.bell(beta * (x - y) - gamma)  # (3)
        return (h, -h), (-h, h)


@arguments.functional
def simpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    beta: float = 2.0,
    gamma: float = 0.5,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Simple preference optimization of each pair of completions, without a reference.

    Args:
        policy_chosen_logps: The policy's log-probabilities of the chosen completions, a floating point tensor of any
            shape, usually (batch,). They are means over the tokens of a completion.
        policy_rejected_logps: Those of the rejected completions, of the same shape.
        beta: The reward of a completion per unit of its log-probability; positive. TRL's default is 0.1.
        gamma: By how much the reward of the chosen completion shall be greater; finite. TRL's simpo_gamma.
        label_smoothing: The share of pairs whose label is thought to be flipped, from 0 to below 1.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of pairs, even with a weight.
        weight: Optional factor of each pair's loss; broadcast to the shape of the log-probabilities.

    Returns:
        A scalar, or for 'none' a tensor of the shape of the log-probabilities, in the promoted dtype (float32 under
        autocast).

    Raises:
        ValueError: ``reduction`` is unknown, ``beta``, ``gamma`` or ``label_smoothing`` lies outside its domain, or the
            log-probabilities differ in shape.
        RuntimeError: ``weight`` does not broadcast to the shape of the log-probabilities.
        TypeError: ``beta``, ``gamma`` or ``label_smoothing`` is not a number.
        NotImplementedError: the log-probabilities are not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    beta = arguments.positive("simpo_loss", "beta", beta)
    gamma = arguments.real("simpo_loss", "gamma", gamma)
    if not math.isfinite(gamma):
        raise ValueError(f"simpo_loss(): argument 'gamma' must be finite, but got {gamma}")
    q = preference.smoothing("simpo_loss", label_smoothing)
    x, y, w = preference.together("simpo_loss", weight, policy_chosen_logps, policy_rejected_logps)
    return evaluate(SimPOLossFunction, x, y, w, beta, gamma, q, reduction)


class SimPOLoss(preference.PairLoss):
    """:func:`simpo_loss` as a module."""

    loss = staticmethod(simpo_loss)
    options = ("beta", "gamma", "label_smoothing", "reduction")

    def __init__(
        self, beta: float = 2.0, gamma: float = 0.5, label_smoothing: float = 0.0, reduction: str = "mean"
    ) -> None:
        super().__init__(beta, reduction)
        self.gamma, self.label_smoothing = gamma, label_smoothing
