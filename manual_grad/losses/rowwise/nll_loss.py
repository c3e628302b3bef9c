r"""Negative log-likelihood of class indices.

**Where it comes from.** A row of scores :math:`x` holds log-probabilities of :math:`C` classes,
:math:`x_c = \log p_c`, of which class :math:`y` was observed. Fisher [1] called :math:`p_y`, as a function of the
model, its likelihood, and proposed to choose the model that maximizes it. The negative logarithm turns a product over
observations into a sum to minimize.

**Definition.** With a weight for each class,

.. math::
    \ell = -w_y\, x_y = -w_y \log p_y, \qquad p_c = e^{x_c} \tag{1}

Rows with ``ignore_index`` are left out; 'mean' divides the sum over the others by :math:`\sum_n w_{y_n}`. Applied to a
log-softmax, this is the cross entropy of logits, which :mod:`~manual_grad.losses.rowwise.cross_entropy` computes with
fewer passes and, for a confident model, with more correct digits.

**Gradient.** The loss is linear in a single entry of the row:

.. math::
    \frac{\partial \ell}{\partial x_c} = -w_y\, [c = y] \tag{2}

**Second derivative.**

.. math::
    \frac{\partial^2 \ell}{\partial x_c\, \partial x_j} = 0 \tag{3}

There are no kinks, and nothing cancels: the only rounding is that of one product. Almost all the work of the gradient
is writing zeros.

**Shapes and domain.** Scores are :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, \dots)`; class indices in
:math:`[0, C)` have that shape without the :math:`C`. The scores need not be normalized: :math:`\sum_c e^{x_c}` may
differ from 1.

Sources:

1. Ronald A. Fisher, "On the Mathematical Foundations of Theoretical Statistics", Philosophical Transactions of the
   Royal Society A 222 (1922) 309-368, `doi:10.1098/rsta.1922.0009 <https://doi.org/10.1098/rsta.1922.0009>`_.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import deprecated

from manual_grad.engine import arguments, rowwise
from manual_grad.engine.function import Options, Tensors, evaluate
from manual_grad.engine.rowwise import RowwiseLoss, class_dim

IN_CACHE = 1 << 20  # up to this many scores, a second pass over them takes less time than a second kernel call


class NLLLossFunction(RowwiseLoss):
    """``apply(input, target, weight, ignore_index, reduction)``: weight (C) or None, target of the loss's shape."""

    tensors = 3
    kernel = "nll_loss"
    weighs = True
    # The gradient shares no work with the value. If it is large, it is left to backward, where it is computed with the
    # upstream gradient, instead of being multiplied by that in a second pass.
    most = IN_CACHE
    curved = False

    @classmethod
    def denominator(cls, X: Tensors, loss: Tensor, ignore_index: int) -> Tensor:
        _, y, w = X
        return rowwise.kept_weight(y, w, ignore_index, loss)

    @staticmethod
    def value(X: Tensors, ignore_index: int) -> Tensor:
        x, y, w = X
        if x.numel() == 0:
            return x.sum(class_dim(x))
        dim = class_dim(x)
        kept, y = rowwise.kept_rows("nll_loss", y, x.shape[dim], ignore_index)
        loss = -x.gather(dim, y.unsqueeze(dim)).squeeze(dim)
        return torch.where(kept, loss if w is None else rowwise.each_of(w, y) * loss, 0)  # (1)

    @staticmethod
    def gradient(g: Tensor, X: Tensors, ignore_index: int) -> Tensors:
        x, y, w = X
        if x.numel() == 0:
            return torch.zeros_like(x), None, None
        dim = class_dim(x)
        kept, y = rowwise.kept_rows("nll_loss", y, x.shape[dim], ignore_index)
        slope = torch.where(kept, -g if w is None else -rowwise.each_of(w, y) * g, 0)
        return torch.zeros_like(x).scatter(dim, y.unsqueeze(dim), slope.unsqueeze(dim)), None, None  # (2)

    @staticmethod
    def curvature(g: Tensor, X: Tensors, v: Tensors, ignore_index: int) -> Tensors:
        return None, None, None

    @classmethod
    def scale(cls, X: Tensors, options: Options) -> float:
        return 1.0


@arguments.functional
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood of class indices; see :func:`torch.nn.functional.nll_loss`.

    Args:
        input: Log-probabilities, floating point, of shape (C), (N, C) or (N, C, d1, …, dk).
        target: Class indices in [0, C), int64 or uint8, of shape (), (N) or (N, d1, …, dk).
        weight: Optional weight of each class, of shape (C).
        size_average, reduce: Deprecated; they override ``reduction``.
        ignore_index: Rows with this class index count neither in the loss nor in the mean.
        reduction: 'none', 'mean' or 'sum'. The mean divides by the total weight of the rows that are not ignored, and
            is nan if there are none.

    Returns:
        A scalar, or for 'none' a tensor of shape (), (N) or (N, d1, …, dk), in the input's dtype (float32 under
        autocast). ``input`` may require a gradient.

    Raises:
        IndexError: a class index is outside [0, C) and not ``ignore_index`` (checked on the CPU).
        ValueError: ``reduction`` is unknown; the batch sizes differ; ``input`` is 0-d.
        RuntimeError: shapes or dtypes that do not fit; a ``weight`` that requires a gradient.
        TypeError: ``ignore_index`` is not an integer.
        NotImplementedError: the input is not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import nll_loss
        >>> log_p = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]).log()
        >>> nll_loss(log_p, torch.tensor([0, 1]), reduction="none")
        tensor([0.6931, 2.0794])
        >>> nll_loss(log_p, torch.tensor([0, 1]), weight=torch.tensor([3.0, 1.0, 1.0]))
        tensor(1.0397)
    """
    reduction = arguments.reduction_of(reduction, size_average, reduce)
    if type(ignore_index) is not int:
        ignore_index = arguments.integer("nll_loss", "ignore_index", ignore_index)
    shape = input.shape
    if not shape:
        raise ValueError("Expected 1 or more dimensions (got 0) in nll_loss's input")
    target = rowwise.class_indices("nll_loss", shape, target, ignore_index)
    arguments.require_floating("nll_loss", input)
    if weight is not None:
        weight = rowwise.class_weight(input, weight)
    x, w = arguments.autocast(input, weight)
    if w is not None:
        w = rowwise.constant_weight("nll_loss", x, w)
    return evaluate(NLLLossFunction, x, target, w, ignore_index, reduction)


class NLLLoss(torch.nn.NLLLoss):
    """:func:`nll_loss` as a module, interchangeable with :class:`torch.nn.NLLLoss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return nll_loss(input, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


@deprecated(
    "`NLLLoss2d` has been deprecated. Please use `NLLLoss` instead as a drop-in replacement.", category=FutureWarning
)
class NLLLoss2d(NLLLoss):
    """The old name of :class:`NLLLoss` for images, deprecated as :class:`torch.nn.NLLLoss2d` is."""
