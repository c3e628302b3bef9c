r"""Negative binomial negative log-likelihood.

**Where it comes from.** If the rates of events vary, their counts vary more than the Poisson distribution predicts. If
the rates are gamma distributed (Greenwood and Yule [1]), a count with mean :math:`\mu` has variance
:math:`\mu + \mu^2 / r` and follows the negative binomial distribution,
:math:`\frac{\Gamma(t + r)}{\Gamma(r)\, t!} \big( \frac{r}{\mu + r} \big)^r \big( \frac{\mu}{\mu + r} \big)^t`.
Negative binomial regression (Lawless [2]) predicts the mean and, optionally, :math:`r` for each count.

**Which r.** :math:`r` is ``total_count``: the smaller it is, the more the counts vary. It is that of
:class:`torch.distributions.NegativeBinomial`, whose ``probs`` are :math:`\mu / (\mu + r)` and whose ``logits`` are
:math:`\log \mu - \log r`; SciPy's ``n``, with ``p`` :math:`= r / (\mu + r)`; R's ``size``, and ``theta`` in ``glm.nb``.
The dispersion :math:`\alpha` of econometrics (NB2) is :math:`1 / r`.

**Definition.** The input is either the logarithm of the mean (``log_input``), which may be any real number, or the mean
itself, kept away from 0 by :math:`\epsilon`, as :math:`r` is. The last term depends on neither; it is included,
:math:`f = 1`, only if ``full``, otherwise :math:`f = 0`:

.. math::
    e(x, t, a) = (t + r) \log(\mu + r) - t \log \mu - r \log r - \log \Gamma(t + r) + \log \Gamma(r)
    + f \log \Gamma(t + 1) \tag{1}

.. math::
    \mu = e^x \quad\text{or}\quad \mu = x + \epsilon, \qquad r = \min(\max(a, \epsilon), 10^{30}) \tag{2}

In the limit :math:`r \to \infty` it is :math:`\mu - t \log \mu`, the loss of
:mod:`~manual_grad.losses.pointwise.poisson_nll_loss`, and its slope in :math:`r` is 0. Any :math:`r` above
:math:`10^{30}`, including infinity, is replaced by :math:`10^{30}`. For means and counts below :math:`10^{14}` that
agrees with the limit to the last digit. (For ``full``, the Poisson loss adds Stirling's formula for :math:`\log t!`,
and nothing for counts up to 1. This loss adds :math:`\log t!` itself, and :math:`\psi(t + 1)` to the slope in the
count.)

**Gradient.** The slope in the input vanishes where the mean equals the count, and is smaller the more the counts vary.
With the logarithmic derivative :math:`\psi` of :math:`\Gamma`,

.. math::
    \frac{\partial e}{\partial x} = g \quad\text{or}\quad \frac{\partial e}{\partial x} = \frac g\mu, \qquad
    g = \frac{r\,d}{\mu + r}, \qquad d = \mu - t \tag{3}

.. math::
    \frac{\partial e}{\partial t} = \log \frac{\mu + r}{\mu} - \psi(t + r) + f \psi(t + 1), \qquad
    \frac{\partial e}{\partial a} = \log \frac{\mu + r}{r} - \frac{d}{\mu + r} - \psi(t + r) + \psi(r) \tag{4}

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\mu\, r\,(t + r)}{(\mu + r)^2}
    \quad\text{or}\quad \frac{\partial^2 e}{\partial x^2} = \frac{t}{\mu^2} - \frac{t + r}{(\mu + r)^2}, \qquad
    \frac{\partial^2 e}{\partial x\, \partial t} = -\frac{r}{\mu + r}
    \quad\text{or}\quad \frac{\partial^2 e}{\partial x\, \partial t} = -\frac{r}{\mu\,(\mu + r)}, \qquad
    \frac{\partial^2 e}{\partial x\, \partial a} = \frac{\mu\, d}{(\mu + r)^2}
    \quad\text{or}\quad \frac{\partial^2 e}{\partial x\, \partial a} = \frac{d}{(\mu + r)^2} \tag{5}

.. math::
    \frac{\partial^2 e}{\partial t^2} = f \psi'(t + 1) - \psi'(t + r), \qquad
    \frac{\partial^2 e}{\partial t\, \partial a} = -\frac{d}{(\mu + r)(t + r)} - \chi'(t + r), \qquad
    \frac{\partial^2 e}{\partial a^2} = -\frac{d^2}{(\mu + r)^2\,(t + r)} - \chi'(t + r) + \chi'(r), \qquad
    \chi(z) = \psi(z) - \log z \tag{6}

**Stable form.** As they stand, (1) and (4) are differences of large numbers, which lose almost all digits if :math:`r`
or the count is large. But the differences can be computed directly from two functions. One is the small remainder of
Stirling's formula,

.. math::
    J(z) = \log \Gamma(z) - \big( z - \tfrac12 \big) \log z + z - \tfrac12 \log 2\pi, \qquad
    J'(z) = \chi(z) + \frac{1}{2z} \tag{7}

The other is the Itakura-Saito distance :math:`D` of a ratio :math:`z`, which is never negative:

.. math::
    D(z) = z - 1 - \log z, \qquad
    \frac{\partial e}{\partial a} = D\Big( \frac{t + r}{\mu + r} \Big) - \big( \chi(t + r) - \chi(r) \big) \tag{8}

.. math::
    e(x, t, a) = r \log \frac{\mu + r}{t + r} + t\,(1 - \log u) + s + f \log \Gamma(t + 1), \qquad
    u = \frac{\mu\,(t + r)}{\mu + r} = t + g, \qquad
    s = \tfrac12 \log \Big( 1 + \frac tr \Big) + J(r) - J(t + r), \qquad
    \frac{\partial e}{\partial t} = -\log u - \chi(t + r) + f \psi(t + 1) \tag{9}

With ``full``, (9) is a sum of large numbers that is small near the fit. As Loader [3] found for the binomial
distribution, in the saddle-point form all terms are of the magnitude of the result:

.. math::
    e(x, t, a) + (1 - f) \log \Gamma(t + 1) = \frac{g - 1}{t + 1} + t\, D\Big( \frac{u}{t + 1} \Big)
    + r\, D\Big( \frac{t + r}{\mu + r} \Big) + s + \tfrac12 \log(2\pi\,(t + 1)) + J(t + 1) \tag{10}

The logarithm of a ratio is computed as ``log1p`` of the difference divided by the smaller of the two. Near 1, nothing
cancels in

.. math::
    D(z) = b\,(z - 1) - 2\,(\operatorname{artanh}(b) - b), \qquad b = \frac{z - 1}{z + 1} \tag{11}

with the series :math:`\frac{b^3}{3} + \frac{b^5}{5} + \dots` for the last difference. For :math:`z \ge 2` the series
:math:`J(z) = \frac{1}{12z} - \frac{1}{360z^3} + \dots` is replaced by a polynomial in :math:`1/z`, whose derivatives
replace those of :math:`J`. Smaller arguments are raised by two steps of the recurrence of :math:`\Gamma`:

.. math::
    J(z) = J(z + 2) + \big( z + \tfrac32 \big) \log\Big( 1 + \frac2z \Big) - \log\Big( 1 + \frac1z \Big) - 2, \qquad
    \chi(z) = \chi(z + 2) + \log\Big( 1 + \frac2z \Big) - \frac1z - \frac{1}{z + 1} \tag{12}

The differences between function values at :math:`r` and at :math:`t + r` are computed without subtracting rounded
values, so that they are exactly 0 for a count of 0 and keep all digits for a large :math:`r`. For the polynomial this
uses Horner's scheme for the divided difference; for (12) it uses formulas like

.. math::
    \frac1r - \frac{1}{t + r} = \frac{t}{r\,(t + r)}, \qquad
    \log\Big( 1 + \frac2r \Big) - \log\Big( 1 + \frac{2}{t + r} \Big)
    = \log\Big( 1 + \frac{2t}{r\,(t + r + 2)} \Big) \tag{13}

For a count below 1, :math:`\log t!` is small, and (10) would round it away. Since :math:`\log \Gamma(1) = 0`, it is
also such a difference:

.. math::
    \log \Gamma(t + 1) = (t + 1) \log(t + 1) - t - \big( \tfrac12 \log(1 + t) + J(1) - J(t + 1) \big) \tag{14}

**Kinks.** Strictly, :math:`\partial r / \partial a` is 0 for :math:`a < \epsilon`, and an :math:`a` that gets there
would stay there. It is taken as 1 everywhere, as in :mod:`~manual_grad.losses.pointwise.gaussian_nll_loss` for the
variance.

**Shapes and domain.** Input and target broadcast. The input is any logarithm of a mean, including infinite ones, or a
mean :math:`x > -\epsilon`. Targets are counts of an integer or floating-point dtype and need not be integral.
``total_count`` has the input's shape, or lacks its last dimension, or has one dimension of size 1, or is one number; a
negative one is an error. A weight multiplies :math:`e`.

Sources:

1. Major Greenwood and G. Udny Yule, "An Inquiry into the Nature of Frequency Distributions Representative of Multiple
   Happenings", J. Royal Statistical Society 83 (1920) 255-279,
   `doi:10.2307/2341080 <https://doi.org/10.2307/2341080>`_.
2. Jerald F. Lawless, "Negative Binomial and Mixed Poisson Regression", Canadian J. of Statistics 15 (1987) 209-225,
   `doi:10.2307/3314912 <https://doi.org/10.2307/3314912>`_.
3. Catherine Loader, "Fast and Accurate Computation of Binomial Probabilities" (2000), the note on which R's ``dbinom``
   is based.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss

# J'(z) is -w^2 times the polynomial with these coefficients in w = 1/z, for z >= 2. Together with -1/(2z) it gives
# chi(z) with a relative error of 5e-17, and its derivative gives chi'(z) with 8e-17; for the latter it is the minimax
# polynomial (Remez) among those whose first terms are those of Stirling's series.
SLOPE = (
    1 / 12, 0.0, -0.008333333353905126, 1.8478488486071877e-09, 0.003968181037646619, 1.6844960605614374e-06,
    -0.004192230209056706, 0.0002705689755073135, 0.005515274739035777, 0.01140570473743378, -0.06635682277378141,
    0.12137590551209687, -0.09372603219658603, -0.04441182829368171, 0.18949735105468096, -0.20910299553793021,
    0.11415795846077052, -0.02624838974612545,
)  # fmt: skip
VALUE = tuple(c / (i + 1) for i, c in enumerate(SLOPE))  # J(z) / w
BEND = tuple(c * (i + 2) for i, c in enumerate(SLOPE))  # J''(z) / w^3
ARTANH = tuple(1 / (2 * i + 3) for i in range(13))  # (artanh(b) - b) / b^3 in powers of b^2, to 1e-16 for b < 0.28
NEAR = 0.75  # b < 0.28 holds if the ratio of the larger to the smaller number, less 1, is below this


class NegativeBinomialNLLLossFunction(PointwiseLoss):
    """``apply(input, target, total_count, weight, log_input, full, eps, reduction)``."""

    kernel = "negative_binomial_nll_loss"
    refusal = ValueError
    messages = ("total_count has negative entry/entries; it must not be negative",)

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, a: Tensor, log_input: bool, full: bool, eps: float) -> Tensor:
        mu, log_mu, d, r, q = _parts(x, t, a, log_input, eps)
        step, log, u, log_u = _ratios(mu, log_mu, d, t, r, q)
        s = _stirling(t, r, q)
        e = r * torch.where(d < 0, -log, log) + torch.where(t == 0, 0, t * (1 - log_u)) + s  # (9)
        if not full:
            return e
        n, g = t + 1, _pull(d, mu, r)
        few = e + (n * t.log1p() - t - _stirling(t, torch.ones_like(n), n))  # (14)
        step_u, log_n = _to_next(n, g, u, mu, log_u), n.log()
        saddle = (g - 1) / n + t * _distance(g > 1, *step_u) + r * _distance(d < 0, step, log)
        rest = s + 0.5 * (log_n + math.log(2 * math.pi)) + _polynomial(VALUE, 1 / n) / n
        return torch.where(t < 1, few, saddle + rest)  # (10)

    @staticmethod
    def first(
        x: Tensor, t: Tensor, a: Tensor, log_input: bool, full: bool, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mu, log_mu, d, r, q = _parts(x, t, a, log_input, eps)
        step, log, u, log_u = _ratios(mu, log_mu, d, t, r, q)
        chi_q, difference = _chi(t, r, q)
        g = _pull(d, mu, r)
        if full:
            n = t + 1
            _, log_step = _to_next(n, g, u, mu, log_u)
            dt = torch.where(g > 1, -log_step, log_step) + _chi(t, n, n)[0] - chi_q
        else:
            dt = -log_u - chi_q
        return g if log_input else g / mu, dt, _distance(d < 0, step, log) - difference  # (3) (9) (8)

    @staticmethod
    def second(
        x: Tensor, t: Tensor, a: Tensor, log_input: bool, full: bool, eps: float
    ) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        mu, _, d, r, q = _parts(x, t, a, log_input, eps)
        p, m, share = _over_sum(d, mu, r), mu + r, 1 / (1 + r / mu)  # mu / (mu + r)
        bend, difference = _bend(t, r, q)
        if log_input:
            xx, xt, xa = share * q * (r / m), -r / m, share * p
        else:
            xx, xt, xa = t / mu / mu - q / m / m, -r / m / mu, p / m
        tt = -1 / q - bend
        if full:
            n = t + 1
            tt = tt + 1 / n + _bend(t, n, n)[0]
        return (xx, xt, xa), (xt, tt, -p / q - bend), (xa, -p / q - bend, -p * p / q - difference)  # (5) (6)

    @staticmethod
    def outside(x: Tensor, t: Tensor, a: Tensor) -> tuple[Tensor]:
        return (a < 0,)


def _parts(x: Tensor, t: Tensor, a: Tensor, log_input: bool, eps: float) -> tuple[Tensor, ...]:
    """The mean, its logarithm, the mean minus the count, r, and t + r: (2) and (3)."""
    r = torch.where(a < 0, torch.nan, a.clamp(eps, 1e30))
    if log_input:
        mu = x.exp()
        return mu, x, mu - t, r, t + r
    mu = x + eps
    lost = torch.where(mu == torch.inf, 0, (x - mu) + eps)  # rounding error of mu, which matters if mu is near 1
    return mu, mu.log() + lost / mu, (x - t) + eps, r, t + r


def _ratios(mu: Tensor, log_mu: Tensor, d: Tensor, t: Tensor, r: Tensor, q: Tensor) -> tuple[Tensor, ...]:
    """The ratio of the larger of mu + r and t + r to the smaller, less 1, and its logarithm; u = t + g and log u.

    If the mean overflows, is tiny, or is near 1 with a large r, these use the logarithm of the mean.
    """
    step, u = d.abs() / (torch.minimum(mu, t) + r), q / (1 + r / mu)
    log_u = u.log()
    log = torch.where(step == torch.inf, log_mu - log_u, step.log1p())
    given = (mu < 1e-30) | ((mu < r) & (step < NEAR))
    return step, log, u, torch.where(given, log_mu + torch.where(d < 0, log, -log), log_u)


def _to_next(n: Tensor, g: Tensor, u: Tensor, mu: Tensor, log_u: Tensor) -> tuple[Tensor, Tensor]:
    """The ratio of the larger of t + g and t + 1 to the smaller, less 1, and the logarithm of the ratio."""
    step = (g - 1).abs() / torch.minimum(u, n)
    return step, torch.where(mu < 1e-30, n.log() - log_u, step.log1p())


def _over_sum(d: Tensor, mu: Tensor, r: Tensor) -> Tensor:
    return torch.where(mu == torch.inf, 1, d / (mu + r))


def _pull(d: Tensor, mu: Tensor, r: Tensor) -> Tensor:
    """g of (3), with the quotient that does not underflow."""
    return torch.where(mu < r, d * (r / (mu + r)), r * _over_sum(d, mu, r))


def _distance(rises: Tensor, step: Tensor, log: Tensor) -> Tensor:
    """D of a ratio, which is 1 + step where ``rises`` and 1 / (1 + step) elsewhere; ``log`` is that of 1 + step."""
    b, fall = step / (2 + step), 1 / (1 + 1 / step)
    odd = 2 * b * b * b * _polynomial(ARTANH, b * b)
    near = torch.where(rises, b * step - odd, b * fall + odd)  # (11)
    return torch.where(step < NEAR, near, torch.where(rises, step - log, log - fall))  # (8)


def _lifted(r: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether r is below 2, and r and q, both increased by 2 if so."""
    small = r < 2
    by = 2 * small.to(r.dtype)
    return small, r + by, q + by


