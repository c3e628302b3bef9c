"""Rows that are spread over processes, and travel in a ring.

Each process keeps its queries. The keys travel in a ring, with the states of their columns and, in backward, with what
has been added up for them; after one round everything is home again. A process holds its own rows, the visitors and a
tile. The formulas, which serve for second derivatives, forward mode and transforms, gather the visitors instead.

The gradients of a loss are those of the whole loss by the rows of this process; what all processes have, such as the
temperature, gets the whole gradient on each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from manual_grad.engine import collectives
from manual_grad.engine.collectives import Groups


@dataclass(frozen=True)
class Spread:
    """Over which processes the rows are spread, and how many queries and keys each of them has."""

    groups: Groups
    rank: int
    queries: tuple[int, ...]
    keys: tuple[int, ...]

    @property
    def row(self) -> int:
        """The place of this process's first query among all."""
        return sum(self.queries[: self.rank])

    @property
    def column(self) -> int:
        return sum(self.keys[: self.rank])


class Ring:
    """The processes in a circle: each sends to the next what it got from the one before."""

    def __init__(self, spread: Spread) -> None:
        (self.group,) = collectives.process_groups(spread.groups)
        self.rank, self.counts, self.size = spread.rank, spread.keys, len(spread.keys)
        place = torch.distributed.get_global_rank
        self.next, self.before = (place(self.group, (self.rank + step) % self.size) for step in (1, -1))

    def start(self, sent: list[Tensor], received: list[Tensor]) -> Callable[[], list[Tensor]]:
        """Send, and return a function that waits for what comes."""
        if self.size == 1:
            return lambda: sent
        distributed = torch.distributed
        sent = [t.contiguous() for t in sent]
        ops = [distributed.P2POp(distributed.isend, t, self.next, self.group) for t in sent if t.numel()]
        ops += [distributed.P2POp(distributed.irecv, t, self.before, self.group) for t in received if t.numel()]
        waiting = distributed.batch_isend_irecv(ops) if ops else []

        def wait() -> list[Tensor]:
            for work in waiting:
                work.wait()
            del sent[:]  # until now they must not be freed
            return received

        return wait


class Whole(Function):
    """``apply(x, spread)``: the sum over the processes, the same on each, bit by bit; each has the whole gradient."""

    @staticmethod
    def forward(x: Tensor, spread: Spread) -> Tensor:
        return _sum(x, spread)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.spread = inputs[1]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return collectives.spread(g, ctx.spread.groups), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, _: None) -> Tensor:
        return Whole.apply(dx, ctx.spread)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, spread: Spread) -> tuple[Tensor, Any]:
        return Whole.apply(x, spread), in_dims[0]


def _sum(x: Tensor, spread: Spread) -> Tensor:
    """In the order of the processes: an all-reduce may add up in another order on each."""
    apart = x.new_zeros(len(spread.queries), *x.shape)
    apart[spread.rank] = x
    return collectives.total(apart, spread.groups).sum(0)


def spread_of(name: str, groups: Groups | None, queries: int, keys: int, device: torch.device) -> Spread | None:
    """Who has how many rows. (On a device the host waits for these numbers.)"""
    if not groups:
        return None
    dimensions = len(groups.splitlines())
    if dimensions > 1:
        raise ValueError(f"{name}(): argument 'group' must have one dimension, but got a mesh of {dimensions}")
    if torch.compiler.is_compiling():
        raise RuntimeError(
            f"{name}(): with a group, rows travel between the processes, which torch.compile cannot trace; "
            "call it outside of what is compiled, or in a function decorated with torch.compiler.disable"
        )
    rank = collectives.rank(groups)
    counts = torch.zeros(2, collectives.count(groups), dtype=torch.int64, device=device)
    counts[:, rank] = torch.tensor([queries, keys], device=device)
    of_queries, of_keys = collectives.total(counts, groups).tolist()
    return Spread(groups, rank, tuple(of_queries), tuple(of_keys))


def gathered(t: Tensor, spread: Spread, counts: tuple[int, ...]) -> Tensor:
    """The rows of all processes, of which each has some. Its gradient is the sum over the processes, of its own."""
    before = sum(counts[: spread.rank])
    after = sum(counts) - before - len(t)
    whole = torch.cat([t.new_zeros(before, *t.shape[1:]), t, t.new_zeros(after, *t.shape[1:])])
    return collectives.total(whole, spread.groups)
