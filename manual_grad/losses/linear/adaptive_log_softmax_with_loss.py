r"""Cross entropy with an adaptive softmax: a tree of two levels over a vocabulary sorted by frequency.

**Where it comes from.** Most words of a text are among the few most frequent ones. Grave et al. [1] give each of these
its own score in a *head*. The head has one more score for every *cluster* :math:`i` of rarer words, from :math:`c_i` to
:math:`c_{i+1}`, and a *tail* of lower dimension distinguishes the words of a cluster.

**Definition.** The probability of a word :math:`y` is that of its entry in the head, times that of its entry in the
tail if the word is rare:

.. math::
    P = \begin{cases} h_y & y < c_0 \\ h_{c_0 + i}\, t_{y - c_i} & c_i \le y < c_{i+1} \end{cases}, \qquad
    h_j = \frac{e^{u_j}}{\sum_k e^{u_k}}, \qquad t_l = \frac{e^{v_l}}{\sum_n e^{v_n}}, \qquad
    u = W x + b, \qquad v = B_i A_i x \tag{1}

A tail is computed only for the rows whose target is in its cluster. The negative logarithm of (1) is a sum of at most
two cross entropies of projections, with :math:`g` the word's entry in the head:

.. math::
    \ell = -\log P = -\log h_g + \begin{cases} 0 & y < c_0 \\ -\log t_{y - c_i} & y \ge c_0 \end{cases}, \qquad
    g = \begin{cases} y & y < c_0 \\ c_0 + i & y \ge c_0 \end{cases} \tag{2}

**Stable form.** Neither term is negative, so nothing cancels. Each term is the loss of
:mod:`~manual_grad.losses.linear.linear_cross_entropy`, so no matrix of scores is stored whole.

**Gradient.** Head and tail each have the derivative :math:`p - y`. Both contribute to the gradient of the features, the
tail through its two matrices:

.. math::
    \frac{\partial \ell}{\partial u_j} = h_j - [j = g], \qquad
    \frac{\partial \ell}{\partial v_l} = t_l - [l = y - c_i] \quad\text{for } y \ge c_0, \qquad
    \frac{\partial \ell}{\partial x} = W^\top \frac{\partial \ell}{\partial u}
        + A_i^\top B_i^\top \frac{\partial \ell}{\partial v} \quad\text{for } y \ge c_0 \tag{3}

**Second derivative.** Head and tail are coupled only through :math:`x`:

.. math::
    \frac{\partial^2 \ell}{\partial u_j\, \partial u_k} = h_j\, ([j = k] - h_k), \qquad
    \frac{\partial^2 \ell}{\partial v_l\, \partial v_n} = t_l\, ([l = n] - t_n) \quad\text{for } y \ge c_0, \qquad
    \frac{\partial^2 \ell}{\partial u_j\, \partial v_l} = 0 \tag{4}

There are no kinks.

**Shapes and domain.** Features are :math:`(N, D)` or :math:`(D)`; class indices are in :math:`[0, c)`, where :math:`c`
is the last cutoff.

Sources:

1. Edouard Grave, Armand Joulin, Moustapha Cissé, David Grangier and Hervé Jégou, "Efficient softmax approximation for
   GPUs" (2017), `arXiv:1609.04309 <https://arxiv.org/abs/1609.04309>`_.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.nn.modules.adaptive import _ASMoutput

from manual_grad.engine import arguments, torch_private
from manual_grad.engine.reduction import reduced
from manual_grad.engine.softmax import State
from manual_grad.losses.linear.linear_cross_entropy import linear_cross_entropy


def adaptive_cross_entropy(
    input: Tensor,
    target: Tensor,
    head_weight: Tensor,
    tails: Sequence[tuple[Tensor, Tensor]],
    cutoffs: Sequence[int],
    head_bias: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability (2) of each target; the loss of :class:`torch.nn.AdaptiveLogSoftmaxWithLoss`.

    Args:
        input: Feature vectors, floating point, of shape (N, D) or (D).
        target: Class indices, int64, of shape (N) or ().
        head_weight: Of shape (c0 + number of clusters, D).
        tails: For each cluster A, of shape (H, D), and B, of shape (classes of the cluster, H).
        cutoffs: c0, the first class of each further cluster, and the number of classes; ascending.
        head_bias: Optional, of shape (c0 + number of clusters).
        reduction: 'none', 'mean' or 'sum'.

    Returns:
        A scalar, or for 'none' a tensor of the target's shape, in the input's dtype. A cluster without any target is
        not computed, and its tail gets no gradient.

    Raises:
        RuntimeError: a target is not a class (checked on the CPU), or not int64; shapes that do not fit.
    """
    x, y = _batch(input, target)
    first, classes = cutoffs[0], cutoffs[-1]
    clusters = [((low <= y) & (y < high), low) for low, high in pairwise(cutoffs)]
    by_value = _may_look(y)
    if by_value and y.is_cpu and ((y < 0) | (y >= classes)).any():
        raise RuntimeError(
            f"Target values should be in [0, {classes - 1}], "
            f"but values in range [{int(y.min())}, {int(y.max())}] were found."
        )
    head = torch.where(y < 0, len(head_weight), y)  # out of range, so that it cannot equal ignore_index
    for i, (inside, _) in enumerate(clusters):
        head = torch.where(inside, first + i, head)
    nll = linear_cross_entropy(x, head_weight, head, linear_bias=head_bias, reduction="none")
    for (inside, low), (down, up) in zip(clusters, tails, strict=True):
        if not by_value:
            nll = nll + linear_cross_entropy(linear(x, down), up, torch.where(inside, y - low, -100), reduction="none")
            continue
        (rows,) = inside.nonzero(as_tuple=True)
        if len(rows):
            tail = linear_cross_entropy(linear(x[rows], down), up, y[rows] - low, reduction="none")
            nll = nll.index_add(0, rows, tail)
    return reduced(nll.reshape(target.shape).to(input.dtype), reduction)  # even under autocast


