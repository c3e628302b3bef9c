r"""The log-probability and its kin from hidden states, where each process has some rows of the layer's weight.

**What is computed.** :mod:`~manual_grad.losses.linear.linear_log_prob`, whose classes are divided as in
:mod:`~manual_grad.sharding.log_prob`. A first pass over blocks of scores leaves the state of each row's classes here;
they are merged for all rows at once; and a second pass, in backward, makes :math:`r`, the gradient of the scores, from
the state of all classes. With the rows :math:`W_r` of the weight that process :math:`r` has,

.. math::
    \frac{\partial \ell}{\partial x} = \sum_r W_r^\top r_r, \qquad
    \frac{\partial \ell}{\partial W_r} = r_r x^\top, \qquad \frac{\partial \ell}{\partial b_r} = r_r \tag{1}

so backward needs one all-reduce, of the gradient of the hidden states, and the rest stays where it is. Where a program
goes on with partial sums, as DTensor does, that all-reduce is left to it.

Both passes make two products or four in all, whatever else is asked for: the state of all classes, on which the
gradient depends, is known only after the first.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, collectives, linear, parts, torch_private
from manual_grad.engine.collectives import Groups
from manual_grad.engine.dtypes import autocast_is_on
from manual_grad.engine.function import Options, Reduction, Tensors, evaluate
from manual_grad.losses.linear.linear_log_prob import LinearLogProbFunction
from manual_grad.losses.rowwise.selected_log_prob import SelectedLogProbFunction, logits_by
from manual_grad.sharding.log_prob import (
    ELSEWHERE,
    IGNORED,
    ShardedLogProbFunction,
    Shards,
    local_state,
    merged,
    of_block,
    own_numbers,
    own_of,
    own_score,
    shards_of,
)


class ShardedLinearLogProbFunction(LinearLogProbFunction):
    """``apply(x, W, b, t, q, state, near, None, wide, outputs, dtype, IGNORED, T, softcap, scale, groups, "none")``.

    See :class:`~linear.LinearLoss` and :class:`ShardedLogProbFunction`.
    """

    tensors = 8
    rowwise = ShardedLogProbFunction

    @classmethod
    def most_rows(cls, X: Tensors) -> int:
        """The same in all processes, whatever number of classes they have: they exchange sums for every block."""
        return 4 * linear.LEAST_ROWS

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        (x, W, _, t, q, state, near, _), (wide, *of_rows) = X, options
        if value:
            return cls.rowwise.value((x, t, q, state, near), *of_rows), [None] * len(X)
        op = kernels.op(SelectedLogProbFunction.kernel, x)
        if op is None or needs[4] or not len(x) * W.shape[:2].numel():
            return None
        _, products = linear.products(X, wide, needs, op)
        for i in products.rows:
            for c in products.classes:
                z = products.scores(i, c)
                own = None if q is None else q[i, c]
                of_block(op, z, within(t[i], c), own, state[i].movedim(1, 0), tuple(of_rows), g[:, i], z)
                products.add(i, c, z)  # r has taken the place of the scores
        return None, [*products.gradients(), *(None for _ in X[3:])]


def within(t: Tensor, c: slice) -> Tensor:
    """Class indices among those of a block."""
    return torch.where((t >= c.start) & (t < c.stop), t - c.start, torch.where(t < 0, t, ELSEWHERE))


def local(X: Tensors, wide: torch.dtype, outputs: str, *logits: float) -> tuple[Tensor, Tensor, Tensor]:
    """The state of the classes here, the score of each row's, and the index of the first with the largest."""
    x, W, _, t, q = X
    state = parts.empty(t, q is not None)
    score, first = t.new_zeros(t.shape, dtype=torch.float64), torch.full_like(t, IGNORED)
    if not len(x) * W.shape[:2].numel():
        return state, score, first
    if torch_private.is_intercepted():  # whose tensors no buffer can take
        z = linear.projected(x, W, X[2]).to(wide)
        first = z.argmax(1) if "correct" in outputs else first
        return local_state(z, q, outputs, *logits), own_score(z, t), first
    _, products = linear.products(X, wide, (False,) * 3, kernels.op(SelectedLogProbFunction.kernel, x))
    for i in products.rows:
        for c in products.classes:
            z, y = products.scores(i, c), within(t[i], c)
            part = local_state(z, None if q is None else q[i, c], outputs, *logits)
            score[i] = torch.where(y >= 0, own_score(z, y), score[i])
            if "correct" in outputs:
                first[i] = torch.where(part[0] > state[0, i], c.start + z.argmax(1), first[i])
            state[:, i] = parts.merged(torch.stack([state[:, i], part]), lambda u: logits_by(u, *logits))
    return state, score, first


@arguments.functional
def stacked(
    name: str, x: Tensor, W: Tensor, b: Tensor | None, index: Tensor, q: Tensor | None, weight: Tensor | None,
    outputs: str, wide: torch.dtype, dtype: torch.dtype, ignore_index: int, temperature: float, softcap: float,
    scale: float, groups: Groups, start: Tensor | int | None, total: Tensor | int | None, partial: bool,
) -> tuple[Tensor, Tensor | None, Tensor | int]:  # fmt: skip
    """As :func:`~manual_grad.sharding.log_prob.stacked`; for shapes see :class:`~linear.LinearLoss`."""
    logits, classes = (temperature, softcap, scale), len(W)
    with torch.autocast(x.device.type, enabled=False) if autocast_is_on() else nullcontext():
        with torch.no_grad():
            shards = Shards(groups, start, total).meet(classes, x.device)
            t = shards.localized(index, classes, ignore_index, name)
            state, score, first = local((x, W, b, t, q), wide, outputs, *logits)

            def beside(most: Tensor, shards: Shards) -> Tensor:
                later, leads = index >= shards.start + classes, first == t if "correct" in outputs else None
                return own_numbers(most, state[0], t, later, score, leads, weight, *logits)

            whole, numbers, _ = merged(state, shards, classes, *logits, beside=beside)
            near, own_weight = own_of(numbers)
        x = x if partial else collectives.spread(x, groups)
        X = x, W, b, t, q, whole.movedim(0, 1), near.movedim(0, 1), None
        rows = evaluate(ShardedLinearLogProbFunction, *X, wide, outputs, dtype, IGNORED, *logits, groups, "none")
    return rows, own_weight, shards.total


def of_hidden(
    name: str, x: Tensor, W: Tensor, b: Tensor | None, index: Tensor, outputs: str, wide: torch.dtype,
    ignore_index: int, temperature: float, softcap: float, scale: float, group: Groups | Shards,
) -> Tensor:  # fmt: skip
    """The outputs, stacked, in the dtype ``wide``."""
    options = outputs, wide, wide, ignore_index, temperature, softcap, scale
    return stacked(name, x, W, b, index, None, None, *options, *shards_of(group))[0]
