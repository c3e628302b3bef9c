"""Cross entropy by the sums of engine/softmax.py, to which equation numbers refer. Notation as there and in
losses/rowwise/cross_entropy.py: z logits, q effective target, Q its sum, m largest logit, rest the sum of
e = exp(z - m) without the leader's, g upstream gradient.

A program processes a tile of rows in two passes over blocks of classes: first the sums, kept relative to the largest
score so far, then the gradient. The second pass goes from the last block to the first, since the blocks read last are
still cached: in L1 or, if the rows of all running programs do not fit there, in L2.
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
    """exp(a - b), corrected for the rounding error of the difference, which dominates if a and b are large.

    In float32 this takes 40 operations, about as many as an H100 can do while it reads a number. Half-precision numbers
    arrive twice as fast; their differences are exact or nearly so, and the hardware exponential is accurate enough.
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
        e += e * tl.where(lost == lost, lost, 0.0)  # NaN for infinities, which need no correction
    return e


@triton.jit
def _block(z, t, w, n, kept, first, classes, size, at, step, smoothing,
           BY_INDEX: tl.constexpr, SMOOTH: tl.constexpr, T: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr,
           BLOCK: tl.constexpr, EVICT: tl.constexpr):  # fmt: skip
    """Load a block of classes: indices, mask, logits, target before weighting, and weight.

    With class indices, the target holds only the label smoothing. Outside the mask, which excludes ignored rows, logits
    are -inf and targets 0.
    """
    c = first + tl.arange(0, BLOCK).to(tl.int64)
    inside = kept[:, None] & (c < classes)[None, :]
    of_z = z + place(n, size, at[0], DIMS, WIDE)[:, None] + (c * step[0])[None, :]
    zs = tl.load(of_z, mask=inside, other=-float("inf"), eviction_policy=EVICT).to(T)
    share = smoothing / classes
    smooth = tl.zeros_like(zs)
    weight = tl.zeros_like(zs) + 1
    if BY_INDEX:
        if SMOOTH:
            smooth = tl.where(inside, share, smooth)
            if w is not None:
                weight = tl.load(w + c * step[2], mask=c < classes, other=0).to(T)[None, :] + tl.zeros_like(zs)
    else:
        of_t = t + place(n, size, at[1], DIMS, WIDE)[:, None] + (c * step[1])[None, :]
        ts = tl.load(of_t, mask=inside, other=0, eviction_policy=EVICT).to(T)
        smooth = tl.where(inside, (1 - smoothing) * ts + share, smooth) if SMOOTH else ts
        if w is not None:
            of_w = w + place(n, size, at[2], DIMS, WIDE)[:, None] + (c * step[2])[None, :]
            weight = tl.load(of_w, mask=inside, other=0, eviction_policy=EVICT).to(T)
    return c, inside, zs, smooth, weight


@triton.jit
def _united(m, rest, leaders, rest_q, leader_q, distance, zs, q, inside, CHARGED: tl.constexpr, HALF: tl.constexpr):
    """Merge one block into the sums (1) of the classes so far by (3); with ``CHARGED``, also (2) with weights q by (4).

    ``leaders`` counts the classes with the largest logit; their terms 1 and q are kept apart, in ``leaders`` and
    ``leader_q``.
    """
    higher = tl.maximum(m, tl.max(zs, 1))
    base = tl.where(higher == -float("inf"), 0.0, higher)  # -inf - -inf would be NaN
    shrink = tl.where(m == higher, 1.0, _exp_of_difference(m, base, HALF))
    leads = (zs == higher[:, None]) & inside
    e = tl.where(leads | (inside == 0), 0.0, _exp_of_difference(zs, base[:, None], HALF))
    rest = (rest + tl.where(m == higher, 0.0, leaders)) * shrink + tl.sum(e, 1)
    leaders = tl.where(m == higher, leaders, 0.0) + tl.sum(tl.where(leads, 1.0, 0.0).to(zs.dtype), 1)
    if CHARGED:
        # 0 log 0 = 0, inf 0 = 0
        moved = tl.where((m == -float("inf")) | (m == base), 0.0, (base - m) * (rest_q + leader_q))
        near = leads & (higher > -float("inf"))[:, None]
        distance += moved + tl.sum(tl.where((q == 0) | near, 0.0, q * (base[:, None] - zs)), 1)
        rest_q += tl.where(m == higher, 0.0, leader_q) + tl.sum(tl.where(leads, 0.0, q), 1)
        leader_q = tl.where(m == higher, leader_q, 0.0) + tl.sum(tl.where(leads, q, 0.0), 1)
    return higher, rest, leaders, rest_q, leader_q, distance


