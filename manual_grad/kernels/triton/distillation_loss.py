"""The kernel of losses/rowwise/distillation_loss.py, to which equation numbers refer. Notation as there: x scores of
the student, t of the teacher, p and q probabilities, u = log(p / q).

A program sweeps a few rows of both for the maxima; for the sums of (5); for the value and the means of (9); and for the
gradients. After the first sweep, the rows are in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton import divergence
from manual_grad.kernels.triton.divergence import FORWARD_KL, difference, h_ahead, term, times
from manual_grad.kernels.triton.launch import COMPUTE, NARROW, destination, double, launch, narrow, place, total
from manual_grad.kernels.triton.math import exp, log1p
from manual_grad.kernels.triton.rowwise import rows_of, tiling


@triton.jit
def _scores(rows, c, inside, step, T: tl.constexpr):
    return tl.load(rows[:, None] + (c * step)[None, :], mask=inside, other=-float("inf")).to(T)


@triton.jit
def _delta(x, t, m_x, m_t, factor):
    """(5); of two equal differences, the one of smaller terms."""
    d_x = m_x - x
    d_t = m_t - t
    direct = x - t
    delta = tl.where(tl.abs(direct) < d_x + d_t, direct - (m_x - m_t), d_t - d_x)
    return tl.where((x == -float("inf")) & (t == -float("inf")), 0.0, delta * factor)


@triton.jit(do_not_specialize=["rows"])
def _distillation_loss(
    x, t, w, g, loss, parts, dx, dt, rows, classes, beta: tl.float64, temperature: tl.float64, scale: tl.float64, size,
    at, step, KIND: tl.constexpr, OF_TEACHER: tl.constexpr, T: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``at``: row strides of x, t, dx, dt, w, g and loss; ``step``: class strides of x, t, dx and dt."""
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside_n = n < rows
    weight = tl.where(inside_n, tl.full((ROWS,), 1.0, T), 0.0)
    if w is not None:
        weight = tl.load(w + place(n, size, at[4], DIMS, WIDE), mask=inside_n, other=0).to(T)
    kept = weight != 0
    teacher = tl.full((), beta, T)
    student = tl.full((), 1 - beta, T)
    factor = tl.full((), 1 / temperature, T)
    of_x = x + place(n, size, at[0], DIMS, WIDE)
    of_t = t + place(n, size, at[1], DIMS, WIDE)
    low = tl.full((ROWS,), -float("inf"), T)
    zero = tl.zeros((ROWS,), T)
    m_x, m_t = low, low
    for first in range(0, classes, BLOCK):
        c = first + tl.arange(0, BLOCK).to(tl.int64)
        inside = kept[:, None] & (c < classes)[None, :]
        m_x = tl.maximum(m_x, tl.max(_scores(of_x, c, inside, step[0], T), 1))
        m_t = tl.maximum(m_t, tl.max(_scores(of_t, c, inside, step[1], T), 1))
    rest_x, rest_t, moved, leaders_x, leaders_t, lead_x, lead_t = zero, zero, zero, zero, zero, low, low
    for first in range(0, classes, BLOCK):
        c = first + tl.arange(0, BLOCK).to(tl.int64)
        inside = kept[:, None] & (c < classes)[None, :]
        xs, ts = _scores(of_x, c, inside, step[0], T), _scores(of_t, c, inside, step[1], T)
        delta = _delta(xs, ts, m_x[:, None], m_t[:, None], factor)
        e_x, e_t = exp((xs - m_x[:, None]) * factor), exp((ts - m_t[:, None]) * factor)
        leads_x, leads_t = (xs == m_x[:, None]) & inside, (ts == m_t[:, None]) & inside
        rest_x += tl.sum(tl.where(leads_x, 0.0, e_x), 1)
        rest_t += tl.sum(tl.where(leads_t, 0.0, e_t), 1)
        moved += tl.sum(difference(e_x, e_t, delta), 1)
        leaders_x += tl.sum(tl.where(leads_x, 1.0, 0.0).to(T), 1)
        leaders_t += tl.sum(tl.where(leads_t, 1.0, 0.0).to(T), 1)
        lead_x = tl.maximum(lead_x, tl.max(tl.where(leads_x, delta, -float("inf")), 1))
        lead_t = tl.maximum(lead_t, tl.max(tl.where(leads_t, delta, -float("inf")), 1))
    rest_x += leaders_x - 1 + (m_x - m_x)  # NaN without a finite leader
    rest_t += leaders_t - 1 + (m_t - m_t)
    sigma = moved / (1 + rest_t)
    ratio = tl.where(tl.abs(sigma) <= 0.5, log1p(sigma), log1p(rest_x) - log1p(rest_t))
    lead_x = (lead_x - ratio)[:, None]
    lead_t = (ratio - lead_t)[:, None]
    value, mean_x, mean_t = zero, zero, zero
    for first in range(0, classes, BLOCK):
        c = first + tl.arange(0, BLOCK).to(tl.int64)
        inside = kept[:, None] & (c < classes)[None, :]
        xs, ts = _scores(of_x, c, inside, step[0], T), _scores(of_t, c, inside, step[1], T)
        u = _delta(xs, ts, m_x[:, None], m_t[:, None], factor) - ratio[:, None]
        p = exp((xs - m_x[:, None]) * factor) / (1 + rest_x)[:, None]
        q = exp((ts - m_t[:, None]) * factor) / (1 + rest_t)[:, None]
        if loss is not None or parts is not None:
            value += tl.sum(term(p, q, u, teacher, student, KIND), 1)
        if dx is not None and KIND != FORWARD_KL:
            mean_x += tl.sum(times(p, h_ahead(u, lead_x, teacher, student, KIND)), 1)
        if dt is not None and OF_TEACHER != FORWARD_KL:
            mean_t += tl.sum(times(q, h_ahead(-u, lead_t, student, teacher, OF_TEACHER)), 1)
    power = tl.full((), temperature, T)
    value = tl.where(kept, value * power * power * weight, 0.0)
    if loss is not None:
        tl.store(loss + place(n, size, at[6], DIMS, WIDE), narrow(value, loss), mask=inside_n)
    if parts is not None:
        tl.store(parts + tl.program_id(0), tl.sum(double(value)))
    if dx is not None or dt is not None:
        up = (weight * power * tl.full((), scale, T))[:, None]
        if g is not None:
            up *= tl.load(g + place(n, size, at[5], DIMS, WIDE), mask=inside_n, other=0).to(T)[:, None]
        for first in range(0, classes, BLOCK):
            c = first + tl.arange(0, BLOCK).to(tl.int64)
            inside = kept[:, None] & (c < classes)[None, :]
            every = inside_n[:, None] & (c < classes)[None, :]
            xs, ts = _scores(of_x, c, inside, step[0], T), _scores(of_t, c, inside, step[1], T)
            u = _delta(xs, ts, m_x[:, None], m_t[:, None], factor) - ratio[:, None]
            p = exp((xs - m_x[:, None]) * factor) / (1 + rest_x)[:, None]
            q = exp((ts - m_t[:, None]) * factor) / (1 + rest_t)[:, None]
            if dx is not None:
                if KIND == FORWARD_KL:
                    r = difference(p, q, u)
                else:
                    r = times(p, h_ahead(u, lead_x, teacher, student, KIND) - mean_x[:, None])  # (9)
                to = dx + place(n, size, at[2], DIMS, WIDE)[:, None] + (c * step[2])[None, :]
                tl.store(to, narrow(tl.where(inside, up * r, 0.0), dx), mask=every)
            if dt is not None:
                if OF_TEACHER == FORWARD_KL:
                    r = -difference(p, q, u)
                else:
                    r = times(q, h_ahead(-u, lead_t, student, teacher, OF_TEACHER) - mean_t[:, None])
                to = dt + place(n, size, at[3], DIMS, WIDE)[:, None] + (c * step[3])[None, :]
                tl.store(to, narrow(tl.where(inside, up * r, 0.0), dt), mask=every)


