"""Functions that are right but for one planted fault: ten of them, with each of the faults that applies.

A base is a definition in torch ops. Its Function computes the gradient by autograd of that definition, so that nothing
is wrong with it but what a fault does to the value, to the gradient, or to what is not its own. Each fault says what
the first line of a report on it must say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

import gradcheck

Gradients = tuple["Tensor | None", ...]


def layer_norm(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * y + z


def dice(x: Tensor) -> Tensor:
    p = x.sigmoid()
    return 1 - (2 * p[0].sum() + 1) / (p.sum() + p.numel())


BASES: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "sigmoid of a sum": (lambda x, y: torch.sigmoid(x + y), ((5, 5), (5,))),
    "layer norm": (layer_norm, ((4, 4), (4,), (4,))),
    "mean of squares": (lambda x, y: (x - y).square().mean(), ((4, 4), (4, 4))),
    "matmul": (torch.matmul, ((4, 4), (4, 4))),
    "logsumexp": (lambda x: x.logsumexp(-1), ((4, 4),)),
    "softmax": (lambda x: x.softmax(-1), ((4, 4),)),
    "dice": (dice, ((4, 4),)),
    "cube": (lambda x: x**3, ((4, 4),)),
    "product": (lambda x, y: x * y.exp(), ((4, 4), (4, 4))),
    "long": (lambda x: x.sin().square().mean(0), ((100, 100),)),
}


@dataclass
class Fault:
    """What is wrong, and what the report must begin with.

    Args:
        cause: A pattern for the first line.
        gradient: Spoils the gradients: ``gradient(ctx, g, gradients)``.
        value: Spoils the value: ``value(ctx, value, inputs)``.
        bases: Where the fault is one; by default everywhere.
        options: More of what is claimed for the function.
    """

    cause: str
    gradient: Callable[[Any, Tensor, list[Tensor]], Any] = lambda ctx, g, d: d
    value: Callable[[Any, Tensor, tuple[Tensor, ...]], Tensor] = lambda ctx, v, x: v
    bases: tuple[str, ...] = tuple(BASES)
    options: dict[str, Any] = field(default_factory=dict)


def function(definition: Callable[..., Tensor], fault: Fault) -> Callable[..., Tensor]:
    class Spoilt(Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            ctx.save_for_backward(*inputs)
            ctx.calls = 0
            return fault.value(ctx, definition(*(t.detach() for t in inputs)), inputs)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            ctx.calls += 1
            inputs = ctx.saved_tensors
            with torch.enable_grad():
                leaves = [t.detach().requires_grad_() for t in inputs] if not torch.is_grad_enabled() else inputs
                leaves = [t if t.requires_grad else t.detach().requires_grad_() for t in leaves]
                again = torch.is_grad_enabled() and g.requires_grad
                found = torch.autograd.grad(definition(*leaves), leaves, g, create_graph=again)
            found = fault.gradient(ctx, g, list(found))
            return found[0] if isinstance(found, list) and len(found) == 1 else tuple(found)

    return Spoilt.apply


def first(change: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor, list[Tensor]], list[Tensor]]:
    """The fault in the gradient of the first input alone."""
    return lambda ctx, g, d: [change(d[0]), *d[1:]]


def where(place: Callable[[Tensor], Tensor], change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def changed(d: Tensor) -> Tensor:
        d = d.clone()
        place(d).copy_(change(place(d)))
        return d

    return changed


def second_time(ctx: Any, g: Tensor, d: list[Tensor]) -> list[Tensor]:
    return d if ctx.calls == 1 else [2 * d[0], *d[1:]]


def overwritten(t: Tensor, d: list[Tensor]) -> list[Tensor]:
    t.mul_(1.5)
    return d


def unwritten(d: Tensor) -> Tensor:
    out = torch.empty_like(d)
    out[:-1] = d[:-1]
    return out


def behind(t: Tensor) -> Tensor | None:
    """What lies behind a tensor, if that is memory of its own: elsewhere it would be another's."""
    memory, place = t.untyped_storage(), t.storage_offset() + t.numel()
    if not t.is_contiguous() or memory.nbytes() < (place + 1) * t.element_size():
        return None
    return torch.empty(0, dtype=t.dtype).set_(memory, place, (1,), (1,))


def written_behind(d: Tensor) -> Tensor:
    out = torch.empty_like(d).copy_(d)
    beyond = behind(out)
    if beyond is not None:
        beyond.fill_(0)
    return out


def read_behind(ctx: Any, g: Tensor, d: list[Tensor]) -> list[Tensor]:
    beyond = behind(ctx.saved_tensors[0].detach())
    return d if beyond is None else [d[0] + 0 * beyond.sum(), *d[1:]]


