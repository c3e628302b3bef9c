r"""Charbonnier loss.

**Where it comes from.** This is the absolute loss with its kink rounded off: a hyperbola with asymptotes :math:`\pm r`
that resembles a parabola at its vertex. It is named after Charbonnier et al. [1], whose penalties smooth an image but
keep its edges. Lai et al. [2] introduced it to super-resolution, with :math:`\epsilon = 10^{-3}`, and it is now common
in image restoration.

**Definition.** With residual :math:`r` and rounding distance :math:`\epsilon`,

.. math::
    e(x, t) = \sqrt{r^2 + \epsilon^2}, \qquad r = x - t \tag{1}

A perfect fit has loss :math:`\epsilon`, as in [2] and later work. Others subtract this constant: Barron [3] uses the
name, and also pseudo-Huber loss, for :math:`\sqrt{(r / \epsilon)^2 + 1} - 1`, which is
:math:`(e - \epsilon) / \epsilon`. The constant does not affect the derivatives.

**Gradient.** The slope is a residual that saturates smoothly at :math:`\pm 1`:

.. math::
    \frac{\partial e}{\partial x} = \frac re, \qquad
    \frac{\partial e}{\partial t} = -\frac{\partial e}{\partial x} \tag{2}

**Second derivative.** By the quotient rule, with :math:`e^2 - r^2 = \epsilon^2`:

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial t^2}
    = -\frac{\partial^2 e}{\partial x\, \partial t} = \Big( \frac \epsilon e \Big)^2 \frac1e \tag{3}

**Stable form.** The squares in (1) overflow and underflow long before the root does. Taking the larger term out of the
root avoids both:

.. math::
    e(x, t) = k\, h, \qquad k = \max(|r|, \epsilon), \qquad h = \sqrt{1 + \rho^2}, \qquad
    \rho = \frac{\min(|r|, \epsilon)}{k} \in [0, 1] \tag{4}

.. math::
    \frac{\partial e}{\partial x} = \frac{r / k}{h}, \qquad
    \frac{\partial^2 e}{\partial x^2} = \Big( \frac{\epsilon / k}{h} \Big)^2 \frac{1}{k\, h} \tag{5}

The only subtraction is that of the target, so no digits are lost.

**Kinks.** There are none unless :math:`\epsilon = 0`, which gives the absolute loss, with slope 0 at :math:`r = 0` and
no curvature.

**Shapes and domain.** Input, target and weight are real and broadcast to one shape;
:math:`\epsilon \ge 0`. A weight multiplies :math:`e`.

Sources:

1. Pierre Charbonnier, Laure Blanc-Féraud, Gilles Aubert and Michel Barlaud, "Two Deterministic Half-Quadratic
   Regularization Algorithms for Computed Imaging", IEEE International Conference on Image Processing (1994) vol. 2,
   168-172, `doi:10.1109/ICIP.1994.413553 <https://doi.org/10.1109/ICIP.1994.413553>`_.
2. Wei-Sheng Lai, Jia-Bin Huang, Narendra Ahuja and Ming-Hsuan Yang, "Deep Laplacian Pyramid Networks for Fast and
   Accurate Super-Resolution", CVPR (2017), `arXiv:1704.03915 <https://arxiv.org/abs/1704.03915>`_.
3. Jonathan T. Barron, "A General and Adaptive Robust Loss Function", CVPR (2019),
   `arXiv:1701.03077 <https://arxiv.org/abs/1701.03077>`_.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.elementary import size
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class CharbonnierLossFunction(PointwiseLoss):
    """``apply(input, target, weight, eps, reduction)``."""

    kernel = "charbonnier_loss"

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, eps: float) -> Tensor:
        k, _, h = _hyperbola(x - t, eps)
        return k * h  # (4)

    @staticmethod
    def first(x: Tensor, t: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        r = x - t
        k, _, h = _hyperbola(r, eps)
        dx = torch.where(k == torch.inf, r.sign(), r / _divisor(k)) / h  # (5)
        return dx, -dx

    @staticmethod
    def second(x: Tensor, t: Tensor, eps: float) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        if eps == 0:
            d = torch.zeros_like(x)
        else:
            k, share, h = _hyperbola(x - t, eps)
            d = (share / h) * (share / h) / (k * h)  # (5)
        return (d, -d), (-d, d)


def _hyperbola(r: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """k, eps / k and h of (4)."""
    m = size(r)
    far = m > eps
    k = torch.where(far, m, eps)
    rho = torch.where(far, eps, m) / _divisor(k)
    return k, torch.where(far, rho, 1), (1 + rho * rho).sqrt()


def _divisor(k: Tensor) -> Tensor:
    """k, or 1 where it is 0: at a residual of 0 if eps is 0 or rounds to 0."""
    return torch.where(k == 0, 1, k)


def _eps(value: float) -> float:
    eps = arguments.real("charbonnier_loss", "eps", value)
    if not 0 <= eps < math.inf:
        raise ValueError(f"charbonnier_loss(): argument 'eps' must be finite and not negative, but got {eps}")
    return eps


@arguments.functional
def charbonnier_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", eps: float = 1e-3, weight: Tensor | None = None
) -> Tensor:
    """Absolute error with a rounded kink, sqrt((input - target)^2 + eps^2), of each element.

    Args:
        input: Tensor of any shape.
        target: Tensor of the same shape; any other shape is broadcast, with a warning.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of elements, even with a weight.
        eps: The residual at which the parabola becomes a line, and the loss of a perfect fit; not negative. (If another
            library adds a constant to the squared residual, eps is the square root of that constant.)
        weight: Optional tensor of the input's shape; may require a gradient.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype (float32 under autocast).

    Raises:
        ValueError: ``reduction`` is unknown, ``eps`` is negative or not finite, or ``weight`` does not have the
            input's shape.
        RuntimeError: the shapes do not broadcast.
        TypeError: ``eps`` is not a number.
        NotImplementedError: the promoted dtype is not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    eps = _eps(eps)
    weight = arguments.weight_of(weight, input, target)
    x, t, w = arguments.together(input, target, weight, warns=True)
    arguments.require_floating("charbonnier_loss", x)
    return evaluate(CharbonnierLossFunction, x, t, w, eps, reduction)


class CharbonnierLoss(torch.nn.Module):
    """:func:`charbonnier_loss` as a module."""

    def __init__(self, reduction: str = "mean", eps: float = 1e-3) -> None:
        super().__init__()
        self.reduction, self.eps = reduction, _eps(eps)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return charbonnier_loss(input, target, reduction=self.reduction, eps=self.eps)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, eps={self.eps}"
