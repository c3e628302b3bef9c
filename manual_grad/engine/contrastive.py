r"""Losses of all pairs of two sets of feature vectors, without ever storing all their scores.

**Pairs.** With queries :math:`x \in \mathbb R^{N \times D}`, keys :math:`y \in \mathbb R^{M \times D}`, a scale
:math:`a` and, in some losses, a bias :math:`b`, pair :math:`(i, j)` has the score and the logit

.. math::
    s_{ij} = x_i^\top y_j, \qquad z_{ij} = a\, s_{ij} + b, \qquad \ell_i = \ell_{\mathrm{row}}(z_{i1}, z_{i2}, \dots)
    \tag{1}

where :math:`\ell_{\mathrm{row}}` is a loss of the logits of a row, whose own rules give
:math:`r = \partial \ell / \partial z` and :math:`H = \partial r / \partial z`. A symmetric loss is the mean of that of
the rows and that of the columns, which is (1) with queries and keys exchanged.

**Gradient.** The chain rule through (1):

.. math::
    dx_i = a \sum_j r_{ij}\, y_j, \qquad dy_j = a \sum_i r_{ij}\, x_i, \qquad
    da = \sum_{ij} r_{ij}\, s_{ij}, \qquad db = \sum_{ij} r_{ij} \tag{2}

and along a direction the logits change, once and twice, by

.. math::
    \dot z_{ij} = a\, \dot s_{ij} + \dot a\, s_{ij} + \dot b, \qquad
    \dot s_{ij} = \dot x_i^\top y_j + x_i^\top \dot y_j \tag{3}

.. math::
    \ddot z_{ij} = a\, (\dot x_i^\top \dot y'_j + \dot x_i'^\top \dot y_j) + \dot a\, \dot s'_{ij}
    + \dot a'\, \dot s_{ij} \tag{4}

Differentiating (2) once more, with :math:`\dot r = H \dot z`,

.. math::
    (H v)_{x_i} = a \sum_j (\dot r_{ij}\, y_j + r_{ij}\, \dot y_j) + \dot a \sum_j r_{ij}\, y_j, \qquad
    (H v)_a = \sum_{ij} (\dot r_{ij}\, s_{ij} + r_{ij}\, \dot s_{ij}), \qquad (H v)_b = \sum_{ij} \dot r_{ij} \tag{5}

**Two ways.** The formulas go by blocks of rows (:mod:`~manual_grad.engine.sides`), the kernels by tiles
(:mod:`~manual_grad.engine.tiles`), also where the rows are spread over processes (:mod:`~manual_grad.engine.ring`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, collectives, parts, ring, torch_private
from manual_grad.engine.dtypes import autocast_is_on, cast_product
from manual_grad.engine.function import Options, Reduction, Tensors, evaluate
from manual_grad.engine.linear import LinearLoss, row_dtype
from manual_grad.engine.ring import Spread
from manual_grad.engine.sides import Side, added, sides_of
from manual_grad.engine.tiles import Pairs, Sweep, Tile, known_scale

_BY_NAME: dict[str, type[PairLoss]] = {}  # a graph of torch.compile holds no classes


class PairLoss(LinearLoss):
    """``apply(*Pairs, dtype, symmetric, spread, reduction)``: see :class:`Pairs`; ``dtype`` is that of the loss.

    With a :class:`Spread`, the tensors are those of this process, except ``labels``, and so are values and gradients
    (that of the scale is what this process adds to it); the reduction must be 'none'.

    A loss states ``of_logits``, ``slope`` and ``bent`` of the logits of some rows; and for the tiles :meth:`summarize`,
    :meth:`finish` and :meth:`sweep_gradients`.
    """

    tensors = 11
    balanced: ClassVar[bool] = True  # whether the slopes of a row add up to 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _BY_NAME[cls.__name__] = cls

    # -- the rule of a row, in differentiable torch ops: z are the logits (n, M), P the pairs of these rows

    @classmethod
    def of_logits(cls, z: Tensor, P: Pairs) -> Tensor:
        raise NotImplementedError

    @classmethod
    def slope(cls, g: Tensor, z: Tensor, P: Pairs) -> Tensor:
        raise NotImplementedError

    @classmethod
    def bent(cls, g: Tensor, z: Tensor, dz: Tensor, P: Pairs) -> Tensor:
        """The derivative of the slope along dz."""
        raise NotImplementedError

    # -- the engine's rules

    @classmethod
    def shape(cls, X: Tensors, *options: Any) -> torch.Size:
        return X[0].shape[:1]

    @classmethod
    def dtype(cls, X: Tensors, dtype: torch.dtype, *options: Any) -> torch.dtype:
        return dtype

    @classmethod
    def denominator(cls, X: Tensors, loss: Tensor, *options: Any) -> Tensor | float:
        return loss.numel()

    @classmethod
    def value(cls, X: Tensors, dtype: torch.dtype, symmetric: bool, spread: Spread | None) -> Tensor:
        def block(side: Side, x: Tensor, rows: Tensors) -> tuple[Tensors, Tensors]:
            here = side.here(x, rows)
            return (cls.of_logits(side.logits(x @ side.y.mT, here), here),), ()

        found = [side.by_blocks(block)[0] for side in sides_of(X, symmetric, spread)]
        return sum(found[1:], found[0]) / len(found)

    @classmethod
    def gradient(cls, g: Tensor, X: Tensors, dtype: torch.dtype, symmetric: bool, spread: Spread | None) -> Tensors:
        def block(side: Side, x: Tensor, rows: Tensors, g: Tensor) -> tuple[Tensors, Tensors]:
            here, s = side.here(x, rows), x @ side.y.mT
            r = cls.slope(g, side.logits(s, here), here)
            return (side.a * (r @ side.y),), (side.a * (r.mT @ x), (r * cls._level(s)).sum(), r.sum())  # (2)

        sides, found = sides_of(X, symmetric, spread), []
        for side in sides:
            found.append(side.home(side.by_blocks(block, g.to(side.y.dtype) / len(sides))))
        return *added(found), *(None,) * 7

    @classmethod
    def curvature(
        cls, g: Tensor, X: Tensors, v: Tensors, dtype: torch.dtype, symmetric: bool, spread: Spread | None
    ) -> Tensors:
        def block(side: Side, x: Tensor, rows: Tensors, g: Tensor, vx: Tensor | None) -> tuple[Tensors, Tensors]:
            here, s, ds = side.here(x, rows), x @ side.y.mT, side.moved(x, vx)
            z = side.logits(s, here)
            r, dr = cls.slope(g, z, here), cls.bent(g, z, side.along(s, ds), here)
            hx, hy = side.a * (dr @ side.y), side.a * (dr.mT @ x)  # (5)
            ha = (dr * cls._level(s)).sum() + (r * ds).sum()
            if side.vy is not None:
                hx = hx + side.a * (r @ side.vy)
            if vx is not None:
                hy = hy + side.a * (r.mT @ vx)
            if side.va is not None:
                hx, hy = hx + side.va * (r @ side.y), hy + side.va * (r.mT @ x)
            return (hx,), (hy, ha, dr.sum())

        sides, found = sides_of(X, symmetric, spread, v), []
        for side in sides:
            found.append(side.home(side.by_blocks(block, g.to(side.y.dtype) / len(sides), side.vx)))
        return *added(found), *(None,) * 7

    @classmethod
    def along(
        cls, X: Tensors, v: Tensors, u: Tensors | None, dtype: torch.dtype, symmetric: bool, spread: Spread | None
    ) -> Tensor:
        """J v or, with ``u``, the second derivative along u and v."""

        def block(
            side: Side, x: Tensor, rows: Tensors, vx: Tensor | None, ux: Tensor | None
        ) -> tuple[Tensors, Tensors]:
            here, s, ds = side.here(x, rows), x @ side.y.mT, side.moved(x, vx)
            z, one = side.logits(s, here), s.new_ones(len(s))
            dz, r = side.along(s, ds), cls.slope(one, z, here)
            if side.toward is None:
                return ((r * dz).sum(1),), ()
            of_u = side.toward
            du = of_u.moved(x, ux)
            bend = torch.zeros_like(s)
            for a, b in ((vx, of_u.vy), (ux, side.vy)):  # (4)
                if a is not None and b is not None:
                    bend = bend + side.a * (a @ b.mT)
            for a, b in ((side.va, du), (of_u.va, ds)):
                if a is not None:
                    bend = bend + a * b
            return ((cls.bent(one, z, of_u.along(s, du), here) * dz + r * bend).sum(1),), ()

        sides, found = sides_of(X, symmetric, spread, v), []
        for n, side in enumerate(sides):
            of_u = None if u is None else sides_of(X, symmetric, spread, u)[n]
            side = side._replace(toward=of_u)
            found.append(side.by_blocks(block, side.vx, None if of_u is None else of_u.vx)[0])
        return sum(found[1:], found[0]) / len(found)

    @classmethod
    def _level(cls, s: Tensor) -> Tensor:
        """The scores of (2); if the slopes of a row add up to 0, relative to the largest, where less cancels."""
        return s - s.amax(1, keepdim=True).detach() if cls.balanced and s.shape[1] else s

    # -- in tiles

    @classmethod
    def tiled(cls, x: Tensor) -> bool:
        """Whether there are kernels for the tiles."""
        return kernels.op(cls.kernel, x.new_empty(0, dtype=row_dtype(x.dtype))) is not None

    @classmethod
    def summarize(cls, sweep: Sweep, symmetric: bool, entropy: bool) -> tuple[Tensor, Tensor | None]:
        """The states of the rows and of the columns."""
        raise NotImplementedError

    @classmethod
    def finish(cls, P: Pairs, symmetric: bool) -> Tensor:
        """The loss of each row from its state, in float64."""
        raise NotImplementedError

    @classmethod
    def sweep_gradients(cls, sweep: Sweep, g: Tensor, symmetric: bool) -> Tensors:
        """Add up (2) in the sweep, for an upstream gradient (N) in float64; returns da and db."""
        raise NotImplementedError

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        P, (dtype, symmetric, spread) = Pairs(*X), options
        if P.rows is None:
            return None
        loss = None
        if value:
            loss = cls.reduce(cls.finish(P, symmetric), X, options, reduction).to(dtype)
        if g is None:
            return loss, []  # backward does it: that costs no product more
        rows = cls.spread(g.double(), X, options, reduction).expand(len(P.x))
        sweep = Sweep(P, spread, needs)
        da, db = cls.sweep_gradients(sweep, rows, symmetric)
        found = zip((*sweep.gradients(), da, db), X[:4], needs[:4], strict=True)
        return loss, [*(d.to(u.dtype) if d is not None and need else None for d, u, need in found), *(None,) * 7]


# -- arguments


def features_of(name: str, first: str, x: Tensor, second: str, y: Tensor, more: bool = False) -> tuple[Tensor, Tensor]:
    """Two sets of feature vectors, checked and cast as by autocast; with ``more`` the second may be the larger."""
    arguments.require_floating(name, x)
    fits = x.dim() == y.dim() == 2 and x.shape[1] == y.shape[1]
    if not fits or not (len(y) == len(x) or (more and len(y) > len(x))):
        expected = "[M, D] with M >= N" if more else "[N, D]"
        raise RuntimeError(
            f"{second}: expected shape {expected} for {first} of shape [N, D], "
            f"but got {list(y.shape)} for {list(x.shape)}"
        )
    found: tuple[Any, ...] = cast_product(x, y)
    x, y = found
    if y.dtype is not x.dtype:
        expected, other = arguments.scalar_type(x.dtype), arguments.scalar_type(y.dtype)
        raise RuntimeError(f"{second}: expected scalar type {expected} but found {other}")
    return x, y


def places(x: Tensor, spread: Spread | None) -> Tensor:
    """The place among all keys of the one that belongs to each row."""
    return torch.arange(len(x), device=x.device) + (0 if spread is None else spread.column)


def number_of(name: str, argument: str, value: Tensor | float, like: Tensor, positive: bool = True) -> Tensor:
    """A number or a 0-d tensor, which may have a gradient, as a float64 tensor."""
    if isinstance(value, Tensor) and value.dim() == 0 and value.is_floating_point():
        known = value.detach()
        if positive and not torch.compiler.is_compiling() and known.is_cpu and arguments.readable(known):
            arguments.positive(name, argument, known.item())
        return value.to(like.device, torch.float64)
    if isinstance(value, Tensor) and (value.dim() or value.is_complex()):
        raise ValueError(
            f"{name}(): argument '{argument}' must be a real number or a tensor of one without dimensions, "
            f"but got {value.dtype} of shape {list(value.shape)}"
        )
    number = (arguments.positive if positive else arguments.real)(name, argument, value)
    return torch.full((), number, dtype=torch.float64, device=like.device)


@arguments.functional
def _evaluated(
    loss: str, x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | None, positive: Tensor | None, own: Tensor | None,
    label: Tensor | None, labels: Tensor | None, share: Tensor | None, dtype: torch.dtype, symmetric: bool,
    spread: Any, reduction: str,
) -> Tensor:  # fmt: skip
    """The loss; a single node in a graph of torch.compile."""
    of = _BY_NAME[loss]
    P = Pairs(x, y, scale, bias, positive, own, label, labels, share, None, None)
    with torch.autocast(x.device.type, enabled=False) if autocast_is_on() else nullcontext():
        if of.tiled(x) and not torch_private.is_intercepted():
            constant = Pairs(*(None if t is None else t.detach() for t in P))
            rows, columns = of.summarize(Sweep(constant, spread), symmetric, scale.requires_grad)
            P = P._replace(rows=rows, columns=columns)
        return evaluate(of, *P, dtype, symmetric, spread, reduction)


def loss_of(
    loss: str, x: Tensor, y: Tensor, scale: Tensor, spread: Spread | None, reduction: str, *,
    bias: Tensor | None = None, positive: Tensor | None = None, own: Tensor | None = None, label: Tensor | None = None,
    labels: Tensor | None = None, share: Tensor | None = None, symmetric: bool = False,
) -> Tensor:  # fmt: skip
    """The loss of the Function of that name, reduced over the pairs of all processes."""
    dtype, rest = row_dtype(x.dtype), (positive, own, label, labels, share)
    if spread is None:
        return _evaluated(loss, x, y, scale, bias, *rest, dtype, symmetric, None, reduction)
    scale = collectives.spread(scale, spread.groups)
    bias = None if bias is None else collectives.spread(bias, spread.groups)
    rows = _evaluated(loss, x, y, scale, bias, *rest, dtype, symmetric, spread, "none")
    if reduction == "none":
        return rows
    whole = ring.Whole.apply(rows.double().sum(), spread)
    count = sum(spread.queries)
    return (whole if reduction == "sum" else whole / count if count else whole * math.nan).to(dtype)


class WithTemperature(torch.nn.Module):
    """A Module with a temperature: a number, a tensor, which becomes a buffer, or a parameter."""

    temperature: Tensor | float

    def __init__(self, temperature: Tensor | float, reduction: str, group: Any) -> None:
        super().__init__()
        if isinstance(temperature, Tensor) and not isinstance(temperature, torch.nn.Parameter):
            self.register_buffer("temperature", temperature)
        else:
            self.temperature = temperature
        self.reduction, self.group = reduction, group

    def extra_repr(self) -> str:
        number = self.temperature
        return f"temperature={number.item() if isinstance(number, Tensor) else number}, reduction={self.reduction!r}"


# -- a softmax over the keys


class SoftmaxOfPairs(PairLoss):
    """Cross entropy of the softmax over the keys, of one positive or of the mean over several (``share``)."""

    kernel = "log_prob"
    rowwise: ClassVar[Any]

    @classmethod
    def _of_row(cls, z: Tensor, P: Pairs) -> tuple[Tensors, tuple[Any, ...], Tensor]:
        """The arguments and options of the loss of rows, and what its result is multiplied by."""
        options = z.dtype, -1, 1.0, 0.0, 1.0
        if P.share is None:
            return (z, P.positive, None, None), ("log_prob", *options), z.new_full((len(z),), -1.0)
        z = torch.where((P.share == 0).unsqueeze(1), 0, z)  # there may be no key at all but itself
        same = P.label.unsqueeze(1) == P.labels
        if P.own is not None:
            same = same & (P.own.unsqueeze(1) != torch.arange(z.shape[1], device=z.device))
        first = torch.zeros_like(P.own)
        return (z, first, same.to(z.dtype), None), ("cross", *options), P.share.to(z.dtype)

    @classmethod
    def of_logits(cls, z: Tensor, P: Pairs) -> Tensor:
        S, options, factor = cls._of_row(z, P)
        return factor * cls.rowwise.value(S, *options)[0]

    @classmethod
    def slope(cls, g: Tensor, z: Tensor, P: Pairs) -> Tensor:
        S, options, factor = cls._of_row(z, P)
        return cls.rowwise.gradient((factor * g).unsqueeze(0), S, *options)[0]

    @classmethod
    def bent(cls, g: Tensor, z: Tensor, dz: Tensor, P: Pairs) -> Tensor:
        S, options, factor = cls._of_row(z, P)
        return cls.rowwise.curvature((factor * g).unsqueeze(0), S, (dz, None, None, None), *options)[0]

    @classmethod
    def summarize(cls, sweep: Sweep, symmetric: bool, entropy: bool) -> tuple[Tensor, Tensor | None]:
        """For each row :mod:`~manual_grad.engine.parts`' state and, without ``share``, the score of its positive."""
        P, x = sweep.P, sweep.x
        weighted, logits = P.share is not None, _times(sweep.unit)
        rows = parts.empty(x[:, 0] if x.shape[1] else x.new_empty(len(x)), weighted)
        columns = parts.empty(sweep.y.new_empty(len(sweep.y)), False).mT.contiguous() if symmetric else None
        found = rows.new_full((len(x),), math.nan)
        outputs = "entropy" if entropy else ""
        for first, keys, guests in sweep.visits(*(() if columns is None else (columns,))):
            for tile in sweep.tiles(first, keys):
                s, i = tile.s, tile.rows
                state = cls.rowwise.summarize(s, cls._same(tile, P), outputs, 1.0, 0.0, sweep.unit)
                _merge(rows[:, i], state, logits)
                if not weighted:
                    inside, at = _inside(P.positive[i] - tile.column, s.shape[1])
                    found[i] = torch.where(inside, s.gather(1, at.unsqueeze(1)).squeeze(1).double(), found[i])
                for of_columns in guests:
                    state = cls.rowwise.summarize(s.unsqueeze(0), None, outputs, 1.0, 0.0, sweep.unit).squeeze(1)
                    _merge(of_columns[tile.columns].mT, state, logits)
        return (rows if weighted else torch.cat([rows, found.unsqueeze(0)])), None if columns is None else columns.mT

    @classmethod
    def finish(cls, P: Pairs, symmetric: bool) -> Tensor:
        if P.share is not None:
            m, rho, _, distance, total, _ = P.rows
            loss = torch.where(m == -math.inf, math.nan, P.share * (distance + total * rho.log1p()))
            return torch.where(P.share == 0, 0, loss)
        known = known_scale(P)
        unit = 1.0 if known is None else known
        m, rho, _, own = P.rows
        loss = unit * (m - own) + rho.log1p()
        if not symmetric:
            return loss
        m, rho, _ = P.columns
        return (loss + unit * (m - own) + rho.log1p()) / 2

    @classmethod
    def sweep_gradients(cls, sweep: Sweep, g: Tensor, symmetric: bool) -> Tensors:
        P, unit = sweep.P, sweep.unit
        weighted = P.share is not None
        g = g * P.share if weighted else g / 2 if symmetric else g
        op = kernels.op(cls.kernel, sweep.scratch)
        options = "cross" if weighted else "log_prob lse", sweep.wide, -1, 1.0, 0.0, unit
        run = cls.rowwise.run
        state = P.rows if weighted else P.rows[:3]
        # with the keys go their gradients, and if they are rows as well, their states and upstream gradients
        visitors = [torch.cat([P.columns, g.unsqueeze(0)]).mT.contiguous()] if symmetric else []
        if sweep.dy is not None:
            visitors.append(sweep.dy)
        idle = sweep.dx is None and sweep.dy is None  # the derivative by the scale needs no scores
        for first, keys, guests in () if idle else sweep.visits(*visitors):
            dy = None if sweep.dy is None else guests[-1]
            for tile in sweep.tiles(first, keys):
                s, i, c = tile.s, tile.rows, tile.columns
                r = sweep.buffer(tile) if symmetric else s  # the columns need the scores after the rows
                of_rows = state[:, i].contiguous()
                if weighted:
                    none = torch.zeros_like(P.own[i])
                    run(op, (s, none, cls._same(tile, P), of_rows), options, None, g[i].unsqueeze(0), r)
                    r.masked_fill_((P.share[i] == 0).unsqueeze(1), 0)  # whatever the scores of such an anchor are
                else:
                    inside, at = _inside(P.positive[i] - tile.column, s.shape[1])
                    run(op, (s, at, None, of_rows), options, None, _upstream(g[i], inside), r)
                if symmetric:
                    *of_columns, up = guests[0][c].mT.contiguous()
                    place = torch.arange(s.shape[1], device=s.device) - tile.offset
                    inside, at = _inside(place, s.shape[0])
                    tall, up = s.unsqueeze(0), _upstream(up, inside).unsqueeze(1)
                    of_columns = torch.stack(of_columns).unsqueeze(1)
                    run(op, (tall, at.unsqueeze(0), None, of_columns), options, None, up, tall)
                    r.add_(s)
                sweep.add(tile, r, keys, dy)
        if weighted:
            _, _, mean, distance, total, _ = P.rows
            moved = torch.where(P.share == 0, 0, g * (distance - total * mean))
        else:
            m, _, mean, own = P.rows
            moved = g * (unit * (m - own) - mean)
            if symmetric:
                m, _, mean = P.columns
                moved = moved + g * (unit * (m - own) - mean)
        return moved.sum() / P.scale, None

    @staticmethod
    def _same(tile: Tile, P: Pairs) -> Tensor | None:
        """Which keys are positive, as numbers."""
        if P.share is None:
            return None
        columns = P.labels[tile.column : tile.column + tile.s.shape[1]]
        same = (P.label[tile.rows].unsqueeze(1) == columns).to(tile.s.dtype)
        if P.own is not None and (itself := tile.diagonal) is not None:
            same.masked_fill_(itself, 0)
        return same


def _times(unit: float) -> Callable[[Tensor], Tensor]:
    return lambda s: s * unit


def _merge(seen: Tensor, state: Tensor, logits: Callable[[Tensor], Tensor]) -> None:
    """Add the state of a tile to that of the tiles before; a row of nothing but its own score adds nothing."""
    seen.copy_(torch.where(state[0] == -math.inf, seen, parts.merged(torch.stack([seen, state]), logits)))


def _inside(place: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Whether places lie in a tile, and some place that does."""
    inside = (place >= 0) & (place < count)
    return inside, torch.where(inside, place, 0)


def _upstream(g: Tensor, inside: Tensor) -> Tensor:
    """Of log p and of lse: the loss is -log p, of which a tile without the positive has only the lse."""
    return torch.stack([torch.where(inside, -g, 0), torch.where(inside, 0, g)])
