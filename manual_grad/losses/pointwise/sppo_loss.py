r"""Self-play preference optimization (SPPO), with hard labels.

**Where it comes from.** Wu et al. [1] regard alignment as a game of two players, whose equilibrium is found by playing
against oneself: in every round each completion's log-ratio to the policy of the last round is set in proportion to how
often it beats the others, minus a half. With the label of a single comparison in place of that frequency, the winner's
target is :math:`1 / (2 \beta)` and the loser's :math:`-1 / (2 \beta)`. Unlike in
:mod:`~manual_grad.losses.pointwise.ipo_loss`, each completion has a target of its own. The authors use :math:`\beta =
0.001`, a target of 500 for whole completions.

**Definition.** :math:`x` and :math:`y` are the policy's log-probabilities of the chosen and of the rejected completion,
:math:`\bar x` and :math:`\bar y` those of the reference, the policy of the last round:

.. math::
    e(x, y, \bar x, \bar y) = (a - t)^2 + (b + t)^2, \qquad a = x - \bar x, \qquad b = y - \bar y, \qquad
    t = \frac{1}{2 \beta} \tag{1}

**Gradient.**

.. math::
    \frac{\partial e}{\partial x} = -\frac{\partial e}{\partial \bar x} = 2\, (a - t), \qquad
    \frac{\partial e}{\partial y} = -\frac{\partial e}{\partial \bar y} = 2\, (b + t) \tag{2}

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial y^2}
    = -\frac{\partial^2 e}{\partial x\, \partial \bar x} = -\frac{\partial^2 e}{\partial y\, \partial \bar y} = 2,
    \qquad \frac{\partial^2 e}{\partial x\, \partial y} = 0 \tag{3}

There are no kinks.

**In floating point** (1) is computed as written. A log-ratio is a difference of large sums, and cancels once more at
its target; it is formed in the wider dtype.

**Shapes and domain.** The four log-probabilities have one shape; they are real and usually negative. :math:`\beta > 0`.
A weight multiplies :math:`e` and broadcasts.

Sources:

1. Yue Wu, Zhiqing Sun, Huizhuo Yuan, Kaixuan Ji, Yiming Yang and Quanquan Gu, "Self-Play Preference Optimization for
   Language Model Alignment", ICLR (2025), equation 4.7 with P = 1 and 0,
   `arXiv:2405.00675 <https://arxiv.org/abs/2405.00675>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments, preference
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class SPPOLossFunction(PointwiseLoss):
    """``apply(x, y, x0, y0, weight, t, reduction)``."""

    kernel = "sppo_loss"
    factor = 2  # of (2)

    @staticmethod
    def elementwise(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, t: float) -> Tensor:
        a, b = (x - x0) - t, (y - y0) + t
        return a * a + b * b  # (1)

    @staticmethod
    def first(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, t: float) -> preference.Four:
        return preference.slopes((x - x0) - t, (y - y0) + t)  # (2), without its factor

    @staticmethod
    def second(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, t: float) -> tuple[preference.Four, ...]:
        h = torch.full_like(x, 2)
        return preference.curvatures(h, 0, h)  # (3)


@arguments.functional
def sppo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Squares of how far two completions are from their targets, a log-ratio of 1 / (2 beta) and its opposite.

    Args:
        policy_chosen_logps: The policy's log-probabilities of the chosen completions, a floating point tensor of any
            shape, usually (batch,). They are sums over the tokens of a completion.
        policy_rejected_logps, ref_chosen_logps, ref_rejected_logps: Those of the rejected completions, and both of the
            reference, of the same shape. They may require a gradient.
        beta: How much the policy pays for leaving the reference; positive. The inverse of the paper's eta.
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
    beta = arguments.positive("sppo_loss", "beta", beta)
    x, y, x0, y0, w = preference.together(
        "sppo_loss", weight, policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    return evaluate(SPPOLossFunction, x, y, x0, y0, w, 0.5 / beta, reduction)


class SPPOLoss(preference.ReferencedPairLoss):
    """:func:`sppo_loss` as a module."""

    loss = staticmethod(sppo_loss)
