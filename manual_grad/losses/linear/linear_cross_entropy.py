r"""Cross entropy of a linear layer's scores, which are never stored whole.

**Where it comes from.** The last layer of a language model computes a score for every word of a vocabulary from each of
:math:`N` feature vectors. The scores, :math:`N \times C` numbers, dwarf everything else that the loss needs.

**Definition.** For one feature vector :math:`x`,

.. math::
    z = W x + b, \qquad \ell = \sum_c q_c\, (\mathrm{lse}(z) - z_c), \qquad
    \mathrm{lse}(z) = \log \sum_c e^{z_c} \tag{1}

where :math:`q` is the effective target, which combines class indices or probabilities, class weights and label
smoothing; see (2) and (3) of :mod:`~manual_grad.losses.rowwise.cross_entropy`.

**Gradient.** That chapter derives :math:`r`, the derivative with respect to the scores. The chain rule through the
projection gives three products,

.. math::
    \frac{\partial \ell}{\partial x} = W^\top r, \qquad \frac{\partial \ell}{\partial W} = r x^\top, \qquad
    \frac{\partial \ell}{\partial b} = r, \qquad r_c = \frac{\partial \ell}{\partial z_c} \tag{2}

or, with the vectors stored as rows of matrices, :math:`dx = r W`, :math:`dW = r^\top x`, :math:`db = \sum_n r_n`.

**Blocks of rows.** A row of scores is no longer needed once its :math:`r` has entered (2). So each block of rows is
processed completely, value and gradient, with three products and in memory that the next block reuses. The loss is
linear in its upstream gradient, and that of a mean, :math:`1 / \sum_n w_{y_n}`, is known from the targets before the
first block.

**Blocks of classes.** With very many classes, a block of rows has too few rows for a fast product. Then blocks of
classes are used. All that :math:`r` needs from the other classes is the state of :mod:`~manual_grad.engine.softmax`, a
maximum and three sums, which is computed for each block and merged. For the gradient the scores of a block are computed
a second time (Wijmans et al. [1]).

**Stable form.** The sums leave out the leading class. So no digits of the loss or of :math:`r` are lost, however far it
is ahead, by (6) and (8) of :mod:`~manual_grad.engine.softmax`; for all classes together these are (7), (4) and (8) of
cross entropy.

**Second derivative.** Let a dot denote the derivative along a direction. The scores and the :math:`r` of cross entropy
change with it, and (2) is differentiated by the product rule:

.. math::
    \dot z = W \dot x + \dot W x + \dot b, \qquad
    \dot r_c = (r_c + q_c)\, \Big( \dot z_c - \frac{1}{Q} \sum_j\, (r_j + q_j)\, \dot z_j \Big), \qquad
    Q = \sum_c q_c \tag{3}

.. math::
    (H v)_x = W^\top \dot r + \dot W^\top r, \qquad (H v)_W = \dot r x^\top + r \dot x^\top, \qquad (H v)_b = \dot r
    \tag{4}

There are no kinks. :mod:`~manual_grad.engine.linear` states the same for matrices, block by block.

**Shapes and domain.** Features are :math:`(\dots, D)`, the weight :math:`(C, D)`, the bias :math:`(C)`; targets as in
cross entropy.

Sources:

1. Erik Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models" (2024),
   `arXiv:2411.09009 <https://arxiv.org/abs/2411.09009>`_.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, linear, older_torch, rowwise
from manual_grad.engine.dtypes import HALF, autocast_is_on, cast_product, compute_dtype, in_dtype, widen
from manual_grad.engine.function import Options, Reduction, Tensors, evaluate
from manual_grad.engine.softmax import State
from manual_grad.losses.linear.linear_cross_entropy_head import with_head
from manual_grad.losses.rowwise.cross_entropy import CrossEntropyLossFunction, _smooth, smoothing_of
from manual_grad.losses.rowwise.cross_entropy_head import (
    NOTHING,
    CrossEntropyOutput,
    WithHead,
    head_of,
    shifted,
)


class LinearCrossEntropyLossFunction(linear.LinearLoss):
    """``apply(x, W, b, t, w, dtype, ignore_index, label_smoothing, reduction)``; see :class:`~linear.LinearLoss`."""

    rowwise = CrossEntropyLossFunction

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        x, W = X[:2]
        if x.shape[0] * W.shape[:2].numel() == 0:
            return None
        op = kernels.op("cross_entropy", x)
        if op is not None and x.shape[0] * W.shape[:2].numel() <= linear.most_scores(x):
            return _at_once(op, X, options, reduction, needs, g, value)
        sweep = _Sweep(op, X, options, needs)
        if not X[3].is_floating_point():  # raises for an index out of range before it is used
            rowwise.kept_rows("linear_cross_entropy", X[3], W.shape[0], options[1])
        if g is None:
            g = torch.ones((), dtype=compute_dtype(x), device=x.device)
        if reduction == "mean":
            g = g / cls.denominator(X, g.expand(cls.shape(X)), *options)
        loss = sweep.by_blocks(g, value)
        if value:
            loss = cls.reduce(loss.to(compute_dtype(loss)), X, options, reduction).to(options[0])
        return loss, sweep.gradients()


def _rowwise(
    op: Any, z: Tensor, t: Tensor, w: Tensor | None, g: Tensor | None, options: Options, reduction: Reduction,
    loss: Tensor | None, needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Run the kernel on rows of scores; it overwrites them with r if needed. Returns gradients of target and weight."""
    _, ignore_index, label_smoothing = options
    if t.is_floating_point():
        t = t.to(z.dtype)
        w = linear.per_score(w, t)
    r = z if any(needs[:3]) else None  # a row is read before its result is written
    dt, dw = (torch.empty_like(z) if needed else None for needed in needs[3:])
    g = None if g is None else g.to(z.dtype)
    reduce, mean = reduction != "none", reduction == "mean"
    scale = CrossEntropyLossFunction.scale((z, t, w), options) if mean else 1.0
    op(z, t, w, g, ignore_index, label_smoothing, mean, scale, reduce, loss, r, dt, dw)
    return dt, linear.per_class(dw)


