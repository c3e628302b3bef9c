r"""Sequence likelihood calibration (SLiC), the hinge loss of a comparison.

**Where it comes from.** Zhao et al. [1] calibrate a model that is already trained: of two completions, the better one
shall be more probable by a margin. Once it is, the pair has no further effect, so that the policy does not drift on
comparisons that it has learned. Here the margin is that of :mod:`~manual_grad.losses.pointwise.dpo_loss`, between
log-ratios to a reference, which is the ``"hinge"`` loss of TRL; in [1] there is no reference. (With zeros in its place
this is the hinge of [1], divided by the margin that is asked for, :math:`1 / \beta`. [1] adds to it a multiple of the
negative log-likelihood of a target.)

**Definition.** :math:`x` and :math:`y` are the policy's log-probabilities of the chosen and of the rejected completion,
:math:`\bar x` and :math:`\bar y` those of the reference:

.. math::
    e(x, y, \bar x, \bar y) = \max(1 - z,\, 0), \qquad z = \beta h, \qquad h = (x - \bar x) - (y - \bar y) \tag{1}

**Gradient.**

.. math::
    \frac{\partial e}{\partial x} = \frac{\partial e}{\partial \bar y} = -\frac{\partial e}{\partial y}
    = -\frac{\partial e}{\partial \bar x} = \begin{cases} -\beta & z < 1 \\ 0 & z \ge 1 \end{cases} \tag{2}

**Second derivatives.** They vanish:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial y^2} = \frac{\partial^2 e}{\partial x\, \partial y}
    = 0 \tag{3}

**Kinks.** At :math:`z = 1` the slope jumps from :math:`-\beta` to 0, and 0 is chosen, as in torch's ``relu``: a pair
that has the margin is left alone.

**In floating point** (1) is computed as written. The margin is a difference of large sums; it is formed in the wider
dtype.

**Shapes and domain.** The four log-probabilities have one shape; they are real and usually negative. :math:`\beta > 0`.
A weight multiplies :math:`e` and broadcasts.

Sources:

1. Yao Zhao, Rishabh Joshi, Tianqi Liu, Misha Khalman, Mohammad Saleh and Peter J. Liu, "SLiC-HF: Sequence Likelihood
   Calibration with Human Feedback" (2023), `arXiv:2305.10425 <https://arxiv.org/abs/2305.10425>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments, preference
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class SLiCLossFunction(PointwiseLoss):
    """``apply(x, y, x0, y0, weight, beta, reduction)``."""

    kernel = "slic_loss"

    @staticmethod
    def elementwise(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float) -> Tensor:
        return (1 - beta * ((x - x0) - (y - y0))).clamp_min(0)  # (1)

    @staticmethod
    def first(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float) -> preference.Four:
        short = beta * ((x - x0) - (y - y0)) < 1
        d = torch.where(short, torch.full_like(x, -beta), 0)  # (2)
        return preference.slopes(d, -d)

    @staticmethod
    def second(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float) -> tuple[preference.Four, ...]:
        return preference.curvatures(0, 0, 0)  # (3)


@arguments.functional
def slic_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Hinge loss of the margin between two completions: max(1 - beta margin, 0).

    Args:
        policy_chosen_logps: The policy's log-probabilities of the chosen completions, a floating point tensor of any
            shape, usually (batch,). They are sums over the tokens of a completion.
        policy_rejected_logps, ref_chosen_logps, ref_rejected_logps: Those of the rejected completions, and both of the
            reference, of the same shape. They may require a gradient.
        beta: The inverse of the margin, in log-probability, that a pair shall have; positive.
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
    beta = arguments.positive("slic_loss", "beta", beta)
    x, y, x0, y0, w = preference.together(
        "slic_loss", weight, policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    return evaluate(SLiCLossFunction, x, y, x0, y0, w, beta, reduction)


class SLiCLoss(preference.ReferencedPairLoss):
    """:func:`slic_loss` as a module."""

    loss = staticmethod(slic_loss)
