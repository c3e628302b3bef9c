r"""Student's t negative log-likelihood.

**Where it comes from.** The mean of a few normal measurements, divided by its estimated standard error, follows
Student's distribution [1]. As a noise model, it is a normal distribution with a random variance. With :math:`\nu`
degrees of freedom, its tails range from those of the Cauchy distribution, :math:`\nu = 1`, to those of the normal
distribution, :math:`\nu \to \infty`. Regression with it (Lange, Little and Taylor [2]) resists outliers: the farther
off a target is, the smaller its gradient.

**Definition.** The scale is clamped to at least :math:`\epsilon`. With the residual :math:`r`, and with :math:`f = 1`
if ``full`` and :math:`f = 0` otherwise (which omits the constant), the negative log-likelihood is

.. math::
    e(x, t, a) = \log s + \frac{\nu + 1}{2} \log\Big( 1 + \frac{r^2}{\nu s^2} \Big) + f C(\nu), \qquad
    r = x - t, \qquad s = \max(a, \epsilon) \tag{1}

.. math::
    C(\nu) = \log \Gamma\Big( \frac{\nu}{2} \Big) - \log \Gamma\Big( \frac{\nu + 1}{2} \Big)
             + \tfrac12 \log (\nu \pi) \tag{2}

As :math:`\nu \to \infty` this becomes the loss of :mod:`~manual_grad.losses.pointwise.gaussian_nll_loss` with variance
:math:`s^2`.

**Gradient.** The slope in the residual is that of the normal case with a weight that decreases as the residual grows.
The slope in the scale is 0 where :math:`r^2 = s^2`:

.. math::
    \frac{\partial e}{\partial x} = -\frac{\partial e}{\partial t} = \frac{(\nu + 1)\, r}{\nu s^2 + r^2}, \qquad
    \frac{\partial e}{\partial a} = \frac1s - \frac{(\nu + 1)\, r^2}{s\,(\nu s^2 + r^2)}
    = \frac{\nu\,(s - |r|)\,(s + |r|)}{s\,(\nu s^2 + r^2)} \tag{3}

**Second derivatives.** With the share :math:`h` of the residual in the denominator,

.. math::
    h = \frac{r^2}{\nu s^2 + r^2}, \qquad
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial t^2}
    = -\frac{\partial^2 e}{\partial x\, \partial t} = \frac{(\nu + 1)\,(\nu s^2 - r^2)}{(\nu s^2 + r^2)^2}, \qquad
    \frac{\partial^2 e}{\partial x\, \partial a} = -\frac{\partial^2 e}{\partial t\, \partial a}
    = -\frac2s\,(1 - h)\,\frac{\partial e}{\partial x}, \qquad
    \frac{\partial^2 e}{\partial a^2} = \frac{(\nu + 1)\, h\,(3 - 2h) - 1}{s^2} \tag{4}

Beyond :math:`|r| = \sqrt\nu\, s` the loss is concave in the residual: outliers are discounted there.

**Stable form.** The smaller of the residual and :math:`c` is divided by the larger, so that no square overflows. With
:math:`n`, which is the residual or the scale, whichever dominates the denominator, (3) becomes a product:

.. math::
    c = \sqrt\nu\, s, \qquad p = \frac{\min(|r|, c)}{\max(|r|, c)}, \qquad
    n = \begin{cases} |r| & |r| > c \\ s & |r| \le c \end{cases}, \qquad
    \log\Big( 1 + \frac{r^2}{\nu s^2} \Big) = \log(1 + p^2) - [\,|r| > c\,]\, 2 \log p \tag{5}

.. math::
    k = \begin{cases} \nu & |r| > c \\ 1 & |r| \le c \end{cases}, \qquad
    \frac{\partial e}{\partial x} = \frac{k\,(\nu + 1)}{\nu\,(1 + p^2)} \cdot \frac rn \cdot \frac1n, \qquad
    \frac{\partial e}{\partial a} = \frac{k}{s\,(1 + p^2)} \cdot \frac{s - |r|}{n} \cdot \frac{s + |r|}{n} \tag{6}

The last is exactly 0 where the scale is right. In (1) the factor :math:`(\nu + 1) / 2` may be huge and :math:`p^2`
tiny; where :math:`1 + p^2` rounds to 1, their product is computed as :math:`\tfrac12 (1 + \frac1\nu)\, r^2 / s^2`. The
two logarithms in (2) grow like :math:`\nu \log \nu`, but their difference does not; it is computed by the recurrence

.. math::
    C(\nu) = C(\nu + 2) + \tfrac12 \log\Big( 1 + \frac{1}{\nu\,(\nu + 2)} \Big) \tag{7}

up to a :math:`\nu` where the series
:math:`\tfrac12 \log 2\pi + \frac{1}{4\nu} - \frac{1}{24\nu^3} + \frac{1}{20\nu^5} - \dots`, which follows from
Stirling's, is accurate to the last digit. All steps are positive.

**Kinks.** Strictly, :math:`\partial s / \partial a` is 0 for :math:`a < \epsilon`, and a scale that gets there would
stay there. It is taken as 1 everywhere in (3) and (4), as in :mod:`~manual_grad.losses.pointwise.gaussian_nll_loss` for
the variance.

**Shapes and domain.** Input and target broadcast. The scale has the input's shape, or lacks its last dimension, or has
one dimension of size 1, or is one number; a negative one is an error. :math:`\nu` is one number for all,
positive and finite. An infinite residual or scale has the limits of (3). A weight multiplies :math:`e`.

Sources:

1. Student, "The Probable Error of a Mean", Biometrika 6 (1908) 1-25,
   `doi:10.2307/2331554 <https://doi.org/10.2307/2331554>`_.
2. Kenneth L. Lange, Roderick J. A. Little and Jeremy M. G. Taylor, "Robust Statistical Modeling Using the t
   Distribution", J. American Statistical Association 84 (1989) 881-896,
   `doi:10.2307/2290063 <https://doi.org/10.2307/2290063>`_.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class StudentTNLLLossFunction(PointwiseLoss):
    """``apply(input, target, scale, weight, df, constant, eps, reduction)``; the constant is (2), or 0."""

    kernel = "student_t_nll_loss"
    refusal = ValueError
    messages = ("scale has negative entry/entries; it must not be negative",)

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, a: Tensor, df: float, constant: float, eps: float) -> Tensor:
        r, s, _, far, p = _parts(x, t, a, df, eps)
        z, u = r / s, p * p
        bent = torch.where(u < 1e-17, (0.5 + 0.5 / df) * z * z, (0.5 * df + 0.5) * u.log1p())
        straight = (df + 1) * (0.5 * u.log1p() - p.log())
        return s.log() + torch.where(far, straight, bent) + constant  # (1), by (5)

    @staticmethod
    def first(x: Tensor, t: Tensor, a: Tensor, df: float, constant: float, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        r, s, size, far, p = _parts(x, t, a, df, eps)
        n, one = torch.where(far, size, s), 1 + p * p
        dx = _pull(torch.where(far, r.sign(), r / s), far, df) / n / one  # (6)
        right = torch.where(n == torch.inf, torch.where(far, -1, torch.ones_like(s)), (s - size) / n * ((s + size) / n))
        return dx, -dx, torch.where(far, df * right, right) / one / s  # (6)

    @staticmethod
    def second(
        x: Tensor, t: Tensor, a: Tensor, df: float, constant: float, eps: float
    ) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        r, s, size, far, p = _parts(x, t, a, df, eps)
        n, u, z = torch.where(far, size, s), p * p, torch.where(far, r.sign(), r / s)
        one, h = 1 + u, torch.where(far, 1, u) / (1 + u)
        xx = _pull(torch.where(far, p - 1, 1 - p) * (1 + p) / one / one, far, df) / n / n
        xa = _pull(-2 * z / one * torch.where(far, u, 1) / one, far, df) / n / s
        aa = (_pull(z * z / one, far, df) * (3 - 2 * h) - 1) / s / s
        return (xx, -xx, xa), (-xx, xx, -xa), (xa, -xa, aa)  # (4), by (5)

    @staticmethod
    def outside(x: Tensor, t: Tensor, a: Tensor) -> tuple[Tensor]:
        return (a < 0,)


def _parts(x: Tensor, t: Tensor, a: Tensor, df: float, eps: float) -> tuple[Tensor, ...]:
    """The parts of (5): r, s, |r|, whether |r| exceeds c, and p."""
    r, s = x - t, torch.where(a < 0, torch.nan, a.clamp_min(eps))
    c, size = s * df**0.5, r.abs()
    return r, s, size, size > c, torch.minimum(size, c) / torch.maximum(size, c)


def _pull(v: Tensor, far: Tensor, df: float) -> Tensor:
    """k (nu + 1) / nu times v."""
    return torch.where(far, (df + 1) * v, (1 + 1 / df) * v)


def _constant(df: float) -> float:
    """(2), by (7) and the series that follows it."""
    steps = 0.0
    while df < 32:
        steps += math.log1p(1 / (df * (df + 2)))
        df += 2
    y = 1 / df / df
    series = (1 / 4 - y * (1 / 24 - y * (1 / 20 - y * (17 / 112 - y * (31 / 36 - y * 691 / 88))))) / df
    return 0.5 * math.log(2 * math.pi) + 0.5 * steps + series


@arguments.functional
def student_t_nll_loss(
    input: Tensor,
    target: Tensor,
    scale: Tensor | float,
    df: float,
    reduction: str = "mean",
    *,
    full: bool = False,
    eps: float = 1e-6,
    weight: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of each target under Student's t distribution.

    Args:
        input: The predicted locations, a floating point tensor of any shape.
        target: The samples, of the same shape or one that broadcasts with it.
        scale: The predicted scales (for a normal distribution, the standard deviations), not negative: a tensor of the
            input's shape, the same without the last dimension, or with one dimension of size 1; or a single number.
        df: The degrees of freedom, a single positive number; the smaller it is, the heavier the tails.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of elements, even with a weight.
        full: Whether to add the constant, which depends on ``df`` alone.
        eps: Scales are clamped to at least this value. The gradient of ``scale`` passes through the clamp unchanged.
        weight: Optional tensor of the input's shape; may require a gradient.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype (float32 under autocast).

    Raises:
        ValueError: ``reduction`` is unknown; ``df`` or ``eps`` is not positive and finite; ``scale`` or ``weight`` has
            another shape, or an entry of ``scale`` is negative. Entries are checked only on the CPU, where that needs
            no synchronization. Elsewhere, and under torch.func.vmap, a negative entry makes its loss NaN.
        RuntimeError: the shapes do not broadcast.
        TypeError: ``scale`` is neither a tensor nor a number, ``df`` or ``eps`` not a number, ``full`` not a bool.
        NotImplementedError: the promoted dtype is not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    df = arguments.positive("student_t_nll_loss", "df", df)
    eps = arguments.positive("student_t_nll_loss", "eps", eps)
    constant = _constant(df) if arguments.boolean("student_t_nll_loss", "full", full) else 0.0
    if isinstance(scale, Tensor):
        scale = arguments.unreduced("scale", scale, input)
    elif scale < 0:
        raise ValueError(StudentTNLLLossFunction.messages[0])
    scale, weight = arguments.as_tensor(scale, input), arguments.weight_of(weight, input, target)
    x, t, a, w = arguments.together(input, target, scale, weight, arithmetic=True)
    arguments.require_floating("student_t_nll_loss", x)
    return evaluate(StudentTNLLLossFunction, x, t, a, w, df, constant, eps, reduction)


class StudentTNLLLoss(torch.nn.Module):
    """:func:`student_t_nll_loss` as a module."""

    def __init__(self, df: float, reduction: str = "mean", *, full: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        self.df, self.reduction, self.full, self.eps = df, reduction, full, eps

    def forward(self, input: Tensor, target: Tensor, scale: Tensor | float) -> Tensor:
        return student_t_nll_loss(input, target, scale, self.df, self.reduction, full=self.full, eps=self.eps)

    def extra_repr(self) -> str:
        return f"df={self.df}, reduction={self.reduction!r}, full={self.full}, eps={self.eps}"