def _at_once(
    op: Any, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
) -> tuple[Tensor | None, list[Tensor | None]]:
    """All scores in one block; the kernel then also computes the mean and checks the indices."""
    x, W, b, t, w = X
    wide, flat = linear.row_dtype(options[0]), W.flatten(0, 1)
    scores = torch.mm(x, flat.mT) if b is None else torch.addmm(b.flatten(), x, flat.mT)
    z = in_dtype(scores, wide)
    loss = None
    if value:
        loss = z.new_empty((x.shape[0], W.shape[1]) if reduction == "none" else ())
    dt, dw = _rowwise(
        op, z.view(-1, *W.shape[:2]), t, w if w is None else w.to(wide), g, options, reduction, loss, needs
    )
    r = in_dtype(z, x.dtype)
    dx = torch.mm(r, flat) if needs[0] else None
    dW = torch.mm(r.mT, x).view_as(W) if needs[1] else None
    db = z.sum(0).to(b.dtype).view_as(b) if needs[2] else None
    gradients = [dx, dW, db, dt if dt is None else dt.to(t.dtype), dw if dw is None else dw.to(w.dtype)]
    return loss if loss is None else in_dtype(loss, options[0]), gradients


class _Sweep:
    """The loss and the gradients in one pass over blocks of scores."""

    def __init__(self, op: Any, X: Tensors, options: Options, needs: tuple[bool, ...]) -> None:
        x, W, _, self.t, w = self.X = X
        dtype, self.ignore_index, self.label_smoothing = self.options = options
        self.needs = needs
        self.dtype = linear.row_dtype(dtype)
        self.w = w if w is None else w.to(self.dtype)
        self.op, self.products = linear.products(X, dtype, needs, op)
        self.dt = torch.empty_like(self.t) if needs[3] else None
        self.dw = torch.zeros_like(self.w) if needs[4] else None

    def gradients(self) -> list[Tensor | None]:
        return [*self.products.gradients(), self.dt, None if self.dw is None else self.dw.to(self.X[4].dtype)]

    def by_blocks(self, g: Tensor, value: bool) -> Tensor | None:
        """Return the loss of every row and accumulate the gradients; ``g`` has one element per row, or one for all."""
        loss = g.new_empty((self.X[0].shape[0], self.X[1].shape[1]), dtype=self.dtype) if value else None
        step = self.by_formula if self.op is None else self.by_kernel
        for i in self.products.rows:
            step(i, g[i] if g.dim() else g, None if loss is None else loss[i])
        return loss

    def by_kernel(self, i: slice, g: Tensor, loss: Tensor | None) -> None:
        (c,) = self.products.classes
        z = self.products.scores(i, c)
        dt, dw = _rowwise(self.op, z, self.t[i], self.w, g, self.options, "none", loss, self.needs)
        if self.products.wanted:
            self.products.add(i, c, z)
        if dt is not None:
            self.dt[i] = dt
        if dw is not None:
            self.dw += dw

    def by_formula(self, i: slice, g: Tensor, loss: Tensor | None) -> None:
        t, classes = self.t[i], self.products.classes
        g = g.unsqueeze(1) if g.dim() else g
        g, w = widen((g.to(self.dtype), self.w), compute_dtype(g))
        kept = (t != self.ignore_index).unsqueeze(1) if not t.is_floating_point() else g.new_ones((), dtype=torch.bool)

        def block(c: slice) -> tuple[Tensor, Tensor, Tensor]:
            z = self.products.scores(i, c).to(g.dtype)
            if t.is_floating_point():
                own = t[:, c]
            else:
                own = torch.arange(c.start, c.stop, device=t.device).unsqueeze(1) == t.unsqueeze(1)
            smooth = _smooth(own.to(g.dtype), self.label_smoothing, classes[-1].stop)
            q = smooth if w is None else w[c].unsqueeze(1) * smooth
            return z, smooth, torch.where(kept, q, 0)

        seen = None
        for c in classes:
            z, smooth, q = block(c)
            part = State.of(z, q, c.start, value=loss is not None)
            seen = part if seen is None else seen.union(part)
        if loss is not None:
            loss.copy_(torch.where(kept, seen.finish(), 0).squeeze(1))
        if not self.products.wanted and self.dt is None and self.dw is None:
            return
        for c in classes:
            if len(classes) > 1:
                z, smooth, q = block(c)
            if self.products.wanted:
                r = torch.where(kept, g * seen.slope(z, q), 0)
                self.products.add(i, c, r.to(self.dtype))  # (2)
            if self.dt is None and self.dw is None:
                continue
            d = g * seen.distances(z)
            if self.dt is not None:
                dt = (1 - self.label_smoothing) * d
                self.dt[i][:, c] = dt if w is None else w[c].unsqueeze(1) * dt
            if self.dw is not None:
                self.dw[c] += linear.per_class(smooth * d)


