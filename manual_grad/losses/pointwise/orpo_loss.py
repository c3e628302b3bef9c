r"""Odds ratio preference optimization (ORPO).

**Where it comes from.** Fine-tuning on chosen completions raises the rejected ones too, as they are similar. Hong et
al. [1] add to it a penalty on the odds of the rejected completion relative to those of the chosen one. Neither a
reference nor a separate stage of training is needed.

**Definition.** :math:`x` and :math:`y` are the policy's log-probabilities of the chosen and of the rejected completion,
each divided by its number of tokens, so that :math:`P` and :math:`Q` are geometric means of the tokens' probabilities.
:math:`r` is the logarithm of the ratio of their odds, and the loss

.. math::
    e(x, y) = \beta \log(1 + e^r) - \alpha\, x, \qquad r = \log \frac{Q}{1 - Q} - \log \frac{P}{1 - P}, \qquad
    P = e^x, \qquad Q = e^y \tag{1}

The last term is that of fine-tuning; [1] has :math:`\alpha = 1`, and calls :math:`\beta` lambda.

**Gradient.** The logarithm of odds has slope :math:`1 / (1 - P)`, and the two factors of each slope share a denominator

.. math::
    \frac{\partial e}{\partial x} = -\beta\, \frac QD - \alpha, \qquad
    \frac{\partial e}{\partial y} = \beta\, \frac QD\, \frac{1 - P}{1 - Q}, \qquad
    D = P\, (1 - Q) + (1 - P)\, Q \tag{2}

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \beta\, \frac{P\,Q}{D^2}\, (1 - 2 Q), \qquad
    \frac{\partial^2 e}{\partial x\, \partial y} = -\beta\, \frac{P\,Q}{D^2}, \qquad
    \frac{\partial^2 e}{\partial y^2} = \beta\, \frac{(1 - P)\, Q}{D^2\, (1 - Q)^2}
        \bigl( P\, (1 - Q^2) + (1 - P)\, Q^2 \bigr) \tag{3}

**Stable form.** A completion of which the policy is sure has :math:`x` near 0, and :math:`1 - e^x` has no digits left;
``expm1`` has them. So that the probabilities of unlikely completions do not underflow, both are divided by the larger:

.. math::
    p = \begin{cases} 1 & x \ge y \\ u & x < y \end{cases}, \qquad
    q = \begin{cases} u & x \ge y \\ 1 & x < y \end{cases}, \qquad u = e^{-|x - y|}, \qquad
    k = \frac{1 - P}{1 - Q} \tag{4}

Then :math:`Q / P = q / p`, and

.. math::
    \log(1 + e^r) = \log \Bigl( 1 + \frac qp\, k \Bigr) = \log(p + q\, k) - \log p
    = \begin{cases} \log(1 + u\, k) & x \ge y \\ \log\bigl(1 + (k - 1) + u\bigr) + (y - x) & x < y \end{cases} \tag{5}

Where :math:`k - 1` occurs, the rejected completion is the likelier one and :math:`k > 1`, so no term is negative. Nor
is one of the denominator in

.. math::
    \frac QD = \frac{q}{p\, (1 - Q) + (1 - P)\, q} \tag{6}

There are no kinks.

**Shapes and domain.** Both log-probabilities have one shape and are not positive. :math:`\beta > 0` and
:math:`\alpha \ge 0`. A weight multiplies :math:`e` and broadcasts. At :math:`x = 0` the loss is 0 and its slope a
finite limit, at :math:`y = 0` both are infinite, and where both are 0 the loss is NaN. TRL takes the average of
:math:`x` over all tokens of the batch instead of over sequences; for its loss take :math:`\alpha = 0` and add that
average.

Sources:

1. Jiwoo Hong, Noah Lee and James Thorne, "ORPO: Monolithic Preference Optimization without Reference Model", EMNLP
   (2024), equations 6 and 7, `arXiv:2403.07691 <https://arxiv.org/abs/2403.07691>`_.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from manual_grad.engine import arguments, preference
from manual_grad.engine.elementary import size
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class ORPOLossFunction(PointwiseLoss):
    """``apply(x, y, weight, beta, alpha, reduction)``."""

    kernel = "orpo_loss"
    special: ClassVar = {"alpha": (0.0,)}
    refusal = ValueError
    messages = ("policy_chosen_logps has a positive entry", "policy_rejected_logps has a positive entry")

    @staticmethod
    def elementwise(x: Tensor, y: Tensor, beta: float, alpha: float) -> Tensor:
        u, below = (-size(x - y)).exp(), x < y
        k = _rest(x) / _rest(y)
        e = beta * (torch.where(below, y - x, 0) + torch.where(below, k - 1 + u, u * k).log1p())  # (5)
        return e if alpha == 0 else e - alpha * x  # (1)

    @staticmethod
    def first(x: Tensor, y: Tensor, beta: float, alpha: float) -> tuple[Tensor, Tensor]:
        n, m, p, q = _parts(x, y)
        d = beta * (q / (p * m + n * q))  # (6)
        return -d if alpha == 0 else -d - alpha, d * (n / m)  # (2)

    @staticmethod
    def second(x: Tensor, y: Tensor, beta: float, alpha: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        n, m, p, q = _parts(x, y)
        D = p * m + n * q
        xy = beta * p * q / (D * D)
        yy = beta * n * q * (p * -(2 * y).expm1() + n * q * y.exp()) / (D * D * m * m)
        return (xy * (2 * m - 1), -xy), (-xy, yy)  # (3)

    @staticmethod
    def outside(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x > 0, y > 0


def _rest(x: Tensor) -> Tensor:
    """1 - e^x; NaN for a positive x."""
    return 0 - (-size(torch.where(x > 0, torch.nan, x))).expm1()  # unlike a negation, this makes no -0


def _parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1 - P, 1 - Q, and p and q of (4)."""
    u = (-size(x - y)).exp()
    return _rest(x), _rest(y), torch.where(x < y, u, 1), torch.where(x < y, 1, u)


