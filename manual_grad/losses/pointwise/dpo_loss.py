r"""Direct preference optimization (DPO).

**Where it comes from.** A person has compared two completions of a prompt and chosen one. Reinforcement learning from
such comparisons would first fit a reward to them, then train the policy on the reward without letting it stray from a
reference. Rafailov et al. [1] solve the second problem in closed form: a completion's reward is, up to a constant of
the prompt, :math:`\beta` times its log-ratio, the logarithm of how much more probable the policy makes it than the
reference. The reward therefore needs no model of its own, and the policy is fitted to the comparisons directly.

**Definition.** :math:`x` and :math:`y` are the policy's log-probabilities of the chosen and of the rejected completion,
summed over their tokens, and :math:`\bar x` and :math:`\bar y` those of the reference. The margin :math:`h` is the
difference of the log-ratios. The model of Bradley and Terry says that the chosen completion wins with probability
:math:`\sigma(\beta h)`, and its negative log-likelihood is

.. math::
    e(x, y, \bar x, \bar y) = (1 - q)\, s(-z) + q\, s(z), \qquad s(z) = \log(1 + e^z), \qquad z = \beta h, \qquad
    h = a - b, \qquad a = x - \bar x, \qquad b = y - \bar y \tag{1}

with :math:`q = 0`. If a share :math:`\epsilon` of the labels is flipped, two corrections of (1) are

.. math::
    q = \epsilon \quad\text{or}\quad q = -\frac{\epsilon}{1 - 2 \epsilon} \tag{2}

The first is the cross entropy with smoothed labels, *conservative* DPO [2]. It has a minimum where
:math:`\sigma(z) = 1 - \epsilon`: the policy stops there. The second, *robust* DPO [3], is unbiased: averaged over the
flips of the label it is the loss of the true one. It has no minimum, and it is negative for large margins.

**Gradient.** With :math:`s'(z) = \sigma(z)` and :math:`s(z) = s(-z) + z`

.. math::
    \frac{\partial e}{\partial x} = \beta\, d, \qquad
    \frac{\partial e}{\partial y} = -\beta\, d, \qquad
    \frac{\partial e}{\partial \bar x} = -\beta\, d, \qquad
    \frac{\partial e}{\partial \bar y} = \beta\, d, \qquad
    d = q - \sigma(-z), \qquad \sigma(z) = \frac{1}{1 + e^{-z}} \tag{3}

A pair counts by how wrong the policy is about it.

**Second derivatives.** The margin is linear in the four log-probabilities, so that only signs differ:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial y^2}
    = -\frac{\partial^2 e}{\partial x\, \partial y} = -\frac{\partial^2 e}{\partial x\, \partial \bar x}
    = \frac{\partial^2 e}{\partial x\, \partial \bar y} = \beta^2\, \sigma(z)\, \sigma(-z) \tag{4}

**Stable form.** With the size of :math:`z` in the exponent, nothing overflows:

.. math::
    e = c\, |z| + \log(1 + u), \qquad u = e^{-|z|}, \qquad
    c = \begin{cases} q & z \ge 0 \\ 1 - q & z < 0 \end{cases} \tag{5}

.. math::
    d = \begin{cases}
        \dfrac{q - (1 - q)\, u}{1 + u} & z \ge 0 \\[2ex] \dfrac{q\, u - (1 - q)}{1 + u} & z < 0
    \end{cases} \tag{6}

For :math:`0 \le q < 1` no term of (5) is negative. Without smoothing no term of (6) cancels either: a pair that is
right by a margin of 40 has a slope of :math:`e^{-40}`, not 0. With smoothing (6) passes through 0 at the minimum. If
that is near :math:`z = 0`, so is :math:`u` near 1, and ``expm1`` has the digits of :math:`1 - u` in

.. math::
    q - (1 - q)\, u = (2 q - 1) + (1 - q)\, (1 - u), \qquad
    q\, u - (1 - q) = (2 q - 1) - q\, (1 - u) \tag{7}

There are no kinks.

**Other losses of the same four log-probabilities.** ``loss_type`` selects them by their names in TRL:
'hinge' is :mod:`~manual_grad.losses.pointwise.slic_loss`, a hinge at margin 1; 'ipo' is
:mod:`~manual_grad.losses.pointwise.ipo_loss`, a square around a target margin; 'exo_pair' is
:mod:`~manual_grad.losses.pointwise.exo_loss`, the divergence in the other direction; 'nca_pair' is
:mod:`~manual_grad.losses.pointwise.nca_loss`, which compares each completion with the reference; 'sppo_hard' is
:mod:`~manual_grad.losses.pointwise.sppo_loss`, a square around a target for each completion; 'apo_zero' and 'apo_down'
are :mod:`~manual_grad.losses.pointwise.apo_loss`, which moves the chosen completion up and the rejected one down, or
both down.

**Shapes and domain.** The four log-probabilities have one shape; they are real, usually negative, and may be sums or
means over tokens. :math:`\beta > 0`, :math:`0 \le \epsilon < 1`, and :math:`\epsilon < 1/2` for the robust loss. A
weight multiplies :math:`e` and broadcasts. A chosen completion that the policy excludes, :math:`x = -\infty`, has
infinite loss and slope :math:`\beta\, (q - 1)`; if the reference excludes it too, the result is NaN.

Sources:

1. Rafael Rafailov, Archit Sharma, Eric Mitchell, Stefano Ermon, Christopher D. Manning and Chelsea Finn, "Direct
   Preference Optimization: Your Language Model is Secretly a Reward Model", NeurIPS (2023), equation 7,
   `arXiv:2305.18290 <https://arxiv.org/abs/2305.18290>`_.
2. Eric Mitchell, "A note on DPO with noisy preferences & relationship to IPO" (2023),
   `ericmitchell.ai/cdpo.pdf <https://ericmitchell.ai/cdpo.pdf>`_.
3. Sayak Ray Chowdhury, Anush Kini and Nagarajan Natarajan, "Provably Robust DPO: Aligning Language Models with Noisy
   Feedback", ICML (2024), `arXiv:2403.00409 <https://arxiv.org/abs/2403.00409>`_.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from manual_grad.engine import arguments, preference
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss
from manual_grad.losses.pointwise.apo_loss import apo_loss
from manual_grad.losses.pointwise.exo_loss import exo_loss
from manual_grad.losses.pointwise.ipo_loss import ipo_loss
from manual_grad.losses.pointwise.nca_loss import nca_loss
from manual_grad.losses.pointwise.slic_loss import slic_loss
from manual_grad.losses.pointwise.sppo_loss import sppo_loss


class DPOLossFunction(PointwiseLoss):
    """``apply(x, y, x0, y0, weight, beta, q, reduction)``; q is (2)."""

    kernel = "dpo_loss"

    @staticmethod
    def elementwise(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float, q: float) -> Tensor:
        return preference.logistic(beta * ((x - x0) - (y - y0)), q)  # (5)

    @staticmethod
    def first(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float, q: float) -> preference.Four:
        d = beta * preference.logistic_slope(beta * ((x - x0) - (y - y0)), q)  # (6) (7)
        return preference.slopes(d, -d)  # (3)

    @staticmethod
    def second(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, beta: float, q: float) -> tuple[preference.Four, ...]:
        h = beta * beta * preference.bell(beta * ((x - x0) - (y - y0)))  # (4)
        return preference.curvatures(h, -h, h)


@arguments.functional
def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    loss_type: str = "sigmoid",
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Direct preference optimization of each pair of completions.

    Args:
        policy_chosen_logps: The policy's log-probabilities of the chosen completions, a floating point tensor of any
            shape, usually (batch,). They are sums over the tokens of a completion.
        policy_rejected_logps, ref_chosen_logps, ref_rejected_logps: Those of the rejected completions, and both of the
            reference, of the same shape. They may require a gradient.
        beta: How much the policy pays for leaving the reference; positive. The smaller, the farther it goes.
        label_smoothing: The share of pairs whose label is thought to be flipped, from 0 to below 1. Only 'sigmoid',
            'robust' (where it is below 1/2) and 'exo_pair' (where it is positive) know it; for others it must be 0.
        loss_type: 'sigmoid' or 'robust'; or 'hinge', 'ipo', 'exo_pair', 'nca_pair', 'sppo_hard', 'apo_zero' or
            'apo_down', for :func:`slic_loss`, :func:`ipo_loss`, :func:`exo_loss`, :func:`nca_loss`, :func:`sppo_loss`
            and :func:`apo_loss`.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of pairs, even with a weight.
        weight: Optional factor of each pair's loss; broadcast to the shape of the log-probabilities.

    Returns:
        A scalar, or for 'none' a tensor of the shape of the log-probabilities, in the promoted dtype (float32 under
        autocast).

    Raises:
        ValueError: ``loss_type`` or ``reduction`` is unknown, ``beta`` or ``label_smoothing`` lies outside its domain,
            or the log-probabilities differ in shape.
        RuntimeError: ``weight`` does not broadcast to the shape of the log-probabilities.
        TypeError: ``beta`` or ``label_smoothing`` is not a number.
        NotImplementedError: the log-probabilities are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import dpo_loss
        >>> chosen, rejected = torch.tensor([-20.0, -31.0], requires_grad=True), torch.tensor([-25.0, -30.0])
        >>> loss = dpo_loss(chosen, rejected, torch.tensor([-22.0, -30.0]), torch.tensor([-22.0, -30.0]))
        >>> loss
        tensor(0.6092, grad_fn=<DPOLossBackward>)
        >>> torch.autograd.grad(loss, chosen)[0]
        tensor([-0.0189, -0.0262])
    """
    log_probs = policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps
    if loss_type in _OTHERS:
        options: dict[str, Any] = {"beta": beta, "reduction": reduction, "weight": weight}
        if loss_type == "exo_pair":
            options["label_smoothing"] = label_smoothing
        elif label_smoothing != 0:
            must = f"must be 0 for loss_type={loss_type!r}"
            raise ValueError(f"dpo_loss(): argument 'label_smoothing' {must}, but got {label_smoothing}")
        return _OTHERS[loss_type](*log_probs, **options)
    reduction = arguments.reduction_of(reduction)
    beta = arguments.positive("dpo_loss", "beta", beta)
    noise = _noise(loss_type, label_smoothing)
    x, y, x0, y0, w = preference.together("dpo_loss", weight, *log_probs)
    return evaluate(DPOLossFunction, x, y, x0, y0, w, beta, noise, reduction)