@arguments.functional
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    z_loss: float = 0.0,
    token_weight: Tensor | None = None,
    normalizer: Tensor | float | None = None,
    shift: bool = False,
    return_z_loss: bool = False,
    lse: bool = False,
    accuracy: bool = False,
    group: Any = None,
) -> Any:
    """Cross entropy of ``input @ linear_weight.T + linear_bias``, which is never stored whole.

    See :func:`torch.nn.functional.linear_cross_entropy`. What follows ``options`` torch does not have; see
    :mod:`~manual_grad.losses.rowwise.cross_entropy_head`.

    Args:
        input: Feature vectors, floating point, of shape (N, D) or (D).
        linear_weight: Of shape (C, D), in the input's dtype; or, only for batched input, (C, d1, …, dk, D), which gives
            scores of shape (N, C, d1, …, dk).
        target: Class indices in [0, C), int64 or uint8, of shape (N), () or (N, d1, …, dk); or class probabilities,
            floating point, of the scores' shape.
        linear_bias: Optional, of shape (C) or (C, d1, …, dk).
        weight: Optional weight of each class, of shape (C).
        reduction: 'none', 'mean' or 'sum', as in :func:`cross_entropy`.
        ignore_index: Rows with this class index count neither in the loss nor in the mean; None means -100. Not for
            probabilities.
        label_smoothing: As in :func:`cross_entropy`.
        options: A :class:`torch.nn.LinearCrossEntropyOptions`. Features that torch gives up with it to save memory
            remain available here. As in torch, for bfloat16 and float16 it also selects products in float32.
        temperature, softcap, logit_scale, z_loss, token_weight, normalizer, shift, return_z_loss, lse, accuracy: As in
            :func:`cross_entropy`. With any of these, ``input`` may be (…, D) with class indices of shape (…), such as
            (batch, sequence, D) and (batch, sequence).
        group: As in :func:`cross_entropy`: ``linear_weight`` and ``linear_bias`` hold this process's classes too.
            ``input`` is the same in every process, and so is its gradient.

    Returns:
        A scalar, or for 'none' a tensor of the shape of class indices, in the dtype that :func:`cross_entropy` of the
        scores has: the input's dtype, promoted with that of probabilities. Under autocast it is float32, although the
        product has the autocast dtype. All tensors may require a gradient, except class indices and a ``weight`` used
        with them. If more than the loss is asked for, it is a named tuple, as in :func:`cross_entropy`.

    Raises:
        IndexError: a class index is outside [0, C) and not ``ignore_index`` (checked on the CPU).
        ValueError: ``reduction`` is unknown; the batch sizes differ; ``temperature``, ``softcap`` or ``logit_scale`` is
            not positive and finite, or ``z_loss`` negative; a ``normalizer`` without reduction='mean'.
        RuntimeError: shapes or dtypes that do not fit; ``ignore_index`` or ``shift`` with probabilities;
            ``label_smoothing`` above 1; a ``weight`` that requires a gradient with class indices.
        TypeError: a number or a flag has another type, or ``options`` is not a
            :class:`torch.nn.LinearCrossEntropyOptions`.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import cross_entropy, linear_cross_entropy
        >>> input = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> target = torch.tensor([0, 2])
        >>> linear_cross_entropy(input, weight, target)
        tensor(0.8103)
        >>> cross_entropy(input @ weight.T, target)  # the same, but stores all scores
        tensor(0.8103)
    """
    name = "linear_cross_entropy"
    reduction = arguments.reduction_of(reduction)
    added = temperature, softcap, logit_scale, z_loss, shift, return_z_loss, lse, accuracy
    head = None
    if token_weight is not None or normalizer is not None or group is not None or added != NOTHING:
        head = head_of(name, reduction, *added, token_weight, normalizer)
    if shift:
        target = shifted(name, target, -100 if ignore_index is None else ignore_index)
    rows = input.shape[:-1] + linear_weight.shape[1:-1]  # of scores
    if input.dim() > 2 and target.shape == rows and head is not None:
        if token_weight is not None and token_weight.shape == rows:
            head = head._replace(token_weight=token_weight.flatten(0, input.dim() - 2))
        input, target = input.flatten(0, -2), target.flatten(0, input.dim() - 2)
    by_index = _check_shapes(input, linear_weight, target, linear_bias)
    if not by_index and ignore_index is not None:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    ignore_index = -100 if ignore_index is None else arguments.integer(name, "ignore_index", ignore_index)
    label_smoothing = arguments.real(name, "label_smoothing", label_smoothing)
    label_smoothing = smoothing_of(label_smoothing)
    if options is not None and not isinstance(options, getattr(torch.nn, "LinearCrossEntropyOptions", ())):
        raise TypeError(f"{name}(): argument 'options' must be LinearCrossEntropyOptions, not {type(options).__name__}")

    # torch computes a chunked loss as one op, which autocast does not change and which computes halves in float32.
    chunked = options is not None and target.dtype is torch.int64 and linear_weight.dim() == 2 and not label_smoothing
    x, W, b = input, linear_weight, linear_bias
    if not chunked:
        x, W, b = cast_product(x, W, b)
    elif x.dtype in HALF:
        x, W, b = widen((x, W, b), torch.float32)
    for argument, u in (("linear_weight", W), ("linear_bias", b)):
        if u is not None and u.dtype is not x.dtype:
            expected, found = arguments.scalar_type(x.dtype), arguments.scalar_type(u.dtype)
            raise RuntimeError(f"{argument}: expected scalar type {expected} but found {found}")
    arguments.require_floating(name, x)
    arguments.refuse_complex(name, weight)
    (C, *positions, D), batch = W.shape, x.shape[:-1]
    N, P = math.prod(batch), math.prod(positions)
    shape = torch.Size((*batch, C, *positions))  # of the scores
    score = x.new_empty((), dtype=input.dtype if chunked else x.dtype)  # stands in for them
    if weight is not None:
        weight = rowwise.class_weight(score.expand(shape), weight, by_index)
    if by_index:
        t = rowwise.class_indices(name, shape, target, ignore_index, group is not None).reshape(N, P)
        w = weight
        if not chunked:
            score, w = arguments.autocast(score, weight)
            if w is not None:
                w = rowwise.constant_weight(name, score, w)
    else:
        score, t, w = arguments.promote(*arguments.autocast(score, target, weight))
        t = t.reshape(N, C, P)
    if x.dtype in HALF and (options is not None or (x.is_cpu and x.dtype is torch.float16)):
        x, W, b = widen((x, W, b), torch.float32)  # as the options request; on a CPU, float16 products are slow
    x = x if x.dim() == 2 else x.reshape(N, D)  # a view would add a step to backward
    W, b = W.reshape(C, P, D), None if b is None else b.reshape(C, P)
    if head is not None and (group is not None or not head.only_divides):
        standin = score.expand(shape)
        t = t.reshape(shape if t.is_floating_point() else (*batch, *positions))
        if group is None:
            found = with_head(x, W, b, t, w, standin, ignore_index, label_smoothing, reduction, head)
        else:
            from manual_grad.sharding import cross_entropy as sharded

            found = sharded.of_hidden(x, W, b, t, w, standin, ignore_index, label_smoothing, reduction, head, group)
        if isinstance(found, Tensor):
            return found.reshape(rows) if found.dim() else found
        return CrossEntropyOutput(*(u if u is None or not u.dim() else u.reshape(rows) for u in found))
    with torch.autocast(x.device.type, enabled=False) if autocast_is_on() else nullcontext():
        loss = evaluate(
            LinearCrossEntropyLossFunction, x, W, b, t, w,
            score.dtype if normalizer is None else linear.row_dtype(score.dtype), ignore_index, label_smoothing,
            reduction if normalizer is None else "sum",
        )  # fmt: skip
    if reduction == "none":
        return loss.reshape(rows)
    return loss if normalizer is None else (loss / normalizer).to(score.dtype)


