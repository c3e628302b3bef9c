r"""Identity preference optimization (IPO).

**Where it comes from.** Where every comparison of a pair has the same outcome,
:mod:`~manual_grad.losses.pointwise.dpo_loss` has no minimum, whatever its :math:`\beta`: the margin grows without end,
and nothing holds the policy near the reference. Azar et al. [1] drop the model of Bradley and Terry, maximize the
probability of winning itself, and arrive at a regression: the margin of a pair shall be :math:`1 / (2 \beta)`.

**Definition.** :math:`x` and :math:`y` are the policy's log-probabilities of the chosen and of the rejected completion,
:math:`\bar x` and :math:`\bar y` those of the reference:

.. math::
    e(x, y, \bar x, \bar y) = (h - t)^2, \qquad h = (x - \bar x) - (y - \bar y), \qquad t = \frac{1}{2 \beta} \tag{1}

In [1] they are log-probabilities of whole completions. TRL divides each by its number of tokens, so that a target
suits completions of any length; for its loss pass such means.

**Gradient.**

.. math::
    \frac{\partial e}{\partial x} = \frac{\partial e}{\partial \bar y} = -\frac{\partial e}{\partial y}
    = -\frac{\partial e}{\partial \bar x} = 2\, (h - t) \tag{2}

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial y^2}
    = -\frac{\partial^2 e}{\partial x\, \partial y} = -\frac{\partial^2 e}{\partial x\, \partial \bar x} = 2 \tag{3}

There are no kinks.

**In floating point** (1) is computed as written. The margin is a difference of large sums, and cancels once more at the
target; it is formed in the wider dtype.

**Shapes and domain.** The four log-probabilities have one shape; they are real and usually negative. :math:`\beta > 0`.
A weight multiplies :math:`e` and broadcasts.

Sources:

1. Mohammad Gheshlaghi Azar, Zhaohan Daniel Guo, Bilal Piot, Remi Munos, Mark Rowland, Michal Valko and Daniele
   Calandriello, "A General Theoretical Paradigm to Understand Learning from Human Preferences", AISTATS (2024),
   equation 17, `arXiv:2310.12036 <https://arxiv.org/abs/2310.12036>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments, preference
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class IPOLossFunction(PointwiseLoss):
    """``apply(x, y, x0, y0, weight, t, reduction)``."""

    kernel = "ipo_loss"
    factor = 2  # of (2)

    @staticmethod
    def elementwise(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, t: float) -> Tensor:
        r = (x - x0) - (y - y0) - t
        return r * r  # (1)

    @staticmethod
    def first(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, t: float) -> preference.Four:
        d = (x - x0) - (y - y0) - t  # (2), without its factor
        return preference.slopes(d, -d)

    @staticmethod
    def second(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, t: float) -> tuple[preference.Four, ...]:
        h = torch.full_like(x, 2)  # (3)
        return preference.curvatures(h, -h, h)


@arguments.functional
def ipo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Square of how far the margin between two completions is from its target, 1 / (2 beta).

    Args:
        policy_chosen_logps: The policy's log-probabilities of the chosen completions, a floating point tensor of any
            shape, usually (batch,). They are sums over the tokens of a
            completion in the paper, means in TRL.
        policy_rejected_logps, ref_chosen_logps, ref_rejected_logps: Those of the rejected completions, and both of the
            reference, of the same shape. They may require a gradient.
        beta: How much the policy pays for leaving the reference; positive. The paper's tau.
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
    beta = arguments.positive("ipo_loss", "beta", beta)
    x, y, x0, y0, w = preference.together(
        "ipo_loss", weight, policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    return evaluate(IPOLossFunction, x, y, x0, y0, w, 0.5 / beta, reduction)


class IPOLoss(preference.ReferencedPairLoss):
    """:func:`ipo_loss` as a module."""

    loss = staticmethod(ipo_loss)