def noisy(d: Tensor) -> Tensor:
    return d * (1 + 1e-9 * torch.rand(()).item())


def misread(ctx: Any, g: Tensor, d: list[Tensor]) -> list[Tensor]:
    """As a kernel that takes the upstream gradient for contiguous: it reads what lies one behind the other."""
    if g.dim() and not g.is_contiguous():
        behind = g.flatten()[:1].expand(g.shape) if 0 in g.stride() else g.mT if g.dim() > 1 else g
        return [d[0] * behind.sum() / (g.sum() * 1.5), *d[1:]] if 0 not in g.stride() else [d[0] * 0.5, *d[1:]]
    return d


HELD: list[Any] = []


def leaked(ctx: Any, value: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    HELD.append(inputs)
    return value


def in_a_cycle(ctx: Any, value: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    ctx.result = value  # which has ctx as its grad_fn
    return value


def written_input(ctx: Any, value: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    inputs[0].detach().add_(0.25)
    return value


WIDE = tuple(name for name in BASES if name not in ("mean of squares", "dice"))  # not one number
SEVERAL = ("sigmoid of a sum", "layer norm", "mean of squares", "matmul", "product")
SOME = ("matmul", "cube")


def wrong(relation: str) -> str:
    return f"gradient of x is wrong: {relation};"


def beyond(side: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor, list[Tensor]], list[Tensor]]:
    """Three times the gradient wherever the first input is on that side."""
    return lambda ctx, g, d: [torch.where(side(ctx.saved_tensors[0]), 3 * d[0], d[0]), *d[1:]]


FAULTS: dict[str, Fault] = {
    "half of it": Fault(wrong("0.5 times what is expected"), first(lambda d: 0.5 * d)),
    "1.001 of it": Fault(wrong("1.001 times what is expected"), first(lambda d: 1.001 * d)),
    "1 + 1e-7 of it": Fault(wrong("1.0000001 times what is expected"), first(lambda d: (1 + 1e-7) * d)),
    "sum for mean": Fault(
        wrong(r"\d+ times what is expected: is the 1/N of a mean missing\? There are \d+ entries of x"),
        first(lambda d: d * d.numel()),
    ),
    "mean for sum": Fault(
        wrong(r"0\.\d+ times what is expected: a factor 1/N\? There are (\d+) rows( and columns)? of x"),
        first(lambda d: d / len(d)), bases=SOME,
    ),
    "the other sign": Fault(wrong("-1 times what is expected: the opposite sign"), first(lambda d: -d)),
    "zero": Fault(wrong("zero everywhere"), first(torch.zeros_like)),
    "transposed": Fault(
        wrong("the transpose of what is expected"), first(lambda d: d.mT), bases=tuple(k for k in BASES if k != "long")
    ),
    "in reverse": Fault(
        wrong("what is expected, with its columns in reverse order"), first(lambda d: d.flip(1)), bases=SOME,
    ),
    "off by one": Fault(
        wrong("what is expected, with its rows shifted by one"), first(lambda d: d.roll(1, 0)), bases=SOME,
    ),
    "too much everywhere": Fault(
        wrong(r"\d.\d+ more than expected everywhere"), lambda ctx, g, d: [d[0] + g.mean(), *d[1:]], bases=SOME,
    ),
    "None": Fault("gradient of x is missing", lambda ctx, g, d: [None, *d[1:]]),
    "NaN in one place": Fault(
        wrong(r"NaN in 1 of \d+ entries"), first(where(lambda d: d[:1, :1], lambda t: t * float("nan")))
    ),
    "NaN in a row": Fault(
        wrong(r"NaN in \d+ of \d+ entries: row 1"), first(where(lambda d: d[1], lambda t: t * float("nan"))),
        bases=SOME,
    ),
    "one entry": Fault(wrong("right but for one entry"), first(where(lambda d: d[2:3, 1:2], lambda t: 3 * t))),
    "two entries": Fault(
        wrong(r"right but for \[0, 1\] and \[2, 2\]"),
        first(where(lambda d: d.view(-1)[1 :: 2 * d.shape[1] + 1][:2], lambda t: 3 * t)), bases=SOME,
    ),
    "a row": Fault(wrong("right but for row 1"), first(where(lambda d: d[1], lambda t: 3 * t)), bases=SOME),
    "a column": Fault(
        wrong("right but for column 1"), first(where(lambda d: d[:, 1], lambda t: 3 * t)), bases=SOME,
    ),
    "the last column": Fault(
        wrong("right but for the last column"), first(where(lambda d: d[:, -1], lambda t: 3 * t))
    ),
    "the last two rows": Fault(
        wrong("right but for the last 2 rows"), first(where(lambda d: d[-2:], lambda t: 3 * t)), bases=SOME,
    ),
    "some signs": Fault(
        wrong(r"right but for the sign of \d+ of \d+ entries: row 1"), first(where(lambda d: d[1], lambda t: -t)),
        bases=SOME,
    ),
    "the rows behind a block": Fault(
        wrong("right but for rows 64 to 99: wrong where a block of 64 ends"),
        first(where(lambda d: d[64:], lambda t: 3 * t)), bases=("long",),
    ),
    "behind a block in memory": Fault(
        wrong("right but for entries 8192 to 9999, counted row by row: wrong where a block of 8192 ends"),
        first(where(lambda d: d.view(-1)[8192:], lambda t: 3 * t)), bases=("long",),
    ),
    "at the edges of blocks": Fault(
        wrong("right but for every 32nd column, from 31 on"),
        first(where(lambda d: d[:, 31::32], lambda t: 3 * t)), bases=("long",),
    ),
    "on one side": Fault(  # which has a single entry for some seeds
        wrong("right but for (where x is negative|one entry)"), beyond(lambda x: x < 0), bases=SOME
    ),
    "beyond a threshold": Fault(
        wrong("right but for where x is above 1 or so"), beyond(lambda x: x > 1), bases=("long",)
    ),
    "a factor for each row": Fault(
        wrong("each row is a multiple of what is expected, by a factor from 2 to [56]"),
        first(lambda d: d * torch.arange(2, 2 + len(d)).to(d)[:, None]), bases=SOME,
    ),
    "in float32": Fault(wrong("rounded to float32"), first(lambda d: d.float().double())),
    "without its upstream": Fault(
        "gradient of x does not depend on the upstream", lambda ctx, g, d: [d[0] / g.mean(), *d[1:]]
    ),
    "wrong for another stride": Fault("gradient of x is wrong for an upstream", misread, bases=WIDE),
    "wrong the second time": Fault("gradient of x is another in", second_time),
    "the other axis": Fault(
        "gradient of y is wrong", lambda ctx, g, d: [d[0], d[0].sum(1), *d[2:]], bases=("sigmoid of a sum",)
    ),
    "swapped": Fault(wrong("the gradient of y"), lambda ctx, g, d: [d[1], d[0]], bases=("matmul", "product")),
    "writes to its upstream": Fault("backward writes to the upstream", lambda ctx, g, d: overwritten(g, d)),
    "writes to a saved tensor": Fault(
        "input x is written to",
        lambda ctx, g, d: overwritten(ctx.saved_tensors[0].detach(), d),
    ),
    "writes to an input": Fault("input x is written to", value=written_input),
    "never the same": Fault("gradient of x is not the same", first(noisy)),
    "reads what nobody wrote": Fault("gradient of x (holds|depends on|is not the same)", first(unwritten)),
    "another value": Fault("value is wrong: .*1.01 times", value=lambda ctx, v, x: 1.01 * v),
    "one value more": Fault("value is wrong", value=lambda ctx, v, x: v + 1e-6),
    "a value in float32": Fault("value", value=lambda ctx, v, x: v.float()),
    "leaks": Fault("memory is not released", value=leaked),
    "a reference cycle": Fault("memory is not released", value=in_a_cycle),
    "waits": Fault(
        "host waits", value=lambda ctx, v, x: v + 0 * x[0].sum().item(), options=dict(promises=("asynchronous",))
    ),
    "silently constant at order two": Fault(
        "second derivative is wrong", lambda ctx, g, d: [g.sum() * 0 + u.detach() for u in d],
        bases=("cube", "softmax", "product"), options=dict(order=2),
    ),
    "the gradient of another input": Fault(
        "gradient of . is another when no other",
        lambda ctx, g, d: [d[0] if all(ctx.needs_input_grad) else 2 * d[0], *d[1:]], bases=SEVERAL,
    ),
    "the gradient of two inputs": Fault(
        "gradient of x is another with z alone",
        lambda ctx, g, d: [2 * d[0] if ctx.needs_input_grad == (True, False, True) else d[0], *d[1:]],
        bases=("layer norm",),
    ),
    "writes behind its result": Fault("memory is written to that belongs to no tensor", first(written_behind)),
    "reads behind its input": Fault("gradient of x depends on the memory beside", read_behind),
}  # fmt: skip


class Cube(Function):
    generate_vmap_rule = False

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * g

    @staticmethod
    def jvp(ctx: Any, v: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * v

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int | None]:
        return Cube.apply(x), dims[0]


class WrongUnderVmap(Cube):
    @staticmethod
    def vmap(info: Any, dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int | None]:
        return Cube.apply(x.flip(0)), dims[0]


class Curvature(Function):
    """6 x v, the derivative of 3 x^2 along v."""

    @staticmethod
    def forward(x: Tensor, v: Tensor) -> Tensor:
        return 6 * x * v

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, int], x: Tensor, v: Tensor) -> tuple[Tensor, int]:
        return Curvature.apply(x, v.flip(0)), 0


