r"""Losses of class scores computed by a linear projection, without ever storing all the scores.

With :math:`x \in \mathbb R^{N \times D}` and :math:`W \in \mathbb R^{C \times D}`,

.. math::
    z = x W^\top + b, \qquad \ell = \ell_{\mathrm{row}}(z, \dots) \tag{1}

where :math:`\ell_{\mathrm{row}}` is a loss of the rows of :math:`z` whose own rules give
:math:`r = \partial \ell / \partial z` and :math:`H = \partial r / \partial z`. The chain rule through (1) gives three
products,

.. math::
    dx = r W, \qquad dW = r^\top x, \qquad db = \sum_n r_n \tag{2}

and along a direction :math:`\dot x, \dot W, \dot b` the scores change by

.. math::
    \dot z = \dot x W^\top + x \dot W^\top + \dot b, \qquad J v = \langle r, \dot z \rangle \tag{3}

Differentiating (2) and (3) once more, with :math:`\dot r = H \dot z`,

.. math::
    (H v)_x = \dot r W + r \dot W, \qquad (H v)_W = \dot r^\top x + r^\top \dot x, \qquad
    (H v)_b = \sum_n \dot r_n \tag{4}

.. math::
    \ddot \ell(u, v) = \langle H \dot z_u, \dot z_v \rangle + \langle r, \ddot z \rangle, \qquad
    \ddot z = \dot x_u \dot W_v^\top + \dot x_v \dot W_u^\top \tag{5}

Everything is computed in blocks of rows: results per row are concatenated, results shared by the rows are summed. So
the memory needed beyond inputs and results does not grow with :math:`N \times C`. (For a third derivative, the graph of
the second does.)

The matrix products are torch's. BLAS guarantees no order of summation: a result may depend on the number of threads,
the processor and the alignment of a matrix in memory. A sum of :math:`K` terms, in any order, is within :math:`K / 2`
eps of the exact sum, relative to the sum of the absolute values. So two evaluations of (1) or (2) differ by at most
:math:`K` eps on that scale, and the results computed from them differ accordingly. For identical scores, a kernel's
results are bitwise reproducible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from manual_grad.engine import arguments, torch_private
from manual_grad.engine.dtypes import cast_product, compute_dtype, widen
from manual_grad.engine.function import (
    Call,
    Gradient,
    LossFunction,
    Options,
    Reduction,
    Tangent,
    Tensors,
    _narrow,
    _primals,
    _scatter,
)

SCORES = 8 << 20  # per block on the CPU: 32 MB of float32
# Per block on a GPU: 1 GB. Each block of rows reads and writes the accumulator of dW once, so it needs enough rows to
# hide that traffic. With 131,072 classes it has 2048 rows, and an H100 spends six times as long on the product as on
# moving dW.
SCORES_ON_DEVICE = 256 << 20
SCORES_OF_FORMULAS = 1 << 20  # per block of the formulas, whose ten or so temporaries should fit in the cache
LEAST_ROWS = 32  # below this, blocks of classes are faster although their scores are computed twice
MOST_ROWS = 1024  # per block of classes


class LinearLoss(LossFunction):
    """``apply(x, W, b, *targets, w, dtype, *options, reduction)``: the loss ``rowwise`` applied to the scores (1).

    ``x`` is (N, D), ``W`` is (C, P, D), ``b`` is (C, P) or None. The scores are (N, C, P): each row of ``x`` gives P
    losses. The targets belong to the rows: class indices (N, P) or floating-point numbers (N, C, P), by default one of
    them. ``w`` is (C) or None. The loss has dtype ``dtype``; the products are computed in the dtype of ``x``.
    """

    tensors = 5
    rowwise: ClassVar[type[LossFunction]]

    @classmethod
    def shape(cls, X: Tensors, *options: Any) -> torch.Size:
        return X[0].shape[:1] + X[1].shape[1:2]

    @classmethod
    def dtype(cls, X: Tensors, dtype: torch.dtype, *options: Any) -> torch.dtype:
        return dtype

    @classmethod
    def by_row(cls, values: Tensor) -> Tensor:
        """The values, or their gradients, with the rows first, where several values of a row are stacked."""
        return values.movedim(0, -1) if cls.stacked else values

    @classmethod
    def stack(cls, values: Tensor) -> Tensor:
        """The inverse of :meth:`by_row`."""
        return values.movedim(-1, 0) if cls.stacked else values

    @classmethod
    def most_rows(cls, X: Tensors) -> int:
        """How many rows a block of the formulas has."""
        return max(LEAST_ROWS, SCORES_OF_FORMULAS // max(1, X[1].shape[:2].numel()))

    @classmethod
    def denominator(cls, X: Tensors, loss: Tensor, dtype: torch.dtype, *options: Any) -> Tensor | float:
        _, W, _, *T, w = X
        if T[0].is_floating_point() and not len(W):
            return float("nan")
        return cls.rowwise.denominator((loss, *widen((*T, w), loss.dtype)), loss, *options)

    @classmethod
    def value(cls, X: Tensors, dtype: torch.dtype, *options: Any) -> Tensor:
        def block(x: Tensor, T: Tensors) -> tuple[Tensors, Tensors]:
            S = _scores(x, T, X, dtype)
            return (cls.by_row(cls.rowwise.value(widen(S, compute_dtype(S[0])), *options)),), ()

        return cls.stack(by_blocks(block, cls.most_rows(X), X[0], X[3:-1])[0])

    @classmethod
    def gradient(cls, g: Tensor, X: Tensors, dtype: torch.dtype, *options: Any) -> Tensors:
        rowwise = Call(cls.rowwise, options)

        def block(x: Tensor, g: Tensor, T: Tensors) -> tuple[Tensors, Tensors]:
            r, *others = rowwise.gradient(cls.stack(g), _scores(x, T, X, dtype))
            dx, dW, db = _back(r, x, X[1])  # (2)
            *dT, dw = _of_probabilities(T, others)
            return (dx, *dT), (dW, db, dw)

        dx, *dT, dW, db, dw = by_blocks(block, cls.most_rows(X), X[0], cls.by_row(g), X[3:-1])
        return dx, dW, db, *dT, dw

    @classmethod
    def curvature(cls, g: Tensor, X: Tensors, v: Tensors, dtype: torch.dtype, *options: Any) -> Tensors:
        rowwise = Call(cls.rowwise, options)

        def block(x: Tensor, g: Tensor, vx: Tensor, T: Tensors, vT: Tensors) -> tuple[Tensors, Tensors]:
            S, dS = _scores(x, T, X, dtype), _moved(x, T, X, (vx, *v[1:3], *vT, v[-1]), dtype)
            r, *_ = rowwise.gradient(cls.stack(g), S)
            dr, *others = rowwise.curvature(cls.stack(g), S, dS)
            hx, hW, hb = back_along(r, dr, x, X[1], vx, v[1])
            *hT, hw = _of_probabilities(T, others)
            return (hx, *hT), (hW, hb, hw)

        hx, *hT, hW, hb, hw = by_blocks(block, cls.most_rows(X), X[0], cls.by_row(g), v[0], X[3:-1], v[3:-1])
        return hx, hW, hb, *hT, hw

    @classmethod
    def along(cls, X: Tensors, v: Tensors, u: Tensors | None, dtype: torch.dtype, *options: Any) -> Tensor:
        """J v by (3) or, with ``u``, the second derivative along u and v by (5)."""
        rowwise = Call(cls.rowwise, options)
        u_or_none = (None,) * len(v) if u is None else u
        ux, uW, ub, *_, uw = u_or_none
        vx, vW, vb, *_, vw = v

        def block(x: Tensor, T: Tensors, vx: Tensor, vT: Tensors, ux: Tensor, uT: Tensors) -> tuple[Tensors, Tensors]:
            S, along_v = _scores(x, T, X, dtype), _moved(x, T, X, (vx, vW, vb, *vT, vw), dtype)
            if u is None:
                return (cls.by_row(rowwise.along(S, along_v)),), ()
            along_u = _moved(x, T, X, (ux, uW, ub, *uT, uw), dtype)
            nothing = (None for _ in S[1:])
            bent = rowwise.along(S, along_v, along_u)
            bent = bent + rowwise.along(S, (bend(ux, uW, vx, vW, S[0].dtype), *nothing))
            return (cls.by_row(bent),), ()

        return cls.stack(by_blocks(block, cls.most_rows(X), X[0], X[3:-1], vx, v[3:-1], ux, u_or_none[3:-1])[0])

    # -- the engine's rules without its widening of the inputs: only the scores of a block are widened

    @classmethod
    def compute(cls, X: Tensors, options: Options, reduction: Reduction) -> Tensor:
        return cls.reduce(cls.value(X, *options), X, options, reduction).to(cls.dtype(X, *options))

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Tensor:
        with torch_private.forward_differentiation(True):
            X, v = _primals(ctx), tangents[: cls.tensors]
            rows = Tangent.apply(LinearCall(cls, ctx.options), *X, *v)
            return cls.reduce(rows, X, ctx.options, ctx.reduction).to(cls.dtype(X, *ctx.options))

    @classmethod
    def differentiable_gradient(
        cls, g: Tensor, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...]
    ) -> Tensors:
        rows = cls.spread(g.to(row_dtype(cls.dtype(X, *options))), X, options, reduction)
        return _scatter(Gradient.apply(LinearCall(cls, options, tuple(needs)), rows, *X), needs)


@dataclass(frozen=True)
class LinearCall(Call):
    """A :class:`Call` of a :class:`LinearLoss`."""

    def gradient(self, g: Tensor, X: Tensors) -> Tensors:
        return _narrow(self.loss.gradient(g, X, *self.options), X)

    def curvature(self, g: Tensor, X: Tensors, v: Tensors) -> Tensors:
        return _narrow(self.loss.curvature(g, X, v, *self.options), X)

    def along(self, X: Tensors, v: Tensors, bent: Tensors | None = None) -> Tensor:
        return self.loss.along(X, v, bent, *self.options)  # type: ignore[attr-defined]


class Products:
    """The products (1) and (2) by blocks, in buffers allocated once; autograd does not record them.

    ``rows`` and ``classes`` are the slices that make up the blocks, each of at most ``scores`` scores. A block has all
    the classes unless :func:`too_few_rows` would then fit and that is not asked for (``whole``).
    """

    def __init__(
        self, X: Tensors, dtype: torch.dtype, needs: tuple[bool, ...], scores: int, whole: bool = False
    ) -> None:
        x, W, _ = self.X = X[:3]
        (N, _), (C, P, _) = x.shape, W.shape
        rows, classes = scores // (C * P), C
        if not whole and too_few_rows(N, C * P, scores):
            rows = min(N, MOST_ROWS, max(1, scores // P))
            classes = scores // (rows * P)
        self.rows, self.classes = blocks(N, rows), blocks(C, classes)
        size, wide = self.rows[0].stop * self.classes[0].stop * P, row_dtype(dtype)
        self.scratch = x.new_empty(size)
        self.wide = self.scratch if wide is x.dtype else x.new_empty(size, dtype=wide)
        sums = torch.promote_types(x.dtype, torch.float32)
        self.sums = [
            u.new_empty(u.shape, dtype=sums if len(parts) > 1 else x.dtype) if needed else None
            for u, parts, needed in zip(self.X, (self.classes, self.rows, self.rows), needs[:3], strict=True)
        ]

    @property
    def wanted(self) -> bool:
        """Whether any of the gradients (2) is needed."""
        return any(d is not None for d in self.sums)

    def scores(self, i: slice, c: slice) -> Tensor:
        """(1) for a block, of shape (n, c, P): valid until the next call; the caller may overwrite it."""
        x, W, b = self.X
        x, shape, W = x[i], W[c].shape[:2], W[c].flatten(0, 1)
        z = self.scratch[: len(x) * len(W)].view(len(x), len(W))
        if b is None:
            torch.mm(x, W.mT, out=z)
        else:
            torch.addmm(b[c].flatten(), x, W.mT, out=z)
        return _cast(z, self.wide).unflatten(1, shape)

    def add(self, i: slice, c: slice, r: Tensor) -> None:
        """Add (2) for a block."""
        (x, W, _), (dx, dW, db) = self.X, self.sums
        r = r.flatten(1)
        if db is not None:
            _add(db[c].flatten(), r.sum(0), i.start > 0)
        r = _cast(r, self.scratch)
        if dx is not None:
            _add_product(dx[i], r, W[c].flatten(0, 1), c.start > 0)
        if dW is not None:
            _add_product(dW[c].flatten(0, 1), r.mT, x[i], i.start > 0)

    def gradients(self) -> list[Tensor | None]:
        return [None if d is None else d.to(u.dtype) for d, u in zip(self.sums, self.X, strict=True)]


def products(X: Tensors, dtype: torch.dtype, needs: tuple[bool, ...], op: Any) -> tuple[Any, Products]:
    """The products, and the kernel ``op`` or None if their blocks are not for it: it needs all classes of a row."""
    x, W, scores = X[0], X[1], most_scores(X[0])
    if too_few_rows(len(x), W.shape[:2].numel(), scores):
        op = None
    return op, Products(X, dtype, needs, SCORES_OF_FORMULAS if op is None else scores)


def _cast(t: Tensor, scratch: Tensor) -> Tensor:
    return t if t.dtype is scratch.dtype else scratch[: t.numel()].view_as(t).copy_(t)


def _add(total: Tensor, part: Tensor, begun: bool) -> None:
    total.add_(part) if begun else total.copy_(part)


def _add_product(total: Tensor, a: Tensor, b: Tensor, begun: bool) -> None:
    if total.dtype is a.dtype:
        total.addmm_(a, b, beta=int(begun))  # beta=0 ignores the contents of uninitialized memory
    else:
        _add(total, a @ b, begun)


def row_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the scores and of one row's loss: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def most_scores(x: Tensor) -> int:
    return SCORES if x.is_cpu else SCORES_ON_DEVICE


def too_few_rows(N: int, scores_of_row: int, scores: int) -> bool:
    return scores < min(N, LEAST_ROWS) * scores_of_row


def blocks(total: int, most: int) -> list[slice]:
    """Split [0, total) into the fewest slices of at most ``most`` elements, about equally long; at least one slice."""
    count = max(1, -(-total // max(1, most)))
    step = -(-total // count)
    return [slice(i * step, min(total, (i + 1) * step)) for i in range(count)]


def by_blocks(
    block: Callable[..., tuple[Tensors, Tensors]], most: int, x: Tensor, *by_row: Tensor | Tensors | None
) -> tuple[Tensor | None, ...]:
    """Apply ``block`` to blocks of at most ``most`` rows; concatenate its first tuple of results, sum its second."""

    def part(t: Any, rows: slice) -> Any:
        return tuple(part(u, rows) for u in t) if isinstance(t, tuple) else None if t is None else t[rows]

    together, shared = [], None
    for rows in blocks(len(x), most):
        own, common = block(*(part(t, rows) for t in (x, *by_row)))
        together.append(own)
        if shared is not None:
            common = tuple(None if a is None else a + b for a, b in zip(shared, common, strict=True))
        shared = common
    columns = zip(*together, strict=True)
    return *(c[0] if len(c) == 1 or c[0] is None else torch.cat(c) for c in columns), *shared


def projected(x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """(1), as (N, C, P)."""
    C, P, D = W.shape
    z = (x @ W.reshape(C * P, D).mT).reshape(len(x), C, P)
    return z if b is None else z + b


def _back(r: Tensor, x: Tensor, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(2); dW and db in the dtype of r, since blocks of them are summed."""
    C, P, D = W.shape
    flat = r.reshape(len(x), C * P).to(x.dtype)
    return flat @ W.reshape(C * P, D), (flat.mT @ x).reshape(W.shape).to(r.dtype), r.sum(0)


