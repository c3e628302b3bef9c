"""Clipped surrogate of proximal policy optimization: an advantage, by a relative probability that is clipped."""

from __future__ import annotations

import math

import torch
from mpmath import exp, mp

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.ppo_clip_loss import ppo_clip_loss
from manual_grad.specs.policy import ERRORS, MASK, of_pairs
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(log_prob, old_log_prob, advantages, mask=None, epsilon=0.2, epsilon_high=None, delta=None,
               reduction="mean"):  # fmt: skip
    rho = (log_prob - old_log_prob).exp()
    clipped = rho.clamp(1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high))
    rho = rho if delta is None else rho.clamp(max=delta)
    e = -torch.min(rho * advantages, clipped * advantages)
    w = torch.ones_like(e) if mask is None else mask.to(e.dtype).expand_as(e)
    return reduce(w * e, reduction, w.sum())


def oracle(log_prob, old_log_prob, advantages, mask=1, epsilon=0.2, epsilon_high=None, delta=None, **_):
    rho = exp(log_prob - old_log_prob)
    high = epsilon if epsilon_high is None else epsilon_high
    clipped = min(max(rho, 1 - epsilon), 1 + high)
    e = -min((rho if delta is None else min(rho, delta)) * advantages, clipped * advantages)
    return mask * e, mask + 0 * rho


def symbols(log_prob, old_log_prob, advantages, mask=1, epsilon=0.2, epsilon_high=None, delta=None, **_):
    if mask != 1 or delta is not None:  # (1) is the loss without the bound delta
        return None
    high = epsilon if epsilon_high is None else epsilon_high
    return {"x": log_prob, r"\bar x": old_log_prob, "A": advantages, r"\epsilon_0": epsilon, r"\epsilon_1": high,
            r"\delta": mp.inf if delta is None else delta}  # fmt: skip


def edges(log_prob, old_log_prob, advantages, mask=None, epsilon=0.2, epsilon_high=None, delta=None, **_):
    """The distances to the ends of the interval on the side that the sign of the advantage looks to."""
    d, high = log_prob - old_log_prob, epsilon if epsilon_high is None else epsilon_high
    ends = [torch.where(advantages < 0, d - math.log1p(-epsilon), d - math.log1p(high))]
    if delta is not None:
        ends.append(torch.where(advantages < 0, d - math.log(delta), 1))
    counts = torch.ones_like(d) if mask is None else mask.expand_as(d)
    return torch.stack([torch.where((advantages == 0) | (counts == 0), 1, end) for end in ends])


def ratios(*values, **options):
    """Log-ratios of these sizes, of both signs, for advantages of both signs."""

    def sample(draw):
        d = draw.tensor([s * v for v in values for s in (1.0, 1.0, -1.0, -1.0)])
        return dict(log_prob=d, old_log_prob=0 * d, advantages=draw.tensor([0.7, -0.4] * (2 * len(values)))) | options

    return sample


