r"""Kahneman-Tversky optimization (KTO).

**Where it comes from.** Pairs are expensive; a thumb up or down on one completion is not. Ethayarajh et al. [1] model
how people value a completion as in prospect theory: relative to a point of reference, saturating in gains and losses,
and with losses weighing more. The point of reference is how far the policy has moved from the reference model
altogether.

**Definition.** :math:`x` and :math:`\bar x` are the log-probabilities of a completion under the policy and the
reference, :math:`k` the divergence of the policy from the reference, a constant estimated on the batch:

.. math::
    e(x, \bar x) = \begin{cases} D\, \sigma(-z) & t = 1 \\ U\, \sigma(z) & t = 0 \end{cases}, \qquad
    \sigma(z) = \frac{1}{1 + e^{-z}}, \qquad z = \beta\, (x - \bar x - k) \tag{1}

The label :math:`t` says whether the completion is desirable. :math:`D` and :math:`U` balance the two kinds.

**Gradient.** No gradient flows into :math:`k`, by definition of the loss [1].

.. math::
    \frac{\partial e}{\partial x} = -\frac{\partial e}{\partial \bar x} = c\, \beta\, \sigma(z)\, \sigma(-z), \qquad
    c = \begin{cases} -D & t = 1 \\ U & t = 0 \end{cases} \tag{2}

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial \bar x^2}
    = -\frac{\partial^2 e}{\partial x\, \partial \bar x}
    = c\, \beta^2\, \sigma(z)\, \sigma(-z)\, \bigl( \sigma(-z) - \sigma(z) \bigr) \tag{3}

**Stable form.** Each sigmoid, also that of :math:`-z`, is computed from the exponential that cannot overflow. So no
digits of a small one are lost, as they are in :math:`1 - \sigma(z)`:

.. math::
    \sigma(z) = \begin{cases} 1 / (1 + u) & z \ge 0 \\ u / (1 + u) & z < 0 \end{cases}, \qquad
    \sigma(z)\, \sigma(-z) = \frac{u}{(1 + u)^2}, \qquad u = e^{-|z|} \tag{4}

There are no kinks.

**Shapes and domain.** Log-probabilities and labels have one shape; :math:`k` and a weight, which multiplies :math:`e`,
broadcast. The log-probabilities are real and usually negative; :math:`\beta > 0`, :math:`D \ge 0` and :math:`U \ge 0`.
In [1] and TRL :math:`k` is clamped at 0, as an estimate may be negative; that is left to the caller.

Sources:

1. Kawin Ethayarajh, Winnie Xu, Niklas Muennighoff, Dan Jurafsky and Douwe Kiela, "KTO: Model Alignment as Prospect
   Theoretic Optimization", ICML (2024), equation 7, `arXiv:2402.01306 <https://arxiv.org/abs/2402.01306>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments, preference
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class KTOLossFunction(PointwiseLoss):
    """``apply(x, x0, t, k, weight, beta, desirable, undesirable, reduction)``."""

    kernel = "kto_loss"

    @staticmethod
    def elementwise(
        x: Tensor, x0: Tensor, t: Tensor, k: Tensor, beta: float, desirable: float, undesirable: float
    ) -> Tensor:
        z = beta * (x - x0 - k)
        good = t > 0
        return _weight(x, good, desirable, undesirable) * preference.sigmoid(torch.where(good, -z, z))  # (1)

    @staticmethod
    def first(
        x: Tensor, x0: Tensor, t: Tensor, k: Tensor, beta: float, desirable: float, undesirable: float
    ) -> preference.Four:
        c = _weight(x, t > 0, -desirable, undesirable)
        d = beta * c * preference.bell(beta * (x - x0 - k))  # (2)
        return d, -d, torch.zeros_like(t), -d

    @staticmethod
    def second(
        x: Tensor, x0: Tensor, t: Tensor, k: Tensor, beta: float, desirable: float, undesirable: float
    ) -> tuple[preference.Four, ...]:
        c = _weight(x, t > 0, -desirable, undesirable)
        h = beta * beta * c * preference.bend(beta * (x - x0 - k))  # (3)
        return (h, -h, 0, -h), (-h, h, 0, h), (0, 0, 0, 0), (-h, h, 0, h)


def _weight(x: Tensor, good: Tensor, desirable: float, undesirable: float) -> Tensor:
    return torch.where(good, torch.full_like(x, desirable), undesirable)


@arguments.functional
def kto_loss(
    policy_logps: Tensor,
    ref_logps: Tensor,
    labels: Tensor,
    kl: Tensor | float = 0.0,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Kahneman-Tversky optimization of each completion, which is desirable or not.

    Args:
        policy_logps: The policy's log-probabilities of the completions, summed over their tokens, a floating point
            tensor of any shape, usually (batch,).
        ref_logps: Those of the reference, of the same shape.
        labels: True or 1 for a desirable completion, False or 0 for another, of the same shape and any real dtype.
        kl: The estimated divergence of the policy from the reference, clamped at 0, a number or a tensor that
            broadcasts. It is a constant: it gets no gradient. Without it, the loss is TRL's "apo_zero_unpaired".
        beta: How much the policy pays for leaving the reference; positive.
        desirable_weight, undesirable_weight: Factors of the two kinds of completions; not negative.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of completions, even with a weight.
        weight: Optional factor of each completion's loss; broadcast to the shape of the log-probabilities.

    Returns:
        A scalar, or for 'none' a tensor of the shape of the log-probabilities, in the promoted dtype (float32 under
        autocast).

    Raises:
        ValueError: ``reduction`` is unknown, ``beta`` or a factor lies outside its domain, or the log-probabilities and
            the labels differ in shape.
        RuntimeError: ``kl`` or ``weight`` does not broadcast to the shape of the log-probabilities.
        TypeError: ``beta`` or a factor is not a number.
        NotImplementedError: the log-probabilities are not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    beta = arguments.positive("kto_loss", "beta", beta)
    desirable = arguments.not_negative("kto_loss", "desirable_weight", desirable_weight)
    undesirable = arguments.not_negative("kto_loss", "undesirable_weight", undesirable_weight)
    arguments.same_shape("kto_loss", "policy_logps", policy_logps, ref_logps=ref_logps, labels=labels)
    arguments.require_floating("kto_loss", policy_logps)
    kl = arguments.as_tensor(kl, policy_logps)
    for argument, factor in (("kl", kl), ("weight", weight)):
        arguments.broadcasts_into(argument, factor, policy_logps)
    x, x0, t, k, w = arguments.together(policy_logps, ref_logps, labels.detach(), kl.detach(), weight)
    return evaluate(KTOLossFunction, x, x0, t, k, w, beta, desirable, undesirable, reduction)


class KTOLoss(torch.nn.Module):
    """:func:`kto_loss` as a module."""

    def __init__(
        self,
        beta: float = 0.1,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.beta, self.reduction = beta, reduction
        self.desirable_weight, self.undesirable_weight = desirable_weight, undesirable_weight

    def forward(self, policy_logps: Tensor, ref_logps: Tensor, labels: Tensor, kl: Tensor | float = 0.0) -> Tensor:
        weights = self.desirable_weight, self.undesirable_weight
        return kto_loss(policy_logps, ref_logps, labels, kl, self.beta, *weights, self.reduction)

    def extra_repr(self) -> str:
        return (
            f"beta={self.beta}, desirable_weight={self.desirable_weight}, "
            f"undesirable_weight={self.undesirable_weight}, reduction={self.reduction!r}"
        )
