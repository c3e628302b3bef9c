"""Elementwise losses: one kernel, into which a loss plugs two scalar functions.

``value(inputs, options)`` is the loss e, and ``slopes(inputs, options)`` its derivatives with respect to each input,
without the loss's ``factor``. Most of these functions are generated into ``generated`` by ``manual_grad.generate`` from
the rule in the loss's file; those that are tuned beyond the rule are written by hand in their own files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import COMPUTE, NARROW, destination, launch, layout, place, total

# Elements per program of four warps, 8 per thread: in half precision a thread reads 16 bytes of each operand at once.
# Five such programs suffice for the 20 KB that an H100 keeps in flight from memory to each multiprocessor.
_BLOCK = 1024
_MOST_OPTIONS = 8


@dataclass(frozen=True)
class Loss:
    """The functions of a loss.

    Args:
        inputs: The number of input tensors, not counting the weight.
        options: The number of scalar options.
        variants: ``(value, slopes)`` for each outcome of ``choices``.
        choices: The decisions made before the launch, ``(kind, index, special)``: whether an optional 'input' is given,
            whether an 'option' is nonzero, or which of its ``special`` values it has, if any.
        optional: The indices of the inputs that may be absent.
        factor: Left out of the slopes, which could overflow with it.
        block: Elements per program; fewer if a formula is long, so that its values stay in registers.
    """

    inputs: int
    options: int
    variants: dict[tuple[bool | float | None, ...], tuple[Any, Any]]
    choices: tuple[tuple[str, int, tuple[float, ...]], ...] = ()
    optional: tuple[int, ...] = ()
    factor: int = 1
    block: int = _BLOCK

    @property
    def schema(self) -> str:
        """The schema, identical to that of kernels/cpu/pointwise.cpp."""
        inputs = "".join(f"Tensor{'?' * (i in self.optional)} x{i}, " for i in range(self.inputs))
        options = "".join(f"float p{i}, " for i in range(self.options))
        wanted = "".join(f"bool d{i}, " for i in range(self.inputs))
        arguments = f"{inputs}Tensor? w, Tensor? g, {options}float scale, bool reduce, bool value, {wanted}bool dw"
        return f"({arguments}) -> ({', '.join(['Tensor?'] * (self.inputs + 2))})"

    def chosen(self, inputs: tuple[Tensor | None, ...], options: tuple[float, ...]) -> tuple[Any, Any]:
        def choice(kind: str, i: int, special: tuple[float, ...]) -> bool | float | None:
            if kind == "input":
                return inputs[i] is not None
            if special:
                return options[i] if options[i] in special else None
            return options[i] != 0

        return self.variants[tuple(choice(*what) for what in self.choices)]


@triton.jit
def _kernel(
    inputs, w, g, value, gradients, dw, parts, numel,
    p0: tl.float64, p1: tl.float64, p2: tl.float64, p3: tl.float64,
    p4: tl.float64, p5: tl.float64, p6: tl.float64, p7: tl.float64, scale: tl.float64,
    size, inputs_at, w_at, g_at, value_at, gradients_at, dw_at,
    VALUE: tl.constexpr, SLOPES: tl.constexpr, FACTOR: tl.constexpr, COUNT: tl.constexpr, ANY: tl.constexpr,
    T: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < numel
    one = tl.full((BLOCK,), 1, T)
    up = tl.full((), scale, T)
    options = (
        tl.full((), p0, tl.float64), tl.full((), p1, tl.float64), tl.full((), p2, tl.float64),
        tl.full((), p3, tl.float64), tl.full((), p4, tl.float64), tl.full((), p5, tl.float64),
        tl.full((), p6, tl.float64), tl.full((), p7, tl.float64),
    )  # fmt: skip
    at = ()
    for k in tl.static_range(COUNT):
        x = one
        if inputs[k] is not None:
            x = tl.load(inputs[k] + place(i, size, inputs_at[k], DIMS, WIDE), mask=inside, other=1).to(T)
        at = at + (x,)  # noqa: RUF005 - Triton supports no other way
    slope = one * up
    if g is not None:
        slope = tl.load(g + place(i, size, g_at, DIMS, WIDE), mask=inside, other=1).to(T) * up
    e = one
    if value is not None or parts is not None or dw is not None:
        e = VALUE(at, options)
    if dw is not None:
        tl.store(dw + place(i, size, dw_at, DIMS, WIDE), (slope * e).to(dw.dtype.element_ty), mask=inside)
    if w is not None:
        at_w = tl.load(w + place(i, size, w_at, DIMS, WIDE), mask=inside, other=1).to(T)
        slope *= at_w
        e *= at_w
    if FACTOR != 1:
        slope *= FACTOR
    if value is not None:
        tl.store(value + place(i, size, value_at, DIMS, WIDE), e.to(value.dtype.element_ty), mask=inside)
    if parts is not None:
        tl.store(parts + tl.program_id(0), tl.sum(tl.where(inside, e, 0)))
    if ANY:
        slopes = SLOPES(at, options)
        for k in tl.static_range(COUNT):
            if gradients[k] is not None:
                to = gradients[k] + place(i, size, gradients_at[k], DIMS, WIDE)
                tl.store(to, (slope * slopes[k]).to(gradients[k].dtype.element_ty), mask=inside)


def op(loss: Loss) -> tuple[str, Callable[..., tuple[Tensor | None, ...]]]:
    """The schema and the implementation of a loss's op."""
    return loss.schema, lambda *arguments: _run(loss, *arguments)


def _run(loss: Loss, *arguments: Any) -> tuple[Tensor | None, ...]:
    """The op as specified in kernels/cpu/pointwise.cpp."""
    n, m = loss.inputs, loss.options
    inputs, (w, g), options = arguments[:n], arguments[n : n + 2], arguments[n + 2 : n + 2 + m]
    scale, reduce, value, *wanted = arguments[n + 2 + m :]
    x = inputs[0]
    numel = x.numel()
    block = loss.block if x.dtype is not torch.float64 else loss.block // 2  # a float64 needs two registers
    programs = triton.cdiv(numel, block)
    e = (x.new_empty(()) if reduce else torch.empty_like(x)) if value else None
    gradients = [torch.empty_like(u) if want else None for u, want in zip((*inputs, w), wanted, strict=True)]
    if numel == 0:
        if value and reduce:
            e.fill_(0 * scale)
        return e, *gradients
    if g is not None and g.shape != x.shape:
        g = g.reshape(()).expand(x.shape)
    compute = COMPUTE[x.dtype]
    each, parts = destination(e, reduce, programs, compute)
    *gradients_of_inputs, dw = gradients
    size, strides = layout(x.shape, (*inputs, w, g, each, *gradients))
    at, (w_at, g_at, value_at), gradients_at, dw_at = strides[:n], strides[n : n + 3], strides[n + 3 : -1], strides[-1]
    value_of, slopes_of = loss.chosen(inputs, options)
    numbers = (*map(float, options), *[0.0] * (_MOST_OPTIONS - m))
    launch(
        _kernel, programs, x.device, tuple(inputs), w, g, each, tuple(gradients_of_inputs), dw, parts, numel, *numbers,
        scale, size, tuple(at), w_at, g_at, value_at, tuple(gradients_at), dw_at,
        VALUE=value_of, SLOPES=slopes_of, FACTOR=loss.factor, COUNT=n, ANY=any(wanted[:-1]), T=compute,
        DIMS=len(size), WIDE=numel >= NARROW, BLOCK=block,
    )  # fmt: skip
    if parts is not None:
        total(parts, e, scale)
    return e, *gradients
