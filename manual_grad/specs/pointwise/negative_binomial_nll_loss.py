"""Negative binomial negative log-likelihood of a count, for a mean or its logarithm and a total count."""

from __future__ import annotations

import math

import torch
from mpmath import digamma, exp, gamma, log, loggamma, mpf, psi

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.negative_binomial_nll_loss import negative_binomial_nll_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def lgamma(z):
    """Stirling's series after ten recurrence steps; the second derivative of torch's lgamma has only ten digits."""
    y = z + 10
    w = 1 / y**2
    series = 1 / 12 - w * (1 / 360 - w * (1 / 1260 - w * (1 / 1680 - w * (1 / 1188 - w * (691 / 360360 - w / 156)))))
    below = torch.stack([(z + j).log() for j in range(10)]).sum(0)
    return (y - 0.5) * y.log() - y + 0.5 * math.log(2 * math.pi) + series / y - below


def definition(input, target, total_count, reduction="mean", log_input=True, full=False, eps=1e-8, weight=1.0):
    t, r = target.to(input.dtype), total_count.clone()
    with torch.no_grad():  # the gradient passes through the clamp, by definition of the loss
        r.clamp_(min=eps)
    mean, log_mean = (input.exp(), input) if log_input else (input + eps, (input + eps).log())
    e = (t + r) * (mean + r).log() - t * log_mean - r * r.log() - lgamma(t + r) + lgamma(r)
    return reduce(weight * (e + lgamma(t + 1) if full else e), reduction)


def oracle(input, target, total_count, log_input=True, full=False, eps=1e-8, weight=1, **_):
    r, t = max(total_count, eps), mpf(target)
    mean = exp(input) if log_input else input + eps
    e = (t + r) * log(mean + r) - t * log(mean) - r * log(r) - loggamma(t + r) + loggamma(r)
    return weight * (e + loggamma(t + 1) if full else e)


def symbols(input, target, total_count, log_input=True, full=False, eps=1e-8, **_):
    given = {"x": input, "t": mpf(target), "a": total_count, r"\epsilon": eps, "f": int(full), "or": int(not log_input)}
    functions = {r"\Gamma": gamma, r"\psi": digamma, r"\psi'": lambda z: psi(1, z)}
    return {**given, **functions, "z": total_count + mpf(1) / 3}


def counts(draw, *shape):
    return draw.uniform(*shape, low=0.2, high=3.0)


def few(draw, *shape):
    return draw.uniform(*shape, low=0.2, high=0.8)


def means(draw, *shape):
    return draw.uniform(*shape, low=0.5, high=4.0)


def totals(draw, *shape):
    return draw.uniform(*shape, low=0.5, high=5.0)


def typical(draw, *shape):
    return dict(input=draw.normal(*shape), target=counts(draw, *shape), total_count=totals(draw, *shape))


def across(draw, **given):
    """Total counts from the Poisson limit to extreme overdispersion."""
    total_count = draw.tensor([1e-5, 0.1, 1.999, 2.0, 10.0, 1e3, 1e8, 1e12])
    return dict(total_count=total_count, **given)


