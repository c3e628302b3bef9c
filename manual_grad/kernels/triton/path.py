"""Losses of a lattice of alignments. Notation as in losses/path/ctc_loss.py, states as in kernels/cpu/path.cpp.

One program per sample goes through its frames forwards and backwards, holding the labels and the blanks before them in
two vectors. A second kernel, with one program per frame, sums the posterior over equal labels. Its order of summation
is fixed, which that of atomic additions would not be. Everything is in float64: the time depends on the number of
sequential steps, not on arithmetic.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from manual_grad.kernels.triton.launch import double, launch, narrow, total
from manual_grad.kernels.triton.math import log1p

_INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _log_add(a, b):  # (9)
    high, low = tl.where(a > b, a, b), tl.where(a > b, b, a)
    return tl.where(high == -_INFINITY, high, high + log1p(tl.exp(low - high)))


@triton.jit
def _shifted(v, i, by: tl.constexpr, BLOCK: tl.constexpr):
    """The value of each lane's neighbor at distance ``by``; -inf past the ends."""
    at = i + by
    inside = (at >= 0) & (at < BLOCK)
    return tl.where(inside, tl.gather(v, tl.where(inside, at, 0).to(tl.int32), 0), -_INFINITY)


@triton.jit
def _level(labels, blanks):
    """The reference level of a frame: the largest value, or 0 if that is not finite."""
    top = tl.maximum(tl.max(labels, 0), tl.max(blanks, 0))
    return tl.where(tl.abs(top) < _INFINITY, top, 0.0)


@triton.jit
def _emissions(x, y, is_label, known, blank, x_step):
    """The emissions of the labels and of the blank at a frame relative to the largest, and the largest."""
    labels = double(tl.load(x + y * x_step, mask=known, other=float("nan")))
    labels = tl.where(is_label, labels, -_INFINITY)
    emission = double(tl.load(x + tl.full((), blank, tl.int64) * x_step))
    level = _level(labels, labels * 0 + emission)
    return labels - level, emission - level, level


@triton.jit
def _sample(
    n, targets, begin, frames, counts, y_row, y_step, most_frames, most_labels, classes, BLOCK: tl.constexpr
):  # fmt: skip
    """A sample's labels, masks of lanes with a label and with a valid one, its lengths, their validity, the start."""
    length, count = tl.load(frames + n), tl.load(counts + n)
    fits = (length >= 0) & (length <= most_frames) & (count >= 0) & (count <= most_labels)
    start = n * y_row
    if begin is not None:  # concatenated targets: the start depends on the lengths of all previous ones
        start = tl.load(begin + n)
        fits = fits & (start >= 0) & (start + count <= most_labels)
        start *= y_step
    tl.device_assert(fits, "input_lengths or target_lengths do not fit log_probs or targets")
    length, count = tl.where(fits, length, 0), tl.where(fits, count, 0)
    i = tl.arange(0, BLOCK).to(tl.int64)
    is_label = i < count
    y = tl.load(targets + start + i * y_step, mask=is_label, other=-1)
    known = is_label & (y >= 0) & (y < classes)
    tl.device_assert(known | (is_label == 0), "a target is not in [0, classes)")
    return y, is_label, known, length, count, fits, start


_NUMBERS = ["most_frames", "most_labels", "classes", "blank", "y_row", "y_step", "g_row", "value_row"]
_NUMBERS += ["x_frame", "x_row", "x_step", "zero_infinity"]


