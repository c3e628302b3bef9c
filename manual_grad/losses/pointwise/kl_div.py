r"""Kullback-Leibler divergence.

**Where it comes from.** The divergence :math:`\sum P \log (P / Q)` is the number of nats that a code for the
distribution :math:`Q` wastes on data from :math:`P` (Kullback and Leibler [1]). The input is :math:`x = \log Q`, such
as the output of a log-softmax. The target :math:`t` is :math:`P`, or :math:`\log P` with ``log_target``:

.. math::
    p = t \qquad\text{or}\qquad p = e^t \tag{1}

**Definition.** Each class contributes

.. math::
    e(x, t) = p\,(\log p - x) \tag{2}

**Stable form.** In this form, unlike in :math:`p \log p - p\,x`, a well-matched class subtracts the two logarithms
before any product is rounded. What is left of
them is formed in the wider dtype: rounding :math:`\log p` to that of the input would already cost it.

**Gradient.** The input enters linearly. For the target, the product rule with
:math:`\partial \log p / \partial t = p' / p` gives

.. math::
    \frac{\partial e}{\partial x} = -p, \qquad
    \frac{\partial e}{\partial t} = p'\,(\log p - x + 1), \qquad
    p' = \frac{\partial p}{\partial t} = 1 \quad\text{or}\quad p' = \frac{\partial p}{\partial t} = p \tag{3}

**Second derivatives.**

.. math::
    \frac{\partial^2 e}{\partial x^2} = 0, \qquad
    \frac{\partial^2 e}{\partial x\, \partial t} = -p', \qquad
    \frac{\partial^2 e}{\partial t^2} = \frac1t \quad\text{or}\quad p\,(\log p - x + 2) \tag{4}

**The kink at 0.** An event of probability 0 contributes nothing, however long its code would be:
:math:`0 \log (0/q) = 0` for every :math:`q`, including 0, as the limit of :math:`p \log p`. In floating point this is
:math:`0 \cdot \infty` = nan, so (2) is defined as 0 where :math:`p = 0`.

With ``log_target`` the derivatives with respect to :math:`t` in (3) and (4) also tend to 0. Without it, as
:math:`t \to 0`, the slope :math:`\log t - x + 1` tends to :math:`-\infty`, and no finite number is a subgradient. 0 is
chosen for it and for :math:`1/t`, so that the class is left out, as in the value. This is also the only choice that is
correct after a softmax with masked classes, where :math:`t\,(\log t - x + 1)` tends to 0, while
:math:`0 \cdot (-\infty)` would make the whole gradient nan.

**Relation to cross entropy.** The first term of (2) does not depend on the model, so minimizing the divergence is the
same as minimizing :mod:`~manual_grad.losses.rowwise.cross_entropy`. The two differ by the entropy of the target.

>>> import torch
>>> from manual_grad.functional import cross_entropy, kl_div
>>> z = torch.tensor([[1.0, 2.0, 4.0]]).double()
>>> p = torch.tensor([[0.5, 0.25, 0.25]]).double()
>>> entropy = -(p * p.log()).sum()
>>> difference = kl_div(z.log_softmax(1), p, reduction="sum") - (cross_entropy(z, p) - entropy)
>>> difference.abs() < 1e-15
tensor(True)

**Shapes and domain.** Input and target broadcast; neither needs to sum to 1. 'batchmean' divides by the batch size,
which matches the definition of the divergence; 'mean' also divides by the number of classes.

Sources:

1. Solomon Kullback and Richard A. Leibler, "On Information and Sufficiency", Annals of Mathematical Statistics 22
   (1951) 79-86, `doi:10.1214/aoms/1177729694 <https://doi.org/10.1214/aoms/1177729694>`_.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.function import Options, Tensors, evaluate
from manual_grad.engine.pointwise import PointwiseLoss


class KLDivLossFunction(PointwiseLoss):
    """``apply(input, target, None, log_target, divisor, reduction)``; the mean is the sum over ``divisor``."""

    kernel = "kl_div"
    paired = True

    @classmethod
    def denominator(cls, X: Tensors, loss: Tensor, log_target: bool, divisor: int) -> int:
        return divisor

    @classmethod
    def scale(cls, X: Tensors, options: Options) -> float:
        _, divisor = options
        return 1 / divisor if divisor else float("nan")

    @staticmethod
    def elementwise(x: Tensor, t: Tensor, log_target: bool, divisor: int) -> Tensor:
        p, log_p = (t.exp(), t) if log_target else (t, t.log())  # (1)
        return _without_absent(p, x, p * (log_p - x))  # (2)

    @staticmethod
    def first(x: Tensor, t: Tensor, log_target: bool, divisor: int) -> tuple[Tensor, Tensor]:
        if log_target:
            p = t.exp()
            return -p, _without_absent(p, x, p * (t - x + 1))  # (3)
        return -t, _without_absent(t, x, t.log() - x + 1)  # (3)

    @staticmethod
    def second(
        x: Tensor, t: Tensor, log_target: bool, divisor: int
    ) -> tuple[tuple[Tensor | int, Tensor], tuple[Tensor, Tensor]]:
        if log_target:
            p = t.exp()
            return (0, -p), (-p, _without_absent(p, x, p * (t - x + 2)))  # (4)
        minus_one = -torch.ones_like(t)
        return (0, minus_one), (minus_one, _without_absent(t, x, 1 / t))  # (4)


def _without_absent(p: Tensor, x: Tensor, term: Tensor) -> Tensor:
    """``term``, but 0 for a class of probability 0; a NaN input is propagated."""
    return torch.where((p == 0) & ~x.isnan(), 0, term)


@arguments.functional
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """Kullback-Leibler divergence of each class; see :func:`torch.nn.functional.kl_div`.

    Args:
        input: Log-probabilities, a floating point tensor of any shape.
        target: Probabilities, or log-probabilities with ``log_target``, of the same shape. Other sizes broadcast.
        size_average, reduce: Deprecated; they override ``reduction``, but 'batchmean' still divides by the batch size.
        reduction: 'none', 'sum', 'batchmean' (the sum divided by the input's first size, that is, the mean divergence
            per sample) or 'mean' (the sum divided by the number of elements, with a warning, since that is not a
            divergence).
        log_target: Whether ``target`` is in log space.

    Returns:
        A scalar, or for 'none' a tensor of the broadcast shape, in the promoted dtype (float32 under autocast). Both
        tensors may require a gradient.

    Raises:
        ValueError: ``reduction`` is unknown.
        RuntimeError: a tensor is not real floating point, or the shapes do not broadcast.
        TypeError: ``log_target`` is not a bool.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import kl_div
        >>> log_q = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]).log()
        >>> p = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]])
        >>> kl_div(log_q, p, reduction="batchmean")
        tensor(0.1733)
        >>> kl_div(log_q, p.log(), reduction="none", log_target=True).sum(1)
        tensor([0.3466, 0.0000])
    """
    by_batch = reduction == "batchmean"
    batch = input.shape[0] if by_batch and input.dim() > 0 else 1
    if size_average is None and reduce is None:
        if reduction == "mean":
            warnings.warn(  # exactly torch's text, so that warning filters for it apply
                "reduction: 'mean' divides the total loss by both the batch size and the support size."
                "'batchmean' divides only by the batch size, and aligns with the KL div math definition."
                "'mean' will be changed to behave the same as 'batchmean' in the next major release.",
                stacklevel=3,
            )
        elif reduction == "batchmean":
            reduction = "sum"
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    log_target = arguments.boolean("kl_div", "log_target", log_target)
    for tensor in (input, target):
        if not tensor.is_floating_point():
            kind = "Complex" if tensor.is_complex() else "Integral"
            raise RuntimeError(f"kl_div: {kind} inputs not supported. Got {input.dtype} and {target.dtype}")
    x, t = arguments.together(input, target, arithmetic=True)
    if reduction == "none":
        e = evaluate(KLDivLossFunction, x, t, None, log_target, 1, "none")
        return e if batch == 1 else e / batch
    if reduction == "sum" and not by_batch:
        return evaluate(KLDivLossFunction, x, t, None, log_target, 1, "sum")
    divisor = batch * x.numel() if reduction == "mean" else batch
    return evaluate(KLDivLossFunction, x, t, None, log_target, divisor, "mean")


class KLDivLoss(torch.nn.KLDivLoss):
    """:func:`kl_div` as a module, interchangeable with :class:`torch.nn.KLDivLoss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return kl_div(input, target, reduction=self.reduction, log_target=self.log_target)
