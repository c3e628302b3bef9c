"""Charbonnier: the absolute error with its kink rounded off."""

from __future__ import annotations

import torch
from mpmath import sqrt

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.charbonnier_loss import charbonnier_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
ROOT_2 = 2.0**0.5


def definition(input, target, reduction="mean", eps=1e-3, weight=1.0):
    return reduce(weight * ((input - target) ** 2 + eps**2).sqrt(), reduction)


def oracle(input, target, eps=1e-3, weight=1, **_):
    eps = input * 0 + eps
    return weight * sqrt((input - target) ** 2 + eps**2)


def corner(input, target, eps=1e-3, **_):
    """There is a kink only for eps = 0."""
    return input - target if eps == 0 else torch.ones_like(input)


def apart(draw, *shape):
    """No residual is small: for eps = 0, the third derivative of the definition, a root, would be rounding error."""
    target = draw.normal(*shape)
    return dict(input=target + draw.sign(*shape) * draw.uniform(*shape, low=1.0, high=3.0), target=target)


def sizes(eps, *values):
    """Residuals of these sizes, of both signs."""
    return lambda draw: dict(input=draw.tensor([s * v for v in values for s in (1.0, -1.0)]),
                             target=draw.tensor([0.0] * (2 * len(values))), eps=eps)  # fmt: skip


SPEC = Spec(
    fn=charbonnier_loss,
    inputs=(Input("input"), Input("target"), Input("weight")),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, eps=1e-3, **_: {"x": input, "t": target, r"\epsilon": eps},
    params=(
        dict(reduction="mean", eps=0.5),
        dict(reduction="none", eps=0.0),
        dict(reduction="sum", eps=3.0),
        dict(reduction="mean", eps=1.0),
    ),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 4), target=draw.normal(3, 4)),
        "weighted": lambda draw: dict(**apart(draw, 3, 4), weight=draw.uniform(3, 4)),
        "scalar": lambda draw: dict(input=draw.normal(), target=draw.normal()),
        "broadcast": lambda draw: dict(input=draw.normal(2, 3), target=draw.normal(3)),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2), target=draw.normal(2, 3, 2, 2)),
        "apart": lambda draw: apart(draw, 2, 2, 2),
    },
    regimes={
        "small": sizes(1e-3, 1e-3, 1e-4, 1e-6, 1e-9, 0.0),
        "tiny": sizes(1e-3, 1e-12, 1e-20, 1e-25, 1e-30, 1e-36),
        "huge": sizes(1e-3, 1e3, 1e9, 1e18, 1e30, 1e38),
        "where both are one": sizes(0.5, 0.5, 0.5 * (1 + 2**-23), 0.5 * (1 - 2**-24)),
        "tiny eps": sizes(1e-30, 1e-36, 1e-30, 1e-24, 1e-9, 1.0),
        "huge eps": sizes(1e30, 1e36, 1e30, 1e24, 1e9, 1.0),
        "eps 0": sizes(0.0, 1e-30, 1.0, 1e30, 0.0),
        "offset": lambda draw: dict(input=1e6 + draw.normal(8), target=1e6 + draw.normal(8)),
        "steep, weighted": lambda draw: dict(input=draw.normal(8, scale=5), target=draw.normal(8),
                                             weight=draw.normal(8)),
    },
    kinks={1: corner},
    pins=(
        Pin(dict(input=[1.0, -0.0], target=[1.0, 0.0], eps=0.25, reduction="none"), "a perfect fit has loss eps",
            value=[0.25, 0.25], gradient=dict(input=[0.0, 0.0], target=[0.0, 0.0])),
        Pin(dict(input=[1.0, -0.0], target=[1.0, 0.0], eps=0.0, reduction="none"),
            "with eps = 0, the absolute loss: a perfect fit has slope 0",
            value=[0.0, 0.0], gradient=dict(input=[0.0, 0.0], target=[0.0, 0.0])),
        Pin(dict(input=[1.0, -3.0], target=[0.0, -2.0], eps=1.0, reduction="none"), "a residual of eps",
            value=[ROOT_2, ROOT_2], gradient=dict(input=[1 / ROOT_2, -1 / ROOT_2])),
        Pin(dict(input=[3e38, -3e38], target=[0.0, 0.0], reduction="none"), "no square overflows",
            value=[3e38, 3e38], gradient=dict(input=[1.0, -1.0])),
        Pin(dict(input=[INF, 0.0, NAN], target=[0.0, INF, 0.0], reduction="none"),
            "an infinite residual has slope ±1; NaN is propagated",
            value=[INF, INF, NAN], gradient=dict(input=[1.0, -1.0, NAN], target=[-1.0, 1.0, NAN])),
        Pin(dict(input=[INF, NAN], target=[0.0, 0.0], eps=0.0, reduction="none"), "likewise with eps = 0",
            value=[INF, NAN], gradient=dict(input=[1.0, NAN], target=[-1.0, NAN])),
    ),
    errors=(
        Error(dict(eps=-1e-3), ValueError, "eps"),
        Error(dict(eps=INF), ValueError, "eps"),
        Error(dict(eps=NAN), ValueError, "eps"),
        Error(dict(eps="1"), TypeError, "eps"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(target=lambda target, **_: target[:1]), UserWarning, "target size"),
        Error(dict(weight=lambda input, **_: input[0]), ValueError, "[Ww]eight"),
        Error(dict(input=lambda input, **_: input.long(), target=lambda target, **_: target.long()),
              NotImplementedError, "charbonnier_loss: expected a floating point"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "residual x − t",
    (-3, 3),
    curves.residual,
    {"eps": curves.Slider("eps, where the line begins", 0.5, 0.0, 2.0, 0.125)},
)
