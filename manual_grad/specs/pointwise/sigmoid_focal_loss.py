"""Sigmoid focal loss: binary cross entropy, down-weighted where the prediction is good."""

from __future__ import annotations

import torch
from mpmath import exp, log
from torch.nn import functional as F

from gradcheck.spec import UNIT, Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.sigmoid_focal_loss import sigmoid_focal_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
GAPS = (5, 10, 15, 20, 40)
LOG_2 = 0.6931471805599453


def definition(inputs, targets, alpha=0.25, gamma=2, reduction="none", weight=1.0):
    targets = targets.to(inputs.dtype)
    p = torch.sigmoid(inputs)
    p_t = p * targets + (1 - p) * (1 - targets)
    e = (1 - p_t) ** gamma * F.binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    if alpha >= 0:
        e = (alpha * targets + (1 - alpha) * (1 - targets)) * e
    return reduce(weight * e, reduction)


def oracle(inputs, targets, alpha=0.25, gamma=2, weight=1, **_):
    right, wrong = 1 / (1 + exp(-inputs)), 1 / (1 + exp(inputs))
    q = right * (1 - targets) + wrong * targets
    e = q**gamma * (targets * log(1 + exp(-inputs)) + (1 - targets) * log(1 + exp(inputs)))
    return weight * e if alpha < 0 else weight * (alpha * targets + (1 - alpha) * (1 - targets)) * e


def confident(gap, **options):
    """Predictions with a logit gap: two right, two wrong."""
    return lambda draw: dict(inputs=gap * draw.tensor([1.0, -1.0, 1.0, -1.0]) + draw.normal(4, scale=0.01),
                             targets=draw.tensor([1.0, 0.0, 0.0, 1.0]), **options)  # fmt: skip


def soft(draw, *shape):
    return draw.uniform(*shape, low=0.2, high=0.8)


SPEC = Spec(
    fn=sigmoid_focal_loss,
    inputs=(Input("inputs"), Input("targets", domain=UNIT), Input("weight", batch=None)),
    definition=definition,
    oracle=oracle,
    symbols=lambda inputs, targets, alpha=0.25, gamma=2, **_: {
        "x": inputs, "t": targets, r"\alpha": alpha, r"\gamma": gamma, "or": int(alpha < 0)},
    params=(
        dict(reduction="mean"),
        dict(reduction="none", alpha=-1, gamma=0.5),
        dict(reduction="sum", alpha=0.7, gamma=1.25),
        dict(reduction="none", alpha=0.1, gamma=0),
        dict(reduction="mean", alpha=0.4, gamma=1),
        dict(reduction="sum", alpha=-1, gamma=4),
    ),
    samples={
        "typical": lambda draw: dict(inputs=draw.normal(3, 4), targets=soft(draw, 3, 4)),
        "labels": lambda draw: dict(inputs=draw.normal(8), targets=draw.tensor([0.0, 1.0] * 4)),
        "weighted": lambda draw: dict(inputs=draw.normal(3, 4), targets=soft(draw, 3, 4),
                                      weight=draw.uniform(4, high=2.0)),
        "integer labels": lambda draw: dict(inputs=draw.normal(3, 4), targets=draw.integers(3, 4, high=2)),
        "scalar": lambda draw: dict(inputs=draw.normal(), targets=draw.tensor(0.25)),
        "image": lambda draw: dict(inputs=draw.normal(2, 3, 2, 2), targets=soft(draw, 2, 3, 2, 2)),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        # 1 - t has only the digits that the rounding of t leaves, but oracle and rule see the same rounded t
        "smooth labels": lambda draw: dict(inputs=draw.normal(8, scale=10.0),
                                           targets=draw.tensor([1e-6, 1 - 1e-6, 1e-3, 0.999] * 2)),
        "tiny": lambda draw: dict(inputs=draw.normal(8, scale=1e-30), targets=draw.uniform(8)),
        "undecided": lambda draw: dict(inputs=draw.normal(8) * draw.tensor([1e-12, 1e-9, 1e-6, 1e-3] * 2),
                                       targets=draw.tensor([0.5] * 4 + [0.25, 0.75, 1.0, 0.0])),
        "saturated": confident(1e4, gamma=2),
        "underflowing": confident(95, gamma=0.125),
        "huge": lambda draw: dict(inputs=draw.normal(8, scale=1e30), targets=draw.uniform(8)),
        "steep": lambda draw: dict(inputs=draw.normal(8, scale=30.0), targets=draw.uniform(8)),
        "steeper": lambda draw: dict(inputs=draw.normal(8, scale=3.0), targets=draw.tensor([0.0, 1.0] * 4), gamma=20),
    },
    pins=(
        Pin(dict(inputs=[INF, -INF, INF, -INF], targets=[1.0, 0.0, 1.0, 0.0], gamma=0.5, reduction="none"),
            "certain and right: loss and gradient 0", value=[0.0] * 4,
            gradient=dict(inputs=[0.0] * 4, targets=[0.0] * 4)),
        Pin(dict(inputs=[800.0, -800.0], targets=[1.0, 0.0], gamma=0.0625, alpha=-1, reduction="none"),
            "almost certain: for gamma < 1 the target's slope is normal where the loss is 0", value=[0.0, 0.0],
            gradient=dict(inputs=[0.0, 0.0], targets=[-1.543120425236632e-19, 1.543120425236632e-19])),
        Pin(dict(inputs=[INF, -INF, INF, -INF], targets=[0.0, 1.0, 0.5, 0.5], alpha=-1, gamma=1, reduction="none"),
            "certain and wrong, or half wrong", value=[INF] * 4,
            gradient=dict(inputs=[1.0, -1.0, 0.25, -0.25], targets=[-INF, INF, -INF, INF])),
        Pin(dict(inputs=[NAN, 0.0], targets=[0.0, NAN], reduction="none"), "NaN is propagated",
            value=[NAN, NAN], gradient=dict(inputs=[NAN, NAN], targets=[NAN, NAN])),
        Pin(dict(inputs=[0.0, 0.0], targets=[1.0, 0.0], gamma=0, reduction="none"),
            "a quarter and three quarters of the cross entropy", value=[0.25 * LOG_2, 0.75 * LOG_2],
            gradient=dict(inputs=[-0.125, 0.375])),
        Pin(dict(inputs=[0.0], targets=[0.5], alpha=-1, reduction="none"), "undecided",
            value=[0.25 * LOG_2], gradient=dict(inputs=[0.0], targets=[0.0])),
    ),
    errors=(
        Error(dict(alpha=1.5), ValueError, "alpha"),
        Error(dict(alpha=NAN), ValueError, "alpha"),
        Error(dict(alpha=None), TypeError, "alpha"),
        Error(dict(gamma=-1), ValueError, "gamma"),
        Error(dict(gamma=INF), ValueError, "gamma"),
        Error(dict(gamma="2"), TypeError, "gamma"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(targets=lambda targets, **_: targets[0]), ValueError, "[Tt]arget size"),
        Error(dict(weight=lambda inputs, **_: inputs[:2]), RuntimeError, "weight"),
        Error(dict(inputs=lambda inputs, **_: inputs.long()), NotImplementedError, "sigmoid_focal_loss: expected"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "logit x",
    (-6, 6),
    lambda s, target, gamma: dict(inputs=s, targets=curves.everywhere(s, target), gamma=gamma),
    {
        "target": curves.SHARE,
        "gamma": curves.Slider("gamma, the down-weighting of easy elements", 2.0, 0.0, 5.0, 0.5),
    },
)
