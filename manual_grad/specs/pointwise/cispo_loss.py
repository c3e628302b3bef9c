"""Clipped importance sampling weights: REINFORCE, corrected for the policy having moved."""

from __future__ import annotations

import torch
from mpmath import exp

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.cispo_loss import cispo_loss
from manual_grad.specs.policy import ERRORS, MASK, of_pairs
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(log_prob, log_ratio, advantages, mask=None, ratio_max=5.0, reduction="mean"):
    e = -log_ratio.exp().clamp(max=ratio_max) * advantages * log_prob
    w = torch.ones_like(e) if mask is None else mask.to(e.dtype).expand_as(e)
    return reduce(w * e, reduction, w.sum())


def oracle(log_prob, log_ratio, advantages, mask=1, ratio_max=5.0, **_):
    return -mask * min(exp(log_ratio), ratio_max) * advantages * log_prob, mask + 0 * log_prob


def symbols(log_prob, log_ratio, advantages, mask=1, ratio_max=5.0, **_):
    return {"x": log_prob, "r": log_ratio, "A": advantages, "M": ratio_max} if mask == 1 else None


def normal(draw, *shape):
    return draw.normal(*shape)


SPEC = Spec(
    fn=cispo_loss,
    inputs=(
        Input("log_prob"),
        Input("log_ratio", differentiable=False),
        Input("advantages", differentiable=False),
        MASK,
    ),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", ratio_max=1.5),
        dict(reduction="sum", ratio_max=2.0),
        dict(reduction="mean", ratio_max=1.0),
    ),
    samples=of_pairs("log_ratio", log_ratio=normal, advantages=normal),
    regimes={
        "far": lambda draw: dict(log_prob=draw.normal(8) - 20, log_ratio=draw.normal(8, scale=50.0),
                                 advantages=draw.normal(8)),
        "near the bound": lambda draw: dict(log_prob=draw.normal(4) - 3, advantages=draw.normal(4), ratio_max=1.0,
                                            log_ratio=draw.tensor([0.0, 1e-6, -1e-6, -1e-3])),
        "tiny": lambda draw: dict(log_prob=-draw.uniform(8, high=1e-20), log_ratio=draw.normal(8),
                                  advantages=draw.normal(8)),
    },
    pins=(
        Pin(dict(log_prob=[-2.0, -2.0, -2.0], log_ratio=[0.0, 1e4, -INF], advantages=[1.0, -1.0, 1.0], ratio_max=1.5,
                 reduction="none"), "a ratio that overflows is clipped, and the token still learns",
            value=[2.0, -3.0, 0.0], gradient=dict(log_prob=[-1.0, 1.5, 0.0])),
        Pin(dict(log_prob=[[NAN, -2.0]], log_ratio=[[INF, 0.0]], advantages=[0.5], mask=[[False, True]],
                 reduction="sequence"), "a token that does not count may hold anything; one advantage per completion",
            value=1.0, gradient=dict(log_prob=[[0.0, -0.5]])),
        Pin(dict(log_prob=[[-1.0, -2.0]], log_ratio=[[0.0, 0.0]], advantages=[1.0], mask=[[0, 0]], reduction="mean"),
            "all tokens masked", value=0.0, gradient=dict(log_prob=[[0.0, 0.0]])),
    ),
    errors=(
        *ERRORS,
        Error(dict(log_ratio=lambda log_prob, **_: log_prob[:2]), ValueError, "log_ratio"),
        Error(dict(advantages=lambda log_prob, **_: log_prob[:2]), ValueError, "advantages"),
        Error(dict(ratio_max=0.0), ValueError, "ratio_max"),
        Error(dict(ratio_max="5"), TypeError, "ratio_max"),
        Error({k: lambda k=k, **all: all[k].long() for k in ("log_prob", "log_ratio", "advantages")},
              NotImplementedError, "cispo_loss"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "log-probability",
    (-4, 0),
    lambda s, log_ratio, advantage: dict(
        log_prob=s, log_ratio=curves.everywhere(s, log_ratio), advantages=curves.everywhere(s, advantage)
    ),
    {
        "log_ratio": curves.Slider("logarithm of the importance weight", 0.0, -2.0, 3.0, 0.5),
        "advantage": curves.Slider("advantage", 1.0, -1.0, 1.0, 0.5),
    },
)
