"""The kernel of losses/rowwise/topk_distillation_loss.py, to which equation numbers refer. Notation as there: x scores
of the student, b log-probabilities of the teacher and y their classes.

A program takes one row. It sweeps it for the maximum, for the sum of the tail and for the gradient; between, the
categories, which are few, are one vector. All is computed in float64, since digits cancel in u.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.divergence import FORWARD_KL, difference, h_ahead, term, times
from manual_grad.kernels.triton.launch import NARROW, destination, double, launch, narrow, place, total
from manual_grad.kernels.triton.math import expm1, log1p
from manual_grad.kernels.triton.rowwise import rows_of

_LEAST_TAIL = tl.constexpr(2.0**-126)  # of the teacher, in place of 0


@triton.jit
def _is_known(c, y, step, known):
    """Which of the classes are among the teacher's."""
    found = c < 0
    for i in range(0, known):
        found = found | (c == tl.load(y + i * step))
    return found


@triton.jit(do_not_specialize=["rows", "known"])
def _topk_distillation_loss(
    x, b, y, w, g, loss, parts, dx, rows, classes, known, beta: tl.float64, temperature: tl.float64, scale: tl.float64,
    size, at, step, KIND: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr, KNOWN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """``at``: row strides of x, b, y, dx, w, g and loss; ``step``: class strides of x, b, y and dx."""
    n = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)  # of one row
    weight = tl.full((1,), 1.0, tl.float64)
    if w is not None:
        weight = double(tl.load(w + place(n, size, at[4], DIMS, WIDE)))
    kept = weight != 0
    teacher = tl.full((), beta, tl.float64)
    student = tl.full((), 1 - beta, tl.float64)
    factor = tl.full((), 1 / temperature, tl.float64)
    x += place(n, size, at[0], DIMS, WIDE)
    b += place(n, size, at[1], DIMS, WIDE)
    y += place(n, size, at[2], DIMS, WIDE)
    m = weight * 0 - float("inf")
    for first in range(0, classes, BLOCK):
        c = first + tl.arange(0, BLOCK).to(tl.int64)
        inside = (c < classes) & kept
        m = tl.maximum(m, tl.max(double(tl.load(x + c * step[0], mask=inside, other=-float("inf")))))
    tail = weight * 0
    for first in range(0, classes, BLOCK):
        c = first + tl.arange(0, BLOCK).to(tl.int64)
        inside = (c < classes) & kept
        e = tl.exp((double(tl.load(x + c * step[0], mask=inside, other=-float("inf"))) - m) * factor)
        tail += tl.sum(tl.where(_is_known(c, y, step[2], known), 0.0, e))

    i = tl.arange(0, KNOWN)
    is_known, is_tail = i < known, (i == known) & (known < classes)
    index = tl.load(y + i * step[2], mask=is_known & kept, other=0)
    bad = (index < 0) | (index >= classes)  # makes the row NaN
    own = double(tl.load(x + index * step[0], mask=is_known & kept & (bad == 0), other=-float("inf")))
    own = tl.where(bad, float("nan"), own)
    e = tl.exp((own - m) * factor)
    e = tl.where(is_known, e, 0.0)
    leader = tl.min(tl.where(is_known & (own == m), i, KNOWN))
    whole = tl.sum(e) + tail
    rest = tl.sum(tl.where(i == leader, 0.0, e)) + tail  # without the leader, if it is one of the teacher's classes
    log_sum = tl.where(leader < KNOWN, log1p(rest), tl.log(whole))
    small = tl.sum(e) / whole
    log_tail = tl.where(small < 0.5, log1p(-small), tl.log(tail) - log_sum)  # (3)
    log_q = double(tl.load(b + i * step[1], mask=is_known & kept, other=-float("inf")))
    q = tl.exp(log_q)
    largest = tl.max(log_q)
    k = tl.min(tl.where(log_q == largest, i, KNOWN - 1))
    others = tl.sum(tl.where(i == k, 0.0, q))
    of_teacher = tl.where(known > 0, -expm1(largest) - others, 1.0)  # (4)
    of_teacher = tl.where(of_teacher < _LEAST_TAIL, _LEAST_TAIL, of_teacher)
    given = tl.exp(largest) + others
    log_of_teacher = tl.where(given < 0.5, log1p(-given), tl.log(of_teacher))

    p = tl.where(is_known, e / whole, tl.where(is_tail, tail / whole, 0.0))
    ruled_out = (own == -float("inf")) & (log_q == -float("inf"))
    u = tl.where(ruled_out, 0.0, ((own - m) * factor - log_sum) - log_q)
    u = tl.where(is_known, u, tl.where(is_tail, log_tail - log_of_teacher, 0.0))
    q = tl.where(is_known, q, tl.where(is_tail, of_teacher, 0.0))
    power = tl.full((), temperature, tl.float64)
    value = tl.where(kept, tl.sum(term(p, q, u, teacher, student, KIND)) * power * power * weight, 0.0)  # (2)
    if loss is not None:
        tl.store(loss + place(n, size, at[6], DIMS, WIDE), narrow(value, loss))
    if parts is not None:
        tl.store(parts + n, value)
    if dx is not None:
        if KIND == FORWARD_KL:
            slope = difference(p, q, u)
        else:
            lead = tl.sum(tl.where(i == tl.argmax(p, 0), u, 0.0))
            ahead = h_ahead(u, lead, teacher, student, KIND)
            slope = times(p, ahead - tl.sum(times(p, ahead)))  # (6)
        up = weight * power * tl.full((), scale, tl.float64)
        if g is not None:
            up *= double(tl.load(g + place(n, size, at[5], DIMS, WIDE)))
        dx += place(n, size, at[3], DIMS, WIDE)
        of_tail = tl.sum(tl.where(is_tail, slope, 0.0))
        share = tl.where(tail == 0, 0.0, up * of_tail / tail)
        for first in range(0, classes, BLOCK):
            c = first + tl.arange(0, BLOCK).to(tl.int64)
            inside = c < classes
            s = double(tl.load(x + c * step[0], mask=inside & kept, other=-float("inf")))
            d = tl.where(kept, tl.exp((s - m) * factor) * share, 0.0)  # (7)
            alone = inside & ((_is_known(c, y, step[2], known) == 0) | (kept == 0))
            tl.store(dx + c * step[3], narrow(d, dx), mask=alone)
        tl.store(dx + index * step[3], narrow(up * slope, dx), mask=is_known & kept & (bad == 0))


