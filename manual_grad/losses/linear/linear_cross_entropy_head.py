r"""The head of a language model from hidden states: cross entropy with additions of scores that are never stored whole.

**Where it comes from.** :mod:`~manual_grad.losses.rowwise.cross_entropy_head` adds softcap, temperature, z-loss and
weights of tokens to cross entropy. Here the scores :math:`s` are those of a linear layer, as in
:mod:`~manual_grad.losses.linear.linear_cross_entropy`.

**Definition.** For one hidden state :math:`x`, with the effective target :math:`q` and the additions of those chapters,

.. math::
    s = W x + b, \qquad z_c = \frac{\kappa}{T} \tanh\Big(\frac{a}{\kappa}\, s_c\Big) \quad\text{or}\quad
    z_c = \frac{a}{T}\, s_c \tag{1}

.. math::
    \ell = \sum_c q_c\, \big(\mathrm{lse}(z) - z_c\big) + \lambda\, \mathrm{lse}(z)^2, \qquad
    \mathrm{lse}(z) = \log \sum_c e^{z_c} \tag{2}

with the weights of tokens, reductions and denominators of the former chapter.

**Gradient.** With :math:`r`, the derivative by the scores, the chain rule through the projection is

.. math::
    \frac{\partial \ell}{\partial x} = W^\top r, \qquad \frac{\partial \ell}{\partial W} = r x^\top, \qquad
    \frac{\partial \ell}{\partial b} = r, \qquad r_c = \frac{\partial \ell}{\partial s_c} \tag{3}

**Stable form.** As in :mod:`~manual_grad.losses.linear.linear_log_prob`, the loss is computed by blocks of rows, or of
classes [1], from numbers of each row in which nothing cancels. If only the reduced loss is asked for, :math:`r` is
known as soon as these are, for the denominator of the mean depends on the targets alone. So one pass with three
products gives loss and gradient. If there are more outputs, or weights of tokens that require a gradient, the upstream
gradients are known only in backward, which computes the scores again: four products.

**Second derivative.** :math:`r` is differentiated as in the former chapter; what follows for hidden states and weight
are (4) and (5) of :mod:`~manual_grad.engine.linear`. There are no kinks.

.. math::
    \frac{\partial^2 \ell}{\partial b_i\, \partial b_j} = \frac{\partial r_i}{\partial s_j} \tag{4}

**Shapes and domain.** Hidden states are :math:`(N, D)` or :math:`(\dots, D)`, the weight :math:`(C, D)`, the bias
:math:`(C)`.

>>> import torch
>>> from manual_grad.functional import linear_cross_entropy
>>> hidden = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]])  # (batch, sequence, D)
>>> weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
>>> labels = torch.tensor([[0, 2, 1]])
>>> linear_cross_entropy(hidden, weight, labels, shift=True, softcap=30.0, normalizer=2)
tensor(0.8104)

Sources:

1. Erik Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models" (2024),
   `arXiv:2411.09009 <https://arxiv.org/abs/2411.09009>`_, for blocks of classes.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import linear
from manual_grad.engine.dtypes import autocast_is_on
from manual_grad.engine.function import Options, Reduction, Tensors, evaluate
from manual_grad.engine.reduction import total
from manual_grad.losses.linear import linear_log_prob
from manual_grad.losses.rowwise.cross_entropy_head import (
    SKIPPED,
    CrossEntropyHeadFunction,
    Head,
    Targets,
    combined,
    evaluate_head,
)


class LinearCrossEntropyHeadFunction(linear.LinearLoss):
    """``apply(x, W, b, y, q, factor, omega, None, wide, outputs, z_loss, *options, reduction)``.

    See :class:`~linear.LinearLoss` and :class:`CrossEntropyHeadFunction`. The scores are ``wide``.
    """

    tensors = 8
    rowwise = CrossEntropyHeadFunction

    @classmethod
    def dtype(cls, X: Tensors, dtype: torch.dtype, *options: Any) -> torch.dtype:
        return torch.float64

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        x, W, _, _, _, factor, omega, _ = X
        wide, outputs, z_loss, *rest = options
        if x.shape[0] * W.shape[:2].numel() == 0:
            return None
        g = omega.new_ones(()) if g is None else g.double()
        sweep = linear_log_prob.Sweep(X, (wide, outputs, torch.float64, *rest), needs)
        rows = sweep.buffers()
        for i in sweep.products.rows:

            def upstream(found: list[Tensor], i: slice = i) -> Tensor:
                by_name = dict(zip(outputs.split(), found, strict=True))
                of_rows = None if factor is None else factor[i], omega[i]
                return cls.rowwise.upstream(g if g.dim() == 0 else g[i], by_name, *of_rows, z_loss)

            sweep.step(i, [row[i] for row in rows], upstream)  # (3)
        loss = None
        if value:
            found = dict(zip(outputs.split(), rows, strict=True))
            loss = omega * combined(found, factor, z_loss)[0]  # (2)
            loss = loss if reduction == "none" else total(loss)
        return loss, [*sweep.products.gradients(), *(None for _ in X[3:])]


def with_head(
    x: Tensor, W: Tensor, b: Tensor | None, t: Tensor, w: Tensor | None, scores: Tensor, ignore_index: int,
    label_smoothing: float, reduction: str, head: Head,
) -> Any:  # fmt: skip
    """The loss with the additions ``head``; for shapes see :class:`~linear.LinearLoss` and :func:`evaluate_head`."""
    rows, (C, P, _) = (len(x), W.shape[1]), W.shape
    wide = linear.row_dtype(scores.dtype)
    options = SKIPPED if t.is_floating_point() else ignore_index, *head.logits

    def weights(q: Tensor | None) -> Tensor | None:
        return None if q is None else q.reshape(len(x), C, P)

    def stacked(y: Tensor, q: Tensor | None, outputs: str) -> Tensor:
        found = linear_log_prob.stacked(x, W, b, y.reshape(rows), weights(q), outputs, wide, torch.float64, *options)
        return found.reshape(len(found), *y.shape)

    def summed(aim: Targets, omega: Tensor, z_loss: float) -> Tensor:
        y, q, factor, _, outputs = aim
        of_rows = y.reshape(rows), weights(q), None if factor is None else factor.reshape(rows), omega.reshape(rows)
        return evaluate(LinearCrossEntropyHeadFunction, x, W, b, *of_rows, None, wide, outputs, z_loss, *options, "sum")

    with torch.autocast(x.device.type, enabled=False) if autocast_is_on() else nullcontext():
        return evaluate_head(
            "linear_cross_entropy", stacked, summed, scores, t, w, ignore_index, label_smoothing, reduction, head
        )
