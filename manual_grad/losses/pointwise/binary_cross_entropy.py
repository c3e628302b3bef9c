r"""Binary cross entropy of probabilities.

**Where it comes from.** A forecast :math:`x` is the probability of an event, and :math:`t` says whether it occurred (or
how often). The negative log-likelihood of the Bernoulli distribution is a score that rewards honest forecasts
(Good [1]):

.. math::
    e(x, t) = -t \log x - (1 - t) \log(1 - x) \tag{1}

**Definition.** In (1), a wrong forecast of exactly 0 or 1 has an infinite loss, and a correct one
:math:`0 \cdot \infty`. The loss therefore clamps both logarithms, as documented by torch:

.. math::
    e(x, t) = -t\, l(x) - (1 - t)\, l(1 - x), \qquad l(p) = \max(\log p, -100), \qquad l(0) = -100 \tag{2}

**Gradient.** From (1), over a common denominator,

.. math::
    \frac{\partial e}{\partial x} = -\frac{t}{x} + \frac{1 - t}{1 - x} = \frac{x - t}{x\,(1 - x)} \tag{3}

where :math:`x - t` is rounded once, while the two fractions would cancel. Where a logarithm is clamped, the slope of
(2) is 0, and a forecast that is certain and wrong would never learn. As in torch, the denominator is clamped instead:

.. math::
    \frac{\partial e}{\partial x} = \frac{x - t}{d}, \qquad d = \max(x\,(1 - x),\, \varepsilon), \qquad
    \varepsilon = 10^{-12}, \qquad \Big| \frac{\partial e}{\partial x} \Big| \le \frac1\varepsilon = 10^{12} \tag{4}

This equals (3) for every :math:`x` farther than :math:`10^{-12}` from 0 and 1. It is 0 for a forecast that is certain
and correct, and at most :math:`10^{12}` in magnitude for a wrong one. In the target, (2) is linear with the finite
slope

.. math::
    \frac{\partial e}{\partial t} = l(1 - x) - l(x) \tag{5}

(torch does not clamp the logarithms in (5), so its slope is infinite at 0 and 1, although the value is finite).

**Stable form.** No term of (2) is negative, so nothing cancels. :math:`\log(1 - x)` is computed as ``log1p`` of
:math:`-x`, which keeps the digits of a small :math:`x` that :math:`1 - x` would round away. For :math:`x` near
:math:`\frac12` the two logarithms in (5) are almost equal; their difference is then computed from :math:`1 - 2x`, which
is exact:

.. math::
    \log(1 - x) - \log x = 2 \operatorname{artanh}(1 - 2x) \tag{6}

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{t}{x^2} + \frac{1 - t}{(1 - x)^2}, \qquad
    \frac{\partial^2 e}{\partial x\, \partial t} = -\frac{1}{d}, \qquad
    \frac{\partial^2 e}{\partial t^2} = 0 \tag{7}

**Kinks.** The value (2) has a kink where a logarithm reaches -100, :math:`3.7 \cdot 10^{-44}` from 0 or 1; the slope
(4) ignores it. Where the denominator is clamped, (4) is linear in :math:`x`, and its slope :math:`1 / \varepsilon`
replaces the first of (7).

**Shapes and domain.** Input and target have the same shape and lie in :math:`[0, 1]`, which is checked; a weight
broadcasts. If the probabilities come from a sigmoid, use
:mod:`~manual_grad.losses.pointwise.binary_cross_entropy_with_logits`, which is accurate for every logit and needs no
clamping.

Sources:

1. Irving J. Good, "Rational Decisions", J. Royal Statistical Society B 14 (1952) 107-114.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss

_LEAST_LOG = -100.0
_EPSILON = 1e-12


class BCELossFunction(PointwiseLoss):
    """``apply(input, target, weight, reduction)``."""

    kernel = "binary_cross_entropy"
    plain = True
    by_hand = True
    messages = (
        "all elements of input should be between 0 and 1; if they are logits, use binary_cross_entropy_with_logits",
        "all elements of target should be between 0 and 1",
    )

    @staticmethod
    def elementwise(x: Tensor, t: Tensor) -> Tensor:
        log_x, log_1_x = _logs(x)
        return (t - 1) * log_1_x - t * log_x  # (2)

    @staticmethod
    def first(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        log_x, log_1_x = _logs(x)
        s = 1 - 2 * x
        dt = torch.where(s.abs() < 0.17, 2 * s.atanh(), log_1_x - log_x)  # (5) (6)
        return (x - t) / (x * (1 - x)).clamp_min(_EPSILON), dt  # (4)

    @staticmethod
    def second(x: Tensor, t: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, int]]:
        d = x * (1 - x)
        xx = torch.where(d > _EPSILON, t / x.square() + (1 - t) / (1 - x).square(), 1 / _EPSILON)  # (7)
        xt = -1 / d.clamp_min(_EPSILON)  # (7)
        return (xx, xt), (xt, 0)

    @staticmethod
    def outside(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return ~((x >= 0) & (x <= 1)), ~((t >= 0) & (t <= 1))


def _logs(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.log().clamp_min(_LEAST_LOG), (-x).log1p().clamp_min(_LEAST_LOG)  # (2)


@arguments.functional
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross entropy of probabilities; see :func:`torch.nn.functional.binary_cross_entropy`.

    Args:
        input: Probabilities of the positive class, a floating point tensor of any shape.
        target: Labels 0 and 1, or probabilities, of the same shape and dtype.
        weight: Optional factor of each element's loss; broadcast to the input's shape.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' (over the number of elements, even with weights) or 'sum'.

    Returns:
        A scalar, or for 'none' a tensor of the input's shape, in the input's dtype (float32 under autocast on the
        CPU). All three tensors may require a gradient (torch: input and target only).

    Raises:
        ValueError: ``reduction`` is unknown, or ``target`` does not have the input's shape.
        RuntimeError: an element of ``input`` or ``target`` is not in [0, 1] (checked on the CPU); their dtypes differ;
            ``weight`` does not broadcast to the input's shape; autocast is on for a GPU, where the gradient could
            overflow float16.
        NotImplementedError: the input is not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import binary_cross_entropy
        >>> input, target = torch.tensor([0.5, 0.9, 1.0]), torch.tensor([1.0, 1.0, 0.0])
        >>> binary_cross_entropy(input, target, reduction="none")
        tensor([  0.6931,   0.1054, 100.0000])
        >>> binary_cross_entropy(input, target, weight=torch.tensor([1.0, 2.0, 0.0]), reduction="sum")
        tensor(0.9039)
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    if target.shape != input.shape:
        raise ValueError(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}) is "
            "deprecated. Please ensure they have the same size."
        )
    if input.is_cuda and torch.is_autocast_enabled("cuda"):
        raise RuntimeError(
            "binary_cross_entropy and BCELoss are unsafe to autocast: "
            "replace them and the preceding sigmoid by binary_cross_entropy_with_logits or BCEWithLogitsLoss"
        )
    arguments.broadcasts_into("weight", weight, input)
    arguments.require_floating("binary_cross_entropy", input)
    x, t = arguments.autocast(input, target)
    if t.dtype is not x.dtype:
        raise RuntimeError(f"Found dtype {t.dtype} of target but expected {x.dtype}, that of input")
    if weight is not None:  # as in torch, the result has the input's dtype, whatever the weight's
        arguments.refuse_complex("binary_cross_entropy", weight)
        weight = weight.to(x.dtype)
    x, t, w = arguments.together(x, t, weight, autocasts=False)
    return evaluate(BCELossFunction, x, t, w, reduction)


class BCELoss(torch.nn.BCELoss):
    """:func:`binary_cross_entropy` as a module, interchangeable with :class:`torch.nn.BCELoss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy(input, target, self.weight, reduction=self.reduction)