def topk_distillation_loss(
    x: Tensor, b: Tensor, y: Tensor, w: Tensor | None, g: Tensor | None, kind: int, beta: float, temperature: float,
    scale: float, reduce: bool, loss: Tensor | None, dx: Tensor | None,
) -> None:  # fmt: skip
    """The op as specified in kernels/cpu/topk_distillation_loss.cpp; x must not be empty."""
    dim, rows = 1 if x.dim() > 1 else 0, 1
    classes, known = x.shape[dim], y.shape[dim]
    if not known:  # then one more category is the only one
        b, y = (torch.zeros_like(x.narrow(dim, 0, 1), dtype=u.dtype) for u in (b, y))
    at, step, size = rows_of(x, [x, b, y, dx], [w, g, None if reduce else loss])
    for length in size:
        rows *= length
    value, parts = destination(loss, reduce, rows)
    block = min(triton.next_power_of_2(classes), 1024)
    launch(
        _topk_distillation_loss, rows, x.device, x, b, y, w, g, value, parts, dx, rows, classes, known, beta,
        temperature, scale, size, tuple(at), tuple(step), KIND=kind, DIMS=len(size), WIDE=rows >= NARROW,
        KNOWN=triton.next_power_of_2(known + 1), BLOCK=block, warps=max(1, block // 128),
    )  # fmt: skip
    if parts is not None and loss is not None:
        total(parts, loss, scale)


OPS: dict[str, tuple[str, Callable[..., Any]]] = {
    "topk_distillation_loss": (
        "(Tensor x, Tensor b, Tensor y, Tensor? w, Tensor? g, int divergence, float beta, float temperature, "
        "float scale, bool reduce, Tensor(a!)? loss, Tensor(b!)? dx) -> ()",
        topk_distillation_loss,
    ),
}