class Slope(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 3 * x**2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Tensor:
        return Curvature.apply(*ctx.saved_tensors, v)


class WrongUnderVmapAtOrderTwo(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * Slope.apply(*ctx.saved_tensors)


class WrongForwardMode(Cube):
    @staticmethod
    def jvp(ctx: Any, v: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] ** 2 * v


class WrongDual(Function):
    """Its forward mode is wrong where it is asked for by dual tensors; torch.func refuses it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * g

    @staticmethod
    def jvp(ctx: Any, v: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] ** 2 * v


class ZeroForwardMode(Cube):
    @staticmethod
    def jvp(ctx: Any, v: Tensor) -> Tensor:
        return torch.zeros_like(v)


class Saved(Function):
    """The square is saved as an intermediate result, which double backward takes for a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        square = x**2
        ctx.save_for_backward(square)
        return x * square

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (square,) = ctx.saved_tensors
        return 3 * square * g


class TwiceAtOrderTwo(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * g * (2 * x**2 - x.detach() ** 2)


class OnlyInFloat32(Function):
    """The spread of a softmax, with a fault."""

    fault: Callable[[Tensor], Tensor]
    cause: str

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if x.dtype is not torch.float32:
            raise TypeError(f"expected float32, got {x.dtype}")
        p = x.softmax(-1)
        ctx.save_for_backward(p)
        return p

    @classmethod
    def backward(cls, ctx: Any, g: Tensor) -> Tensor:
        (p,) = ctx.saved_tensors
        return cls.fault(p * (g - (g * p).sum(-1, keepdim=True)))


class HalfInFloat32(OnlyInFloat32):
    fault = staticmethod(lambda d: 0.5 * d)
    cause = "0.5 times what is expected"


class RoundedToBfloat16(OnlyInFloat32):
    fault = staticmethod(lambda d: d.bfloat16().float())
    cause = "rounded to bfloat16"


class BehindTheBlock(OnlyInFloat32):
    fault = staticmethod(lambda d: torch.cat([d[:, :256], torch.zeros_like(d[:, 256:])], 1))
    cause = "right but for columns 256 to 299: wrong where a block of 256 ends"


@dataclass(frozen=True)
class Wrong:
    fn: Callable[..., Tensor]
    definition: Callable[..., Tensor]
    inputs: dict[str, Any]
    cause: str
    options: dict[str, Any]

    def audit(self, name: str, seed: int = 0) -> gradcheck.Report:
        settings = gradcheck.Settings(seed=seed, dtypes=(torch.float64, torch.float32))
        return gradcheck.check(self.fn, self.definition, self.inputs, name=name, settings=settings, **self.options)

    def is_named(self, report: gradcheck.Report) -> bool:
        return bool(re.match(f"WRONG .*?: (the )?({self.cause})", str(report).splitlines()[0]))


def everything() -> Iterator[tuple[str, Wrong]]:
    for fault_name, fault in FAULTS.items():
        for name in fault.bases:
            definition, shapes = BASES[name]
            inputs = dict(zip("xyz", shapes, strict=False))
            fn = function(definition, fault)
            yield f"{name}, {fault_name}", Wrong(fn, definition, inputs, fault.cause, fault.options)
    transforms = dict(order=2, promises=("forward", "vmap"))
    for fn, cause, options in (
        (WrongUnderVmap, "vmap", transforms),
        (WrongUnderVmapAtOrderTwo, "jacrev of jacrev", dict(order=2, promises=("vmap",))),
        (WrongForwardMode, "forward mode is wrong", transforms),
        (ZeroForwardMode, "forward mode is wrong", transforms),
        (WrongDual, "forward mode is wrong", {}),
        (Saved, "second derivative is wrong", {}),
        (Saved, "second derivative is wrong", dict(order=2)),
        (TwiceAtOrderTwo, "second derivative is wrong", {}),
    ):
        yield f"{fn.__name__} {options}", Wrong(fn.apply, lambda x: x**3, {"x": (4, 4)}, cause, options)
    for function_of_rows in (HalfInFloat32, RoundedToBfloat16, BehindTheBlock):
        cause, softmax = wrong(function_of_rows.cause), lambda x: x.softmax(-1)
        yield function_of_rows.__name__, Wrong(function_of_rows.apply, softmax, {"x": (4, 300)}, cause, {})


WRONG = dict(everything())
