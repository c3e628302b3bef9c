"""Binary cross entropy of logits, with a weight of each element and one of the positive class."""

from __future__ import annotations

import torch
from mpmath import exp, log

from gradcheck.spec import UNIT, Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.binary_cross_entropy_with_logits import binary_cross_entropy_with_logits
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
GAPS = (5, 10, 15, 20, 40, 80)


def definition(input, target, reduction="mean", weight=1.0, pos_weight=1.0):
    p = torch.sigmoid(input)
    return reduce(-weight * (pos_weight * target * p.log() + (1 - target) * (1 - p).log()), reduction)


def oracle(input, target, weight=1, pos_weight=1, **_):
    return weight * (pos_weight * target * log(1 + exp(-input)) + (1 - target) * log(1 + exp(input)))


def confident(gap):
    """Predictions with a logit gap: two right, two wrong."""
    return lambda draw: dict(input=gap * draw.tensor([1.0, -1.0, 1.0, -1.0]) + draw.normal(4, scale=0.01),
                             target=draw.tensor([1.0, 0.0, 0.0, 1.0]))  # fmt: skip


def weighted(draw, scale=1.0):
    return dict(input=draw.normal(3, 4, scale=scale), target=draw.uniform(3, 4, low=0.2, high=0.8),
                weight=draw.uniform(3, 4, high=2.0), pos_weight=draw.uniform(4, high=3.0))  # fmt: skip


SPEC = Spec(
    fn=binary_cross_entropy_with_logits,
    inputs=(Input("input"), Input("target", domain=UNIT), Input("weight"), Input("pos_weight", batch=None)),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, pos_weight=1, **_: {"x": input, "t": target, "a": pos_weight},
    params=(dict(reduction="mean"), dict(reduction="none"), dict(reduction="sum")),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 4), target=draw.uniform(3, 4, low=0.2, high=0.8)),
        "weighted": weighted,
        "row weights": lambda draw: dict(input=draw.normal(3, 4), target=draw.uniform(3, 4, low=0.2, high=0.8),
                                         weight=draw.uniform(3, 1)),
        "scalar": lambda draw: dict(input=draw.normal(), target=draw.tensor(0.25)),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2), target=draw.uniform(2, 3, 2, 2, low=0.2, high=0.8)),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        "hard labels": lambda draw: dict(input=draw.normal(8), target=draw.tensor([0.0, 1.0] * 4)),
        "tiny": lambda draw: dict(input=draw.normal(8, scale=1e-30), target=draw.uniform(8)),
        "saturated": lambda draw: dict(input=draw.tensor([1e4, -1e4, 1e4, -1e4]),
                                       target=draw.tensor([1.0, 0.0, 0.0, 1.0])),
        "huge": lambda draw: dict(input=draw.normal(8, scale=1e30), target=draw.uniform(8)),
        "steep, weighted": lambda draw: weighted(draw, 30.0),
    },
    pins=(
        Pin(dict(input=[INF, -INF], target=[1.0, 0.0], reduction="none"), "certain and right: loss and gradient 0",
            value=[0.0, 0.0], gradient=dict(input=[0.0, 0.0])),
        Pin(dict(input=[-INF] * 4, target=[0.5] * 4, pos_weight=[0.0, 0.5, 1.0, 2.0], reduction="none"),
            "certain and half wrong; the positive class may have weight 0", value=[0.0, INF, INF, INF],
            gradient=dict(input=[0.0, -0.25, -0.5, -1.0], target=[0.0, INF, INF, INF])),
        Pin(dict(input=[INF, -INF, INF, -INF], target=[1.0, 0.0, 0.0, 1.0], pos_weight=[3.0] * 4, reduction="none"),
            "certain, with a weight", value=[0.0, 0.0, INF, INF],
            gradient=dict(input=[0.0, 0.0, 1.0, -3.0], target=[-INF, INF, -INF, INF], pos_weight=[0.0, 0.0, 0.0, INF])),
        Pin(dict(input=[INF, -INF, NAN], target=[0.0, 1.0, 0.0], reduction="none"), "certain and wrong",
            value=[INF, INF, NAN], gradient=dict(input=[1.0, -1.0, NAN])),
        Pin(dict(input=[0.0], target=[0.5], reduction="none"), "undecided",
            gradient=dict(input=[0.0], target=[0.0])),
    ),
    errors=(
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
        Error(dict(target=lambda target, **_: target[0]), ValueError, "[Tt]arget size"),
        Error(dict(weight=lambda input, **_: input[:2]), RuntimeError, "weight"),
        Error(dict(pos_weight=lambda input, **_: input[:2]), RuntimeError, "pos_weight"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "logit x",
    (-6, 6),
    lambda s, target, pos_weight: dict(
        input=s, target=curves.everywhere(s, target), pos_weight=curves.everywhere(s, pos_weight)
    ),
    {"target": curves.SHARE, "pos_weight": curves.Slider("pos_weight, of the positive class", 1.0, 0.5, 3.0, 0.5)},
)
