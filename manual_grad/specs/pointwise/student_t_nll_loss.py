"""Student's t negative log-likelihood of a target, for a predicted location and scale."""

from __future__ import annotations

import math

import torch
from mpmath import gamma, log, loggamma, mpf, pi

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.student_t_nll_loss import student_t_nll_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(input, target, scale, df, full=False, eps=1e-6, reduction="mean", weight=1.0):
    s = scale.clone()
    with torch.no_grad():  # the gradient passes through the clamp, by definition of the loss
        s.clamp_(min=eps)
    z = (input - target) / s
    e = s.log() + (df + 1) / 2 * torch.log1p(z**2 / df)
    if full:
        e = e + math.lgamma(df / 2) - math.lgamma((df + 1) / 2) + math.log(df * math.pi) / 2
    return reduce(weight * e, reduction)


def oracle(input, target, scale, df, full=False, eps=1e-6, weight=1, **_):
    s, df = max(scale, eps), mpf(df)
    e = log(s) + (df + 1) / 2 * log(1 + ((input - target) / s) ** 2 / df)
    return weight * (e + (loggamma(df / 2) - loggamma((df + 1) / 2) + log(df * pi) / 2 if full else 0))


def symbols(input, target, scale, df, full=False, eps=1e-6, **_):
    return {"x": input, "t": target, "a": scale, r"\nu": mpf(df), r"\epsilon": eps, "f": int(full), r"\Gamma": gamma}


def scales(draw, *shape):
    return draw.uniform(*shape, low=0.5, high=2.0)


def typical(draw, *shape, df=3.0):
    return dict(
        input=draw.normal(*shape, scale=2), target=draw.normal(*shape, scale=2), scale=scales(draw, *shape), df=df
    )