def _noise(loss_type: str, label_smoothing: float) -> float:
    """q of (2)."""
    if loss_type == "sigmoid":
        return preference.smoothing("dpo_loss", label_smoothing)
    if loss_type == "robust":
        epsilon = preference.smoothing("dpo_loss", label_smoothing, 0.5)
        return -epsilon / (1 - 2 * epsilon)
    known = ", ".join(map(repr, ("sigmoid", "robust", *_OTHERS)))
    raise ValueError(f"dpo_loss(): argument 'loss_type' must be one of {known}, but got {loss_type!r}")


_OTHERS: dict[str, Callable[..., Tensor]] = {
    "hinge": slic_loss,
    "ipo": ipo_loss,
    "exo_pair": exo_loss,
    "nca_pair": nca_loss,
    "sppo_hard": sppo_loss,
    "apo_zero": apo_loss,
    "apo_down": partial(apo_loss, loss_type="down"),
}


class DPOLoss(preference.ReferencedPairLoss):
    """:func:`dpo_loss` as a module."""

    loss = staticmethod(dpo_loss)
    options = ("beta", "label_smoothing", "loss_type", "reduction")

    def __init__(
        self, beta: float = 0.1, label_smoothing: float = 0.0, loss_type: str = "sigmoid", reduction: str = "mean"
    ) -> None:
        super().__init__(beta, reduction)
        self.label_smoothing, self.loss_type = label_smoothing, loss_type