@triton.jit
def _own(z, t, w, n, inside_n, classes, ignore_index, smoothing, size, at, step,
         T: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """With class indices: the index y, whether the row is kept, the target of y apart from label smoothing, and z_y.

    With an invalid index nothing is read, and the row becomes NaN.
    """
    y = tl.load(t + place(n, size, at[1], DIMS, WIDE), mask=inside_n, other=ignore_index)
    kept = y != ignore_index
    known = kept & (y >= 0) & (y < classes)
    tl.device_assert(known | (kept == 0), "a class index is neither in [0, classes) nor ignore_index")
    own = (y * 0).to(T) + (1 - smoothing)
    if w is not None:
        own *= tl.load(w + y * step[2], mask=known, other=0).to(T)
    own = tl.where(known, own, tl.where(kept, float("nan"), 0.0))
    z_y = tl.load(z + place(n, size, at[0], DIMS, WIDE) + y * step[0], mask=known, other=0).to(T)
    return y, kept, own, z_y


@triton.jit(do_not_specialize=["rows", "ignore_index"])
def _cross_entropy(
    z, t, w, g, denominator, value, dz, dt, dw, parts, rows, classes, ignore_index: tl.int64, smoothing: tl.float64,
    scale: tl.float64, size, at, step,
    BY_INDEX: tl.constexpr, SMOOTH: tl.constexpr, T: tl.constexpr, DIMS: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``at``: row strides of z, t, w, dz, dt, dw, g and value; ``step``: class strides of the first six."""
    HALF: tl.constexpr = z.dtype.element_ty.primitive_bitwidth < 32
    CHARGED: tl.constexpr = SMOOTH or not BY_INDEX
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside_n = n < rows
    smoothing = tl.full((), smoothing, T)
    y, kept, own, z_y = n * 0 - 1, inside_n, tl.zeros((ROWS,), T), tl.zeros((ROWS,), T)
    if BY_INDEX:
        y, kept, own, z_y = _own(
            z, t, w, n, inside_n, classes, ignore_index, smoothing, size, at, step, T, DIMS, WIDE
        )  # fmt: skip
    zero = tl.zeros((ROWS,), T)
    m, rest, leaders, rest_q, leader_q, distance = zero - float("inf"), zero, zero, zero, zero, zero
    for first in range(0, classes, BLOCK):
        _c, inside, zs, smooth, weight = _block(
            z, t, w, n, kept, first, classes, size, at, step, smoothing, BY_INDEX, SMOOTH, T, DIMS, WIDE, BLOCK, ""
        )
        m, rest, leaders, rest_q, leader_q, distance = _united(
            m, rest, leaders, rest_q, leader_q, distance, zs, smooth * weight, inside, CHARGED, HALF
        )
    rest += leaders - 1
    Q = own + (rest_q + leader_q)
    log_s = log1p(rest)
    loss = distance + Q * log_s  # (6)
    if BY_INDEX:
        loss += tl.where((own == 0) | (z_y == m), 0.0, own * (m - z_y))
        rest_q += tl.where(z_y == m, 0.0, own)
    loss = tl.where(kept, loss, 0.0)
    if value is not None:
        tl.store(value + place(n, size, at[7], DIMS, WIDE), loss.to(value.dtype.element_ty), mask=inside_n)
    if parts is not None:
        tl.store(parts + tl.program_id(0), tl.sum(loss))

    if dz is not None or dt is not None or dw is not None:
        up = tl.full((ROWS,), scale, tl.float64)
        if denominator is not None:
            up /= tl.load(denominator)
        up = up.to(T)
        if g is not None:
            up *= tl.load(g + place(n, size, at[6], DIMS, WIDE), mask=inside_n, other=0).to(T)
        slope = Q / (1 + rest)
        leader_d = rest_q - slope * rest  # (8)
        sole = (leaders == 1) & (rest < 1) & (tl.abs(Q) < float("inf"))
        last = (classes - 1) // BLOCK * BLOCK
        for back in range(0, classes, BLOCK):
            c, inside, zs, smooth, weight = _block(
                z, t, w, n, kept, last - back, classes, size, at, step, smoothing,
                BY_INDEX, SMOOTH, T, DIMS, WIDE, BLOCK, "evict_first",
            )  # fmt: skip
            if dz is not None:
                d = _exp_of_difference(zs, m[:, None], HALF) * slope[:, None]
                if CHARGED:
                    d -= smooth * weight
                if BY_INDEX:
                    d -= tl.where(c[None, :] == y[:, None], own[:, None], 0.0)
                d = tl.where((zs == m[:, None]) & sole[:, None], leader_d[:, None], d)
                # the mean over no rows has the scale 1/0, which must not reach ignored rows
                d = tl.where(kept[:, None], d * up[:, None], 0.0)
                every = inside_n[:, None] & (c < classes)[None, :]  # including ignored rows
                _put(dz, d, n, c, size, at[3], step[3], every, DIMS, WIDE)
            if dt is not None or dw is not None:
                nll = up[:, None] * ((m[:, None] - zs) + log_s[:, None])
                if dt is not None:
                    _put(dt, (1 - smoothing) * weight * nll, n, c, size, at[4], step[4], inside, DIMS, WIDE)
                if dw is not None:
                    _put(dw, smooth * nll, n, c, size, at[5], step[5], inside, DIMS, WIDE)


@triton.jit
def _put(result, numbers, n, c, size, at, step, inside, DIMS: tl.constexpr, WIDE: tl.constexpr):
    to = result + place(n, size, at, DIMS, WIDE)[:, None] + (c * step)[None, :]
    tl.store(to, numbers.to(result.dtype.element_ty), mask=inside, eviction_policy="evict_first")


def cross_entropy(
    z: Tensor, t: Tensor, w: Tensor | None, g: Tensor | None, ignore_index: int, smoothing: float, by_weight: bool,
    scale: float, reduce: bool, value: Tensor | None, dz: Tensor | None, dt: Tensor | None, dw: Tensor | None,
) -> None:  # fmt: skip
    """The op as specified in kernels/cpu/cross_entropy.cpp; the tensors must not be empty."""
    by_index = not t.is_floating_point()
    scores = [z, None if by_index else t, None if by_index else w, dz, dt, dw]
    at, step, size = rows_of(z, scores, [g, None if reduce else value, t if by_index else None])
    classes, rows = z.shape[1 if z.dim() > 1 else 0], 1
    for length in size:
        rows *= length
    denominator = None
    if by_index:
        at[1], step[2] = at.pop(), None if w is None else w.stride(0)
        denominator = kept_weight(t, w, rows, classes, size, at[1], ignore_index) if by_weight else None
    compute = COMPUTE[z.dtype]
    plain = by_index and smoothing == 0 and compute is tl.float32  # else more values are held per score
    tile, block, warps = tiling(classes, step[0], 8192 if plain else 4096)
    programs = triton.cdiv(rows, tile)
    each, parts = destination(value, reduce, programs, compute)
    launch(
        _cross_entropy, programs, z.device, z, t, w, g, denominator, each, dz, dt, dw, parts, rows, classes,
        ignore_index, smoothing, scale, size, tuple(at), tuple(step),
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
