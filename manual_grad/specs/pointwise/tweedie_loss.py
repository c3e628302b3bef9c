"""Tweedie: the quasi-likelihood with variance equal to a power of the mean, for a mean or its logarithm."""

from __future__ import annotations

import math

from mpmath import exp, log, mpf

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.tweedie_loss import tweedie_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(input, target, reduction="mean", power=1.5, log_input=True, eps=1e-8, weight=1.0):
    mean = input.exp() if log_input else input + eps

    def integral(q):
        return mean.log() if q == 0 else mean**q / q

    return reduce(weight * (integral(2 - power) - target.to(input.dtype) * integral(1 - power)), reduction)


def oracle(input, target, power=1.5, log_input=True, eps=1e-8, weight=1, **_):
    mean, p = exp(input) if log_input else input + eps, mpf(power)
    upper, lower = (log(mean) if q == 0 else mean**q / q for q in (2 - p, 1 - p))
    return weight * (upper - target * lower)


def symbols(input, target, power=1.5, log_input=True, eps=1e-8, **_):
    return {"x": input, "t": target, "p": mpf(power), r"\epsilon": eps, "or": int(not log_input)}


def means(draw, *shape):
    return draw.uniform(*shape, low=0.5, high=4.0)


SPEC = Spec(
    fn=tweedie_loss,
    inputs=(Input("input"), Input("target", domain=(0.0, INF)), Input("weight")),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", power=1.0),
        dict(reduction="sum", power=2.0, eps=1e-3),
        dict(reduction="mean", power=1.1),
        dict(reduction="mean", power=3.0),
        dict(reduction="sum", power=0.0),
    ),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 4), target=means(draw, 3, 4)),
        "means": lambda draw: dict(input=means(draw, 3, 4), target=means(draw, 3, 4), log_input=False),
        "weighted": lambda draw: dict(input=draw.normal(3, 4), target=means(draw, 3, 4), weight=draw.uniform(3, 4)),
        "many zeros": lambda draw: dict(input=draw.normal(3, 4), target=draw.integers(3, 4, high=2)),
        "scalar": lambda draw: dict(input=draw.normal(), target=means(draw)),
        "broadcast": lambda draw: dict(input=draw.normal(2, 3), target=means(draw, 3)),
        "input broadcast": lambda draw: dict(input=means(draw, 1, 3), target=means(draw, 2, 3), log_input=False),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2), target=means(draw, 2, 3, 2, 2)),
    },
    regimes={
        # the last sample does not match: in float64, where e^x - t is only rounding error, it sets the scale of errors
        "fitted": lambda draw: dict(input=draw.tensor([math.log(t) for t in (1.5, 2.0, 3.5, 8.0, 0.25, 100.0, 1.0)]),
                                    target=draw.tensor([1.5, 2.0, 3.5, 8.0, 0.25, 100.0, 6.0])),
        "fitted means": lambda draw: dict(input=draw.tensor([1.5, 2.0, 3.5, 8.0, 20.0, 0.25]), log_input=False,
                                          target=draw.tensor([1.5, 2.0, 3.5, 8.0, 20.0, 0.25])),
        "large": lambda draw: dict(input=draw.tensor([4.0, 6.0, 9.0, 11.0, 14.0]) + draw.normal(5),
                                   target=draw.tensor([60.0, 400.0, 8e3, 6e4, 1e6])),
        "small": lambda draw: dict(input=draw.tensor([-5.0, -10.0, -20.0]), target=draw.tensor([1e-2, 1e-4, 0.0])),
        "far off": lambda draw: dict(input=draw.tensor([-12.0, 12.0, -25.0, 25.0]), target=means(draw, 4)),
        "zero and steep": lambda draw: dict(input=draw.tensor([-40.0, -20.0, 20.0, 40.0]),
                                            target=draw.tensor([0.0] * 4)),
        "tiny": lambda draw: dict(input=draw.normal(8, scale=1e-30), target=means(draw, 8)),
        "tiny means": lambda draw: dict(input=draw.tensor([0.0, 1e-9, 1e-6, 1e-3]), target=draw.tensor([0.0] * 4),
                                        log_input=False),
        "huge means": lambda draw: dict(input=draw.tensor([1e3, 1e6, 1e12, 1e15]), target=means(draw, 4),
                                        log_input=False),
        "a power next to Poisson's": lambda draw: dict(input=draw.normal(8), target=means(draw, 8), power=1.0001),
        "a power next to gamma's": lambda draw: dict(input=draw.normal(8), target=means(draw, 8), power=1.9999),
    },
    pins=(
        Pin(dict(input=[0.0, 0.0], target=[1.0, 0.0], reduction="none"), "the mean is right, then too large",
            value=[4.0, 2.0], gradient=dict(input=[0.0, 1.0], target=[2.0, 2.0])),
        Pin(dict(input=[4.0, 4.0], target=[4.0, 0.0], log_input=False, eps=0.0, reduction="none"),
            "the same for a mean of 4", value=[8.0, 4.0], gradient=dict(input=[0.0, 0.5], target=[1.0, 1.0])),
        Pin(dict(input=[-INF, -INF, 2e4, 2e4], target=[0.0, 2.0, 0.0, 2.0], power=1.9999, reduction="none"),
            "mean 0: only a sample of 0 is possible; a mean may overflow while its powers do not",
            value=[0.0, INF, math.exp(2e4 * (2 - 1.9999)) / (2 - 1.9999), math.exp(2e4 * (2 - 1.9999)) / (2 - 1.9999)],
            gradient=dict(input=[0.0, -INF, *[math.exp(2e4 * (2 - 1.9999))] * 2])),
        Pin(dict(input=[-2e4], target=[0.0], power=1.9999, reduction="none"), "the other way round",
            value=[math.exp(-2e4 * (2 - 1.9999)) / (2 - 1.9999)], gradient=dict(input=[math.exp(-2e4 * (2 - 1.9999))])),
        Pin(dict(input=[INF], target=[2.0], power=1.0, log_input=False, reduction="none"), "as for Poisson",
            gradient=dict(input=[1.0])),
        Pin(dict(input=[INF], target=[2.0], log_input=False, reduction="none"), "an infinite mean has slope 0",
            value=[INF], gradient=dict(input=[0.0], target=[0.0])),
        Pin(dict(input=[-3.0, 0.0], target=[-2.0, 1.0], power=0.0, log_input=False, eps=0.0, reduction="none"),
            "power 0 allows any mean", value=[-1.5, 0.0], gradient=dict(input=[-1.0, -1.0])),
        Pin(dict(input=[NAN, 0.0], target=[0.0, NAN], reduction="none"), "NaN is propagated",
            value=[NAN, NAN], gradient=dict(input=[NAN, NAN], target=[NAN, 2.0])),
    ),
    errors=(
        Error(dict(power=0.5), ValueError, "power"),
        Error(dict(power=-1.0), ValueError, "power"),
        Error(dict(power=INF), ValueError, "power"),
        Error(dict(power=NAN), ValueError, "power"),
        Error(dict(power="1.5"), TypeError, "power"),
        Error(dict(log_input=1), TypeError, "log_input"),
        Error(dict(eps=-1e-8), ValueError, "eps"),
        Error(dict(eps=None), TypeError, "eps"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(weight=lambda input, **_: input[0]), ValueError, "[Ww]eight"),
        Error({k: lambda k=k, **all: all[k].long() for k in ("input", "target")}, NotImplementedError, "tweedie_loss"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "log of the mean x",
    (-2, 3),
    lambda s, target, power: dict(input=s, target=curves.everywhere(s, target), power=power),
    {
        "target": curves.Slider("target", 2.0, 0.0, 6.0, 1.0),
        "power": curves.Slider("power of the mean in the variance", 1.5, 1.0, 3.0, 0.25),
    },
)
