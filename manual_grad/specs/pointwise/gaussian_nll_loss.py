"""Gaussian negative log-likelihood of a target, for a predicted mean and variance."""

from __future__ import annotations

import math

import torch
from mpmath import log, pi

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.gaussian_nll_loss import gaussian_nll_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def definition(input, target, var, full=False, eps=1e-6, reduction="mean"):
    v = var.clone()
    with torch.no_grad():  # the gradient passes through the clamp, as in torch
        v.clamp_(min=eps)
    e = 0.5 * (v.log() + (input - target) ** 2 / v)
    return reduce(e + HALF_LOG_2PI if full else e, reduction)


def oracle(input, target, var, full=False, eps=1e-6, **_):
    v = max(var, eps)
    return (log(v) + (input - target) ** 2 / v + (log(2 * pi) if full else 0)) / 2


def heteroscedastic(draw, *shape, scale=1.0):
    return dict(input=draw.normal(*shape, scale=scale), target=draw.normal(*shape, scale=scale),
                var=draw.uniform(*shape, low=0.5, high=2.0))  # fmt: skip


SPEC = Spec(
    fn=gaussian_nll_loss,
    # the gradient of a clamped variance is a convention, not the slope: it is pinned, and no sample has one
    inputs=(Input("input"), Input("target"), Input("var", domain=(0.0, INF))),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, var, full=False, eps=1e-6, **_: {
        "x": input, "t": target, "a": var, r"\epsilon": eps, "f": int(full)},
    params=(
        dict(reduction="mean"),
        dict(reduction="none", full=True),
        dict(reduction="sum", eps=1e-4),
        dict(reduction="mean", full=True),
    ),
    samples={
        "typical": lambda draw: heteroscedastic(draw, 3, 4),
        "one variance a row": lambda draw: dict(input=draw.normal(3, 4), target=draw.normal(3, 4),
                                                var=draw.uniform(3, 1, low=0.5, high=2.0)),
        "scalar": lambda draw: heteroscedastic(draw),
        "target broadcast": lambda draw: dict(input=draw.normal(2, 3), target=draw.normal(3),
                                              var=draw.uniform(2, 3, low=0.5, high=2.0)),
        "input broadcast": lambda draw: dict(input=draw.normal(1, 3), target=draw.normal(2, 3),
                                             var=draw.uniform(1, 3, low=0.5, high=2.0)),
        "image": lambda draw: heteroscedastic(draw, 2, 3, 2, 2),
    },
    regimes={
        "perfect fit": lambda draw: dict(input=draw.tensor([1.0, 2.0, -3.0, 0.5]),
                                         target=draw.tensor([1.0, 2.0, -3.0, 0.25]),
                                         var=draw.uniform(4, low=0.5, high=2.0)),
        "variance right": lambda draw: dict(input=draw.tensor([3.0, -2.0, 0.5, 0.1, 7.0, 1e-2]),
                                            target=draw.tensor([0.0] * 6),
                                            var=draw.tensor([9.0, 4.0, 0.25, 0.01, 49.0, 1.01e-4])),
        "value near 0": lambda draw: dict(input=draw.tensor([math.exp(-0.5)] * 3 + [2.0]),
                                          target=draw.tensor([0.0] * 4),
                                          var=draw.tensor([math.exp(-1.0) * f for f in (1, 1.001, 0.99, 2)])),
        "tiny variance": lambda draw: dict(input=draw.normal(8), target=draw.normal(8),
                                           var=draw.uniform(8, low=1.5e-4, high=1e-3)),
        "sure and right": lambda draw: dict(input=draw.normal(8, scale=1e-2), target=draw.normal(8, scale=1e-2),
                                            var=draw.uniform(8, low=1.5e-4, high=1e-3)),
        "huge": lambda draw: dict(input=draw.normal(8, scale=1e12), target=draw.normal(8, scale=1e12),
                                  var=draw.uniform(8, low=1e15, high=1e18)),
        "offset": lambda draw: dict(input=1e6 + draw.normal(8), target=1e6 + draw.normal(8),
                                    var=draw.uniform(8, low=0.5, high=2.0)),
        "spread": lambda draw: dict(input=draw.normal(8) * draw.tensor([1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9, 1e12]),
                                    target=draw.tensor([0.0] * 8), var=draw.uniform(8, low=0.5, high=2.0)),
    },
    pins=(
        Pin(dict(input=[3.0, 3.0], target=[0.0, 0.0], var=[9.0, 9.0], full=True, reduction="none"),
            "the variance is right: slope 0",
            value=[0.5 + math.log(3.0) + HALF_LOG_2PI] * 2,
            gradient=dict(input=[1 / 3, 1 / 3], target=[-1 / 3, -1 / 3], var=[0.0, 0.0])),
        Pin(dict(input=[1e-3, 0.0], target=[0.0, 0.0], var=[0.0, 1e-7], reduction="none"),
            "a clamped variance counts as eps; the gradient passes through",
            value=[0.5 * (math.log(1e-6) + 1), 0.5 * math.log(1e-6)],
            gradient=dict(input=[1e3, 0.0], var=[0.0, 5e5])),
        Pin(dict(input=[1.0, 3.0], target=[0.0, 0.0], var=4.0, reduction="none"), "one variance for a vector",
            value=[0.5 * (math.log(4.0) + 0.25), 0.5 * (math.log(4.0) + 2.25)], gradient=dict(var=0.5 * (-2 / 16))),
        Pin(dict(input=[[1.0], [3.0]], target=[[0.0], [0.0]], var=[4.0, 1.0], reduction="none"),
            "one variance per row, without the last dimension",
            value=[[0.5 * (math.log(4.0) + 0.25)], [4.5]], gradient=dict(var=[0.5 * 3 / 16, -4.0])),
        Pin(dict(input=[[]], target=[[]], var=[[0.0]], reduction="none"), "a variance of no elements may be 0, too",
            value=[[]]),
        Pin(dict(input=[INF, NAN, 0.0, 0.0], target=[0.0] * 4, var=[1.0, 1.0, NAN, INF], reduction="none"),
            "infinities and NaN are propagated", value=[INF, NAN, NAN, INF],
            gradient=dict(input=[INF, NAN, NAN, 0.0])),
        Pin(dict(input=[1.0, INF], target=[0.0, 0.0], var=[INF, INF], reduction="none"),
            "an infinite variance gives the limit, unless the residual is infinite", value=[INF, NAN],
            gradient=dict(input=[0.0, NAN], target=[0.0, NAN], var=[0.0, NAN])),
    ),
    errors=(
        Error(dict(var=lambda var, **_: -var), ValueError, "var has negative entry/entries"),
        Error(dict(var=-1.0), ValueError, "var has negative entry/entries"),
        Error(dict(var=1), TypeError, "var"),
        Error(dict(var=lambda var, **_: var[:2]), ValueError, "var is of incorrect size"),
        Error(dict(var=lambda var, **_: var[:1, :1]), ValueError, "var is of incorrect size"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(reduction="average"), ValueError, "average is not valid"),
        Error(dict(eps="small"), TypeError, "eps"),
        Error({k: lambda k=k, **all: all[k].long() for k in ("input", "target", "var")},
              NotImplementedError, "input"),
    ),
)  # fmt: skip

CURVE = curves.Curve(
    "variance v",
    (0.1, 4),
    lambda s, residual: dict(input=curves.everywhere(s, residual), target=curves.everywhere(s, 0), var=s),
    {"residual": curves.Slider("residual x − t", 1.0, 0.0, 2.0, 0.125)},
)
