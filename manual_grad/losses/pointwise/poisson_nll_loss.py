r"""Poisson negative log-likelihood.

**Where it comes from.** The target :math:`t` counts events that occur at a rate :math:`\lambda`. A count has
probability :math:`\lambda^t e^{-\lambda} / t!` and negative log-likelihood
:math:`\lambda - t \log\lambda + \log t!`. This is regression of counts, a generalized linear model (Nelder and
Wedderburn [1]).

**Definition.** The input is either the logarithm of the rate (``log_input``), which may be any real number, or the rate
itself; :math:`\epsilon` then keeps the argument of the logarithm away from 0. The last term does not depend on the
input; it is included, :math:`f = 1`, only if ``full``, otherwise :math:`f = 0`:

.. math::
    e(x, t) = e^x - t\,x + f s(t) \qquad\text{or}\qquad e(x, t) = x - t \log(x + \epsilon) + f s(t) \tag{1}

In the first form a rate of 0, :math:`x = -\infty`, makes a count of 0 certain, so :math:`0 \cdot \infty` is taken as 0.
:math:`\log t!` is approximated by Stirling's formula [2] for counts above 1 (0! and 1! are 1):

.. math::
    s(t) = \begin{cases} t \log t - t + \tfrac12 \log 2\pi t & t > 1 \\ 0 & t \le 1 \end{cases} \tag{2}

**Gradient.** The slope in the input vanishes where the rate equals the count:

.. math::
    \frac{\partial e}{\partial x} = e^x - t \qquad\text{or}\qquad
    \frac{\partial e}{\partial x} = 1 - \frac{t}{x + \epsilon} = \frac{(x - t) + \epsilon}{x + \epsilon} \tag{3}

The last form keeps the digits of a rate near the count. The slope in the target is

.. math::
    \frac{\partial e}{\partial t} = -x + f s'(t) \qquad\text{or}\qquad
    \frac{\partial e}{\partial t} = -\log(x + \epsilon) + f s'(t), \qquad
    s'(t) = [\,t > 1\,]\, \Big( \log t + \frac{1}{2t} \Big) \tag{4}

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = e^x \quad\text{or}\quad \frac{t}{(x + \epsilon)^2}, \qquad
    \frac{\partial^2 e}{\partial x\, \partial t} = -1 \quad\text{or}\quad -\frac{1}{x + \epsilon}, \qquad
    \frac{\partial^2 e}{\partial t^2} = f s''(t), \quad
    s''(t) = [\,t > 1\,]\, \Big( \frac1t - \frac{1}{2t^2} \Big) \tag{5}

**Stable form.** Only the difference of rate and count can cancel; the last form of (3) subtracts before it divides.

**Kinks.** At :math:`t = 1`, :math:`s` jumps from 0 down to −0.08, although :math:`\log t!` is never negative; its slope
there is that of the constant side. (torch differentiates the logarithm before it masks small counts, which gives NaN
for :math:`t \le 0`.)

**Shapes and domain.** Input and target broadcast. The input is any logarithm of a rate, or a rate
:math:`x > -\epsilon`; targets are counts of an integer or floating-point dtype.

Sources:

1. John A. Nelder and Robert W. M. Wedderburn, "Generalized Linear Models", J. Royal Statistical Society A 135 (1972)
   370-384, `doi:10.2307/2344614 <https://doi.org/10.2307/2344614>`_.
2. James Stirling, "Methodus Differentialis" (1730).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class PoissonNLLLossFunction(PointwiseLoss):
    """``apply(input, target, None, log_input, full, eps, reduction)``."""

    kernel = "poisson_nll_loss"

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, log_input: bool, full: bool, eps: float) -> Tensor:
        if log_input:
            certain = (t == 0) & (x == -torch.inf)
            e = x.exp() - torch.where(certain, 0, t * x)  # (1)
        else:
            rate = x + eps
            e = x - t * rate.log()  # (1)
        if not full:
            return e
        n = t.clamp_min(1)
        return e + torch.where(t <= 1, 0, (n + 0.5) * n.log() - n + 0.5 * math.log(2 * math.pi))  # (2)

    @staticmethod
    def first(x: Tensor, t: Tensor, log_input: bool, full: bool, eps: float) -> tuple[Tensor, Tensor]:
        if log_input:
            dx, dt = x.exp() - t, -x  # (3) (4)
        else:
            rate = x + eps
            dx = torch.where(rate == torch.inf, 1 - t / rate, ((x - t) + eps) / rate)  # (3)
            dt = -rate.log()  # (4)
        if full:
            n = t.clamp_min(1)
            dt = dt + torch.where(t <= 1, 0, n.log() + 0.5 / n)  # (4)
        return dx, dt

    @staticmethod
    def second(
        x: Tensor, t: Tensor, log_input: bool, full: bool, eps: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor | int]]:
        if log_input:
            xx, xt = x.exp(), torch.full_like(x, -1)
        else:
            rate = x + eps
            xx, xt = t / rate / rate, -1 / rate
        n = t.clamp_min(1)
        tt = torch.where(t <= 1, 0, (1 - 0.5 / n) / n) if full else 0
        return (xx, xt), (xt, tt)  # (5)


@arguments.functional
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood of each count; see :func:`torch.nn.functional.poisson_nll_loss`.

    Args:
        input: Logarithms of the rates, or rates, of any shape. Integers are converted to the default dtype; complex
            numbers are handled by torch.
        target: Counts, of the same shape or one that broadcasts with it; they need not be integral.
        log_input: Whether the input is the logarithm of the rate.
        full: Whether to add Stirling's approximation of log(target!) for counts above 1.
        size_average, reduce: Deprecated; they override ``reduction``.
        eps: Added to the rate inside the logarithm if the input is the rate.
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype (float32 under autocast).

    Raises:
        ValueError: ``reduction`` is unknown.
        RuntimeError: the shapes do not broadcast.
        TypeError: ``log_input`` or ``full`` is not a bool, ``eps`` not a number, ``reduction`` not a string.
        NotImplementedError: a complex target with ``full``.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import poisson_nll_loss
        >>> rate, count = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, 2.0, 5.0])
        >>> poisson_nll_loss(rate.log(), count, reduction="none")
        tensor([ 1.0000,  0.6137, -2.9315])
        >>> poisson_nll_loss(rate, count, log_input=False, full=True)
        tensor(1.3683)
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce, "is not a valid value for reduction")
    log_input = arguments.boolean("poisson_nll_loss", "log_input", log_input)
    full = arguments.boolean("poisson_nll_loss", "full", full)
    eps = arguments.real("poisson_nll_loss", "eps", eps)
    if not (input.is_floating_point() or input.is_complex()):
        input = input.to(torch.get_default_dtype())
    t, x = arguments.together(target, input, arithmetic=True)  # in this order the error is torch's
    arguments.require_floating("poisson_nll_loss", x)
    return evaluate(PoissonNLLLossFunction, x, t, None, log_input, full, eps, reduction)


class PoissonNLLLoss(torch.nn.PoissonNLLLoss):
    """:func:`poisson_nll_loss` as a module, interchangeable with :class:`torch.nn.PoissonNLLLoss`."""

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        return poisson_nll_loss(
            log_input, target, log_input=self.log_input, full=self.full, eps=self.eps, reduction=self.reduction
        )