SPEC = Spec(
    fn=ppo_clip_loss,
    inputs=(Input("log_prob"), Input("old_log_prob"), Input("advantages", differentiable=False), MASK),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", epsilon=0.1, epsilon_high=0.3),
        dict(reduction="sum", epsilon=0.3, delta=1.8),
        dict(reduction="mean", epsilon=0.2, epsilon_high=0.28, delta=3.0),
        dict(reduction="sum"),
    ),
    samples=of_pairs("old_log_prob", advantages=lambda draw, *shape: draw.normal(*shape)),
    regimes={
        "near the old policy": ratios(1e-12, 1e-6, 1e-3, 1e-2),
        "near the edges": ratios(math.log(1.2) * (1 + 2**-22), math.log(1.2) * (1 - 2**-22), -math.log(0.8) + 1e-6,
                                 -math.log(0.8) - 1e-6, epsilon=0.2),
        "far": ratios(1.0, 5.0, 20.0, 80.0),
        "bounded": ratios(1.0, 5.0, 1e3, delta=3.0),
        "long completions": lambda draw: dict(log_prob=draw.normal(8, scale=1e-2) - 500,
                                              old_log_prob=draw.normal(8, scale=1e-2) - 500,
                                              advantages=draw.normal(8)),
    },
    kinks={1: edges},
    pins=(
        Pin(dict(log_prob=[0.0, 0.0, 0.0], old_log_prob=[0.0, 0.0, 0.0], advantages=[2.0, -2.0, 0.0], epsilon=0.0,
                 reduction="none"),
            "a token on the edge, from either side, has the slope of the inner side", value=[-2.0, 2.0, 0.0],
            gradient=dict(log_prob=[-2.0, 2.0, 0.0], old_log_prob=[2.0, -2.0, 0.0])),
        Pin(dict(log_prob=[1.0, 1.0, -1.0, -1.0], old_log_prob=[0.0] * 4, advantages=[2.0, -2.0, 2.0, -2.0],
                 epsilon=0.25, reduction="none"),
            "what has moved as the advantage asks is clipped", value=[-2.5, 2 * math.e, -2 / math.e, 1.5],
            gradient=dict(log_prob=[0.0, 2 * math.e, -2 / math.e, 0.0])),
        Pin(dict(log_prob=[1e4] * 4, old_log_prob=[0.0] * 4, advantages=[1.0, 0.0, -1.0, -1.0], epsilon=0.25,
                 reduction="none"),
            "a ratio that overflows is clipped, and infinite only for a negative advantage",
            value=[-1.25, 0.0, INF, INF], gradient=dict(log_prob=[0.0, 0.0, INF, INF])),
        Pin(dict(log_prob=[1e4, 1.0], old_log_prob=[0.0, 0.0], advantages=[-1.0, -1.0], epsilon=0.25, delta=2.0,
                 reduction="none"), "unless there is a bound", value=[2.0, 2.0], gradient=dict(log_prob=[0.0, 0.0])),
        Pin(dict(log_prob=[-INF, -INF, NAN], old_log_prob=[-1.0] * 3, advantages=[1.0, -1.0, 1.0], epsilon=0.25,
                 reduction="none"), "a token that the policy excludes; NaN is propagated", value=[0.0, 0.75, NAN],
            gradient=dict(log_prob=[0.0, 0.0, NAN])),
        Pin(dict(log_prob=[[NAN, -1.0]], old_log_prob=[[-INF, -1.0]], advantages=[[1.0]], mask=[[0, 1]],
                 reduction="mean"), "a token that does not count may hold anything; one advantage per sequence",
            value=-1.0, gradient=dict(log_prob=[[0.0, -1.0]], old_log_prob=[[0.0, 1.0]])),
        Pin(dict(log_prob=[[-1.0, -2.0]], old_log_prob=[[-3.0, -3.0]], advantages=[1.0], mask=[[0, 0]],
                 reduction="sequence"), "all tokens masked", value=0.0, gradient=dict(log_prob=[[0.0, 0.0]])),
    ),
    errors=(
        *ERRORS,
        Error(dict(old_log_prob=lambda old_log_prob, **_: old_log_prob[:2]), ValueError, "old_log_prob"),
        Error(dict(advantages=lambda advantages, **_: advantages[:2]), ValueError, "advantages"),
        Error(dict(epsilon=-0.1), ValueError, "epsilon"),
        Error(dict(epsilon="0"), TypeError, "epsilon"),
        Error(dict(epsilon_high=INF), ValueError, "epsilon_high"),
        Error(dict(delta=1.1), ValueError, "delta"),
        Error(dict(delta=NAN), ValueError, "delta"),
        Error(dict(delta="3"), TypeError, "delta"),
        Error({k: lambda k=k, **all: all[k].long() for k in ("log_prob", "old_log_prob", "advantages")},
              NotImplementedError, "ppo_clip_loss"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "log-probability, less that of the old policy",
    (-1, 1),
    lambda s, advantage, epsilon: dict(
        log_prob=s, old_log_prob=torch.zeros_like(s), advantages=curves.everywhere(s, advantage), epsilon=epsilon
    ),
    {
        "advantage": curves.Slider("advantage", 1.0, -1.0, 1.0, 0.5),
        "epsilon": curves.Slider("epsilon", 0.2, 0.1, 0.5, 0.1),
    },
)