SPEC = Spec(
    fn=student_t_nll_loss,
    # the gradient of a clamped scale is a convention, not the slope: it is pinned, and no sample has one
    inputs=(Input("input"), Input("target"), Input("scale", domain=(0.0, INF)), Input("weight")),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", full=True),
        dict(reduction="sum", eps=1e-4),
        dict(reduction="mean", full=True),
    ),
    samples={
        "typical": lambda draw: typical(draw, 3, 4),
        "Cauchy": lambda draw: typical(draw, 3, 4, df=1.0),
        "heavy tails": lambda draw: typical(draw, 3, 4, df=0.5),
        "light tails": lambda draw: typical(draw, 3, 4, df=40.0),
        "weighted": lambda draw: dict(**typical(draw, 3, 4), weight=draw.uniform(3, 4)),
        "one scale a row": lambda draw: {**typical(draw, 3, 4, df=2.0), "scale": scales(draw, 3, 1)},
        "scalar": lambda draw: typical(draw),
        "target broadcast": lambda draw: {**typical(draw, 2, 3), "target": draw.normal(3)},
        "input broadcast": lambda draw: dict(input=draw.normal(1, 3), target=draw.normal(2, 3),
                                             scale=scales(draw, 1, 3), df=1.5),
        "image": lambda draw: typical(draw, 2, 3, 2, 2),
    },
    regimes={
        "perfect fit": lambda draw: dict(input=draw.tensor([1.0, 2.0, -3.0, 0.5]), scale=scales(draw, 4), df=3.0,
                                         target=draw.tensor([1.0, 2.0, -3.0, 0.25])),
        # the scale of the last sample is wrong, so that in float64 it sets the scale of errors
        "scale right": lambda draw: dict(input=draw.tensor([3.0, -2.0, 0.5, 0.1, 7.0, 1e-2, 3.0]),
                                         target=draw.tensor([0.0] * 7), df=3.0,
                                         scale=draw.tensor([3.0, 2.0001, 0.499, 0.1, 7.0, 1.0001e-2, 2.0])),
        "scale right, beyond the bend": lambda draw: dict(input=draw.tensor([3.0, -2.0, 0.5, 0.1, 3.0]),
                                                          target=draw.tensor([0.0] * 5), df=0.3,
                                                          scale=draw.tensor([3.0, 2.0001, 0.499, 0.1, 2.0])),
        "at the bend": lambda draw: dict(input=draw.tensor([3.0**0.5, -(3.0**0.5), 1.732, 1.7321, 1.7, 1.8]),
                                         target=draw.tensor([0.0] * 6), scale=draw.tensor([1.0] * 6), df=3.0),
        "sure": lambda draw: dict(input=draw.normal(8), target=draw.normal(8), df=1.0,
                                  scale=draw.uniform(8, low=1.5e-4, high=1e-3)),
        "huge": lambda draw: {**typical(draw, 8, df=0.5), "input": draw.normal(8, scale=1e30)},
        "huge scale": lambda draw: {**typical(draw, 8), "scale": 1e20 * scales(draw, 8)},
        "offset": lambda draw: dict(input=1e6 + draw.normal(8), target=1e6 + draw.normal(8), scale=scales(draw, 8),
                                    df=40.0),
        "spread": lambda draw: dict(input=draw.normal(8) * draw.tensor([1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12, 1e18]),
                                    target=draw.tensor([0.0] * 8), scale=scales(draw, 8), df=2.0),
        "almost normal": lambda draw: typical(draw, 8, df=1e8),
        "normal": lambda draw: typical(draw, 8, df=1e30),
        "hardly a tail": lambda draw: typical(draw, 8, df=1e-6),
    },
    pins=(
        Pin(dict(input=[3.0, -3.0], target=[0.0, 0.0], scale=[3.0, 3.0], df=1.0, full=True, reduction="none"),
            "the scale is right: slope 0", value=[math.log(6 * math.pi)] * 2,
            gradient=dict(input=[1 / 3, -1 / 3], target=[-1 / 3, 1 / 3], scale=[0.0, 0.0])),
        Pin(dict(input=[0.5, 0.0], target=[0.0, 0.0], scale=[0.0, 1e-6], df=1.0, eps=0.5, reduction="none"),
            "a clamped scale counts as eps; the gradient passes through",
            value=[0.0, math.log(0.5)], gradient=dict(input=[2.0, 0.0], scale=[0.0, 2.0])),
        Pin(dict(input=[1e-9], target=[0.0], scale=[1.0], df=3.0, reduction="none"),
            "with scale 1 even a tiny residual counts", value=[2e-18 / 3],
            gradient=dict(input=[4e-9 / 3], target=[-4e-9 / 3], scale=[1.0])),
        Pin(dict(input=[1.0, 2.0], target=[0.0, 0.0], scale=2.0, df=1.0, reduction="none"), "one scale for a vector",
            value=[math.log(2.5), math.log(4.0)], gradient=dict(scale=0.3)),
        Pin(dict(input=[[1.0], [2.0]], target=[[0.0], [0.0]], scale=[2.0, 1.0], df=1.0, reduction="none"),
            "one scale per row, without the last dimension",
            value=[[math.log(2.5)], [math.log(5.0)]], gradient=dict(scale=[0.3, -0.6])),
        Pin(dict(input=[INF, NAN, 0.0, 0.0], target=[0.0] * 4, scale=[2.0, 1.0, NAN, INF], df=3.0, reduction="none"),
            "an infinite residual has a slope only in the scale; NaN is propagated", value=[INF, NAN, NAN, INF],
            gradient=dict(input=[0.0, NAN, NAN, 0.0], scale=[-1.5, NAN, NAN, 0.0])),
    ),
    errors=(
        Error(dict(df=0.0), ValueError, "df"),
        Error(dict(df=INF), ValueError, "df"),
        Error(dict(df=NAN), ValueError, "df"),
        Error(dict(df="3"), TypeError, "df"),
        Error(dict(eps=0.0), ValueError, "eps"),
        Error(dict(eps="small"), TypeError, "eps"),
        Error(dict(full=1), TypeError, "full"),
        Error(dict(scale=lambda scale, **_: -scale), ValueError, "scale has negative entry/entries"),
        Error(dict(scale=-1.0), ValueError, "scale has negative entry/entries"),
        Error(dict(scale="1"), TypeError, "scale"),
        Error(dict(scale=lambda scale, **_: scale[:2]), ValueError, "scale is of incorrect size"),
        Error(dict(scale=lambda scale, **_: scale[:1, :1]), ValueError, "scale is of incorrect size"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(weight=lambda input, **_: input[0]), ValueError, "[Ww]eight"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error({k: lambda k=k, **all: all[k].long() for k in ("input", "target", "scale")},
              NotImplementedError, "student_t_nll_loss"),
    ),
)  # fmt: skip

CURVE = curves.Curve(
    "residual x − t",
    (-5, 5),
    lambda s, scale, df: dict(input=s, target=curves.everywhere(s, 0), scale=curves.everywhere(s, scale), df=df),
    {
        "scale": curves.Slider("scale", 1.0, 0.5, 2.0, 0.5),
        "df": curves.Slider("df, the degrees of freedom", 2.0, 1.0, 10.0, 1.0),
    },
)
