r"""The log-probability and the entropy of a linear layer's scores, which are never stored whole.

**Where it comes from.** A language model that is trained by its own samples needs from every hidden state :math:`x` the
log-probability of the token :math:`y` that was drawn and the entropy of all tokens: two numbers, where the layer that
scores a vocabulary of :math:`C` tokens makes :math:`C`.

**Definition.** With the logits :math:`z` that :mod:`~manual_grad.losses.rowwise.selected_log_prob` makes of scores
:math:`s` by a scale :math:`a`, a softcap :math:`\kappa` and a temperature :math:`T`,

.. math::
    s = W x + b, \qquad z_c = \frac{\kappa}{T} \tanh\Big(\frac{a}{\kappa}\, s_c\Big) \quad\text{or}\quad
    z_c = \frac{a}{T}\, s_c \tag{1}

.. math::
    \log p_y = z_y - \mathrm{lse}(z), \qquad H = -\sum_c p_c \log p_c, \qquad
    p_c = e^{z_c - \mathrm{lse}(z)}, \quad \mathrm{lse}(z) = \log \sum_c e^{z_c} \tag{2}

**Gradient.** That chapter derives :math:`r`, the derivative of what is made of these numbers by the scores:

.. math::
    \ell = g_y \log p_y + g_H\, H + g_s\, \mathrm{lse}(z), \qquad r_c = \frac{\partial \ell}{\partial s_c} \tag{3}

The chain rule through the projection gives three products:

.. math::
    \frac{\partial \ell}{\partial x} = W^\top r, \qquad \frac{\partial \ell}{\partial W} = r x^\top, \qquad
    \frac{\partial \ell}{\partial b} = r \tag{4}

**Two passes.** Unlike a loss that is summed, these numbers leave the function one by one, and their upstream gradients
are not known before backward. So each block of scores is computed twice, by the same product of the same rows: once
for the numbers, once for :math:`r`, which takes the place of the scores, and (4). That makes four products, and no
memory that grows with :math:`N \times C`. The products of a weight that needs no gradient (a frozen head) are left
out.

**Blocks of classes.** As in :mod:`~manual_grad.losses.linear.linear_cross_entropy`, a block has all classes of its rows
unless it would then have too few rows; then the states of blocks of classes are merged (Wijmans et al. [1]).

**Stable form.** Equations (4) and (6) of that chapter: neither in a state nor in what is made of it can digits cancel,
however far a class leads.

**Second derivative.** By (5), :math:`r` is differentiated with the scores, as in that chapter; what follows for hidden
states and weight are (4) and (5) of :mod:`~manual_grad.engine.linear`. There are no kinks.

.. math::
    \frac{\partial^2 \ell}{\partial b_i\, \partial b_j} = \frac{\partial r_i}{\partial s_j} \tag{5}

**Shapes and domain.** Hidden states are :math:`(\dots, D)`, the weight :math:`(C, D)`, the bias :math:`(C)`.

Sources:

1. Erik Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models" (2024),
   `arXiv:2411.09009 <https://arxiv.org/abs/2411.09009>`_, for blocks of classes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, linear, rowwise
from manual_grad.engine.dtypes import autocast_is_on, compute_dtype
from manual_grad.engine.function import Options, Reduction, Tensors, evaluate
from manual_grad.engine.softmax import State
from manual_grad.losses.rowwise.selected_log_prob import (
    OUTPUTS,
    SelectedLogProbFunction,
    logits_by,
    logits_of,
    outputs_of,
    slope_of,
    stretch_of,
    upstream_of,
)


class LinearLogProb(NamedTuple):
    """What :func:`linear_log_prob` returns if more than the log-probability was asked for; None for what was not."""

    log_prob: Tensor
    entropy: Tensor | None = None
    lse: Tensor | None = None
    correct: Tensor | None = None


class LinearLogProbFunction(linear.LinearLoss):
    """``apply(x, W, b, t, q, None, wide, outputs, dtype, ignore_index, temperature, softcap, scale, "none")``.

    See :class:`~linear.LinearLoss` and, for the options, :class:`~SelectedLogProbFunction`. The scores are ``wide``.
    """

    tensors = 6
    rowwise = SelectedLogProbFunction
    stacked = True

    @classmethod
    def shape(cls, X: Tensors, dtype: torch.dtype, outputs: str, *options: Any) -> torch.Size:
        return torch.Size((len(outputs.split()), *super().shape(X)))

    @classmethod
    def dtype(cls, X: Tensors, dtype: torch.dtype, *options: Any) -> torch.dtype:
        return options[1]

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        x, W = X[:2]
        if x.shape[0] * W.shape[:2].numel() == 0:
            return None
        if (g is None and not value) or (g is not None and needs[4]):
            return None
        sweep = Sweep(X, options, needs if g is not None else (False,) * len(X))
        rows = sweep.buffers() if value else None
        for i in sweep.products.rows:
            sweep.step(i, None if rows is None else [row[i] for row in rows], None if g is None else g[:, i])
        return None if rows is None else torch.stack(rows), [*sweep.products.gradients(), None, None, None]


Upstream = Tensor | Callable[[list[Tensor]], Tensor] | None  # of the outputs, or what it is for given outputs


class Sweep:
    """One pass over blocks of scores, for the outputs or for the gradients."""

    def __init__(self, X: Tensors, options: Options, needs: tuple[bool, ...]) -> None:
        x, W, _, self.t, self.q = X[:5]
        self.wide, self.outputs, self.dtype, self.ignore_index, *self.logits = options
        rowwise.kept_rows("linear_log_prob", self.t, len(W), self.ignore_index)  # raises for an index out of range
        self.op, self.products = linear.products(X, self.wide, needs, kernels.op(SelectedLogProbFunction.kernel, x))

    def buffers(self) -> list[Tensor]:
        """For each output the values of all rows."""
        return [self.t.new_empty(self.t.shape, dtype=self.dtype) for _ in self.outputs.split()]

    def step(self, i: slice, result: list[Tensor] | None, g: Upstream) -> None:
        """Compute the outputs, or add up the gradients, of the rows ``i``; for a ``g`` of the outputs, both."""
        (self._by_formula if self.op is None else self._by_kernel)(i, result, g)

    def _by_kernel(self, i: slice, result: list[Tensor] | None, g: Upstream) -> None:
        (c,) = self.products.classes
        z, t, q = self.products.scores(i, c), self.t[i], None if self.q is None else self.q[i]
        options = self.outputs, self.dtype, self.ignore_index, *self.logits
        state = SelectedLogProbFunction.summarize(z, q, self.outputs, *self.logits)
        if result is not None:
            SelectedLogProbFunction.run(self.op, (z, t, q, state), options, result, None, None)
        if self.products.wanted:
            up = g(result) if callable(g) else g
            SelectedLogProbFunction.run(self.op, (z, t, q, state), options, None, up, z)
            self.products.add(i, c, z)  # r has taken the place of the scores

    def _by_formula(self, i: slice, result: list[Tensor] | None, g: Upstream) -> None:
        classes, t, wide = self.products.classes, self.t[i].unsqueeze(1), compute_dtype(self.products.wide)
        kept = t != self.ignore_index

        def block(c: slice) -> tuple[Tensor, Tensor, list[Tensor]]:
            """The scores, the logits, and by which weights the classes enter: 1 for the row's own, and q."""
            s = self.products.scores(i, c).to(wide)
            own = torch.arange(c.start, c.stop, device=t.device).unsqueeze(1) == t
            return s, logits_by(s, *self.logits), [own.to(wide), *(() if self.q is None else (self.q[i, c].to(wide),))]

        states: list[State] = []
        for c in classes:
            _, z, weights = block(c)
            parts = [State.of(z, q, c.start, value=True, entropy="entropy" in self.outputs) for q in weights]
            states = [a.union(b) for a, b in zip(states, parts, strict=True)] if states else parts
        state = states[0]
        if result is not None:
            found = outputs_of(states[-1], t, state.finish(), self.outputs)
            for row, values in zip(result, found, strict=True):
                row.copy_(torch.where(kept, values, 0).squeeze(1))
        if g is None or not self.products.wanted:
            return
        up = upstream_of((g(result) if callable(g) else g).to(wide), self.outputs, 1)
        for c in classes:
            s, z, weights = block(c)
            others = (states[1], weights[1]) if "cross" in up else ()
            r = slope_of(up, state, z, weights[0], *others)
            self.products.add(i, c, torch.where(kept, r * stretch_of(s, *self.logits), 0).to(self.wide))  # (4)


