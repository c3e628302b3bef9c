"""Log-probability and entropy of losses/rowwise/selected_log_prob.py, to which equation numbers refer. Notation as
there: x scores, d how far a class is behind the leader, rho and tau the sums of e^-d and of d e^-d over the others, q
the weights of the classes in the cross entropy, delta the sum of q d.

One kernel computes the state of each row, another the gradient in one sweep. The outputs, and what the gradient needs
of each row, are computed by torch: they take O(rows).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import COMPUTE, NARROW, launch, narrow, place
from manual_grad.kernels.triton.math import exp, expm1
from manual_grad.kernels.triton.rowwise import rows_of, tiling


@triton.jit
def _halves(number, T: tl.constexpr):
    """A float64 number as a sum of two of type T."""
    number = tl.full((), number, tl.float64)
    return number.to(T), (number - number.to(T).to(tl.float64)).to(T)


@triton.jit
def _level(x, per_cap, CAPPED: tl.constexpr):
    """What is compared with that of the leader: the score, or its tanh. -inf rules out a class, also with a softcap."""
    if not CAPPED:
        return x
    t = expm1(-2 * tl.abs(x * per_cap))
    positive = -t / (2 + t)
    return tl.where(x == -float("inf"), x, tl.where(x < 0, -positive, positive))


@triton.jit
def _gap(most, level, factor, factor_low, HALF: tl.constexpr):
    """d of (3), and the error of its rounding, which half-precision scores do not have."""
    difference = most - level
    d = difference * factor
    if HALF:
        return d, d * 0
    back = difference - most
    lost = (most - (difference - back)) - (level + back)
    rest = tl.fma(difference, factor + difference * 0, -d) + (difference * factor_low + lost * factor)
    return d, tl.where(tl.abs(rest) < float("inf"), rest, 0.0)  # nothing to recover for -inf


@triton.jit
def _exp(d, lost, HALF: tl.constexpr):
    if HALF:
        return tl.exp(-d)
    e = exp(-d)
    return e - e * lost


@triton.jit
def _scores(x, n, inside_n, first, classes, size, at, step, T: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr,
            BLOCK: tl.constexpr):  # fmt: skip
    c = first + tl.arange(0, BLOCK).to(tl.int64)
    inside = inside_n[:, None] & (c < classes)[None, :]
    of_x = x + place(n, size, at, DIMS, WIDE)[:, None] + (c * step)[None, :]
    return c, inside, tl.load(of_x, mask=inside, other=-float("inf")).to(T)


@triton.jit
def _weights(q, n, inside, c, size, at, step, T: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr):
    of_q = q + place(n, size, at, DIMS, WIDE)[:, None] + (c * step)[None, :]
    return tl.load(of_q, mask=inside, other=0).to(T)


@triton.jit(do_not_specialize=["rows"])
def _log_prob_state(
    x, q, m, rho, mean, delta, total, behind, rows, classes, factor: tl.float64, per_cap: tl.float64, size, at, step,
    ENTROPY: tl.constexpr, CAPPED: tl.constexpr, T: tl.constexpr, DIMS: tl.constexpr,
    WIDE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(3) and (12), merged block by block as in engine/softmax.py.

    ``at``: row strides of the operands in turn; ``step``: class strides of x and q.
    """
    HALF: tl.constexpr = x.dtype.element_ty.primitive_bitwidth < 32
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside_n = n < rows
    zero = tl.zeros((ROWS,), T)
    factor, low = _halves(factor, T)
    cap = tl.full((), per_cap, T)
    largest, most, rest, leaders, tau = zero - float("inf"), zero - float("inf"), zero, zero, zero
    far, all_q, rest_q = zero, zero, zero
    for first in range(0, classes, BLOCK):
        c, inside, xs = _scores(x, n, inside_n, first, classes, size, at[0], step[0], T, DIMS, WIDE, BLOCK)
        levels = _level(xs, cap, CAPPED)
        higher = tl.maximum(most, tl.max(levels, 1))
        largest = tl.maximum(largest, tl.max(xs, 1))
        base = tl.where(higher == -float("inf"), 0.0, higher)  # -inf - -inf would be NaN
        moved, lost = _gap(base, most, factor, low, HALF)
        shrink = tl.where(most == higher, 1.0, _exp(moved, lost, HALF))
        passed = tl.where(most == higher, 0.0, leaders)
        if ENTROPY:
            tau = tl.where(shrink == 0, 0.0, shrink * (tau + tl.where(most == higher, 0.0, moved) * (rest + passed)))
        rest = (rest + passed) * shrink
        leads = (levels == higher[:, None]) & inside
        d, lost = _gap(base[:, None], levels, factor, low, HALF)
        e = tl.where(leads | (inside == 0), 0.0, _exp(d, lost, HALF))
        rest += tl.sum(e, 1)
        if ENTROPY:
            tau += tl.sum(tl.where(e == 0, 0.0, e * d), 1)
        if q is not None:
            w = _weights(q, n, inside, c, size, at[1], step[1], T, DIMS, WIDE)
            far += tl.where((most == higher) | (all_q == 0), 0.0, moved * all_q)  # 0 log 0 = 0
            far += tl.sum(tl.where(leads | (w == 0), 0.0, w * d), 1)
            rest_q = tl.where(most == higher, rest_q, all_q) + tl.sum(tl.where(leads, 0.0, w), 1)
            all_q += tl.sum(w, 1)
        leaders = tl.where(most == higher, leaders, 0.0) + tl.sum(tl.where(leads, 1.0, 0.0).to(T), 1)
        most = higher
    rest += leaders - 1 + (most - most) * 0  # NaN without a finite leader
    tl.store(m + place(n, size, at[2], DIMS, WIDE), largest.to(tl.float64), mask=inside_n)
    tl.store(rho + place(n, size, at[3], DIMS, WIDE), rest.to(tl.float64), mask=inside_n)
    tl.store(mean + place(n, size, at[4], DIMS, WIDE), (tau / (1 + rest)).to(tl.float64), mask=inside_n)
    if q is not None:
        tl.store(delta + place(n, size, at[5], DIMS, WIDE), far.to(tl.float64), mask=inside_n)
        tl.store(total + place(n, size, at[6], DIMS, WIDE), all_q.to(tl.float64), mask=inside_n)
        tl.store(behind + place(n, size, at[7], DIMS, WIDE), rest_q.to(tl.float64), mask=inside_n)