def distillation_loss(
    x: Tensor, t: Tensor, w: Tensor | None, g: Tensor | None, kind: int, beta: float, temperature: float, scale: float,
    reduce: bool, loss: Tensor | None, dx: Tensor | None, dt: Tensor | None,
) -> None:  # fmt: skip
    """The op as specified in kernels/cpu/distillation_loss.cpp; the tensors must not be empty."""
    classes, rows = x.shape[1 if x.dim() > 1 else 0], 1
    at, step, size = rows_of(x, [x, t, dx, dt], [w, g, None if reduce else loss])
    for length in size:
        rows *= length
    # digits may cancel in u, and float32 has none to spare
    compute = tl.float64 if x.dtype is torch.float32 else COMPUTE[x.dtype]
    # a thread has 4 scores of each row in float64, of which it holds many numbers, and else 8
    tile, block, warps = tiling(classes, max(step[0], step[1]), 1024 if compute is tl.float64 else 2048)
    warps = max(warps, tile * block // (128 if compute is tl.float64 else 256))
    programs = triton.cdiv(rows, tile)
    value, parts = destination(loss, reduce, programs)
    launch(
        _distillation_loss, programs, x.device, x, t, w, g, value, parts, dx, dt, rows, classes, beta, temperature,
        scale, size, tuple(at), tuple(step), KIND=kind, OF_TEACHER=divergence.EXCHANGED[kind], T=compute,
        DIMS=len(size), WIDE=rows >= NARROW, ROWS=tile, BLOCK=block, warps=warps,
    )  # fmt: skip
    if parts is not None and loss is not None:
        total(parts, loss, scale)


OPS: dict[str, tuple[str, Callable[..., Any]]] = {
    "distillation_loss": (
        "(Tensor x, Tensor t, Tensor? w, Tensor? g, int divergence, float beta, float temperature, float scale, "
        "bool reduce, Tensor(a!)? loss, Tensor(b!)? dx, Tensor(c!)? dt) -> ()",
        distillation_loss,
    ),
}
