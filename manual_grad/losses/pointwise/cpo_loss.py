r"""Contrastive preference optimization (CPO).

**Where it comes from.** :mod:`~manual_grad.losses.pointwise.dpo_loss` runs a reference beside the policy. Xu et al. [1]
do without it: with a uniform reference the margin is the difference of the policy's own log-probabilities. To replace
what the reference was there for, the chosen completion's negative log-likelihood is added, so that it stays probable.

**Definition.** :math:`x` and :math:`y` are the policy's log-probabilities of the chosen and of the rejected completion:

.. math::
    e(x, y) = (1 - q)\, s(-z) + q\, s(z) - \alpha\, x, \qquad s(z) = \log(1 + e^z), \qquad
    z = \beta\, (x - y) \tag{1}

:math:`q` is the label smoothing. [1] has :math:`q = 0` and :math:`\alpha = 1`.

**Gradient.**

.. math::
    \frac{\partial e}{\partial x} = \beta\, d - \alpha, \qquad
    \frac{\partial e}{\partial y} = -\beta\, d, \qquad
    d = q - \sigma(-z), \qquad \sigma(z) = \frac{1}{1 + e^{-z}} \tag{2}

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = \frac{\partial^2 e}{\partial y^2}
    = -\frac{\partial^2 e}{\partial x\, \partial y}
    = \beta^2\, \sigma(z)\, \sigma(-z) \tag{3}

**Stable form.** That of :mod:`~manual_grad.losses.pointwise.dpo_loss`: with the size of :math:`z` in the exponent,
nothing overflows, and without smoothing nothing cancels:

.. math::
    (1 - q)\, s(-z) + q\, s(z) = c\, |z| + \log(1 + u), \qquad u = e^{-|z|}, \qquad
    c = \begin{cases} q & z \ge 0 \\ 1 - q & z < 0 \end{cases} \tag{4}

There are no kinks.

**Shapes and domain.** Both log-probabilities have one shape; they are real and usually negative. :math:`\beta > 0`,
:math:`0 \le q < 1` and :math:`\alpha \ge 0`. A weight multiplies :math:`e` and broadcasts. In [1] the log-likelihood is
that of the whole completion. TRL averages it over all tokens of the batch instead; for its loss take :math:`\alpha = 0`
and add that average.

Sources:

1. Haoran Xu, Amr Sharaf, Yunmo Chen, Weiting Tan, Lingfeng Shen, Benjamin Van Durme, Kenton Murray and Young Jin Kim,
   "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine Translation", ICML (2024),
   equation 3, `arXiv:2401.08417 <https://arxiv.org/abs/2401.08417>`_.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from manual_grad.engine import arguments, preference
from manual_grad.engine.function import evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class CPOLossFunction(PointwiseLoss):
    """``apply(x, y, weight, beta, q, alpha, reduction)``."""

    kernel = "cpo_loss"
    special: ClassVar = {"alpha": (0.0,)}

    @staticmethod
    def elementwise(x: Tensor, y: Tensor, beta: float, q: float, alpha: float) -> Tensor:
        e = preference.logistic(beta * (x - y), q)  # (4)
        return e if alpha == 0 else e - alpha * x  # (1)

    @staticmethod
    def first(x: Tensor, y: Tensor, beta: float, q: float, alpha: float) -> tuple[Tensor, Tensor]:
        d = beta * preference.logistic_slope(beta * (x - y), q)
        return d if alpha == 0 else d - alpha, -d  # (2)

    @staticmethod
    def second(
        x: Tensor, y: Tensor, beta: float, q: float, alpha: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        h = beta * beta * preference.bell(beta * (x - y))  # (3)
        return (h, -h), (-h, h)


@arguments.functional
def cpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    alpha: float = 1.0,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Contrastive preference optimization of each pair of completions, without a reference.

    Args:
        policy_chosen_logps: The policy's log-probabilities of the chosen completions, a floating point tensor of any
            shape, usually (batch,). They are sums over the tokens of a completion.
        policy_rejected_logps: Those of the rejected completions, of the same shape.
        beta: How steeply a pair counts by its margin; positive.
        label_smoothing: The share of pairs whose label is thought to be flipped, from 0 to below 1.
        alpha: Factor of the chosen completion's negative log-likelihood, which is added; not negative. TRL's cpo_alpha,
            except that TRL averages the log-likelihood over the tokens of a batch.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the number of pairs, even with a weight.
        weight: Optional factor of each pair's loss; broadcast to the shape of the log-probabilities.

    Returns:
        A scalar, or for 'none' a tensor of the shape of the log-probabilities, in the promoted dtype (float32 under
        autocast).

    Raises:
        ValueError: ``reduction`` is unknown, ``beta``, ``label_smoothing`` or ``alpha`` lies outside its domain, or the
            log-probabilities differ in shape.
        RuntimeError: ``weight`` does not broadcast to the shape of the log-probabilities.
        TypeError: ``beta``, ``label_smoothing`` or ``alpha`` is not a number.
        NotImplementedError: the log-probabilities are not real floating point.
    """
    reduction = arguments.reduction_of(reduction)
    beta = arguments.positive("cpo_loss", "beta", beta)
    q = preference.smoothing("cpo_loss", label_smoothing)
    alpha = arguments.not_negative("cpo_loss", "alpha", alpha)
    x, y, w = preference.together("cpo_loss", weight, policy_chosen_logps, policy_rejected_logps)
    return evaluate(CPOLossFunction, x, y, w, beta, q, alpha, reduction)


class CPOLoss(preference.PairLoss):
    """:func:`cpo_loss` as a module."""

    loss = staticmethod(cpo_loss)
    options = ("beta", "label_smoothing", "alpha", "reduction")

    def __init__(
        self, beta: float = 0.1, label_smoothing: float = 0.0, alpha: float = 1.0, reduction: str = "mean"
    ) -> None:
        super().__init__(beta, reduction)
        self.label_smoothing, self.alpha = label_smoothing, alpha
