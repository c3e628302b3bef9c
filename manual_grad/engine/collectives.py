r"""Sums and maxima over processes, with derivatives, for losses whose tensors are spread over them.

Every process of a group calls the same functions in the same order. A tensor of which each has a part is *sharded*; one
that all have whole is *replicated*, and every process then holds its whole gradient. Between the two kinds there are
two maps, and each is the transpose of the other:

.. math::
    y = \sum_r x_r, \qquad \dot x_r = \dot y \tag{1}

.. math::
    x_r = y, \qquad \dot y = \sum_r \dot x_r \tag{2}

where :math:`\dot x` stands for a gradient. A sum over the classes of a row whose result goes on to sharded tensors is
(1) followed by (2), :func:`total`: an all-reduce forward, and one backward. What leaves a loss, replicated, is (1)
alone, :func:`gathered`; what enters it, (2) alone, :func:`spread`.

All are on the functional collectives of torch.distributed, which torch.compile traces.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from manual_grad.engine import torch_private

# The names of process groups, one a line, for torch.func would take a tuple apart. The processes of several are ordered
# as those of a mesh.
Groups = str


def groups_of(name: str, group: Any) -> Groups:
    """The names of a process group, or of those of a device mesh, one for each of its dimensions."""
    if group is None:
        return ""
    if isinstance(group, tuple):  # Shards, from a DTensor
        return group  # type: ignore[return-value]
    if not torch.distributed.is_available():
        raise RuntimeError(f"{name}(): argument 'group' needs torch.distributed, which this torch is built without")
    from torch.distributed.device_mesh import DeviceMesh

    if isinstance(group, DeviceMesh):
        return joined(group.get_all_groups())
    if isinstance(group, torch.distributed.ProcessGroup):
        return joined([group])
    raise TypeError(f"{name}(): argument 'group' must be ProcessGroup or DeviceMesh, not {type(group).__name__}")


def joined(groups: Iterable[Any]) -> Groups:
    return "\n".join(group.group_name for group in groups)


def process_groups(groups: Groups) -> list[Any]:
    return [torch_private.process_group(name) for name in groups.splitlines()]


def count(groups: Groups) -> int:
    """How many processes there are."""
    return math.prod(group.size() for group in process_groups(groups))


def rank(groups: Groups) -> int:
    """Which of them this one is."""
    place = 0
    for group in process_groups(groups):
        place = place * group.size() + group.rank()
    return place


class _AllReduce(Function):
    """``apply(x, op, groups)``: (1) for "sum"; a maximum has no derivative."""

    @staticmethod
    def forward(x: Tensor, op: str, groups: Groups) -> Tensor:
        if torch_private.is_legacy_batched(x):
            raise NotImplementedError(
                "is_grads_batched: processes cannot add up batched gradients; use torch.func.vmap"
            )
        for name in groups.splitlines():
            x = torch_private.all_reduce(x, op, name)
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.op, ctx.groups = inputs
        if ctx.op != "sum":
            ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return (spread(g, ctx.groups) if ctx.op == "sum" else None), None, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, *_: None) -> Tensor | None:
        return gathered(dx, ctx.groups) if ctx.op == "sum" else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], x: Tensor, op: str, groups: Groups) -> tuple[Tensor, int]:
        return _AllReduce.apply(_first(info, in_dims[0], x), op, groups), 0


class _Here(Function):
    """``apply(x, groups)``: x, but its gradient comes from all processes, or goes to them."""

    @staticmethod
    def forward(x: Tensor, groups: Groups) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.groups = inputs

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], x: Tensor, groups: Groups) -> tuple[Tensor, int]:
        return cls.apply(_first(info, in_dims[0], x), groups), 0


class _Spread(_Here):
    """(2)."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None]:
        return gathered(g, ctx.groups), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, *_: None) -> Tensor:
        return spread(dx, ctx.groups)


class _Term(_Here):
    """(1) without its sum, which a DTensor does; it does not do that of (2)."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None]:
        return spread(g, ctx.groups), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, *_: None) -> Tensor:
        return term(dx, ctx.groups)


def _first(info: Any, dim: int | None, x: Tensor) -> Tensor:
    """What vmap maps over, as the first dimension."""
    return x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)


def gathered(x: Tensor, groups: Groups) -> Tensor:
    """The sum over the processes of what is sharded, for use in what is replicated."""
    return _AllReduce.apply(x.contiguous(), "sum", groups) if groups else x


def total(x: Tensor, groups: Groups) -> Tensor:
    """The sum over the processes, for use in what is sharded: its gradient is summed, too."""
    return spread(gathered(x, groups), groups)


def term(x: Tensor, groups: Groups) -> Tensor:
    """A term of a replicated sum that a DTensor does: (1) but for the addition."""
    return _Term.apply(x, groups) if groups and x.is_floating_point() else x


def maximum(x: Tensor, groups: Groups) -> Tensor:
    """The maximum over the processes, a constant. Processes do not agree on that of NaN: let there be none."""
    return _AllReduce.apply(x.contiguous(), "max", groups) if groups else x.detach()


def spread(x: Tensor, groups: Groups) -> Tensor:
    """A replicated tensor, for use in what is sharded: its gradient is summed over the processes."""
    return _Spread.apply(x, groups) if groups and x.is_floating_point() else x


_BATCH: ContextVar[Groups] = ContextVar("manual_grad.batch", default="")


def batch_groups() -> Groups:
    """Over whose processes the rows of a batch are spread, in this context. (Dynamo cannot read the variable.)"""
    return "" if torch.compiler.is_dynamo_compiling() else _BATCH.get()


@contextlib.contextmanager
def batch(groups: Groups) -> Iterator[None]:
    """Context manager in which means are shares of the mean over the batch of all processes: they add up to it."""
    token = _BATCH.set(groups)
    try:
        yield
    finally:
        _BATCH.reset(token)


def of_batch(divisor: Tensor | float, like: Tensor) -> Tensor | float:
    """What a mean over the batch of all processes divides by, from what one over the rows here does."""
    groups = batch_groups()
    if not groups:
        return divisor
    if not isinstance(divisor, Tensor):
        divisor = torch.full((), divisor, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
    return total(divisor, groups)
