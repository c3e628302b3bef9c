"""Connectionist temporal classification: the negative log of the probability that the frames spell the labels.

The definition sums over all alignments; the oracle uses the forward recursion.
"""

from __future__ import annotations

import functools
import itertools
import math

import torch
from mpmath import exp, inf, log, mpf
from torch.nn import functional as F

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input, Pin, Spec
from manual_grad.losses.path.ctc_loss import ctc_loss
from manual_grad.study import curves

INF = float("inf")
GAPS = (5, 10, 15, 20, 40, 80)


@functools.cache
def alignments(frames, classes, blank):
    """Labels -> all paths of ``frames`` symbols that spell them: repetitions are merged, then blanks removed."""
    found: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for path in itertools.product(range(classes), repeat=frames):
        found.setdefault(tuple(k for k, _ in itertools.groupby(path) if k != blank), []).append(path)
    return {labels: torch.tensor(paths).reshape(-1, frames) for labels, paths in found.items()}


def definition(log_probs, targets, input_lengths, target_lengths, blank=0, reduction="mean", zero_infinity=False):
    if not log_probs.numel():
        raise RuntimeError("log_probs must not be empty")
    batched = log_probs.dim() == 3
    scores = log_probs if batched else log_probs[:, None]
    ends = target_lengths.reshape(-1).cumsum(0).tolist()
    losses = []
    for n in range(scores.shape[1]):
        frames, count = int(input_lengths.reshape(-1)[n]), int(target_lengths.reshape(-1)[n])
        labels = targets.reshape(scores.shape[1], -1)[n, :count] if targets.dim() != 1 or not batched else (
            targets[ends[n] - count : ends[n]])  # fmt: skip
        paths = alignments(frames, scores.shape[2], blank).get(tuple(labels.tolist()))
        if paths is None:
            losses.append(scores.new_tensor(0.0 if zero_infinity else INF))
        else:
            losses.append(-scores[torch.arange(frames), n, paths].sum(1).logsumexp(0))
    values = torch.stack(losses)
    if reduction == "mean":
        return (values / target_lengths.reshape(-1).clamp(min=1)).mean()
    return values.sum() if reduction == "sum" else values if batched else values[0]


def oracle(log_probs, targets, blank=0, reduction="none", zero_infinity=False, **_):
    labels = [blank, *itertools.chain.from_iterable((label, blank) for label in targets)]
    p = [1] + [0] * (len(labels) - 1)  # before the first frame: one blank "seen", nothing spelled
    for scores in log_probs:
        previous, p = p, []
        for s, label in enumerate(labels):
            reached = previous[s] + (previous[s - 1] if s > 0 else 0)
            if s > 1 and label not in (blank, labels[s - 2]):
                reached += previous[s - 2]
            p.append(reached * exp(scores[label]))
    total = sum(p[-2:]) if log_probs else mpf(not targets)
    value = -log(total) if total else mpf(0) if zero_infinity else inf
    return value / max(len(targets), 1) if reduction == "mean" else value


def speech(draw, frames, labels, lengths, target_lengths, classes=4, lead=0.0, scale=1.0):
    """Log-probabilities of random scores, to which ``lead`` is added."""
    scores = draw.normal(frames, len(lengths), classes, scale=scale).double() + draw.tensor(lead).double()
    return dict(log_probs=draw.tensor(scores.log_softmax(-1)), targets=draw.tensor(labels),
                input_lengths=draw.tensor(lengths), target_lengths=draw.tensor(target_lengths))  # fmt: skip


def small(draw, lead=0.0, scale=1.0):
    return speech(draw, 5, [[1, 2], [3, 3], [2, 0]], [5, 4, 5], [2, 2, 1], lead=lead, scale=scale)


def confident(gap, right=True):
    """Scores where a path that spells the labels, or one that does not, leads by a gap in every frame."""
    path = torch.tensor([[1, 3, 2], [1, 0, 2], [2, 3, 2], [2, 3, 0], [0, 0, 0]])
    lead = gap * F.one_hot(path if right else 3 - path, 4).double()
    return lambda draw: small(draw, lead)


def shifted(offset):
    def sample(draw):
        made = small(draw)
        return {**made, "log_probs": made["log_probs"] + offset}

    return sample


def symbols(draw, log_probs, targets, blank=0, **_):
    frames, classes = len(log_probs), len(log_probs[0])
    states = [blank, *itertools.chain.from_iterable((label, blank) for label in targets)]
    v = draw.normal(frames, classes).tolist()

    def step(r, s):
        return 0 <= s - r <= 1 or (s - r == 2 and states[s] not in (blank, states[r]))

    return {"x": log_probs, "l": states, "T": frames, "K": len(states), r"\to": step, "v": v, r"\dot x": v,
            r"\pi": Each(map(tuple, alignments(frames, classes, blank)[tuple(targets)].tolist())),
            "t": Each(range(frames)), **dict.fromkeys("jk", Each(range(classes))),
            **dict.fromkeys("rs", Each(range(len(states)))),
            "a": draw.normal().item(), "b": draw.normal().item()}  # fmt: skip


