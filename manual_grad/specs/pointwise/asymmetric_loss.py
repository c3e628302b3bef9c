"""Asymmetric loss: a focal loss of multi-label logits, with a margin for negatives."""

from __future__ import annotations

import math

import torch
from mpmath import exp, log, mpf

from gradcheck.spec import UNIT, Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.asymmetric_loss import asymmetric_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
GAPS = (5, 10, 15, 20, 40)
LOG_2 = 0.6931471805599453


def definition(input, target, gamma_neg=4, gamma_pos=1, clip=0.05, reduction="mean", weight=1.0):
    target = target.to(input.dtype)
    p = torch.sigmoid(input)
    p_m = (p - clip).relu()
    e = -target * (1 - p) ** gamma_pos * p.log() - (1 - target) * p_m**gamma_neg * (1 - p_m).log()
    return reduce(weight * e, reduction)


def oracle(input, target, gamma_neg=4, gamma_pos=1, clip=0.05, weight=1, **_):
    p, n = 1 / (1 + exp(-input)), 1 / (1 + exp(input))
    positive = n**gamma_pos * log(1 + exp(-input))
    clip = mpf(clip)
    if clip == 0:
        negative = p**gamma_neg * log(1 + exp(input))
    else:
        negative = -((p - clip) ** gamma_neg) * log(n + clip) if p > clip else mpf(0)
    return weight * (target * positive + (1 - target) * negative)


def margin(order):
    """Signed distance from the margin if the derivative of that order jumps there, as it does except for positives."""

    def distance(input, target, gamma_neg=4, clip=0.05, **_):
        jumps = clip > 0 and gamma_neg == order - 1
        return torch.where(target < 1, torch.sigmoid(input) - clip, 1.0) if jumps else torch.ones_like(input)

    return distance


def confident(gap):
    """Predictions with a logit gap: two right, two wrong."""
    return lambda draw: dict(input=gap * draw.tensor([1.0, -1.0, 1.0, -1.0]) + draw.normal(4, scale=0.01),
                             target=draw.tensor([1.0, 0.0, 0.0, 1.0]))  # fmt: skip


def near(distance, **options):
    """Negatives with logits this far on either side of the margin of 0.05."""
    at = math.log(0.05 / 0.95)
    return lambda draw: dict(input=draw.tensor([at + distance, at - distance, at + distance / 3]),
                             target=draw.tensor([0.0, 0.0, 0.25]), clip=0.05, **options)  # fmt: skip


def soft(draw, *shape):
    return draw.uniform(*shape, low=0.2, high=0.8)


