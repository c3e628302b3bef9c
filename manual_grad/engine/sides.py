"""The formulas of all pairs, by blocks of rows: one side of the pairs with what it meets on the other."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manual_grad.engine import collectives, linear, ring
from manual_grad.engine.dtypes import compute_dtype
from manual_grad.engine.function import Tensors
from manual_grad.engine.ring import Spread
from manual_grad.engine.tiles import Pairs


class Side(NamedTuple):
    """One direction of the pairs in the dtype of the formulas, and how it moves; keys are those of all processes."""

    x: Tensor
    y: Tensor
    P: Pairs
    spread: Spread | None
    exchanged: bool
    vx: Tensor | None = None
    vy: Tensor | None = None
    va: Tensor | None = None
    vb: Tensor | None = None
    toward: Side | None = None  # likewise, of another direction

    @property
    def a(self) -> Tensor:
        return self.P.scale.to(self.y.dtype)

    def here(self, x: Tensor, rows: Tensors) -> Pairs:
        positive, own, label, share = rows
        return self.P._replace(x=x, positive=positive, own=own, label=label, share=share)

    def logits(self, s: Tensor, here: Pairs) -> Tensor:
        """(1)."""
        z = self.a * s
        if here.bias is not None:
            z = z + here.bias.to(s.dtype)
        if here.own is None:
            return z
        return torch.where(here.own.unsqueeze(1) == torch.arange(s.shape[1], device=s.device), -math.inf, z)

    def moved(self, x: Tensor, vx: Tensor | None) -> Tensor:
        """How the scores change, of (3)."""
        ds = x.new_zeros(len(x), len(self.y)) if vx is None else vx @ self.y.mT
        return ds if self.vy is None else ds + x @ self.vy.mT

    def along(self, s: Tensor, ds: Tensor) -> Tensor:
        """How the logits change, (3)."""
        dz = self.a * ds
        if self.va is not None:
            dz = dz + self.va * s
        return dz if self.vb is None else dz + self.vb

    def by_blocks(self, block: Callable[..., tuple[Tensors, Tensors]], *by_row: Tensor | None) -> tuple[Any, ...]:
        P = self.P
        of_rows = (P.positive, P.own, P.label, P.share)
        most = max(linear.LEAST_ROWS, linear.SCORES_OF_FORMULAS // max(1, len(self.y)))
        return linear.by_blocks(functools.partial(block, self), most, self.x, of_rows, *by_row)

    def home(self, found: tuple[Any, ...]) -> tuple[Any, ...]:
        """The gradients of queries, keys, scale and bias of this process."""
        dx, dy, da, db = found
        if self.spread is not None:
            counts = self.spread.queries if self.exchanged else self.spread.keys
            dy = collectives.total(dy, self.spread.groups).split(counts)[self.spread.rank]
        return (dy, dx, da, db) if self.exchanged else (dx, dy, da, db)


def sides_of(X: Tensors, symmetric: bool, spread: Spread | None, v: Tensors | None = None) -> list[Side]:
    P, wide = Pairs(*X), compute_dtype(X[0])
    x, y = P.x.to(wide), P.y.to(wide)
    vx, vy, va, vb = (None if t is None else t.to(wide) for t in (v or (None,) * 4)[:4])
    first, second = (x, vx), (y, vy)
    found = []
    for exchanged, rows, others in ((False, first, second), (True, second, first))[: 1 + symmetric]:
        whole = others
        if spread is not None:
            counts = spread.queries if exchanged else spread.keys
            whole = tuple(None if t is None else ring.gathered(t, spread, counts) for t in others)
        found.append(Side(rows[0], whole[0], P, spread, exchanged, rows[1], whole[1], va, vb))
    return found


def added(found: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(sum(parts[1:], parts[0]) for parts in zip(*found, strict=True))
