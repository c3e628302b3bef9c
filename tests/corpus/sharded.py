"""Functions on several processes: a right one, and some with a fault. What starts the processes imports this alone."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Each process has some of the classes, as a vocabulary is divided: the scores x W^T of a row are spread over all.


def mean_of_squares(x: Tensor, w: Tensor) -> Tensor:
    return (x @ w.mT).square().mean()


class Sharded(Function):
    """The mean of squares of x W^T, of whose rows W each process has some."""

    fault = ""

    @classmethod
    def forward(cls, ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        z = x @ w.mT
        total, count = z.square().sum(), torch.tensor(float(z.numel()), dtype=z.dtype)
        if cls.fault != "value":
            dist.all_reduce(total)
        dist.all_reduce(count)
        ctx.save_for_backward(x, w, count)
        if cls.fault == "raises" and dist.get_rank() == 1:
            raise RuntimeError("no memory is left")
        if cls.fault == "dies" and dist.get_rank() == 1:
            os._exit(7)
        return total / count

    @classmethod
    def backward(cls, ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, w, count = ctx.saved_tensors
        r = 2 * g / count * (x @ w.mT)
        dx, dw = r @ w, r.mT @ x
        if cls.fault == "hangs" and dist.get_rank() == 1:
            return dx, dw
        if cls.fault != "gradient":
            dist.all_reduce(dx)
        return dx, dist.get_world_size() * dw if cls.fault == "size" else dw


def added(t: Tensor) -> Tensor:
    total = t.clone()
    dist.all_reduce(total)
    return total


class Added(Function):
    """The sum of what the processes have, which is one number for all of them."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return added(t)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return Shared.apply(g)


class Shared(Function):
    """What all processes have, for each to use it in its own way."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return Added.apply(g)


class AddedOnce(Function):
    """Instead of ``Added``: right at the first order."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return added(t)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


def of_parts(x: Tensor, w: Tensor) -> Tensor:
    """As ``Sharded``, for derivatives of every order."""
    z = Shared.apply(x) @ w.mT
    return Added.apply(z.square().sum()) / added(z.new_tensor(z.numel()))


def without_its_second_all_reduce(x: Tensor, w: Tensor) -> Tensor:
    z = Shared.apply(x) @ w.mT
    return AddedOnce.apply(z.square().sum()) / added(z.new_tensor(z.numel()))


class Once(Function):
    """``Shared`` for a first derivative alone."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return added(g)


def once(x: Tensor, w: Tensor) -> Tensor:
    z = Once.apply(x) @ w.mT
    return Added.apply(z.square().sum()) / added(z.new_tensor(z.numel()))


class WithoutItsSum(Sharded):
    fault = "value"


class WithoutItsAllReduce(Sharded):
    fault = "gradient"


class TimesTheProcesses(Sharded):
    fault = "size"


class Hangs(Sharded):
    fault = "hangs"


class Dies(Sharded):
    fault = "dies"


class Raises(Sharded):
    fault = "raises"


def scaled(x: Tensor, w: Tensor) -> Tensor:
    return x * w