SPEC = Spec(
    fn=asymmetric_loss,
    inputs=(Input("input"), Input("target", domain=UNIT), Input("weight", batch=None)),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, gamma_neg=4, gamma_pos=1, clip=0.05, **_: {
        "x": input, "t": target, r"\gamma_0": gamma_neg, r"\gamma_1": gamma_pos, "c": clip},
    params=(
        dict(reduction="mean"),
        dict(reduction="none", gamma_neg=0, gamma_pos=0, clip=0.4),
        dict(reduction="sum", gamma_neg=1, gamma_pos=2, clip=0.3),
        dict(reduction="mean", gamma_neg=2, gamma_pos=1.5, clip=0.0),
        dict(reduction="none", gamma_neg=0.5, gamma_pos=0.25, clip=0.0),
        dict(reduction="sum", gamma_neg=3.5, gamma_pos=0, clip=0.5),
    ),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 4), target=soft(draw, 3, 4)),
        "labels": lambda draw: dict(input=draw.normal(8), target=draw.tensor([0.0, 1.0] * 4)),
        "weighted": lambda draw: dict(input=draw.normal(3, 4), target=soft(draw, 3, 4),
                                      weight=draw.uniform(4, high=2.0)),
        "integer labels": lambda draw: dict(input=draw.normal(3, 4), target=draw.integers(3, 4, high=2)),
        "scalar": lambda draw: dict(input=draw.normal(), target=draw.tensor(0.25)),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2), target=soft(draw, 2, 3, 2, 2)),
        "a power below 1": lambda draw: dict(input=draw.uniform(6, low=0.5, high=3.0), target=soft(draw, 6),
                                             gamma_neg=0.5, clip=0.05),
        "below the margin": lambda draw: dict(input=draw.uniform(6, low=-6.0, high=-4.0), target=soft(draw, 6),
                                              clip=0.05),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        "near the margin": near(1e-2),
        "nearer": near(1e-5, gamma_neg=0.5),
        "tiny": lambda draw: dict(input=draw.normal(8, scale=1e-30), target=draw.uniform(8)),
        "saturated": lambda draw: dict(input=draw.tensor([1e4, -1e4, 1e4, -1e4]),
                                       target=draw.tensor([1.0, 0.0, 0.0, 1.0])),
        "tiny margin": lambda draw: dict(input=draw.normal(8, scale=20.0), target=draw.tensor([0.0] * 8), clip=1e-12),
        "huge": lambda draw: dict(input=draw.normal(8, scale=1e30), target=draw.uniform(8)),
        "steep": lambda draw: dict(input=draw.normal(8, scale=30.0), target=draw.uniform(8)),
        "steeper": lambda draw: dict(input=draw.normal(8, scale=3.0), target=draw.tensor([0.0, 1.0] * 4),
                                     gamma_neg=12, gamma_pos=12),
    },
    kinks={1: margin(1), 2: margin(2)},
    pins=(
        Pin(dict(input=[0.0, 0.0], target=[0.0, 0.0], gamma_neg=0, clip=0.5, reduction="none"),
            "a negative at the margin is ignored", value=[0.0, 0.0], gradient=dict(input=[0.0, 0.0])),
        Pin(dict(input=[-0.0, -3.0], target=[0.0, 0.0], gamma_neg=0.5, clip=0.5, reduction="none"),
            "for any power, and below the margin", value=[0.0, 0.0], gradient=dict(input=[0.0, 0.0])),
        Pin(dict(input=[INF, -INF], target=[1.0, 0.0], gamma_neg=0.5, gamma_pos=0.5, clip=0.0, reduction="none"),
            "certain and right: loss and gradient 0", value=[0.0, 0.0], gradient=dict(input=[0.0, 0.0])),
        Pin(dict(input=[INF, -INF], target=[0.0, 1.0], clip=0.0, reduction="none"), "certain and wrong",
            value=[INF, INF], gradient=dict(input=[1.0, -1.0], target=[-INF, INF])),
        Pin(dict(input=[INF, 800.0], target=[0.0, 0.0], clip=0.0625, gamma_neg=0, reduction="none"),
            "the margin bounds the loss of a negative; the slope vanishes",
            value=[4 * LOG_2, 4 * LOG_2], gradient=dict(input=[0.0, 0.0], target=[-4 * LOG_2, -4 * LOG_2])),
        Pin(dict(input=[NAN, 0.0], target=[0.0, NAN], reduction="none"), "NaN is propagated",
            value=[NAN, NAN], gradient=dict(input=[NAN, NAN])),
        Pin(dict(input=[0.0, 0.0], target=[1.0, 0.0], gamma_neg=0, gamma_pos=0, clip=0, reduction="none"),
            "the cross entropy is a special case", value=[LOG_2, LOG_2],
            gradient=dict(input=[-0.5, 0.5], target=[0.0, 0.0])),
    ),
    errors=(
        Error(dict(gamma_neg=-1), ValueError, "gamma_neg"),
        Error(dict(gamma_neg=NAN), ValueError, "gamma_neg"),
        Error(dict(gamma_pos=INF), ValueError, "gamma_pos"),
        Error(dict(gamma_pos="1"), TypeError, "gamma_pos"),
        Error(dict(clip=1), ValueError, "clip"),
        Error(dict(clip=-0.05), ValueError, "clip"),
        Error(dict(clip=None), TypeError, "clip"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(target=lambda target, **_: target[0]), ValueError, "[Tt]arget size"),
        Error(dict(weight=lambda input, **_: input[:2]), RuntimeError, "weight"),
        Error(dict(input=lambda input, **_: input.long()), NotImplementedError, "asymmetric_loss: expected"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "logit x",
    (-6, 6),
    lambda s, target, **options: dict(input=s, target=curves.everywhere(s, target), **options),
    {
        "target": curves.Slider("target, 0 or 1", 0.0, 0.0, 1.0, 1.0),
        "gamma_neg": curves.Slider("gamma_neg, the down-weighting of easy negatives", 4.0, 0.0, 6.0, 1.0),
        "clip": curves.Slider("clip, the probability up to which a negative has loss 0", 0.1, 0.0, 0.4, 0.1),
    },
)
