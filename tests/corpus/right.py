"""Correct functions: torch's own beside themselves, and hand-written Functions beside their definitions.

Each is called as ``gradcheck.check(fn, definition, inputs, **options)``. An audit of any of them that fails is a false
alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

import gradcheck


@dataclass(frozen=True)
class Entry:
    fn: Callable[..., Tensor]
    inputs: dict[str, Any]
    definition: Callable[..., Tensor] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32)

    def audit(self, name: str, seed: int) -> gradcheck.Report:
        settings = gradcheck.Settings(seed=seed, dtypes=self.dtypes)
        return gradcheck.check(self.fn, self.definition, self.inputs, name=name, settings=settings, **self.options)


RIGHT: dict[str, Entry] = {}


def of_torch(name: str, fn: Callable[..., Tensor], *shapes: Sequence[int] | Tensor, **options: Any) -> None:
    """A function of torch beside itself, differentiable twice and in every mode."""
    inputs = dict(zip("xyzw", shapes, strict=False))
    halves = options.pop("halves", True)
    options = {"order": 2, "promises": ("forward", "vmap"), **options}
    RIGHT[f"torch: {name}"] = Entry(fn, inputs, fn, options, gradcheck.Settings.dtypes[: 4 if halves else 2])


def by_hand(*shapes: Sequence[int] | Tensor, definition: Callable[..., Tensor] | None, **options: Any) -> Any:
    """Registers the ``apply`` of a Function."""

    def register(function: type[Function]) -> type[Function]:
        inputs = dict(zip("xyzw", shapes, strict=False))
        RIGHT[function.__name__] = Entry(function.apply, inputs, definition, options)
        return function

    return register


# -- torch's own


def on_the_diagonal(x: Tensor) -> Tensor:
    written = x * 1
    written.diagonal().add_(-1).pow_(2)
    return written


POSITIVE = {"x": (0.1, 4.0)}
UNIT = {"x": (0.0, 1.0)}
LABELS = torch.tensor([1, 0, 3, 2])

of_torch("softmax", lambda x: x.softmax(-1), (4, 5))
of_torch("softmax of a long row", lambda x: x.softmax(-1), (2, 300))
of_torch("log_softmax", lambda x: x.log_softmax(-1), (4, 5))
of_torch("logsumexp", lambda x: x.logsumexp(-1), (4, 5))
of_torch("layer_norm", lambda x: F.layer_norm(x, (6,)), (3, 6))
# (at order 2 torch 2.13 fails: its forward mode over reverse mode is wrong by the weight)
of_torch("layer_norm, affine", lambda x, y, z: F.layer_norm(x, (6,), y, z), (3, 6), (6,), (6,), order=1)
of_torch("group_norm", lambda x: F.group_norm(x, 2), (3, 4, 5))
of_torch("rms_norm", lambda x: F.rms_norm(x, (6,)), (3, 6))
of_torch("normalize", lambda x: F.normalize(x, dim=-1), (3, 6))
of_torch("gelu", F.gelu, (4, 5))
of_torch("gelu, tanh", lambda x: F.gelu(x, approximate="tanh"), (4, 5))
of_torch("silu", F.silu, (4, 5))
of_torch("mish", F.mish, (4, 5))
of_torch("softplus", F.softplus, (4, 5))
of_torch("logsigmoid", F.logsigmoid, (4, 5), order=1)
of_torch("sigmoid", torch.sigmoid, (4, 5))
of_torch("tanh", torch.tanh, (4, 5))
of_torch("elu", F.elu, (4, 5), kinks={2: lambda x: x})
of_torch("relu", F.relu, (4, 5), kinks={1: lambda x: x})
of_torch("leaky_relu", F.leaky_relu, (4, 5), kinks={1: lambda x: x})
of_torch("abs", torch.abs, (4, 5), kinks={1: lambda x: x})
of_torch("hardtanh", F.hardtanh, (4, 5), kinks={1: lambda x: x.abs() - 1})
of_torch("exp", torch.exp, (4, 5))
of_torch("log", torch.log, (4, 5), domain=POSITIVE)
of_torch("log1p", torch.log1p, (4, 5), domain=POSITIVE)
of_torch("expm1", torch.expm1, (4, 5))
of_torch("sqrt", torch.sqrt, (4, 5), domain=POSITIVE)
of_torch("rsqrt", torch.rsqrt, (4, 5), domain=POSITIVE)
of_torch("sin", torch.sin, (4, 5))
of_torch("atan2", torch.atan2, (4, 5), (4, 5), domain={"y": (0.5, 4.0)})
of_torch("pow", lambda x: x**2.5, (4, 5), domain=POSITIVE)
of_torch("erf", torch.erf, (4, 5))
of_torch("lgamma", torch.lgamma, (4, 5), domain=POSITIVE, promises=("forward",))
of_torch("digamma", torch.digamma, (4, 5), domain={"x": (2.0, 5.0)})
of_torch("logit", torch.logit, (4, 5), domain=UNIT)
of_torch("product", torch.mul, (4, 5), (4, 5))
of_torch("quotient", torch.div, (4, 5), (4, 5), domain={"y": (0.5, 4.0)})
of_torch("a sum that broadcasts", lambda x, y: x * y + y, (4, 5), (5,))
of_torch("difference of large numbers", lambda x, y: (1e4 + x) - (1e4 + y), (4, 5), (4, 5))
of_torch("one minus cosine", lambda x: 1 - x.cos(), (4, 5), domain={"x": (-1e-2, 1e-2)})
of_torch("variance", lambda x: x.var(-1), (3, 6))
of_torch("standard deviation", lambda x: x.std(-1), (3, 6))
of_torch("cumsum", lambda x: x.cumsum(-1), (3, 6))
of_torch("cumprod", lambda x: x.cumprod(-1), (3, 6))
of_torch("prod", lambda x: x.prod(-1), (3, 6))
of_torch("norm", lambda x: x.norm(dim=-1), (3, 6))
of_torch("cdist", torch.cdist, (3, 4), (5, 4), promises=("vmap",), order=1, halves=False)
of_torch("matmul", torch.matmul, (3, 4), (4, 5))
of_torch("linear", F.linear, (3, 4), (5, 4), (5,))
of_torch("bilinear form", lambda x, y: (x @ y * x).sum(-1), (3, 4), (4, 4))
of_torch("conv1d", F.conv1d, (2, 3, 8), (4, 3, 3))
of_torch("attention", lambda x, y, z: (x @ y.mT / 2).softmax(-1) @ z, (3, 4), (5, 4), (5, 4))
of_torch("embedding bag by index", lambda x: x[LABELS].sum(0), (4, 5))
of_torch("gather", lambda x: x.gather(1, LABELS[:, None]), (4, 5))
of_torch("inverse", torch.linalg.inv, torch.eye(4, dtype=torch.float64) * 3 + 0.1, halves=False)
of_torch("logdet", torch.logdet, torch.eye(4, dtype=torch.float64) * 3 + 0.1, halves=False)
of_torch("max of a row", lambda x: x.amax(-1), (3, 6))
of_torch("median filter", lambda x: x.sort(-1).values[..., 1], (3, 3))
of_torch("mean of many", lambda x: x.square().mean(), (400, 250), order=1, promises=())
of_torch("sum of many that cancel", lambda x: x.sin().sum(), (400, 250), order=1, promises=())
of_torch("cross_entropy", lambda x: F.cross_entropy(x, LABELS), (4, 5))
of_torch("binary cross entropy", lambda x, y: F.binary_cross_entropy_with_logits(x, y), (4, 5), (4, 5))
of_torch("cosine_similarity", lambda x, y: F.cosine_similarity(x, y), (3, 6), (3, 6))
of_torch("kl_div", lambda x, y: F.kl_div(x, y.softmax(-1)), (3, 6), (3, 6))
of_torch("in place on a diagonal", on_the_diagonal, (4, 4))
of_torch("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), (1, 4, 3, 3))
of_torch("a scalar", lambda x: x.exp(), ())
of_torch("tiny numbers", lambda x: (x * 1e-30).square().sum(), (4, 5))
of_torch("large numbers", lambda x: (x * 1e12).square().mean(), (4, 5))


class Scaled(torch.nn.Module):
    """The value requires a gradient though no input does."""

    def __init__(self) -> None:
        super().__init__()
        self.by = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.by * x).sin()


of_torch("a Module with a parameter", Scaled(), (4, 5))


# -- by hand, as people write them


@by_hand((4, 5), (5,), definition=lambda x, y: torch.sigmoid(x + y))
class SigmoidOfSum(Function):
    @staticmethod
    def forward(ctx, x, y):
        s = torch.sigmoid(x + y)
        ctx.save_for_backward(s)
        return s

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (s,) = ctx.saved_tensors
        d = g * s * (1 - s)
        return d, d.sum(0)


def layer_norm(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * y + z


@by_hand((3, 6), (6,), (6,), definition=layer_norm)
class LayerNorm(Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        mean, rstd = x.mean(-1, keepdim=True), torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
        h = (x - mean) * rstd
        ctx.save_for_backward(h, rstd, weight)
        return h * weight + bias

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        h, rstd, weight = ctx.saved_tensors
        d = g * weight
        dx = rstd * (d - d.mean(-1, keepdim=True) - h * (d * h).mean(-1, keepdim=True))
        return dx, (g * h).sum(0), g.sum(0)


def dice(x: Tensor, y: Tensor) -> Tensor:
    p = x.sigmoid()
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


class Dice(Function):
    @staticmethod
    def forward(ctx, x, y):
        p = x.sigmoid()
        over, under = 2 * (p * y).sum() + 1, p.sum() + y.sum() + 1
        ctx.save_for_backward(p, y, over, under)
        return 1 - over / under

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        p, y, over, under = ctx.saved_tensors
        return g * -(2 * y * under - over) / under**2 * p * (1 - p), None


MASK = {"y": (0.0, 1.0)}
RIGHT["Dice"] = Entry(Dice.apply, {"x": (4, 5), "y": (4, 5)}, dice, dict(differentiable={"x"}, domain=MASK))
RIGHT["Dice of a mask"] = Entry(
    Dice.apply, {"x": (32, 64), "y": (32, 64)}, dice, dict(differentiable={"x"}, domain=MASK)
)


def focal(x: Tensor, y: Tensor) -> Tensor:
    p = x.sigmoid()
    p_t = p * y + (1 - p) * (1 - y)
    return ((1 - p_t) ** 2 * F.binary_cross_entropy_with_logits(x, y, reduction="none")).mean()


class Focal(Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return focal(x, y)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        s = 2 * y - 1
        p_t = (s * x).sigmoid()
        return g * s * (1 - p_t) ** 2 * (2 * p_t * F.logsigmoid(s * x) - (1 - p_t)) / x.numel(), None


RIGHT["Focal"] = Entry(
    Focal.apply, {"x": (4, 5), "y": (torch.arange(20).view(4, 5) % 3 == 0).double()}, focal, dict(differentiable={"x"})
)


@by_hand((4, 5), definition=lambda x: x.log_softmax(-1)[:, 0].mean())
class MeanLogProbability(Function):
    @staticmethod
    def forward(ctx, x):
        log_p = x - x.logsumexp(-1, keepdim=True)
        ctx.save_for_backward(log_p)
        return log_p[:, 0].mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (log_p,) = ctx.saved_tensors
        d = -log_p.exp()
        d[:, 0] += 1
        return g * d / len(d)


@by_hand((4, 5), (4, 5), definition=lambda x, y: (x - y).square().mean(), order=2)
class SquaredError(Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return (x - y).square().mean()

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        d = g * 2 * (x - y) / x.numel()
        return d, -d


@by_hand((3, 4), (4, 5), definition=torch.matmul)
class MatMul(Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x @ y

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        dx = g @ y.mT if ctx.needs_input_grad[0] else None
        dy = x.mT @ g if ctx.needs_input_grad[1] else None
        return dx, dy


@by_hand((4, 5), definition=None)
class ByNumpy(Function):
    """NumPy has no bfloat16."""

    @staticmethod
    def forward(ctx, x):
        y = np.sin(x.detach().numpy())
        ctx.save_for_backward(x)
        return torch.from_numpy(np.asarray(y))

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(np.asarray(g.numpy() * np.cos(x.detach().numpy())))


@by_hand((4, 5), definition=torch.special.erfcx)
class ByScipy(Function):
    """scipy.special knows float64 and float32."""

    @staticmethod
    def forward(ctx, x):
        y = torch.from_numpy(np.asarray(scipy.special.erfcx(x.detach().numpy())))
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * (2 * x * y - 2 / np.sqrt(np.pi))


@by_hand((4, 5), definition=lambda x: x.clamp(min=0), kinks={1: lambda x: x})
class Rectifier(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x > 0)


class Picked(Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(y)
        ctx.shape = x.shape
        return x.gather(1, y[:, None]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g.expand(len(y), 1).new_zeros(ctx.shape).scatter(1, y[:, None], g.expand(len(y), 1)), None


RIGHT["Picked"] = Entry(Picked.apply, {"x": (4, 5), "y": LABELS}, lambda x, y: x.gather(1, y[:, None]).sum())


def weighted(x: Tensor, y: Tensor, power: float = 2.0) -> Tensor:
    return (y * x.abs() ** power).sum() / y.sum()


class Weighted(Function):
    @staticmethod
    def forward(ctx, x, y, power=2.0):
        ctx.save_for_backward(x, y)
        ctx.power = power
        return (y * x.abs() ** power).sum() / y.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        e, total = x.abs() ** ctx.power, y.sum()
        dx = g * y * ctx.power * x.abs() ** (ctx.power - 1) * x.sign() / total
        return dx, g * (e - (y * e).sum() / total) / total, None


RIGHT["Weighted"] = Entry(
    lambda x, y, power=2.0: Weighted.apply(x, y, power), {"x": (4, 5), "y": (4, 5)}, weighted,
    dict(domain={"y": (0.1, 2.0)}, params=({}, {"power": 3.0})),
)  # fmt: skip


@by_hand((4, 100_000), definition=lambda x: x.logsumexp(-1))
class LongLogSumExp(Function):
    @staticmethod
    def forward(ctx, x):
        m = x.amax(-1, keepdim=True)
        e = (x - m).exp()
        ctx.save_for_backward(e)
        return m.squeeze(-1) + e.sum(-1).log()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (e,) = ctx.saved_tensors
        return g.unsqueeze(-1) * e / e.sum(-1, keepdim=True)


@by_hand((4, 5), definition=lambda x: x**3, order=3, promises=("forward", "vmap"))
class Cube(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        (x,) = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x**2

    @staticmethod
    def jvp(ctx, v):
        (x,) = ctx.saved_tensors
        return v * 3 * x**2


@by_hand((4, 5), definition=lambda x: x**3, order=2, promises=("vmap",))
class WithoutForwardMode(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x**2


def only_float32(x: Tensor) -> None:
    if x.dtype is not torch.float32:
        raise TypeError(f"expected float32, got {x.dtype}")


@by_hand((4, 300), (300,), definition=lambda x, y: (x * y).softmax(-1))
class OnlyInFloat32(Function):
    """As many kernels are."""

    @staticmethod
    def forward(ctx, x, y):
        only_float32(x)
        p = (x * y).softmax(-1)
        ctx.save_for_backward(p, x, y)
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        p, x, y = ctx.saved_tensors
        d = p * (g - (g * p).sum(-1, keepdim=True))
        return d * y, (d * x).sum(0)