@arguments.functional
def stacked(
    x: Tensor, W: Tensor, b: Tensor | None, t: Tensor, q: Tensor | None, outputs: str, wide: torch.dtype,
    dtype: torch.dtype, ignore_index: int, temperature: float, softcap: float, scale: float,
) -> Tensor:  # fmt: skip
    """The outputs, stacked; a single node in a graph of torch.compile. For shapes see :class:`~linear.LinearLoss`."""
    options = outputs, dtype, ignore_index, temperature, softcap, scale
    with torch.autocast(x.device.type, enabled=False) if autocast_is_on() else nullcontext():
        return evaluate(LinearLogProbFunction, x, W, b, t, q, None, wide, *options, "none")


@arguments.overridable
def linear_log_prob(
    hidden: Tensor,
    weight: Tensor,
    index: Tensor,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    *,
    entropy: bool = False,
    lse: bool = False,
    accuracy: bool = False,
    ignore_index: int = -100,
    group: Any = None,
) -> Tensor | LinearLogProb:
    """The log-probability of one class of each row of ``hidden @ weight.T + bias``, which is never stored whole.

    Args:
        hidden: Hidden states, floating point, of shape (…, D).
        weight: The weight of the layer that scores the classes, of shape (C, D), in the same dtype.
        index: The class of each row, int64, of shape (…), in [0, C).
        bias: Optional, of shape (C).
        temperature: Divides the logits; positive.
        softcap: Bounds them: c tanh(s / c) replaces s before it is divided by the temperature.
        logit_scale: Multiplies the scores before anything else; positive.
        entropy: Whether to return the entropy of the classes too.
        lse: Whether to return the log-sum-exp of the logits too.
        accuracy: Whether to return, too, if the class leads the others. It has no gradient.
        ignore_index: Rows with this index have outputs of 0 and no gradient.
        group: A process group over which the classes are spread: ``weight`` and ``bias`` then hold this process's, of
            which there may be any number, and ``index`` is among all, in the order of the processes. ``hidden`` is the
            same in every process, and so are its gradient and the result. See :mod:`~manual_grad.sharding`.

    Returns:
        The log-probabilities, of shape (…); or, if more is asked for, a named tuple ``(log_prob, entropy, lse,
        correct)`` of such tensors, with None for what is not asked for. They are float32 for halves and under autocast,
        else of the dtype of ``hidden``; ``correct`` is boolean. ``hidden``, ``weight`` and ``bias`` may require
        gradients, and those of all outputs are added up.

    Raises:
        IndexError: an index is outside [0, C) and not ``ignore_index`` (checked on the CPU).
        RuntimeError: shapes or dtypes that do not fit.
        ValueError: ``temperature``, ``softcap`` or ``logit_scale`` is not positive and finite.
        TypeError: a number or a flag has another type.
        NotImplementedError: ``hidden`` is not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import linear_log_prob
        >>> hidden, weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> linear_log_prob(hidden, weight, torch.tensor([0, 2]))
        tensor([-0.8620, -0.7586])
        >>> linear_log_prob(hidden, weight, torch.tensor([0, 2]), entropy=True).entropy
        tensor([1.0174, 0.8854])
    """
    name = "linear_log_prob"
    x, W, b = linear.operands(name, hidden, weight, bias)
    if index.shape != hidden.shape[:-1]:
        raise RuntimeError(f"index: expected shape {list(hidden.shape[:-1])}, but got {list(index.shape)}")
    if index.dtype is not torch.int64:
        raise RuntimeError(f"index: expected scalar type Long but found {arguments.scalar_type(index.dtype)}")
    if not len(weight) and index.numel() and group is None:
        raise IndexError(f"Target is out of bounds: {name}'s weight has no classes")
    flags = dict(entropy=entropy, lse=lse, correct=accuracy)
    for argument, flag in zip(("entropy", "lse", "accuracy"), flags.values(), strict=True):
        arguments.boolean(name, argument, flag)
    options = logits_of(name, temperature, softcap, logit_scale, ignore_index)
    outputs = ["log_prob", *(output for output in OUTPUTS[1:] if flags.get(output))]
    (C, D), rows = W.shape, index.shape
    x, t = x if x.dim() == 2 else x.reshape(-1, D), index.reshape(-1, 1)
    W, b = W.reshape(C, 1, D), None if b is None else b.reshape(C, 1)
    wide = linear.row_dtype(x.dtype)
    joined = " ".join(outputs)
    if group is None:
        result = stacked(x, W, b, t, None, joined, wide, wide, *options)
    else:
        from manual_grad.sharding import linear as sharded  # few programs need it

        result = sharded.of_hidden(name, x, W, b, t, joined, wide, *options, group)
    result = result.reshape(len(result), *rows)
    if len(outputs) == 1:
        return result[0]
    found = {output: result[i] for i, output in enumerate(outputs)}  # those of unbind may not be changed in place
    if accuracy:
        found["correct"] = found["correct"] != 0
    return LinearLogProb(**found)
