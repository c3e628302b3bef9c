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
classes [1], and in two passes: the numbers of each row that (2) is made of, in which nothing cancels, and then, with
their upstream gradients, :math:`r` and (3). That makes four products. Shifted labels and a normalizer need no second
pass, so with nothing else added there are the three products of linear cross entropy.

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

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import linear
from manual_grad.losses.linear import linear_log_prob
from manual_grad.losses.rowwise.cross_entropy_head import SKIPPED, Head, evaluate_head


def with_head(
    x: Tensor, W: Tensor, b: Tensor | None, t: Tensor, w: Tensor | None, scores: Tensor, ignore_index: int,
    label_smoothing: float, reduction: str, head: Head,
) -> Any:  # fmt: skip
    """The loss with the additions ``head``; for shapes see :class:`~linear.LinearLoss` and :func:`evaluate_head`."""
    rows, (C, P, _) = (len(x), W.shape[1]), W.shape
    options = linear.row_dtype(scores.dtype), torch.float64
    ignore_index = SKIPPED if t.is_floating_point() else ignore_index

    def stacked(y: Tensor, q: Tensor | None, outputs: str) -> Tensor:
        weights = None if q is None else q.reshape(*rows[:1], C, P)
        found = linear_log_prob.stacked(
            x, W, b, y.reshape(rows), weights, outputs, *options, ignore_index, *head.logits
        )
        return found.reshape(len(found), *y.shape)

    # (2)
    return evaluate_head("linear_cross_entropy", stacked, scores, t, w, ignore_index, label_smoothing, reduction, head)