@arguments.functional
def orpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    beta: float = 0.1,
    alpha: float = 1.0,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Odds ratio preference optimization of each pair of completions, without a reference.

    Args:
        policy_chosen_logps: The policy's log-probabilities of the chosen completions, a floating point tensor of any
            shape, usually (batch,), not positive. They are means over the tokens of a completion.
        policy_rejected_logps: Those of the rejected completions, of the same shape.
        beta: Factor of the odds ratio's penalty; positive. The paper's lambda.
        alpha: Factor of the chosen completion's negative log-likelihood, which is added; not negative.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of pairs, even with a weight.
        weight: Optional factor of each pair's loss; broadcast to the shape of the log-probabilities.

    Returns:
        A scalar, or for 'none' a tensor of the shape of the log-probabilities, in the promoted dtype (float32 under
        autocast).

    Raises:
        ValueError: ``reduction`` is unknown, ``beta`` or ``alpha`` lies outside its domain, the log-probabilities
            differ in shape, or one of them is positive. Entries are checked only on the CPU, where that needs no
            synchronization. Elsewhere, and under torch.func.vmap, a positive entry makes its loss NaN.
        RuntimeError: ``weight`` does not broadcast to the shape of the log-probabilities.
        TypeError: ``beta`` or ``alpha`` is not a number.
        NotImplementedError: the log-probabilities are not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    beta = arguments.positive("orpo_loss", "beta", beta)
    alpha = arguments.not_negative("orpo_loss", "alpha", alpha)
    x, y, w = preference.together("orpo_loss", weight, policy_chosen_logps, policy_rejected_logps)
    return evaluate(ORPOLossFunction, x, y, w, beta, alpha, reduction)


class ORPOLoss(preference.PairLoss):
    """:func:`orpo_loss` as a module."""

    loss = staticmethod(orpo_loss)
    options = ("beta", "alpha", "reduction")

    def __init__(self, beta: float = 0.1, alpha: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(beta, reduction)
        self.alpha = alpha
