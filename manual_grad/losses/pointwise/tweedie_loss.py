r"""Tweedie loss.

**Where it comes from.** Insurance claims, daily rainfall and product sales are often exactly 0, and otherwise positive
and skewed. Tweedie distributions (Jørgensen [1]) have a variance proportional to a power of their mean :math:`\mu`,
:math:`\mu^p`. For :math:`1 < p < 2` they are distributions of sums of a random, possibly zero, number of gamma
variables. The limits are the Poisson distribution, :math:`p = 1`, and the gamma distribution, :math:`p = 2`. Their
densities have no closed form, but fitting the mean does not need one: the slope of the log-likelihood in the mean is
:math:`(t - \mu) / \mu^p`, up to a factor that does not depend on the mean. The loss is the negative integral of this
slope, Wedderburn's quasi-likelihood [2], as in libraries for boosted trees.

**Definition.** The input is either the logarithm of the mean (``log_input``), which may be any real number, or the mean
itself, kept away from 0 by :math:`\epsilon`:

.. math::
    e(x, t) = u(2 - p) - t\, u(1 - p), \qquad
    u(q) = \begin{cases} \mu^q / q & q \ne 0 \\ \log \mu & q = 0 \end{cases}, \qquad
    \mu = e^x \quad\text{or}\quad \mu = x + \epsilon \tag{1}

The powers 1 and 2 are limits, without the terms that do not depend on the mean. There the loss is that of
:mod:`~manual_grad.losses.pointwise.poisson_nll_loss`, :math:`\mu - t \log \mu`, and that of the gamma distribution,
:math:`\log \mu + t / \mu`. Power 0 gives the squared error, :math:`\mu^2 / 2 - t\,\mu`, and power 3 the inverse
Gaussian distribution. With :math:`t^{2 - p} / ((1 - p)(2 - p))` added, the loss is half the unit deviance, which is 0
where the mean equals the target; the gradient of the input is the same.

**Gradient.** The slope in the input vanishes where the mean equals the target:

.. math::
    \frac{\partial e}{\partial x} = e^{(2 - p) x} - t\, e^{(1 - p) x} = e^{(1 - p) x}\,(e^x - t)
    \quad\text{or}\quad
    \frac{\partial e}{\partial x} = \mu^{1 - p} - t\, \mu^{-p} = \mu^{-p}\, ((x - t) + \epsilon) \tag{2}

The last form keeps the digits of a mean near the target. The slope in the target is

.. math::
    \frac{\partial e}{\partial t} = -u(1 - p) \tag{3}

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = (2 - p)\, e^{(2 - p) x} - (1 - p)\, t\, e^{(1 - p) x}
    \quad\text{or}\quad
    \frac{\partial^2 e}{\partial x^2} = -\mu^{-p}\, \Big( p - 1 - \frac{p\, t}{\mu} \Big) \tag{4}

.. math::
    \frac{\partial^2 e}{\partial x\, \partial t} = -e^{(1 - p) x}
    \quad\text{or}\quad
    \frac{\partial^2 e}{\partial x\, \partial t} = -\mu^{-p} \tag{5}

:math:`\partial^2 e / \partial t^2` is 0. In the logarithm of the mean, the loss is convex for :math:`1 \le p \le 2` and
non-negative targets.

**Stable form.** For such targets and :math:`1 < p < 2` both terms of (1) are positive. Only the difference of mean and
target can cancel. A large mean may overflow although its power does not; then

.. math::
    e^{(1 - p) x}\,(e^x - t) = e^{(2 - p) x}\,(1 - t\, e^{-x}) \tag{6}

Rounding a product such as :math:`(2 - p)\, x` would cause an error in its exponential that grows with the product. But
the rounding error :math:`d` of a product :math:`h` can be computed exactly (Dekker [3]): multiplication by
:math:`2^{27} + 1` splits each factor into halves whose products are exact. Then :math:`e^{h + d} = e^h (1 + d)` to the
last digit. For a target of 0 the second term is 0, even where its power overflows.

**Kinks.** There are none: both terms are smooth wherever the mean is positive.

**Shapes and domain.** Input and target broadcast. The input is any logarithm of a mean, or a mean
:math:`x > -\epsilon`. Targets are of an integer or floating-point dtype; they are positive for :math:`p \ge 2`,
arbitrary for :math:`p = 0`, and otherwise not negative. The power is 0 or at least 1, since there are no such
distributions in between (there are for powers below 0, with positive means and samples of any sign). A weight
multiplies :math:`e`.

Sources:

1. Bent Jørgensen, "Exponential Dispersion Models", J. Royal Statistical Society B 49 (1987) 127-162,
   `doi:10.1111/j.2517-6161.1987.tb01685.x <https://doi.org/10.1111/j.2517-6161.1987.tb01685.x>`_.
2. Robert W. M. Wedderburn, "Quasi-Likelihood Functions, Generalized Linear Models, and the Gauss-Newton Method",
   Biometrika 61 (1974) 439-447, `doi:10.1093/biomet/61.3.439 <https://doi.org/10.1093/biomet/61.3.439>`_.
3. Theodorus J. Dekker, "A Floating-Point Technique for Extending the Available Precision", Numerische Mathematik 18
   (1971) 224-242, `doi:10.1007/BF01397083 <https://doi.org/10.1007/BF01397083>`_.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.elementary import product_error
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class TweedieLossFunction(PointwiseLoss):
    """``apply(input, target, weight, power, log_input, eps, reduction)``."""

    kernel = "tweedie_loss"
    special: ClassVar = {"power": (0.0, 1.0, 2.0)}

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, power: float, log_input: bool, eps: float) -> Tensor:
        upper = _integral(2 - power, power == 2, x, log_input, eps)
        return upper - _times(t, _integral(1 - power, power == 1, x, log_input, eps))  # (1)

    @staticmethod
    def first(x: Tensor, t: Tensor, power: float, log_input: bool, eps: float) -> tuple[Tensor, Tensor]:
        lower = _power(1 - power, power == 1, x, log_input, eps)
        if log_input:
            u = torch.exp(-x.abs())
            upper = _power(2 - power, power == 2, x, log_input, eps)
            dx = torch.where((x > 0) | (t == 0), upper * (1 - t * u), lower * (u - t))  # (2), by (6)
        else:
            mean = x + eps
            dx = torch.where(mean == torch.inf, lower, mean.pow(-power) * ((x - t) + eps))  # (2)
        return dx, -_integral(1 - power, power == 1, x, log_input, eps)  # (3)

    @staticmethod
    def second(
        x: Tensor, t: Tensor, power: float, log_input: bool, eps: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, int]]:
        if log_input:
            upper = _power(2 - power, power == 2, x, log_input, eps)
            lower = _power(1 - power, power == 1, x, log_input, eps)
            xx, xt = (2 - power) * upper - (1 - power) * _times(t, lower), -lower
        else:
            mean = x + eps
            xt = -mean.pow(-power)
            xx = xt * (power - 1 - power * t / mean)
        return (xx, xt), (xt, 0)  # (4) (5)


def _integral(q: float, is_0: bool, x: Tensor, log_input: bool, eps: float) -> Tensor:
    """u(q) of (1)."""
    if is_0:
        return x if log_input else (x + eps).log()
    return _power(q, is_0, x, log_input, eps) / q


def _power(q: float, is_0: bool, x: Tensor, log_input: bool, eps: float) -> Tensor:
    """The mean to the power q."""
    if is_0:
        return torch.ones_like(x)
    if not log_input:
        return (x + eps).pow(q)
    h = q * x
    return h.exp() * (1 + torch.where(h.abs() < 1e3, product_error(q, x), 0))  # beyond, the power is 0 or infinite


def _times(t: Tensor, v: Tensor) -> Tensor:
    """t v, but 0 where t is 0, even if v is infinite."""
    return torch.where(t == 0, 0, t * v)


@arguments.functional
def tweedie_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    *,
    power: float = 1.5,
    log_input: bool = True,
    eps: float = 1e-8,
    weight: Tensor | None = None,
) -> Tensor:
    """Negative quasi-log-likelihood of each target, with variance proportional to a power of the mean.

    Args:
        input: Logarithms of the means, or means, a floating point tensor of any shape.
        target: The samples, of the same shape or one that broadcasts with it.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of elements, even with a weight.
        power: The power of the mean to which the variance is proportional: 0 or at least 1; between 1 and 2 if some
            samples are 0.
        log_input: Whether the input is the logarithm of the mean.
        eps: Added to the mean if the input is the mean; not negative.
        weight: Optional tensor of the input's shape; may require a gradient.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype (float32 under autocast).

    Raises:
        ValueError: ``reduction`` is unknown, ``power`` or ``eps`` outside its domain, or ``weight`` does not have the
            input's shape.
        RuntimeError: the shapes do not broadcast.
        TypeError: ``power`` or ``eps`` is not a number, ``log_input`` not a bool.
        NotImplementedError: the promoted dtype is not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    power = arguments.real("tweedie_loss", "power", power)
    if not (power == 0 or 1 <= power < math.inf):
        raise ValueError(f"tweedie_loss(): argument 'power' must be finite, and 0 or at least 1, but got {power}")
    log_input = arguments.boolean("tweedie_loss", "log_input", log_input)
    eps = arguments.real("tweedie_loss", "eps", eps)
    if not 0 <= eps < math.inf:
        raise ValueError(f"tweedie_loss(): argument 'eps' must be finite and not negative, but got {eps}")
    weight = arguments.weight_of(weight, input, target)
    x, t, w = arguments.together(input, target, weight, arithmetic=True)
    arguments.require_floating("tweedie_loss", x)
    return evaluate(TweedieLossFunction, x, t, w, power, log_input, eps, reduction)


class TweedieLoss(torch.nn.Module):
    """:func:`tweedie_loss` as a module."""

    def __init__(
        self, reduction: str = "mean", *, power: float = 1.5, log_input: bool = True, eps: float = 1e-8
    ) -> None:
        super().__init__()
        self.reduction, self.power, self.log_input, self.eps = reduction, power, log_input, eps

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return tweedie_loss(input, target, self.reduction, power=self.power, log_input=self.log_input, eps=self.eps)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, power={self.power}, log_input={self.log_input}, eps={self.eps}"
