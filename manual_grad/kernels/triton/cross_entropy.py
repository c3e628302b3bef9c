"""Cross entropy, by the sums of engine/softmax.py, whose equations are meant by numbers. Letters as there and in
losses/rowwise/cross_entropy.py: z logits, q effective target, Q its sum, m largest logit, rest the sum of
e = exp(z - m) without the leader's, g upstream.

A program takes a tile of rows and walks over their classes in blocks, twice: first the sums, kept relative to the
largest score so far, then the gradient. The second walk goes back from the last block to the first, since what was read
last is still near: in the L1, or, where the rows of all programs at work do not fit into it, in the L2.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import COMPUTE, NARROW, destination, launch, place, total
from manual_grad.kernels.triton.math import exp, log1p
from manual_grad.kernels.triton.rowwise import kept_weight, rows_of, tiling


@triton.jit
def _exp_of_difference(a, b, HALF: tl.constexpr):
    """exp(a - b), with what the subtraction has rounded off: of two large logits it is the leading digits.

    In float32 these are 40 operations, about as many as an H100 has time for while it reads a number. Halves come twice
    as fast; their differences are exact or nearly so, and the exponential of the hardware has all digits they have.
    """
    d = a - b
    if HALF:
        e = tl.exp(d)
    elif d.dtype == tl.float64:
        e = exp(d)
    else:
        minus_b = d - a
        lost = (a - (d - minus_b)) - (b + minus_b)
        e = exp(d)
        e += e * tl.where(lost == lost, lost, 0.0)  # infinities have nothing to lose
    return e


@triton.jit
def _block(z, t, w, n, kept, first, classes, size, z_at, t_at, w_at, z_step, t_step, w_step, smoothing,
           BY_INDEX: tl.constexpr, SMOOTH: tl.constexpr, T: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr,
           BLOCK: tl.constexpr, EVICT: tl.constexpr):  # fmt: skip
    """One block of classes of the rows: logits, the target but for a class index' own, and which are there.

    ``smooth`` is the target before the weight. Outside, and in ignored rows, the logits are -inf and the targets 0.
    """
    c = first + tl.arange(0, BLOCK).to(tl.int64)
    inside = kept[:, None] & (c < classes)[None, :]
    at = z + place(n, size, z_at, DIMS, WIDE)[:, None] + (c * z_step)[None, :]
    zs = tl.load(at, mask=inside, other=-float("inf"), eviction_policy=EVICT).to(T)
    share = smoothing / classes
    smooth = tl.zeros_like(zs)
    weight = tl.zeros_like(zs) + 1
    if BY_INDEX:
        if SMOOTH:
            smooth = tl.where(inside, share, smooth)
            if w is not None:
                weight = tl.load(w + c * w_step, mask=c < classes, other=0).to(T)[None, :] + tl.zeros_like(zs)
    else:
        at = t + place(n, size, t_at, DIMS, WIDE)[:, None] + (c * t_step)[None, :]
        ts = tl.load(at, mask=inside, other=0, eviction_policy=EVICT).to(T)
        smooth = tl.where(inside, (1 - smoothing) * ts + share, smooth) if SMOOTH else ts
        if w is not None:
            at = w + place(n, size, w_at, DIMS, WIDE)[:, None] + (c * w_step)[None, :]
            weight = tl.load(at, mask=inside, other=0, eviction_policy=EVICT).to(T)
    return c, inside, zs, smooth, weight


@triton.jit(do_not_specialize=["rows", "ignore_index"])
def _cross_entropy(
    z, t, w, g, denominator, value, dz, dt, dw, parts, rows, classes, ignore_index: tl.int64, smoothing: tl.float64,
    scale: tl.float64, size, z_at, t_at, w_at, g_at, value_at, dz_at, dt_at, dw_at,
    z_step, t_step, w_step, dz_step, dt_step, dw_step,
    BY_INDEX: tl.constexpr, SMOOTH: tl.constexpr, T: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    HALF: tl.constexpr = z.dtype.element_ty.primitive_bitwidth < 32
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside_n = n < rows
    smoothing = tl.full((), smoothing, T)
    kept = inside_n
    y = n * 0 - 1
    own = tl.zeros((ROWS,), T)  # what a class index has besides its share of the smoothing
    z_y = own
    if BY_INDEX:
        y = tl.load(t + place(n, size, t_at, DIMS, WIDE), mask=inside_n, other=ignore_index)
        kept = y != ignore_index
        known = kept & (y >= 0) & (y < classes)
        tl.device_assert(known | (kept == 0), "a class index is neither in [0, classes) nor ignore_index")
        own += 1 - smoothing
        if w is not None:
            own *= tl.load(w + y * w_step, mask=known, other=0).to(T)
        # a bad index reads nothing, and its row is NaN for everyone to see
        own = tl.where(known, own, tl.where(kept, float("nan"), 0.0))
        z_y = tl.load(z + place(n, size, z_at, DIMS, WIDE) + y * z_step, mask=known, other=0).to(T)

    m = tl.full((ROWS,), -float("inf"), T)
    rest, leaders, distance = tl.zeros((ROWS,), T), tl.zeros((ROWS,), T), tl.zeros((ROWS,), T)
    rest_q, leader_q = tl.zeros((ROWS,), T), tl.zeros((ROWS,), T)
    for first in range(0, classes, BLOCK):
        c, inside, zs, smooth, weight = _block(
            z, t, w, n, kept, first, classes, size, z_at, t_at, w_at, z_step, t_step, w_step, smoothing,
            BY_INDEX, SMOOTH, T, DIMS, WIDE, BLOCK, "",
        )  # fmt: skip
        higher = tl.maximum(m, tl.max(zs, 1))
        base = tl.where(higher == -float("inf"), 0.0, higher)  # -inf - -inf would be nan
        shrink = tl.where(m == higher, 1.0, _exp_of_difference(m, base, HALF))
        leads = (zs == higher[:, None]) & inside
        # (1) of the block without its leaders' own 1, and united with what came before by (3); then (2) by (4)
        e = tl.where(leads | (inside == 0), 0.0, _exp_of_difference(zs, base[:, None], HALF))
        rest = (rest + tl.where(m == higher, 0.0, leaders)) * shrink + tl.sum(e, 1)
        leaders = tl.where(m == higher, leaders, 0.0) + tl.sum(tl.where(leads, 1.0, 0.0).to(T), 1)
        if SMOOTH or not BY_INDEX:
            q = smooth * weight
            # 0 log 0 = 0, inf 0 = 0
            moved = tl.where((m == -float("inf")) | (m == base), 0.0, (base - m) * (rest_q + leader_q))
            near = leads & (higher > -float("inf"))[:, None]
            distance += moved + tl.sum(tl.where((q == 0) | near, 0.0, q * (base[:, None] - zs)), 1)
            rest_q += tl.where(m == higher, 0.0, leader_q) + tl.sum(tl.where(leads, 0.0, q), 1)
            leader_q = tl.where(m == higher, leader_q, 0.0) + tl.sum(tl.where(leads, q, 0.0), 1)
        m = higher

    rest += leaders - 1
    Q = own + (rest_q + leader_q)
    log_s = log1p(rest)
    loss = distance + Q * log_s  # (6)
    if BY_INDEX:
        loss += tl.where((own == 0) | (z_y == m), 0.0, own * (m - z_y))
        rest_q += tl.where(z_y == m, 0.0, own)
    loss = tl.where(kept, loss, 0.0)
    if value is not None:
        tl.store(value + place(n, size, value_at, DIMS, WIDE), loss.to(value.dtype.element_ty), mask=inside_n)
    if parts is not None:
        tl.store(parts + tl.program_id(0), tl.sum(loss))

    if dz is not None or dt is not None or dw is not None:
        up = tl.full((ROWS,), scale, tl.float64)
        if denominator is not None:
            up /= tl.load(denominator)
        up = up.to(T)
        if g is not None:
            up *= tl.load(g + place(n, size, g_at, DIMS, WIDE), mask=inside_n, other=0).to(T)
        slope = Q / (1 + rest)
        leader_d = rest_q - slope * rest  # (8)
        confident = (leaders == 1) & (rest < 1) & (tl.abs(Q) < float("inf"))
        last = (classes - 1) // BLOCK * BLOCK
        for back in range(0, classes, BLOCK):
            c, inside, zs, smooth, weight = _block(
                z, t, w, n, kept, last - back, classes, size, z_at, t_at, w_at, z_step, t_step, w_step, smoothing,
                BY_INDEX, SMOOTH, T, DIMS, WIDE, BLOCK, "evict_first",
            )  # fmt: skip
            if dz is not None:
                d = _exp_of_difference(zs, m[:, None], HALF) * slope[:, None]
                if SMOOTH or not BY_INDEX:
                    d -= smooth * weight
                if BY_INDEX:
                    d -= tl.where(c[None, :] == y[:, None], own[:, None], 0.0)
                d = tl.where((zs == m[:, None]) & confident[:, None], leader_d[:, None], d)
                # the mean over no rows has a scale of 1/0, which must not reach an ignored row
                d = tl.where(kept[:, None], d * up[:, None], 0.0)
                at = dz + place(n, size, dz_at, DIMS, WIDE)[:, None] + (c * dz_step)[None, :]
                every = inside_n[:, None] & (c < classes)[None, :]  # the ignored rows, too
                tl.store(at, d.to(dz.dtype.element_ty), mask=every, eviction_policy="evict_first")
            if dt is not None or dw is not None:
                nll = up[:, None] * ((m[:, None] - zs) + log_s[:, None])
                if dt is not None:
                    at = dt + place(n, size, dt_at, DIMS, WIDE)[:, None] + (c * dt_step)[None, :]
                    d = (1 - smoothing) * weight * nll
                    tl.store(at, d.to(dt.dtype.element_ty), mask=inside, eviction_policy="evict_first")
                if dw is not None:
                    at = dw + place(n, size, dw_at, DIMS, WIDE)[:, None] + (c * dw_step)[None, :]
                    tl.store(at, (smooth * nll).to(dw.dtype.element_ty), mask=inside, eviction_policy="evict_first")


def cross_entropy(
    z: Tensor, t: Tensor, w: Tensor | None, g: Tensor | None, ignore_index: int, smoothing: float, by_weight: bool,
    scale: float, reduce: bool, value: Tensor | None, dz: Tensor | None, dt: Tensor | None, dw: Tensor | None,
) -> None:  # fmt: skip
    """What its schema says, as kernels/cpu/cross_entropy.cpp has it; the tensors are not empty."""
    by_index = not t.is_floating_point()
    scores = [z, None if by_index else t, None if by_index else w, dz, dt, dw]
    singles = [t if by_index else None, g, None if reduce else value]
    at, step, size = rows_of(z, scores, singles)
    classes, rows = z.shape[1 if z.dim() > 1 else 0], 1
    for length in size:
        rows *= length
    compute = COMPUTE[z.dtype]
    denominator = None
    if by_weight and by_index:
        denominator = kept_weight(t, w, rows, classes, size, at[6], ignore_index)
    plain = by_index and smoothing == 0 and compute is tl.float32  # else more is held for each score
    tile, block, warps = tiling(classes, step[0], 8192 if plain else 4096)
    programs = triton.cdiv(rows, tile)
    each, parts = destination(value, reduce, programs, compute)
    t_at, w_step = (at[6], w.stride(0) if w is not None else None) if by_index else (at[1], step[2])
    launch(
        _cross_entropy, programs, z.device, z, t, w, g, denominator, each, dz, dt, dw, parts, rows, classes,
        ignore_index, smoothing, scale, size, at[0], t_at, at[2], at[7], at[8], at[3], at[4], at[5],
        step[0], step[1], w_step, step[3], step[4], step[5],
        BY_INDEX=by_index, SMOOTH=smoothing != 0, T=compute,
        DIMS=len(size), WIDE=rows >= NARROW, ROWS=tile, BLOCK=block, warps=warps,
    )  # fmt: skip
    if parts is not None:
        total(parts, value, scale, denominator)


OPS = {
    "cross_entropy": (
        "(Tensor z, Tensor t, Tensor? w, Tensor? g, int ignore_index, float smoothing, bool by_weight, "
        "float scale, bool reduce, Tensor(a!)? value, Tensor(b!)? dz, Tensor(c!)? dt, Tensor(d!)? dw) -> ()",
        cross_entropy,
    ),
}