class LinearCrossEntropyLoss(WithHead, older_torch.LinearCrossEntropyLoss):
    """:func:`linear_cross_entropy` as a module, interchangeable with :class:`torch.nn.LinearCrossEntropyLoss`.

    It takes what :func:`linear_cross_entropy` has besides, except the flags that change the type of the result. The
    weights of tokens and the normalizer belong to a call.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: Any = None,
        temperature: float = 1.0,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        z_loss: float = 0.0,
        shift: bool = False,
    ) -> None:
        super().__init__(
            in_features, num_classes, out_features=out_features, bias=bias, device=device, dtype=dtype,
            reduction=reduction, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing,
            options=options,
        )  # fmt: skip
        self.add(temperature=temperature, softcap=softcap, logit_scale=logit_scale, z_loss=z_loss, shift=shift)

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        token_weight: Tensor | None = None,
        normalizer: Tensor | float | None = None,
    ) -> Tensor:
        layer, scores = self.linear, (self.num_classes, *self.out_features)
        return linear_cross_entropy(
            input,
            layer.weight.reshape(*scores, layer.in_features),
            target,
            linear_bias=None if layer.bias is None else layer.bias.reshape(scores),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
            token_weight=token_weight,
            normalizer=normalizer,
            **self.additions(),
        )


def _check_shapes(x: Tensor, W: Tensor, t: Tensor, b: Tensor | None) -> bool:
    """Check the shapes; return whether the target holds class indices."""
    if x.dim() not in (1, 2):
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {x.dim()}")
    if W.dim() < 2:
        raise RuntimeError(f"expected linear_weight with dimensionality at least 2, got {W.dim()}")
    if x.shape[-1] != W.shape[-1]:
        raise RuntimeError(
            "expected equal input and linear_weight last dimensions (in_features), "
            f"got {x.shape[-1]} and {W.shape[-1]}, respectively"
        )
    if b is not None and b.shape != W.shape[:-1]:
        raise RuntimeError(f"expected linear_bias shape {tuple(W.shape[:-1])}, got {tuple(b.shape)}")
    if W.dim() > 2 and x.dim() == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {tuple(W.shape)} requires batched input, "
            f"(N, {x.shape[-1]}), got unbatched input with shape {tuple(x.shape)}"
        )
    if t.shape != x.shape[:-1] + W.shape[:-1]:
        return True
    rowwise.check_probabilities(t)
    return False
