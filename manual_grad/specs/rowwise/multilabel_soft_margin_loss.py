"""Multilabel soft margin: the mean binary cross entropy of a row of logits, with a weight of each label."""

from __future__ import annotations

import math

from mpmath import exp, log

from gradcheck.formulas import Each
from gradcheck.spec import UNIT, Error, Input, Pin, Spec, reduce
from manual_grad.losses.rowwise.multilabel_soft_margin_loss import multilabel_soft_margin_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
GAPS = (5, 10, 15, 20, 40, 80)


def definition(input, target, weight=1.0, reduction="mean"):
    right = input.sigmoid()
    return reduce(-(weight * (target * right.log() + (1 - target) * (1 - right).log())).mean(-1), reduction)


def oracle(input, target, weight=None, **_):
    weight = [1] * len(input) if weight is None else weight
    terms = (w * (t * log(1 + exp(-x)) + (1 - t) * log(1 + exp(x)))
             for x, t, w in zip(input, target, weight, strict=True))  # fmt: skip
    return sum(terms) / len(input)


def labels(draw, *shape):
    return draw.tensor((draw.uniform(*shape) > 0.5).double())


def typical(draw, *shape, scale=1.0):
    return dict(input=draw.normal(*shape, scale=scale), target=draw.uniform(*shape, low=0.2, high=0.8))


def confident(gap):
    """Predictions with a logit gap: right in the first row, wrong in the second, both in the third."""

    def sample(draw):
        target = draw.tensor([[1.0, 0.0, 1.0]] * 3)
        right = draw.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [1.0, -1.0, 1.0]])
        return dict(input=gap * right * (2 * target - 1) + draw.normal(3, 3, scale=0.01), target=target)

    return sample  # fmt: skip


def symbols(input, target, weight=None, **_):
    return {"x": input, "t": target, "w": weight or [1.0] * len(input), "C": len(input),
            **dict.fromkeys("cj", Each(range(len(input))))}  # fmt: skip


SPEC = Spec(
    fn=multilabel_soft_margin_loss,
    inputs=(Input("input"), Input("target", domain=UNIT), Input("weight", batch=None)),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(dict(reduction="mean"), dict(reduction="none"), dict(reduction="sum")),
    samples={
        "typical": lambda draw: typical(draw, 3, 4),
        "weighted": lambda draw: dict(**typical(draw, 3, 4), weight=draw.uniform(4, high=2.0)),
        "labels": lambda draw: dict(input=draw.normal(5, 3), target=labels(draw, 5, 3)),
        "one row": lambda draw: dict(**typical(draw, 4), weight=draw.uniform(4)),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        "tiny": lambda draw: typical(draw, 3, 4, scale=1e-30),
        "saturated": lambda draw: dict(input=draw.tensor([[1e4, -1e4], [1e4, -1e4]]),
                                       target=draw.tensor([[1.0, 0.0], [0.0, 1.0]])),
        "huge": lambda draw: typical(draw, 3, 4, scale=1e30),
        "steep, weighted": lambda draw: dict(**typical(draw, 3, 8, scale=30.0), weight=draw.uniform(8)),
        "many labels": lambda draw: typical(draw, 2, 24),
    },
    pins=(
        Pin(dict(input=[[INF, -INF]], target=[[1.0, 0.0]], reduction="none"), "certain and right: loss and gradient 0",
            value=[0.0], gradient=dict(input=[[0.0, 0.0]])),
        Pin(dict(input=[[INF, 0.0], [NAN, 0.0]], target=[[0.0, 0.5], [0.0, 0.5]], reduction="none"),
            "certain and wrong; NaN stays in its row",
            value=[INF, NAN], gradient=dict(input=[[0.5, 0.0], [NAN, 0.0]])),
        Pin(dict(input=[[[], []]], target=[[[], []]], reduction="none"), "the mean of no labels", value=[[NAN, NAN]]),
        Pin(dict(input=[0.0, 0.0], target=[[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], reduction="none"),
            "a target with more dimensions: as in torch, the sum is over the last one that the input has, the mean is "
            "that over the labels of the input", value=[1.5 * math.log(2)] * 2,
            gradient=dict(input=[-0.25, 0.25], target=[[0.0, 0.0]] * 3)),
    ),
    errors=(
        Error(dict(reduction="average"), ValueError, "average is not valid"),
        Error(dict(reduction="elementwise_mean"), ValueError, "elementwise_mean is not valid"),
        Error(dict(reduction=None), TypeError, "NoneType"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
        Error(dict(input=lambda input, **_: input[0, 0]), IndexError, "tensor has no dimensions"),
        Error(dict(weight=lambda input, **_: input[:2]), RuntimeError, "size of tensor"),
        Error(dict(input=lambda input, **_: input.long(), target=lambda target, **_: target.long()),
              NotImplementedError, "floating point input"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "score of the first label; the second has 0",
    (-6, 6),
    lambda s, target: dict(input=curves.rows(s, s, 0), target=curves.rows(s, target, 1)),
    {"target": curves.SHARE},
)