@triton.jit(do_not_specialize=_NUMBERS)
def _walk(
    x, targets, begin, frames, counts, g, value, losses, parts, table,
    most_frames, most_labels, classes, blank, x_frame, x_row, x_step, y_row, y_step,
    g_row, value_row, zero_infinity, scale: tl.float64, BY_LENGTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The loss, and in ``table`` (N, T, 2, BLOCK) the gradient per state: first of the blanks, then of the labels."""
    n = tl.program_id(0).to(tl.int64)
    y, is_label, known, length, count, fits, _start = _sample(
        n, targets, begin, frames, counts, y_row, y_step, most_frames, most_labels, classes, BLOCK
    )
    i = tl.arange(0, BLOCK).to(tl.int64)
    is_blank = i <= count
    before = tl.gather(y, tl.where(i > 0, i - 1, 0).to(tl.int32), 0)
    skips = is_label & (i > 0) & (y != before)
    nothing = tl.zeros((BLOCK,), tl.float64) - _INFINITY

    # (2) with each frame's own emission; before the first frame, every path is in the first blank, with nothing emitted
    labels, blanks = nothing, tl.where(i == 0, 0.0, nothing)
    log_p = tl.full((), 0, tl.float64)
    offset = log_p
    for t in range(0, length):
        at_t = x + tl.full((), t, tl.int64) * x_frame + n * x_row
        emission, blank_emission, level = _emissions(at_t, y, is_label, known, blank, x_step)
        log_p += level + offset
        around = _log_add(blanks, _shifted(labels, i, -1, BLOCK))
        labels = _log_add(labels, tl.where(skips, around, blanks)) + (emission - offset)
        labels = tl.where(is_label, labels, -_INFINITY)
        blanks = tl.where(is_blank, around + (blank_emission - offset), -_INFINITY)
        offset = _level(labels, blanks)
        if table is not None:
            row = table + (n * most_frames + t) * (2 * BLOCK)
            tl.store(row + i, blanks)
            tl.store(row + BLOCK + i, labels)
    in_blank = tl.max(tl.where(i == count, blanks, -_INFINITY), 0)
    in_label = tl.max(tl.where(i == count - 1, labels, -_INFINITY), 0)
    loss = 0 - (log_p + _log_add(in_blank, in_label))  # (4)
    # a maximum ignores NaN
    spoilt = tl.sum(tl.where((labels == labels) & (blanks == blanks), 0, 1)) > 0
    loss = tl.where(spoilt | (fits == 0), float("nan"), loss)
    tl.store(losses + n, loss)
    loss = tl.where((loss == _INFINITY) & (zero_infinity != 0), 0.0, loss)
    up = tl.full((), scale, tl.float64)
    if BY_LENGTH:
        up /= tl.maximum(count, 1).to(tl.float64)
    if value is not None:
        tl.store(value + n * value_row, narrow(loss, value))
    if parts is not None:
        tl.store(parts + n, loss * up)

    if table is not None:
        tl.debug_barrier()  # what this thread reads may have been written by another
        if g is not None:
            up *= double(tl.load(g + n * g_row))
        # (3), including the emission of the next frame; after the last frame, every path is in the last blank
        labels, blanks = nothing, tl.where(i == count, 0.0, nothing)
        offset = tl.full((), 0, tl.float64)
        for back in range(0, length):
            t = length - 1 - back
            emission, blank_emission, _ = _emissions(x + t * x_frame + n * x_row, y, is_label, known, blank, x_step)
            row = table + (n * most_frames + t) * (2 * BLOCK)
            beta = _log_add(blanks, labels)
            past = _shifted(tl.where(skips, 1.0, 0.0).to(tl.float64), i, 1, BLOCK) == 1
            past = tl.where(past, _shifted(beta, i, 1, BLOCK), _shifted(blanks, i, 1, BLOCK))
            labels = _log_add(labels, past)
            blank_score = tl.load(row + i) + beta
            label_score = tl.load(row + BLOCK + i) + labels
            peak = _level(label_score, blank_score)
            gamma_blank, gamma_label = tl.exp(blank_score - peak), tl.exp(label_score - peak)
            share = 0 - up / (tl.sum(gamma_blank) + tl.sum(gamma_label))  # (6)
            tl.debug_barrier()
            tl.store(row + i, gamma_blank * share)
            tl.store(row + BLOCK + i, gamma_label * share)
            labels = labels + (emission - offset)
            blanks = beta + (blank_emission - offset)
            offset = _level(labels, blanks)


@triton.jit
def _by_symbol(
    table, targets, begin, frames, counts, losses, dx, most_frames, most_labels, classes, blank,
    y_row, y_step, dx_frame, dx_row, dx_step, zero_infinity,
    BLOCK: tl.constexpr, OTHERS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """(5) for one frame: writes every class, then, after a barrier, those of the target again."""
    t, n = tl.program_id(0).to(tl.int64) % most_frames, tl.program_id(0).to(tl.int64) // most_frames
    y, _is_label, known, length, count, fits, start = _sample(
        n, targets, begin, frames, counts, y_row, y_step, most_frames, most_labels, classes, BLOCK
    )
    loss = tl.load(losses + n)
    spoilt, impossible = loss != loss, loss == _INFINITY
    fill = tl.where(spoilt | (impossible & (t < length) & (zero_infinity == 0)), float("nan"), 0.0)
    at = dx + t * dx_frame + n * dx_row
    for first in range(0, classes, CLASSES):
        c = first + tl.arange(0, CLASSES).to(tl.int64)
        row = (c * 0).to(tl.float64) + fill
        tl.store(at + c * dx_step, narrow(row, dx), mask=c < classes)
    tl.debug_barrier()
    if (t < length) & (tl.abs(loss) < _INFINITY):
        i = tl.arange(0, BLOCK).to(tl.int64)
        row = table + (n * most_frames + t) * (2 * BLOCK)
        blanks = tl.sum(tl.load(row + i))
        sums = tl.where(y == blank, blanks, 0.0)
        for first_other in range(0, count, OTHERS):
            j = first_other + tl.arange(0, OTHERS).to(tl.int64)
            other = tl.load(targets + start + j * y_step, mask=j < count, other=-1)
            gamma = tl.load(row + BLOCK + j, mask=j < count, other=0)
            sums += tl.sum(tl.where(y[:, None] == other[None, :], gamma[None, :], 0.0), 1)
            blanks += tl.sum(tl.where(other == blank, gamma, 0.0))
        # equal labels write the same value, so their order does not matter
        tl.store(at + y * dx_step, narrow(sums, dx), mask=known & (y != blank))
        tl.store(at + tl.full((), blank, tl.int64) * dx_step, narrow(blanks, dx))


def ctc_loss(
    x: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, g: Tensor | None, blank: int,
    zero_infinity: bool, by_length: bool, scale: float, reduce: bool, value: Tensor | None, dx: Tensor | None,
) -> None:  # fmt: skip
    """The op as specified in kernels/cpu/path.cpp; x must not be empty."""
    T, N, C = x.shape
    most = targets.shape[-1]
    block = triton.next_power_of_2(most + 1)
    concatenated = targets.dim() == 1
    frames, counts = input_lengths.contiguous(), target_lengths.contiguous()
    begin = counts.cumsum(0) - counts if concatenated else None
    y_row, y_step = (0 if concatenated else targets.stride(0)), targets.stride(-1)
    # (N, T, 2, block): per frame first the blanks, then the labels
    table = None if dx is None else x.new_empty((N, T, 2, block), dtype=torch.float64)
    losses, parts = x.new_empty((2, N), dtype=torch.float64)
    each = None if reduce else value
    warps = min(max(block // 256, 1), 16)
    launch(
        _walk, N, x.device, x, targets, begin, frames, counts, g, each, losses, parts, table, T, most, C, blank,
        *x.stride(), y_row, y_step, 0 if g is None or g.numel() == 1 else g.stride(0),
        0 if each is None else each.stride(0), int(zero_infinity), scale,
        BY_LENGTH=by_length, BLOCK=block, warps=warps,
    )  # fmt: skip
    if value is not None and each is None:
        total(parts, value)
    if dx is not None:
        launch(
            _by_symbol, T * N, x.device, table, targets, begin, frames, counts, losses, dx, T, most, C, blank,
            y_row, y_step, *dx.stride(), int(zero_infinity),
            BLOCK=block, OTHERS=min(block, 16), CLASSES=min(triton.next_power_of_2(C), 1024),
        )  # fmt: skip


OPS = {
    "ctc_loss": (
        "(Tensor x, Tensor targets, Tensor input_lengths, Tensor target_lengths, Tensor? g, int blank, "
        "bool zero_infinity, bool by_length, float scale, bool reduce, Tensor(a!)? value, Tensor(b!)? dx) -> ()",
        ctc_loss,
    ),
}
