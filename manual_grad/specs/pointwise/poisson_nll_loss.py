"""Poisson negative log-likelihood of a count, for a rate or its logarithm."""

from __future__ import annotations

import math

import torch
from mpmath import exp, log, pi

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.poisson_nll_loss import poisson_nll_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(input, target, log_input=True, full=False, eps=1e-8, reduction="mean"):
    target = target.to(input.dtype)  # counts may be integers
    e = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        n = torch.where(target > 1, target, 2.0)
        e = e + torch.where(target > 1, n * n.log() - n + 0.5 * (2 * math.pi * n).log(), 0.0)
    return reduce(e, reduction)


def oracle(input, target, log_input=True, full=False, eps=1e-8, **_):
    e = exp(input) - target * input if log_input else input - target * log(input + eps)
    return e + target * log(target) - target + log(2 * pi * target) / 2 if full and target > 1 else e


# Stirling's term jumps at a count of 1. No sample crosses that, except integer counts, which have no gradient.
def many(draw, *shape):
    return draw.uniform(*shape, low=1.5, high=6.0)


def few(draw, *shape):
    return draw.uniform(*shape, low=0.2, high=0.8)


def rates(draw, *shape):
    return draw.uniform(*shape, low=0.5, high=4.0)


def symbols(input, target, log_input=True, full=False, eps=1e-8, **_):
    if target == 1:  # Stirling's term jumps there
        return None
    return {"x": input, "t": target, r"\epsilon": eps, "f": int(full), "or": int(not log_input)}


SPEC = Spec(
    fn=poisson_nll_loss,
    inputs=(Input("input"), Input("target", domain=(0.0, INF))),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", full=True),
        dict(reduction="sum", eps=1e-3),
        dict(reduction="mean", full=True),
    ),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 4), target=many(draw, 3, 4)),
        "rates": lambda draw: dict(input=rates(draw, 3, 4), target=many(draw, 3, 4), log_input=False),
        "few": lambda draw: dict(input=draw.normal(3, 4), target=few(draw, 3, 4)),
        "few, rates": lambda draw: dict(input=rates(draw, 3, 4), target=few(draw, 3, 4), log_input=False),
        "counts": lambda draw: dict(input=draw.normal(3, 4), target=draw.integers(3, 4, high=4)),
        "scalar": lambda draw: dict(input=draw.normal(), target=many(draw)),
        "broadcast": lambda draw: dict(input=draw.normal(2, 3), target=many(draw, 3)),
        "input broadcast": lambda draw: dict(input=rates(draw, 1, 3), target=many(draw, 2, 3), log_input=False),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2), target=many(draw, 2, 3, 2, 2)),
    },
    regimes={
        # the last sample does not match: in float64, where e^x - t is only rounding error, it sets the scale of errors
        "fitted": lambda draw: dict(input=draw.tensor([math.log(n) for n in (1.5, 2.0, 3.5, 8.0, 20.0, 100.0, 1.0)]),
                                    target=draw.tensor([1.5, 2.0, 3.5, 8.0, 20.0, 100.0, 6.0])),
        "fitted rates": lambda draw: dict(input=draw.tensor([1.5, 2.0, 3.5, 8.0, 20.0, 0.25]), log_input=False,
                                          target=draw.tensor([1.5, 2.0, 3.5, 8.0, 20.0, 0.25])),
        "just above 1": lambda draw: dict(input=draw.normal(4), target=draw.tensor([1.0001, 1.001, 1.01, 1.1])),
        "large counts": lambda draw: dict(input=draw.tensor([4.0, 6.0, 9.0, 11.0, 14.0]) + draw.normal(5),
                                          target=draw.tensor([60.0, 400.0, 8e3, 6e4, 1e6])),
        "rare": lambda draw: dict(input=draw.tensor([-5.0, -20.0, -40.0, -80.0]), target=draw.integers(4, high=2)),
        "never": lambda draw: dict(input=draw.tensor([-5.0, -20.0, -40.0, -80.0]), target=draw.integers(4, high=1)),
        "steep": lambda draw: dict(input=draw.tensor([20.0, 40.0, 60.0, 80.0]), target=many(draw, 4)),
        "tiny": lambda draw: dict(input=draw.normal(8, scale=1e-30), target=many(draw, 8)),
        "tiny rates": lambda draw: dict(input=draw.tensor([0.0, 1e-12, 1e-9, 1e-6, 1e-3]), target=many(draw, 5),
                                        log_input=False),
        "huge rates": lambda draw: dict(input=draw.tensor([1e3, 1e6, 1e12, 1e30]), target=many(draw, 4),
                                        log_input=False),
    },
    pins=(
        Pin(dict(input=[0.5, 0.5], target=[0.0, 1.0], full=True, reduction="none"),
            "no Stirling term and no slope of it for counts of 0 and 1",
            value=[math.exp(0.5), math.exp(0.5) - 0.5], gradient=dict(target=[-0.5, -0.5])),
        Pin(dict(input=[2.0, 2.0], target=[0.0, 1.0], log_input=False, full=True, eps=0.0, reduction="none"),
            "likewise for rates", value=[2.0, 2.0 - math.log(2.0)],
            gradient=dict(input=[1.0, 0.5], target=[-math.log(2.0), -math.log(2.0)])),
        Pin(dict(input=[-INF, -INF], target=[0.0, 2.0], reduction="none"), "rate 0: only a count of 0 is possible",
            value=[0.0, INF], gradient=dict(input=[0.0, -2.0], target=[INF, INF])),
        Pin(dict(input=[0.0], target=[2.0], log_input=False, eps=1e-8, reduction="none"), "eps keeps the rate from 0",
            value=[-2 * math.log(1e-8)], gradient=dict(input=[1 - 2 / 1e-8], target=[-math.log(1e-8)])),
        Pin(dict(input=[INF, INF], target=[0.0, 2.0], log_input=False, reduction="none"), "slope 1 at infinity",
            gradient=dict(input=[1.0, 1.0])),
        Pin(dict(input=[INF], target=[2.0], reduction="none"), "an infinite rate has a positive slope",
            value=[NAN], gradient=dict(input=[INF])),
        Pin(dict(input=[NAN, 0.0], target=[0.0, NAN], full=True, reduction="none"), "NaN is propagated",
            value=[NAN, NAN], gradient=dict(input=[NAN, NAN], target=[NAN, NAN])),
    ),
    errors=(
        Error(dict(log_input=1), TypeError, "log_input"),
        Error(dict(full=1), TypeError, "full"),
        Error(dict(eps=None), TypeError, "eps"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "log of the rate x",
    (-2, 3),
    lambda s, target: dict(input=s, target=curves.everywhere(s, target)),
    {"target": curves.Slider("target, the count", 3.0, 0.0, 12.0, 1.0)},
)