SPEC = Spec(
    fn=ctc_loss,
    # torch's gradient is correct only after log_softmax, not as the derivative by log_probs: compare only the value
    peer=lambda log_probs, **others: F.ctc_loss(log_probs.detach(), **others),
    inputs=(Input("log_probs", batch=1), Input("targets"), Input("input_lengths"), Input("target_lengths")),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(dict(reduction="mean"), dict(reduction="none"), dict(reduction="sum", zero_infinity=True)),
    samples={
        "typical": small,
        "not normalised": lambda draw: {**small(draw), "log_probs": draw.normal(5, 3, 4)},
        "one after the other": lambda draw: speech(draw, 5, [1, 2, 3, 3, 2], [5, 4, 5], [2, 2, 1]),
        "other blank": lambda draw: {**speech(draw, 4, [[0, 2], [1, 1]], [4, 3], [2, 2]), "blank": 3},
        "no labels": lambda draw: speech(draw, 3, [[1, 0], [2, 1]], [3, 3], [0, 2], classes=3),
        "unbatched": lambda draw: dict(log_probs=draw.normal(4, 3).log_softmax(-1), targets=draw.tensor([1, 1]),
                                       input_lengths=draw.tensor(4), target_lengths=draw.tensor(2)),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        **{f"wrong by {gap}": confident(gap, right=False) for gap in (10, 80)},
        "long": lambda draw: speech(draw, 12, [[1, 2, 2, 1, 2]], [12], [5], classes=3),
        "only one way": lambda draw: speech(draw, 3, [[1, 2, 1]], [3], [3], classes=3),
        "tiny": lambda draw: {**small(draw), "log_probs": draw.normal(5, 3, 4, scale=1e-6)},
        "steep": lambda draw: small(draw, scale=30.0),
        "shifted up": shifted(100.0),
        "shifted down": shifted(-100.0),
    },
    pins=(
        Pin(dict(log_probs=[[[0.25, -1.0]]], targets=[[1]], input_lengths=[1], target_lengths=[1], reduction="sum"),
            "one frame, one label: one alignment", value=1.0, gradient=dict(log_probs=[[[0.0, -1.0]]])),
        Pin(dict(log_probs=[[[-1.0, -2.0]], [[-0.5, -2.0]]], targets=[[1]], input_lengths=[2], target_lengths=[0],
                 reduction="sum"),
            "empty target: all blanks", value=1.5, gradient=dict(log_probs=[[[-1.0, 0.0]], [[-1.0, 0.0]]])),
        Pin(dict(log_probs=[[[-1.0, -2.0]]], targets=[[1, 1]], input_lengths=[1], target_lengths=[2], reduction="sum"),
            "no alignment: impossible", value=INF),
        Pin(dict(log_probs=[[[-1.0, -2.0]]], targets=[[1, 1]], input_lengths=[1], target_lengths=[2], reduction="sum",
                 zero_infinity=True),
            "no alignment, with zero_infinity: 0", value=0.0, gradient=dict(log_probs=[[[0.0, 0.0]]])),
        Pin(dict(log_probs=[[[-INF, 0.0]]], targets=[[1]], input_lengths=[1], target_lengths=[1], reduction="sum"),
            "an impossible class that is not needed", value=0.0, gradient=dict(log_probs=[[[0.0, -1.0]]])),
    ),
    errors=(
        Error(dict(targets=lambda targets, **_: targets + 7), IndexError, "targets"),
        Error(dict(targets=lambda targets, **_: targets - 7), IndexError, "targets"),
        Error(dict(targets=lambda targets, **_: 0 * targets + 4), IndexError, r"Target 4 is out of bounds: .*\[0, 4\)"),
        Error(dict(targets=lambda targets, **_: 0 * targets - 1), IndexError, "Target -1 is out of bounds"),
        Error(dict(targets=lambda targets, **_: targets[:2]), RuntimeError, "size 3 at dimension 0, but got size 2"),
        Error(dict(input_lengths=lambda input_lengths, **_: input_lengths + 1), RuntimeError, "input_lengths"),
        Error(dict(input_lengths=lambda input_lengths, **_: input_lengths[:2]), RuntimeError, "input_lengths"),
        Error(dict(target_lengths=lambda target_lengths, **_: target_lengths + 1), RuntimeError, "targets?"),
        Error(dict(target_lengths=lambda target_lengths, **_: target_lengths[:2]), RuntimeError, "target_lengths"),
        Error(dict(input_lengths=lambda input_lengths, **_: input_lengths.double()), RuntimeError, "input_lengths"),
        Error(dict(log_probs=lambda log_probs, **_: log_probs[:0]), RuntimeError, "log_probs"),
        Error(dict(blank=4), RuntimeError, "blank"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
    ),
)  # fmt: skip


def second_frame(s, frames, blank):
    """Every frame gives the labels 1 and 2 a third each, except that label 1 in the second frame has log-score s."""
    third = math.log(1 / 3)
    x = [curves.rows(s, blank, s if t == 1 else third, third) for t in range(int(frames))]
    lengths = dict(input_lengths=curves.classes(s, len(x)), target_lengths=curves.classes(s, 2))
    return dict(log_probs=torch.stack(x), targets=curves.classes(s, [1, 2]), **lengths)


CURVE = curves.Curve(
    "log-score of the first label in the second frame",
    (-6, 4),
    second_frame,
    {
        "frames": curves.Slider("frames", 4.0, 2.0, 6.0, 1.0),
        "blank": curves.Slider("blank, its log-score in every frame", -1.0, -4.0, 0.0, 0.5),
    },
)
