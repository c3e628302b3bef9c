r"""Anchored preference optimization (APO).

**Where it comes from.** :mod:`~manual_grad.losses.pointwise.dpo_loss` leaves open whether the chosen completion becomes
more probable or the rejected one less. D'Oosterlinck et al. [1] say that it depends on the data which of them should
happen, and anchor each completion to the reference. If the chosen completions are better than what the policy writes,
they shall become more probable and the rejected ones less (*zero*). If even they are worse, both shall become less
probable, the rejected ones more so (*down*). *Zero* alone does not prevent both from falling: where :math:`a = b`, it
is constantly 1.

**Definition.** :math:`x` and :math:`y` are the policy's log-probabilities of the chosen and of the rejected completion,
:math:`\bar x` and :math:`\bar y` those of the reference. The two losses, zero and down, are

.. math::
    e(x, y, \bar x, \bar y) = \sigma(-a) + \sigma(b) \quad\text{or}\quad
    e(x, y, \bar x, \bar y) = \sigma(a) + \sigma(-z), \qquad
    \sigma(r) = \frac{1}{1 + e^{-r}}, \qquad
    a = \beta\, (x - \bar x), \qquad b = \beta\, (y - \bar y), \qquad z = a - b \tag{1}

**Gradient.** The slope of the sigmoid is a bell, :math:`v`:

.. math::
    \frac{\partial e}{\partial x} = -\frac{\partial e}{\partial \bar x} = -\beta\, v(a) \quad\text{or}\quad
    \frac{\partial e}{\partial x} = -\frac{\partial e}{\partial \bar x} = \beta\, \bigl( v(a) - v(z) \bigr), \qquad
    v(r) = \sigma(r)\, \sigma(-r) \tag{2}

.. math::
    \frac{\partial e}{\partial y} = -\frac{\partial e}{\partial \bar y} = \beta\, v(b) \quad\text{or}\quad
    \frac{\partial e}{\partial y} = -\frac{\partial e}{\partial \bar y} = \beta\, v(z) \tag{3}

**Second derivatives.** With the slope of the bell,
:math:`w(r) = v(r)\, \bigl( \sigma(-r) - \sigma(r) \bigr)`,

.. math::
    \frac{\partial^2 e}{\partial x^2} = -\frac{\partial^2 e}{\partial x\, \partial \bar x} = -\beta^2\, w(a)
    \quad\text{or}\quad
    \frac{\partial^2 e}{\partial x^2} = -\frac{\partial^2 e}{\partial x\, \partial \bar x}
    = \beta^2\, \bigl( w(a) - w(z) \bigr), \qquad
    w(r) = v(r)\, \bigl( \sigma(-r) - \sigma(r) \bigr) \tag{4}

.. math::
    \frac{\partial^2 e}{\partial y^2} = -\frac{\partial^2 e}{\partial y\, \partial \bar y} = \beta^2\, w(b)
    \quad\text{or}\quad
    \frac{\partial^2 e}{\partial y^2} = -\frac{\partial^2 e}{\partial y\, \partial \bar y} = -\beta^2\, w(z) \tag{5}

.. math::
    \frac{\partial^2 e}{\partial x\, \partial y} = 0 \quad\text{or}\quad
    \frac{\partial^2 e}{\partial x\, \partial y} = \beta^2\, w(z) \tag{6}

**Stable form.** Each sigmoid and each bell is computed from the exponential that cannot overflow, so that no digit of a
small one is lost. In (2) two bells may cancel: they are equal where the rejected completion is where the reference has
it, :math:`b = 0`, and where :math:`z = -a`. Over their common denominator the difference is a product. With the
smaller and the larger of :math:`|a|` and :math:`|z|`,

.. math::
    v(a) - v(z) = \operatorname{sgn}\bigl( b\, (b - 2 a) \bigr)\, v(m)\,
        \frac{\bigl( 1 - e^{-|b|} \bigr) \bigl( 1 - e^{-|a + z|} \bigr)}{(1 + q)^2}, \qquad
    m = \min(|a|, |z|), \qquad q = e^{-\max(|a|, |z|)} \tag{7}

There are no kinks.

**Shapes and domain.** The four log-probabilities have one shape; they are real and usually negative. :math:`\beta > 0`.
A weight multiplies :math:`e` and broadcasts.

Sources:

1. Karel D'Oosterlinck, Winnie Xu, Chris Develder, Thomas Demeester, Amanpreet Singh, Christopher Potts, Douwe Kiela and
   Shikib Mehri, "Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in
   Alignment", TACL 13 (2025), equations 7 and 8, `arXiv:2408.06266 <https://arxiv.org/abs/2408.06266>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments, preference
from manual_grad.engine.elementary import size
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class APOLossFunction(PointwiseLoss):
    """``apply(x, y, x0, y0, weight, beta, down, reduction)``."""

    kernel = "apo_loss"

    @staticmethod
    def elementwise(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float, down: bool) -> Tensor:
        a, b = beta * (x - x0), beta * (y - y0)
        if down:
            return preference.sigmoid(a) + preference.sigmoid(b - a)  # (1)
        return preference.sigmoid(-a) + preference.sigmoid(b)  # (1)

    @staticmethod
    def first(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float, down: bool) -> preference.Four:
        a, b = beta * (x - x0), beta * (y - y0)
        if down:
            return preference.slopes(beta * _difference(a, b), beta * preference.bell(a - b))  # (2) (3)
        return preference.slopes(-beta * preference.bell(a), beta * preference.bell(b))  # (2) (3)

    @staticmethod
    def second(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float, down: bool) -> tuple[preference.Four, ...]:
        a, b = beta * (x - x0), beta * (y - y0)
        if down:
            wa, wz = beta * beta * preference.bend(a), beta * beta * preference.bend(a - b)
            return preference.curvatures(wa - wz, wz, -wz)  # (4) (6) (5)
        return preference.curvatures(-beta * beta * preference.bend(a), 0, beta * beta * preference.bend(b))  # (4) (5)


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """v(a) - v(a - b), by (7)."""
    z, both = a - b, a + (a - b)
    m, n = size(a), size(z)
    u, q = (-m).exp(), (-n).exp()
    higher = torch.where(m < n, u, q)
    gap = higher * (-size(b)).expm1() * (-size(both)).expm1() / ((1 + u) * (1 + u) * (1 + q) * (1 + q))
    return torch.where((b < 0) == (both < 0), -gap, gap)


def _is_down(loss_type: str) -> bool:
    if loss_type not in ("zero", "down"):
        raise ValueError(f"apo_loss(): argument 'loss_type' must be 'zero' or 'down', but got {loss_type!r}")
    return loss_type == "down"


@arguments.functional
def apo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
    loss_type: str = "zero",
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Anchored preference optimization of each pair of completions.

    Args:
        policy_chosen_logps: The policy's log-probabilities of the chosen completions, a floating point tensor of any
            shape, usually (batch,). They are sums over the tokens of a completion.
        policy_rejected_logps, ref_chosen_logps, ref_rejected_logps: Those of the rejected completions, and both of the
            reference, of the same shape. They may require a gradient.
        beta: The slope at which a log-ratio enters; positive.
        loss_type: 'zero' raises the chosen completion and lowers the rejected one; 'down' lowers both.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of pairs, even with a weight.
        weight: Optional factor of each pair's loss; broadcast to the shape of the log-probabilities.

    Returns:
        A scalar, or for 'none' a tensor of the shape of the log-probabilities, in the promoted dtype (float32 under
        autocast).

    Raises:
        ValueError: ``reduction`` or ``loss_type`` is unknown, ``beta`` is not positive and finite, or the log-
            probabilities differ in shape.
        RuntimeError: ``weight`` does not broadcast to the shape of the log-probabilities.
        TypeError: ``beta`` is not a number.
        NotImplementedError: the log-probabilities are not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    beta = arguments.positive("apo_loss", "beta", beta)
    down = _is_down(loss_type)
    x, y, x0, y0, w = preference.together(
        "apo_loss", weight, policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    return evaluate(APOLossFunction, x, y, x0, y0, w, beta, down, reduction)


class APOLoss(preference.ReferencedPairLoss):
    """:func:`apo_loss` as a module."""

    loss = staticmethod(apo_loss)
    options = ("beta", "loss_type", "reduction")

    def __init__(self, beta: float = 0.1, loss_type: str = "zero", reduction: str = "mean") -> None:
        super().__init__(beta, reduction)
        self.loss_type = loss_type