def _polynomial(coefficients: Sequence[float], w: Tensor) -> Any:
    value = coefficients[-1]
    for c in coefficients[-2::-1]:
        value = c + w * value
    return value


def _divided(coefficients: Sequence[float], b: Tensor, a: Tensor) -> tuple[Any, Any]:
    """The value of a polynomial at b, and its divided difference between a and b."""
    *others, c, slope = coefficients
    value: Any = c + b * slope
    for c in reversed(others):
        value, slope = c + b * value, value + a * slope
    return value, slope


def _stirling(t: Tensor, r: Tensor, q: Tensor) -> Tensor:
    """s of (9), by (12) and (13)."""
    small, r2, q2 = _lifted(r, q)
    a, b = 1 / r2, 1 / q2
    value, slope = _divided(VALUE, b, a)
    steps = (r + 1.5) * (2 * t / (r * q2)).log1p() - t * (2 / q).log1p() - (t / (r * (q + 1))).log1p()
    return 0.5 * (t / r).log1p() + torch.where(small, steps, 0) + t * a * b * (value + a * slope)


def _chi(t: Tensor, r: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """chi(q), and chi(q) - chi(r), by (12) and (13)."""
    small, r2, q2 = _lifted(r, q)
    a, b = 1 / r2, 1 / q2
    value, slope = _divided(SLOPE, b, a)
    chi_q = torch.where(small, (2 / q).log1p() - 1 / q - 1 / (q + 1), 0) - b * (0.5 + b * value)
    steps = t / (r * q) + t / ((r + 1) * (q + 1)) - (2 * t / (r * q2)).log1p()
    return chi_q, torch.where(small, steps, 0) + t * a * b * (0.5 + (a + b) * value + a * a * slope)


def _bend(t: Tensor, r: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """chi'(q), and chi'(q) - chi'(r): the derivatives of (12) and (13)."""
    small, r2, q2 = _lifted(r, q)
    a, b, between = 1 / r2, 1 / q2, t / (r * q)
    value, slope = _divided(BEND, b, a)
    step = 1 / (q * q) + 1 / ((q + 1) * (q + 1)) - 2 * b / q
    next_ = t / ((r + 1) * (q + 1))
    steps = between - t * a * b - between * (1 / r + 1 / q) - next_ * (1 / (r + 1) + 1 / (q + 1))
    bend = 0.5 * (a + b) + (a * a + a * b + b * b) * value + a * a * a * slope
    return torch.where(small, step, 0) + b * b * (0.5 + b * value), torch.where(small, steps, 0) - t * a * b * bend


@arguments.functional
def negative_binomial_nll_loss(
    input: Tensor,
    target: Tensor,
    total_count: Tensor | float,
    reduction: str = "mean",
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    weight: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of each count under a negative binomial distribution, for overdispersed counts.

    Args:
        input: Logarithms of the means, or means, a floating point tensor of any shape.
        target: Counts, of the same shape or one that broadcasts with it; they need not be integral.
        total_count: The smaller it is, the more the counts vary: the variance is mean + mean^2 / total_count. A tensor
            of the input's shape, the same without the last dimension, or with one dimension of size 1; or a single
            number. Not negative; infinity gives the Poisson limit.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of elements, even with a weight.
        log_input: Whether the input is the logarithm of the mean.
        full: Whether to add log(target!), which also affects the slope in the target.
        eps: ``total_count`` is clamped to at least this value; its gradient passes through the clamp unchanged. Also
            added to the mean if the input is the mean.
        weight: Optional tensor of the input's shape; may require a gradient.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype (float32 under autocast).

    Raises:
        ValueError: ``reduction`` is unknown; ``eps`` is not positive and finite; ``total_count`` or ``weight`` has
            another shape, or an entry of ``total_count`` is negative. Entries are checked only on the CPU, where that
            needs no synchronization. Elsewhere, and under torch.func.vmap, a negative entry makes its loss NaN.
        RuntimeError: the shapes do not broadcast.
        TypeError: ``total_count`` is neither a tensor nor a number, ``log_input`` or ``full`` not a bool, ``eps`` not a
            number.
        NotImplementedError: the promoted dtype is not real floating point.
    """
    name = "negative_binomial_nll_loss"
    reduction = arguments.reduction_of(reduction)
    log_input, full = arguments.boolean(name, "log_input", log_input), arguments.boolean(name, "full", full)
    eps = arguments.positive(name, "eps", eps)
    if isinstance(total_count, Tensor):
        total_count = arguments.unreduced("total_count", total_count, input)
    elif total_count < 0:
        raise ValueError(NegativeBinomialNLLLossFunction.messages[0])
    total_count = arguments.as_tensor(total_count, input)
    weight = arguments.weight_of(weight, input, target)
    x, t, a, w = arguments.together(input, target, total_count, weight, arithmetic=True)
    arguments.require_floating(name, x)
    return evaluate(NegativeBinomialNLLLossFunction, x, t, a, w, log_input, full, eps, reduction)


class NegativeBinomialNLLLoss(torch.nn.Module):
    """:func:`negative_binomial_nll_loss` as a module."""

    def __init__(
        self, reduction: str = "mean", *, log_input: bool = True, full: bool = False, eps: float = 1e-8
    ) -> None:
        super().__init__()
        self.reduction, self.log_input, self.full, self.eps = reduction, log_input, full, eps

    def forward(self, input: Tensor, target: Tensor, total_count: Tensor | float) -> Tensor:
        return negative_binomial_nll_loss(
            input, target, total_count, self.reduction, log_input=self.log_input, full=self.full, eps=self.eps
        )

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, log_input={self.log_input}, full={self.full}, eps={self.eps}"