@triton.jit(do_not_specialize=["rows"])
def _log_prob_gradient(
    x, q, y, most, flat, tilt, mean, own, by_q, lead, dx, rows, classes, factor: tl.float64, per_cap: tl.float64, size,
    at, step, CAPPED: tl.constexpr, T: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(6), (8) and (13). ``at``: row strides of the operands in turn; ``step``: class strides of x, q and dx."""
    HALF: tl.constexpr = x.dtype.element_ty.primitive_bitwidth < 32
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside_n = n < rows
    factor, low = _halves(factor, T)
    cap = tl.full((), per_cap, T)
    label = tl.load(y + place(n, size, at[2], DIMS, WIDE), mask=inside_n, other=-1)
    kept = label >= 0
    top = _level(tl.load(most + place(n, size, at[3], DIMS, WIDE), mask=kept, other=0).to(T), cap, CAPPED)
    level = tl.load(flat + place(n, size, at[4], DIMS, WIDE), mask=kept, other=0).to(T)
    slope = tl.load(tilt + place(n, size, at[5], DIMS, WIDE), mask=kept, other=0).to(T)
    middle = tl.load(mean + place(n, size, at[6], DIMS, WIDE), mask=kept, other=0)
    at_y = tl.load(own + place(n, size, at[7], DIMS, WIDE), mask=kept, other=0).to(T)
    middle_low = (middle - middle.to(T).to(tl.float64)).to(T)
    middle = middle.to(T)
    if q is not None:
        of_q = tl.load(by_q + place(n, size, at[8], DIMS, WIDE), mask=kept, other=0).to(T)
        at_leader = tl.load(lead + place(n, size, at[9], DIMS, WIDE), mask=kept, other=0).to(T)
    for first in range(0, classes, BLOCK):
        c, inside, xs = _scores(x, n, inside_n, first, classes, size, at[0], step[0], T, DIMS, WIDE, BLOCK)
        d, lost = _gap(top[:, None], _level(xs, cap, CAPPED), factor, low, HALF)
        e = _exp(d, lost, HALF)
        r = level[:, None] + slope[:, None] * ((d - middle[:, None]) + (lost - middle_low[:, None]))
        r = tl.where(e == 0, 0.0, e * r)
        if q is not None:  # NaN stands for a leader that is not sure
            r -= of_q[:, None] * _weights(q, n, inside, c, size, at[1], step[1], T, DIMS, WIDE)
            r = tl.where((d == 0) & (at_leader == at_leader)[:, None], at_leader[:, None], r)
        if CAPPED:
            t = exp(-2 * tl.abs(xs * cap))
            r *= 4 * t / ((1 + t) * (1 + t))
        r = tl.where(c[None, :] == label[:, None], at_y[:, None], r)
        r = tl.where(kept[:, None], r, 0.0)
        to = dx + place(n, size, at[10], DIMS, WIDE)[:, None] + (c * step[2])[None, :]
        tl.store(to, narrow(r, dx), mask=inside)


def _launch(
    kernel, scores: list[Tensor | None], singles: list[Tensor | None], dx: Tensor | None, factor: float, per_cap: float,
    compute: Any, **constants: bool,
) -> None:  # fmt: skip
    """Launch over the rows: of ``scores`` and ``dx`` they have one number per class, of ``singles`` one each."""
    x = scores[0]
    at, step, size = rows_of(x, [*scores, dx], singles)
    of_dx = at.pop(len(scores))
    classes, rows = x.shape[1 if x.dim() > 1 else 0], 1
    for length in size:
        rows *= length
    tile, block, warps = tiling(classes, step[0], 4096)
    operands = [*scores, *singles] if dx is None else [*scores, *singles, dx]
    launch(
        kernel, triton.cdiv(rows, tile), x.device, *operands, rows, classes, factor, per_cap, size, (*at, of_dx),
        tuple(step), CAPPED=per_cap != 0, T=compute, DIMS=len(size), WIDE=rows >= NARROW, ROWS=tile, BLOCK=block,
        warps=warps, **constants,
    )  # fmt: skip


def _factors(temperature: float, softcap: float, scale: float) -> tuple[float, float]:
    """What multiplies a difference of levels, and a score before its tanh is taken (0 without a softcap)."""
    return (softcap / temperature, scale / softcap) if softcap else (scale / temperature, 0.0)


def log_prob_state(
    x: Tensor, q: Tensor | None, temperature: float, softcap: float, scale: float, entropy: bool, state: Tensor
) -> None:
    """The op as specified in kernels/cpu/log_prob.cpp; the tensors must not be empty."""
    # digits may cancel in d - tau, in Q p - q, or between levels, so the sums must have more than the scores
    wide = x.dtype is torch.float32 and (entropy or softcap != 0 or q is not None)
    compute = tl.float64 if wide else COMPUTE[x.dtype]
    singles = [*state] if q is not None else [*state, None, None, None]
    _launch(_log_prob_state, [x, q], singles, None, *_factors(temperature, softcap, scale), compute, ENTROPY=entropy)


def log_prob(
    x: Tensor, t: Tensor, q: Tensor | None, state: Tensor, g_log_prob: Tensor | None, g_entropy: Tensor | None,
    g_lse: Tensor | None, g_cross: Tensor | None, ignore_index: int, temperature: float, softcap: float, scale: float,
    log_prob: Tensor | None, entropy: Tensor | None, lse: Tensor | None, cross: Tensor | None, correct: Tensor | None,
    dx: Tensor | None,
) -> None:  # fmt: skip
    """The op as specified in kernels/cpu/log_prob.cpp; the tensors must not be empty."""
    dim = 1 if x.dim() > 1 else 0
    factor, per_cap = _factors(temperature, softcap, scale)
    m, rho, tau, *of_q = state
    kept = t != ignore_index
    known = kept & (t >= 0) & (t < x.shape[dim])  # an invalid index makes its row NaN
    y = torch.where(known, t, 0)

    def level(s: Tensor) -> Tensor:
        return torch.where(s == -torch.inf, s, (s * per_cap).tanh()) if softcap else s

    def of_class(scores: Tensor) -> Tensor:
        return scores.gather(dim, y.unsqueeze(dim)).squeeze(dim).double()

    x_y = of_class(x)
    d_y = torch.where(known, (level(m) - level(x_y)) * factor, torch.nan)
    log_s = rho.log1p()

    def put(result: Tensor | None, value: Tensor) -> None:
        if result is not None:
            result.copy_(torch.where(kept, value, 0))

    put(log_prob, -(d_y + log_s))  # (4)
    put(entropy, log_s + tau)
    put(lse, level(m) * factor + log_s)
    if cross is not None:
        put(cross, of_q[0] + of_q[1] * log_s)  # (12)
    if correct is not None:
        put(correct, (x.argmax(dim) == y).double())
    if dx is None:
        return
    g_y, g_h, g_s, g_q = (x.new_zeros((), dtype=torch.float64) if g is None else g.double()
                          for g in (g_log_prob, g_entropy, g_lse, g_cross))  # fmt: skip
    p_y, above = (-d_y).exp() / (1 + rho), 1 + rho
    stretch = torch.ones_like(x_y)
    if softcap:
        u = (x_y * per_cap).abs().mul(-2).exp()
        stretch = 4 * u / (1 + u).square()
    outer = scale / temperature  # factor times the derivative of the level, without the tanh's
    own = g_y * torch.where(d_y == 0, rho / above, 1 - p_y) + g_s * p_y  # (7)
    own = own + torch.where(p_y == 0, 0, g_h * p_y * (d_y - tau))
    lead = by_q = None
    level_of_all = g_s - g_y
    if g_cross is not None:
        _, Q, behind = of_q
        sure = (rho < 1) & Q.isfinite()
        of_leader = g_q * (behind - Q * (rho / above))  # (13) of the leader, if it is sure
        own = own + torch.where(sure & (d_y == 0), of_leader, g_q * (Q * p_y - of_class(q)))
        lead = torch.where(sure, outer * ((g_s - g_y - g_h * tau) / above + of_leader), torch.nan)
        by_q, level_of_all = outer * g_q, level_of_all + g_q * Q
    flat, tilt = outer * level_of_all / above, outer * g_h / above
    middle = tau - flat / tilt  # flat + tilt (d - tau) = tilt (d - middle)
    tilted = middle.isfinite()
    wide = x.dtype is torch.float32 and (softcap != 0 or g_cross is not None)
    compute = tl.float64 if wide else COMPUTE[x.dtype]
    rows = [
        torch.where(kept, y, -1), m, torch.where(tilted, 0, flat), torch.where(tilted, tilt, 0),
        torch.where(tilted, middle, 0), own * outer * stretch, by_q, lead,
    ]  # fmt: skip
    singles = [None if u is None else u.expand(m.shape) for u in rows]
    _launch(_log_prob_gradient, [x, None if by_q is None else q], singles, dx, factor, per_cap, compute)


OPS: dict[str, tuple[str, Callable[..., Any]]] = {
    "log_prob_state": (
        "(Tensor x, Tensor? q, float temperature, float softcap, float scale, bool entropy, Tensor(a!) state) -> ()",
        log_prob_state,
    ),
    "log_prob": (
        "(Tensor x, Tensor t, Tensor? q, Tensor state, Tensor? g_log_prob, Tensor? g_entropy, Tensor? g_lse, "
        "Tensor? g_cross, int ignore_index, float temperature, float softcap, float scale, Tensor(a!)? log_prob, "
        "Tensor(b!)? entropy, Tensor(c!)? lse, Tensor(d!)? cross, Tensor(e!)? correct, Tensor(f!)? dx) -> ()",
        log_prob,
    ),
}
