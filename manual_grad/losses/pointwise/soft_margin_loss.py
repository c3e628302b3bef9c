r"""Soft margin loss.

**Where it comes from.** A score :math:`x` is correct if it has the sign of its target :math:`t = \pm 1`, that is, if
the margin

.. math::
    m = t\,x \tag{1}

is positive. The hinge loss is 0 from a margin of 1 on, while the logistic loss only decays. It is the negative
log-likelihood of logistic regression (Cox [1]) with classes labeled :math:`\pm 1`.

**Definition.**

.. math::
    e(x, t) = \log(1 + e^{-m}) \tag{2}

**Stable form.** For a score that is clearly wrong, :math:`e^{-m}` overflows, in float32 from :math:`m = -89` on,
although the loss is close to :math:`-m`. For a score that is clearly right, :math:`1 + e^{-m}` rounds to 1. Taking the
larger of the two exponentials out of the logarithm avoids both:

.. math::
    e(x, t) = \max(-m, 0) + \log(1 + u), \qquad u = e^{-|m|} \in (0, 1] \tag{3}

**Gradient.** The slope is proportional to the probability :math:`q` of the wrong class:

.. math::
    \frac{\partial e}{\partial x} = -t\,q, \qquad \frac{\partial e}{\partial t} = -x\,q, \qquad
    q = \frac{1}{1 + e^m} = \begin{cases} u / (1 + u) & m \ge 0 \\ 1 / (1 + u) & m < 0 \end{cases} \tag{4}

At a margin of :math:`+\infty` the gradient is 0: :math:`x\,e^{-m}` tends to 0, so :math:`\infty \cdot 0` is taken as 0.

**Second derivatives** follow from the slope of the sigmoid:

.. math::
    \frac{\partial q}{\partial m} = -q\,(1 - q), \qquad
    \frac{\partial^2 e}{\partial x^2} = t^2 q\,(1 - q), \qquad
    \frac{\partial^2 e}{\partial x\, \partial t} = -q\,\bigl(1 - m\,(1 - q)\bigr), \qquad
    \frac{\partial^2 e}{\partial t^2} = x^2 q\,(1 - q) \tag{5}

There are no kinks.

**Shapes and domain.** The target broadcasts to the input's shape. It need not be 1 or -1; other targets scale the
margin.

Sources:

1. David R. Cox, "The Regression Analysis of Binary Sequences", J. Royal Statistical Society B 20 (1958) 215-242.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.dtypes import in_dtype
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class SoftMarginLossFunction(PointwiseLoss):
    """``apply(input, target, None, reduction)``."""

    kernel = "soft_margin_loss"
    by_hand = True

    @staticmethod
    def elementwise(x: Tensor, t: Tensor) -> Tensor:
        m = t * x  # (1)
        return (-m).clamp_min(0) + torch.exp(-m.abs()).log1p()  # (3)

    @staticmethod
    def first(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        q = torch.sigmoid(-t * x)
        return torch.where(q == 0, 0, -t * q), torch.where(q == 0, 0, -x * q)  # (4)

    @staticmethod
    def second(x: Tensor, t: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        m = t * x
        q, right = torch.sigmoid(-m), torch.sigmoid(m)
        xt = m * q * right - q
        return ((t * q) * (t * right), xt), (xt, (x * q) * (x * right))  # (5)


@arguments.functional
def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Logistic loss of the margin; see :func:`torch.nn.functional.soft_margin_loss`.

    Args:
        input: Scores, a floating point tensor of any shape.
        target: 1 or -1 for each score, of any dtype; broadcast to the input's shape.
        size_average, reduce: Deprecated; they override ``reduction``.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        A scalar, or for 'none' a tensor of the input's shape, in the input's dtype (float32 under autocast). Both
        tensors may require a gradient (torch: input only).

    Raises:
        ValueError: ``reduction`` is unknown.
        RuntimeError: ``target`` does not broadcast to the input's shape.
        NotImplementedError: the input is not real floating point.
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    arguments.require_floating("soft_margin_loss", input)
    input, target = arguments.autocast(input, target)
    x, t = arguments.together(input, target)
    if x.shape != input.shape:
        raise RuntimeError(
            f"output with shape {list(input.shape)} doesn't match the broadcast shape {list(x.shape)}: "
            "target must broadcast to the input's shape"
        )
    return in_dtype(evaluate(SoftMarginLossFunction, x, t, None, reduction), input.dtype)


class SoftMarginLoss(torch.nn.SoftMarginLoss):
    """:func:`soft_margin_loss` as a module, interchangeable with :class:`torch.nn.SoftMarginLoss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return soft_margin_loss(input, target, reduction=self.reduction)