def back_along(
    r: Tensor, dr: Tensor, x: Tensor, W: Tensor, vx: Tensor | None, vW: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(4)."""
    hx, hW, hb = _back(dr, x, W)
    if vW is not None:
        hx = hx + _back(r, x, vW)[0]
    if vx is not None:
        hW = hW + _back(r, vx, W)[1]
    return hx, hW, hb


def moved(
    x: Tensor, W: Tensor, vx: Tensor | None, vW: Tensor | None, vb: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """How the scores change along a direction, (3)."""
    terms = []
    if vx is not None:
        terms.append(projected(vx, W, None))
    if vW is not None:
        terms.append(projected(x, vW, vb))
    elif vb is not None:
        terms.append(vb.expand(len(x), *vb.shape))
    return sum(terms[1:], terms[0]).to(dtype) if terms else None


def bend(
    ux: Tensor | None, uW: Tensor | None, vx: Tensor | None, vW: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """The second derivative of the scores along two directions, of (5)."""
    terms = [projected(a, B, None) for a, B in ((ux, vW), (vx, uW)) if a is not None and B is not None]
    return sum(terms[1:], terms[0]).to(dtype) if terms else None


def operands(
    name: str, hidden: Tensor, weight: Tensor, bias: Tensor | None, side: str = ""
) -> tuple[Tensor | None, ...]:
    """Hidden states, weight (C, D) and bias (C), checked and cast as by autocast; ``side`` begins their names."""
    arguments.require_floating(name, hidden)
    if weight.dim() != 2 or not hidden.dim() or hidden.shape[-1] != weight.shape[-1]:
        raise RuntimeError(
            f"{side}weight: expected shape [C, {hidden.shape[-1] if hidden.dim() else 'D'}], as {side}hidden has shape "
            f"{list(hidden.shape)}, but got {list(weight.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise RuntimeError(f"{side}bias: expected shape {list(weight.shape[:1])}, but got {list(bias.shape)}")
    x, W, b = cast_product(hidden, weight, bias)
    for argument, u in (("weight", W), ("bias", b)):
        if u is not None and u.dtype is not x.dtype:
            expected, found = arguments.scalar_type(x.dtype), arguments.scalar_type(u.dtype)
            raise RuntimeError(f"{side}{argument}: expected scalar type {expected} but found {found}")
    return x, W, b


def _scores(x: Tensor, T: Tensors, X: Tensors, dtype: torch.dtype) -> Tensors:
    """The arguments of the rowwise loss: scores, targets, and the weight in the shape it expects."""
    z = projected(x, X[1], X[2]).to(row_dtype(dtype))
    T = tuple(t if t is None else widen((t,), torch.promote_types(t.dtype, z.dtype))[0] for t in T)
    (w,) = widen(X[-1:], z.dtype)
    return z, *T, per_score(w, T[0])


def _moved(x: Tensor, T: Tensors, X: Tensors, v: Tensors, dtype: torch.dtype) -> Tensors:
    """The directional derivative of :func:`_scores`, (3)."""
    vx, vW, vb, *vT, vw = v
    return moved(x, X[1], vx, vW, vb, row_dtype(dtype)), *vT, per_score(vw, T[0])


def per_score(w: Tensor | None, t: Tensor) -> Tensor | None:
    """The class weights, expanded to the shape of the scores if the target holds probabilities."""
    return w if w is None or not t.is_floating_point() else w.unsqueeze(1).expand(t.shape)


def per_class(dw: Tensor | None) -> Tensor | None:
    """The transpose of :func:`per_score` for probabilities."""
    return None if dw is None else dw.sum((0, 2))


def _of_probabilities(T: Tensors, gradients: list[Tensor | None]) -> Tensors:
    """The gradients of targets and weight; the weight has one only with probabilities, class indices have none."""
    *dT, dw = gradients
    kept = (d if t is not None and t.is_floating_point() else None for t, d in zip(T, dT, strict=True))
    return *kept, per_class(dw) if T[0].is_floating_point() else None
