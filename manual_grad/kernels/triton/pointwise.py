"""Losses of one element of each input: one kernel, into which a loss plugs two scalar functions.

``value(x, t, a, p, q, r)`` is the loss e, ``slopes(x, t, a, p, q, r)`` its derivatives dx, dt, da; letters as in the
loss files: x input, t target, a auxiliary input (pos_weight, variance; 1 where there is none), p q r the options.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import COMPUTE, NARROW, destination, launch, layout, place, total
from manual_grad.kernels.triton.math import exp, log1p

_HALF_LOG_2PI = tl.constexpr(0.91893853320467274178)
# Elements of a program of four warps, 8 for each thread: in halves 16 bytes of each operand are read at once. For the
# 20 KB that an H100 has on their way from memory to each multiprocessor, five such programs are enough.
_BLOCK = 1024


@triton.jit
def _kernel(
    x, t, a, w, g, value, dx, dt, da, dw, parts, numel,
    p: tl.float64, q: tl.float64, r: tl.float64, scale: tl.float64,
    size, x_at, t_at, a_at, w_at, g_at, value_at, dx_at, dt_at, da_at, dw_at,
    VALUE: tl.constexpr, SLOPES: tl.constexpr, FACTOR: tl.constexpr, T: tl.constexpr,
    DIMS: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < numel
    one = tl.full((BLOCK,), 1, T)
    p, q, r, up = tl.full((), p, T), tl.full((), q, T), tl.full((), r, T), tl.full((), scale, T)
    at_x = tl.load(x + place(i, size, x_at, DIMS, WIDE), mask=inside, other=1).to(T)
    at_t = tl.load(t + place(i, size, t_at, DIMS, WIDE), mask=inside, other=1).to(T)
    at_a = one
    if a is not None:
        at_a = tl.load(a + place(i, size, a_at, DIMS, WIDE), mask=inside, other=1).to(T)
    slope = one * up
    if g is not None:
        slope = tl.load(g + place(i, size, g_at, DIMS, WIDE), mask=inside, other=1).to(T) * up
    e = one
    if value is not None or parts is not None or dw is not None:
        e = VALUE(at_x, at_t, at_a, p, q, r)
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
    if dx is not None or dt is not None or da is not None:
        by_x, by_t, by_a = SLOPES(at_x, at_t, at_a, p, q, r)
        if dx is not None:
            tl.store(dx + place(i, size, dx_at, DIMS, WIDE), (slope * by_x).to(dx.dtype.element_ty), mask=inside)
        if dt is not None:
            tl.store(dt + place(i, size, dt_at, DIMS, WIDE), (slope * by_t).to(dt.dtype.element_ty), mask=inside)
        if da is not None:
            tl.store(da + place(i, size, da_at, DIMS, WIDE), (slope * by_a).to(da.dtype.element_ty), mask=inside)


SCHEMA = (
    "(Tensor x, Tensor t, Tensor? a, Tensor? w, Tensor? g, float p, float q, float r, float scale, bool reduce, "
    "bool value, bool dx, bool dt, bool da, bool dw) -> (Tensor?, Tensor?, Tensor?, Tensor?, Tensor?)"
)


def run(
    functions: tuple[Any, Any, int], x: Tensor, t: Tensor, a: Tensor | None, w: Tensor | None, g: Tensor | None,
    p: float, q: float, r: float, scale: float, reduce: bool, value: bool, dx: bool, dt: bool, da: bool, dw: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """What SCHEMA says, as kernels/cpu/pointwise.h has it."""
    numel = x.numel()
    block = _BLOCK if x.dtype is not torch.float64 else _BLOCK // 2  # a float64 takes two registers
    programs = triton.cdiv(numel, block)
    e = (x.new_empty(()) if reduce else torch.empty_like(x)) if value else None
    wanted = zip((x, t, a, w), (dx, dt, da, dw), strict=True)
    gradients = [torch.empty_like(u) if want else None for u, want in wanted]
    if numel == 0:
        if value and reduce:
            e.fill_(0 * scale)
        return e, *gradients
    if g is not None and g.shape != x.shape:
        g = g.reshape(()).expand(x.shape)
    compute = COMPUTE[x.dtype]
    each, parts = destination(e, reduce, programs, compute)
    operands = (x, t, a, w, g, each, *gradients)
    size, strides = layout(x.shape, operands)
    constants = dict(
        VALUE=functions[0], SLOPES=functions[1], FACTOR=functions[2], T=compute,
        DIMS=len(size), WIDE=numel >= NARROW, BLOCK=block,
    )  # fmt: skip
    launch(_kernel, programs, x.device, *operands, parts, numel, p, q, r, scale, size, *strides, **constants)
    if parts is not None:
        total(parts, e, scale)
    return e, *gradients


@triton.jit
def _l1(x, t, a, p, q, r):  # losses/pointwise/l1_loss.py (1)
    return tl.abs(x - t)


@triton.jit
def _l1_slopes(x, t, a, p, q, r):  # (2); the comparisons are false for a NaN
    d = x - t
    sign = tl.where(d > 0, 1.0, 0.0).to(x.dtype) - tl.where(d < 0, 1.0, 0.0).to(x.dtype)
    return sign, -sign, sign


@triton.jit
def _mse(x, t, a, p, q, r):  # losses/pointwise/mse_loss.py (1)
    return (x - t) * (x - t)


@triton.jit
def _half_mse_slopes(x, t, a, p, q, r):  # (2), which could overflow before it is divided by their number
    d = x - t
    return d, -d, d


@triton.jit
def _huber(x, t, a, delta, q, r):  # losses/pointwise/huber_loss.py (1)
    size = tl.abs(x - t)
    return tl.where(size > delta, delta * (size - 0.5 * delta), 0.5 * size * size)


@triton.jit
def _huber_slopes(x, t, a, delta, q, r):  # (2)
    d = x - t
    d = tl.where(d > delta, delta, tl.where(d < -delta, -delta, d))
    return d, -d, d


@triton.jit
def _times(c, x):  # 0 where c is, for an infinite x too
    return tl.where(c == 0, 0.0, c * x)


@triton.jit
def _bce_with_logits(x, t, a, p, q, r):  # losses/pointwise/binary_cross_entropy_with_logits.py (4)
    at = a * t
    return _times(tl.where(x < 0, -at, 1 - t), x) + (1 - t + at) * log1p(exp(-tl.abs(x)))


@triton.jit
def _bce_with_logits_slopes(x, t, a, p, q, r):
    u = exp(-tl.abs(x))
    large = 1 / (1 + u)
    small = u * large
    sigmoid, sigmoid_minus = tl.where(x < 0, small, large), tl.where(x < 0, large, small)  # (6)
    softplus_minus = tl.where(x < 0, -x, 0) + log1p(u)  # (3) of -x
    dt = (a - 1) * log1p(u) - _times(tl.where(x < 0, a, 1.0), x)
    return (1 - t) * sigmoid - a * t * sigmoid_minus, dt, _times(t, softplus_minus)  # (5)


@triton.jit
def _smooth_l1(x, t, a, beta, q, r):  # losses/pointwise/smooth_l1_loss.py (1)
    size, scaled = tl.abs(x - t), (x - t) / beta
    return tl.where(size < beta, 0.5 * scaled * (x - t), size - 0.5 * beta)


@triton.jit
def _smooth_l1_slopes(x, t, a, beta, q, r):  # (2)
    d = (x - t) / beta
    d = tl.where(d > 1, 1.0, tl.where(d < -1, -1.0, d))
    return d, -d, d


@triton.jit
def _variance(a, eps):  # v of (1); a negative one, which nobody can refuse without waiting for the device, is NaN
    return tl.where(a < 0, float("nan"), tl.where(a < eps, eps, a))


@triton.jit
def _gaussian_nll(x, t, a, full, eps, r):  # losses/pointwise/gaussian_nll_loss.py (1)
    v = _variance(a, eps)
    return 0.5 * (tl.log(v) + (x - t) * ((x - t) * (1 / v))) + full * _HALF_LOG_2PI


@triton.jit
def _gaussian_nll_slopes(x, t, a, full, eps, r):  # (2)
    d, v = x - t, _variance(a, eps)
    per_v = 1 / v
    bent = tl.where(v == float("inf"), 0 * d, tl.fma(-d, d, v) * per_v)
    return d * per_v, -d * per_v, 0.5 * bent * per_v


@triton.jit
def _poisson_nll(x, t, a, log_input, full, eps):  # losses/pointwise/poisson_nll_loss.py (1) to (5)
    certain = (t == 0) & (x == -float("inf"))
    e = tl.where(log_input != 0, exp(x) - tl.where(certain, 0.0, t * x), x - t * tl.log(x + eps))
    stirling = (t + 0.5) * tl.log(t) - t + _HALF_LOG_2PI
    return e + tl.where(full == 0, 0.0, tl.where(t <= 1, 0.0, stirling))


@triton.jit
def _poisson_nll_slopes(x, t, a, log_input, full, eps):
    rate = x + eps
    by_rate = tl.where(rate == float("inf"), 1 - t / rate, ((x - t) + eps) / rate)
    dx = tl.where(log_input != 0, exp(x) - t, by_rate)
    dt = tl.where(log_input != 0, -x, -tl.log(x + eps))
    return dx, dt + tl.where(full == 0, 0.0, tl.where(t <= 1, 0.0, tl.log(t) + 0.5 / t)), dx


@triton.jit
def _bce(x, t, a, p, q, r):  # losses/pointwise/binary_cross_entropy.py (2)
    log_x, log_1_x = tl.log(x), log1p(-x)
    log_x, log_1_x = tl.where(log_x < -100, -100.0, log_x), tl.where(log_1_x < -100, -100.0, log_1_x)
    return (t - 1) * log_1_x - t * log_x


@triton.jit
def _bce_slopes(x, t, a, p, q, r):
    slack = x * (1 - x)
    dx = (x - t) / tl.where(slack < 1e-12, 1e-12, slack)  # (4)
    log_x, log_1_x = tl.log(x), log1p(-x)
    log_x, log_1_x = tl.where(log_x < -100, -100.0, log_x), tl.where(log_1_x < -100, -100.0, log_1_x)
    s = 1 - (x + x)
    squared = s * s
    tail = squared * 0.0
    for k in tl.static_range(10):  # artanh(s) = s + s**3 / 3 + s**5 / 5 + …
        tail = tail * squared + 1 / (21 - 2 * k)
    artanh = s + (s * squared) * tail
    dt = tl.where(squared < 0.17 * 0.17, artanh + artanh, log_1_x - log_x)  # (5) (6)
    return dx, dt, dx


@triton.jit
def _kl_div(x, t, a, log_target, q, r):  # losses/pointwise/kl_div.py (1) (2); a NaN stays one
    p, log_p = tl.where(log_target != 0, exp(t), t), tl.where(log_target != 0, t, tl.log(t))
    return tl.where((p == 0) & (x == x), 0.0, p * (log_p - x))


@triton.jit
def _kl_div_slopes(x, t, a, log_target, q, r):  # (3)
    p, log_p = tl.where(log_target != 0, exp(t), t), tl.where(log_target != 0, t, tl.log(t))
    dt = tl.where(log_target != 0, p, 1.0) * (log_p - x + 1)
    return -p, tl.where((p == 0) & (x == x), 0.0, dt), p


@triton.jit
def _soft_margin(x, t, a, p, q, r):  # losses/pointwise/soft_margin_loss.py (1) (4)
    m = t * x
    return tl.where(m < 0, -m, 0.0) + log1p(exp(-tl.abs(m)))


@triton.jit
def _soft_margin_slopes(x, t, a, p, q, r):  # (3)
    m = t * x
    u = exp(-tl.abs(m))
    s = tl.where(m < 0, 1 / (1 + u), u * (1 / (1 + u)))
    return tl.where(s == 0, 0.0, -t * s), tl.where(s == 0, 0.0, -x * s), s


@triton.jit
def _margin_ranking(x, t, y, margin, q, r):  # losses/pointwise/margin_ranking_loss.py (1)
    s = margin - y * (x - t)
    return tl.where(s < 0, 0.0, s)


@triton.jit
def _margin_ranking_slopes(x, t, y, margin, q, r):  # (2)
    d, s = x - t, margin - y * (x - t)
    slope = tl.where(s >= 0, y, tl.where(s < 0, 0.0, 0 * y))  # a NaN stays one
    return -slope, slope, tl.where(s >= 0, -d, tl.where(s < 0, 0.0, 0 * d))


@triton.jit
def _hinge_embedding(x, t, a, margin, q, r):  # losses/pointwise/hinge_embedding_loss.py (1)
    closed = margin - x
    either = tl.where(x < margin, margin, tl.where(margin == margin, x, margin))
    return tl.where(t == 1, x, tl.where(t == -1, tl.where(closed < 0, 0.0, closed), either))


@triton.jit
def _hinge_embedding_slopes(x, t, a, margin, q, r):  # (2)
    near = tl.where(x <= margin, 1.0, 0.0).to(x.dtype)
    return tl.where(t == 1, 1.0, tl.where(t == -1, -near, 1 - near)), near * 0, near


@triton.jit
def _triplet(x, y, z, margin, swap, r):  # losses/pairwise/triplet_margin_with_distance_loss.py (1); a NaN is the lesser
    nearest = tl.where(swap == 1, tl.where(z < y, z, tl.where(z == z, y, z)), y)
    s = margin + (x - nearest)
    return tl.where(s < 0, 0.0, s)


@triton.jit
def _triplet_slopes(x, y, z, margin, swap, r):  # (2)
    beta = swap * tl.where(z < y, 1.0, tl.where(z == y, 0.5, 0.0)).to(x.dtype)
    nearest = tl.where(swap == 1, tl.where(z < y, z, tl.where(z == z, y, z)), y)
    near = tl.where(margin + (x - nearest) < 0, 0.0, 1.0).to(x.dtype)
    return near, -(1 - beta) * near, -beta * near


# value, slopes, and the factor that is left out of the slopes
LOSSES: dict[str, tuple[Any, Any, int]] = {
    "l1_loss": (_l1, _l1_slopes, 1),
    "mse_loss": (_mse, _half_mse_slopes, 2),
    "huber_loss": (_huber, _huber_slopes, 1),
    "smooth_l1_loss": (_smooth_l1, _smooth_l1_slopes, 1),
    "gaussian_nll_loss": (_gaussian_nll, _gaussian_nll_slopes, 1),
    "poisson_nll_loss": (_poisson_nll, _poisson_nll_slopes, 1),
    "binary_cross_entropy_with_logits": (_bce_with_logits, _bce_with_logits_slopes, 1),
    "binary_cross_entropy": (_bce, _bce_slopes, 1),
    "kl_div": (_kl_div, _kl_div_slopes, 1),
    "soft_margin_loss": (_soft_margin, _soft_margin_slopes, 1),
    "margin_ranking_loss": (_margin_ranking, _margin_ranking_slopes, 1),
    "hinge_embedding_loss": (_hinge_embedding, _hinge_embedding_slopes, 1),
    "triplet_margin_with_distance_loss": (_triplet, _triplet_slopes, 1),
}
OPS = {name: (SCHEMA, functools.partial(run, functions)) for name, functions in LOSSES.items()}
