r"""All scores of two sets of feature vectors, in tiles that are forgotten.

A tile is a block of rows by a block of columns. One sweep gives the state of every row (and of every column, if the
loss is symmetric), from which the loss follows; in backward, another one computes the same tiles again, puts :math:`r`
in the place of the scores, and adds up the gradients. That makes four products, the fewest without storing the scores,
whether or not the loss is symmetric. The memory needed is a tile, besides some numbers for each row.

A row whose positive lies in another tile is one in which nothing but the normalization, :math:`\mathrm{lse}`, has an
upstream gradient. The state of *all* its scores is known then, so that :math:`r` is as exact as if they were together:
:math:`1 - p` is never formed by a subtraction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from manual_grad.engine import arguments
from manual_grad.engine.linear import blocks, row_dtype
from manual_grad.engine.ring import Ring, Spread

TILE = 2 << 20  # scores on the CPU: 8 MB of float32, of which one or two more are needed
TILE_ON_DEVICE = 64 << 20
MOST_ROWS, MOST_ROWS_ON_DEVICE = 1024, 8192


class Pairs(NamedTuple):
    """The tensors of a :class:`~manual_grad.engine.contrastive.PairLoss`; the first four may have gradients."""

    x: Tensor  # (N, D)
    y: Tensor  # (M, D)
    scale: Tensor  # 0-d, float64
    bias: Tensor | None  # likewise
    positive: Tensor | None  # (N): which of all keys belongs to the query
    own: Tensor | None  # (N): which of all keys is the query itself, and ruled out
    label: Tensor | None  # (N): keys with the same label are positive
    labels: Tensor | None  # of all keys
    share: Tensor | None  # (N), float64: 1 / the number of a query's positives, 0 if there are none
    rows: Tensor | None  # the state of each row
    columns: Tensor | None  # that of each column


def known_scale(P: Pairs) -> float | None:
    """The scale, if the host can read it without waiting."""
    scale = P.scale.detach()
    return scale.item() if scale.is_cpu and arguments.readable(scale) else None


class Tile(NamedTuple):
    """A block of rows by a block of the columns that are visiting."""

    rows: slice  # of this process
    columns: slice  # of the visitors
    row: int  # the place of the first row among all
    column: int
    s: Tensor  # the scores, or what takes their place

    @property
    def offset(self) -> int:
        """The diagonal on which a key has its query's place."""
        return self.row - self.column

    @property
    def diagonal(self) -> Tensor | None:
        """A mask of it, if it crosses the tile. (Inductor warns of a view of it.)"""
        rows, columns = self.s.shape
        if not -rows < self.offset < columns:
            return None
        place, other = (torch.arange(n, device=self.s.device) for n in (rows, columns))
        return place.unsqueeze(1) + self.offset == other


class Sweep:
    """One pass over the tiles of scores, in buffers allocated once; autograd does not record it.

    The scores are at least float32, and so are the sums of the gradients. ``unit`` is the scale if the host knows it:
    the kernels then multiply the scores by it, in more digits than those have. Otherwise the scores are multiplied.
    """

    def __init__(self, P: Pairs, spread: Spread | None, needs: tuple[bool, ...] = (False, False)) -> None:
        self.P, self.spread = P, spread
        self.wide = row_dtype(P.x.dtype)
        self.x, self.y = P.x.to(self.wide), P.y.to(self.wide)
        self.scale, known = P.scale.detach(), known_scale(P)
        self.known, self.unit = known is not None, 1.0 if known is None else known
        self.dx = torch.zeros_like(self.x) if needs[0] else None
        self.dy = torch.zeros_like(self.y) if needs[1] else None
        most, tile = (MOST_ROWS, TILE) if self.x.is_cpu else (MOST_ROWS_ON_DEVICE, TILE_ON_DEVICE)
        N, M = len(self.x), max((len(self.y),) if spread is None else spread.keys)
        self.blocks = blocks(N, max(most, tile // max(1, M)))
        self.most_columns = max(1, tile // max(1, self.blocks[0].stop))
        self.scratch = self.x.new_empty(self.blocks[0].stop * min(M, self.most_columns))
        self.second: Tensor | None = None

    def buffer(self, tile: Tile) -> Tensor:
        """Another tile, for a second direction."""
        if self.second is None:
            self.second = torch.empty_like(self.scratch)
        return self.second[: tile.s.numel()].view(tile.s.shape)

    def visits(self, *with_them: Tensor) -> Iterator[tuple[int, Tensor, list[Tensor]]]:
        """The place of the first of the keys that visit, the keys, and ``with_them``: tensors with a row for each key.

        What the caller does to these in place travels on, and at last back into ``with_them``.
        """
        if self.spread is None:
            yield 0, self.y, list(with_them)
            return
        ring = Ring(self.spread)
        keys, guests = self.y.contiguous(), list(with_them)
        for step in range(ring.size):
            owner, last = (ring.rank - step) % ring.size, step + 1 == ring.size
            coming = ring.counts[(owner - 1) % ring.size]
            # the keys travel while their tile is computed
            travelling = None if last else ring.start([keys], [keys.new_empty(coming, keys.shape[1])])
            yield sum(ring.counts[:owner]), keys, guests
            guests = ring.start(guests, [t.new_empty(coming, *t.shape[1:]) for t in guests])()
            if travelling is not None:
                (keys,) = travelling()
        for t, guest in zip(with_them, guests, strict=True):
            t.copy_(guest)

    def tiles(self, first: int, keys: Tensor) -> Iterator[Tile]:
        """The tiles of the keys that visit, whose scores are valid until the next."""
        row = 0 if self.spread is None else self.spread.row
        if not len(keys) or not len(self.x):
            return
        for columns in blocks(len(keys), self.most_columns):
            y = keys[columns]
            for rows in self.blocks:
                x = self.x[rows]
                s = self.scratch[: len(x) * len(y)].view(len(x), len(y))
                torch.mm(x, y.mT, out=s)
                if not self.known:
                    s.mul_(self.scale)
                tile = Tile(rows, columns, row + rows.start, first + columns.start, s)
                if self.P.own is not None and (itself := tile.diagonal) is not None:
                    s.masked_fill_(itself, -math.inf)
                yield tile

    def add(self, tile: Tile, r: Tensor, keys: Tensor, dy: Tensor | None) -> None:
        """Add the gradients of a tile, (2) of :mod:`~manual_grad.engine.contrastive`, but for a scale unknown here."""
        if self.dx is not None:
            self.dx[tile.rows].addmm_(r, keys[tile.columns])
        if dy is not None:
            dy[tile.columns].addmm_(r.mT, self.x[tile.rows])

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        if self.known:
            return self.dx, self.dy
        return tuple(None if d is None else d * self.scale for d in (self.dx, self.dy))  # type: ignore[return-value]