def _may_look(y: Tensor) -> bool:
    """Whether rows can be selected by their target values: not while tracing or capturing a graph, nor under vmap.

    On a device, the selection synchronizes once per cluster, as in torch; computing every tail for every row would take
    longer.
    """
    if torch_private.transforms_are_active() or torch.compiler.is_compiling():
        return False
    return arguments.readable(y, waits=True)


def _batch(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if target.dim() > 1:
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    if target.dim() == 1 and input.shape[0] != target.shape[0]:
        raise RuntimeError(
            "Input and target should have the same size in the batch dimension: "
            f"got {input.shape[0]} and {target.shape[0]}."
        )
    if input.dim() != target.dim() + 1:
        raise RuntimeError(
            f"{target.dim()}D target tensor expects {target.dim() + 1}D input tensors, "
            f"but found inputs with size {input.size()}"
        )
    if target.dtype is not torch.int64:
        raise RuntimeError(f"expected target dtype to be Long, but got {target.dtype}")
    return (input, target) if target.dim() else (input.unsqueeze(0), target.unsqueeze(0))


class AdaptiveLogSoftmaxWithLoss(torch.nn.AdaptiveLogSoftmaxWithLoss):
    """:func:`adaptive_cross_entropy` as a module, interchangeable with :class:`torch.nn.AdaptiveLogSoftmaxWithLoss`."""

    def forward(self, input_: Tensor, target_: Tensor) -> _ASMoutput:
        tails = [(tail[0].weight, tail[1].weight) for tail in self.tail]  # type: ignore[index]
        nll = adaptive_cross_entropy(
            input_, target_, self.head.weight, tails, self.cutoffs, head_bias=self.head.bias, reduction="none"
        )
        return _ASMoutput(-nll, nll.mean())

    def _get_full_log_prob(self, input: Tensor, head_output: Tensor) -> Tensor:
        """Used by log_prob and predict."""
        head, first = _log_softmax(head_output), self.shortlist_size
        tails = [_log_softmax(tail(input)) + head[:, first + i, None] for i, tail in enumerate(self.tail)]
        return torch.cat([head[:, :first], *tails], dim=1).to(input.dtype)


def _log_softmax(z: Tensor) -> Tensor:
    """Minus (7) of cross entropy, which keeps the digits of the leading class too."""
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    return 0 - State.of(z).distances(z)  # subtracting from 0 gives 0, not -0, for a class that is certain