SPEC = Spec(
    fn=negative_binomial_nll_loss,
    # the gradient of a clamped total count is a convention, not the slope: it is pinned, and no sample has one
    inputs=(
        Input("input"),
        Input("target", domain=(0.0, INF)),
        Input("total_count", domain=(0.0, INF)),
        Input("weight"),
    ),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", full=True),
        dict(reduction="sum", eps=1e-7),
        dict(reduction="mean", full=True),
    ),
    samples={
        "typical": lambda draw: typical(draw, 3, 4),
        "means": lambda draw: {**typical(draw, 3, 4), "input": 1 + means(draw, 3, 4), "log_input": False},
        "weighted": lambda draw: dict(**typical(draw, 3, 4), weight=draw.uniform(3, 4)),
        "counts": lambda draw: {**typical(draw, 3, 4), "target": draw.integers(3, 4, high=4)},
        "one total a row": lambda draw: {**typical(draw, 3, 4), "total_count": totals(draw, 3, 1)},
        "scalar": lambda draw: typical(draw),
        "target broadcast": lambda draw: {**typical(draw, 2, 3), "target": counts(draw, 3)},
        "input broadcast": lambda draw: dict(input=4 + means(draw, 1, 3), log_input=False,
                                             target=few(draw, 2, 3), total_count=totals(draw, 1, 3)),
        "image": lambda draw: typical(draw, 2, 3, 2, 2),
    },
    regimes={
        "any total": lambda draw: across(draw, input=draw.normal(8), target=counts(draw, 8)),
        "any total, zeros": lambda draw: across(draw, input=draw.normal(8), target=draw.tensor([0.0] * 8)),
        "fitted means": lambda draw: across(draw, input=draw.tensor([3.0, 20.0, 1e3, 1e6] * 2), log_input=False,
                                            target=draw.tensor([3.0, 20.0, 1e3, 1e6] * 2)),
        "next to the fit": lambda draw: across(draw, input=draw.tensor([3.1, 19.0, 1030.0, 1e6 - 1e3] * 2),
                                               target=draw.tensor([3.0, 20.0, 1e3, 1e6] * 2), log_input=False),
        "large counts": lambda draw: across(draw, input=13.8 + 0.1 * draw.normal(8), target=4e5 * counts(draw, 8)),
        "far too many": lambda draw: across(draw, input=draw.tensor([-20.0] * 8), target=1e3 * counts(draw, 8)),
        "far too few": lambda draw: across(draw, input=draw.tensor([20.0, 80.0] * 4), target=counts(draw, 8)),
        "never": lambda draw: across(draw, input=draw.tensor([-5.0, -20.0, -40.0, -80.0] * 2),
                                     target=draw.integers(8, high=1)),
        "almost none": lambda draw: across(draw, input=draw.normal(8), target=1e-3 * counts(draw, 8)),
        "tiny means": lambda draw: dict(input=draw.tensor([0.0, 1e-12, 1e-9, 1e-6, 1e-3]), target=counts(draw, 5),
                                        total_count=totals(draw, 5), log_input=False),
        "huge means": lambda draw: dict(input=draw.tensor([1e3, 1e6, 1e12, 1e30]), target=counts(draw, 4),
                                        total_count=totals(draw, 4), log_input=False),
    },
    pins=(
        Pin(dict(input=[0.0, 0.0], target=[0.0, 1.0], total_count=[1.0, 1.0], full=True, reduction="none"),
            "the geometric distribution: probabilities 1/2 and 1/4", value=[math.log(2.0), 2 * math.log(2.0)],
            gradient=dict(input=[0.5, 0.0], total_count=[math.log(2.0) - 0.5, math.log(2.0) - 1.0],
                          target=[math.log(2.0), math.log(2.0)])),
        Pin(dict(input=[1.5, 1.5], target=[0.0, 3.0], total_count=[INF, INF], reduction="none"), "the Poisson limit",
            value=[math.exp(1.5), math.exp(1.5) - 4.5],
            gradient=dict(input=[math.exp(1.5), math.exp(1.5) - 3.0], target=[-1.5, -1.5])),
        Pin(dict(input=[1.0, 1.0], target=[0.0, 0.0], total_count=[0.0, 1e-6], eps=1.0, log_input=False,
                 reduction="none"),
            "a clamped total counts as eps; the gradient passes through", value=[math.log(3.0), math.log(3.0)],
            gradient=dict(input=[1 / 3, 1 / 3], total_count=[math.log(3.0) - 2 / 3] * 2)),
        Pin(dict(input=[0.0, 0.0], target=[0.0, 0.0], total_count=1.0, reduction="none"), "one total for a vector",
            value=[math.log(2.0)] * 2, gradient=dict(total_count=2 * math.log(2.0) - 1)),
        Pin(dict(input=[[0.0], [0.0]], target=[[0.0], [0.0]], total_count=[1.0, 1.0], reduction="none"),
            "one total per row, without the last dimension",
            value=[[math.log(2.0)], [math.log(2.0)]], gradient=dict(total_count=[math.log(2.0) - 0.5] * 2)),
        Pin(dict(input=[-INF, -INF], target=[0.0, 2.0], total_count=[1.5, 1.5], full=True, reduction="none"),
            "mean 0: a count of 0 is certain, others are impossible", value=[0.0, INF],
            gradient=dict(input=[0.0, -2.0], target=[INF, INF])),
        Pin(dict(input=[1e4, -1e4], target=[2.0, 2.0], total_count=[1.0, 1.0], full=True, reduction="none"),
            "the mean overflows or underflows, its logarithm does not", value=[1e4, 2e4],
            gradient=dict(input=[1.0, -2.0], total_count=[1e4 - 2.5, 0.5])),
        Pin(dict(input=[INF, NAN, 0.0, 0.0], target=[2.0, 0.0, NAN, 0.0], total_count=[1.0, 1.0, 1.0, NAN],
                 full=True, reduction="none"),
            "an infinite mean has the total count as its slope; NaN is propagated", value=[INF, NAN, NAN, NAN],
            gradient=dict(input=[1.0, NAN, NAN, NAN])),
    ),
    errors=(
        Error(dict(total_count=lambda total_count, **_: -total_count), ValueError, "total_count has negative entry"),
        Error(dict(total_count=-1.0), ValueError, "total_count has negative entry/entries"),
        Error(dict(total_count="1"), TypeError, "total_count"),
        Error(dict(total_count=lambda total_count, **_: total_count[:2]), ValueError, "total_count is of incorrect"),
        Error(dict(log_input=1), TypeError, "log_input"),
        Error(dict(full=1), TypeError, "full"),
        Error(dict(eps=0.0), ValueError, "eps"),
        Error(dict(eps=None), TypeError, "eps"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(weight=lambda input, **_: input[0]), ValueError, "[Ww]eight"),
        Error({k: lambda k=k, **all: all[k].long() for k in ("input", "target", "total_count")},
              NotImplementedError, "negative_binomial_nll_loss"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "log of the mean x",
    (-2, 4),
    lambda s, target, total_count: dict(
        input=s, target=curves.everywhere(s, target), total_count=curves.everywhere(s, total_count)
    ),
    {
        "target": curves.Slider("target, the count", 3.0, 0.0, 12.0, 3.0),
        "total_count": curves.Slider("total_count", 2.0, 1.0, 10.0, 1.0),
    },
)
