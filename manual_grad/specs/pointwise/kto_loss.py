"""Kahneman-Tversky optimization: the value of one completion, a sigmoid of its log-ratio."""

from __future__ import annotations

import torch
from mpmath import exp

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.kto_loss import kto_loss
from manual_grad.specs import preference
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(policy_logps, ref_logps, labels, kl=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0,
               reduction="mean", weight=1.0):  # fmt: skip
    z = beta * (policy_logps - ref_logps - kl)
    e = torch.where(labels > 0, desirable_weight * (-z).sigmoid(), undesirable_weight * z.sigmoid())
    return reduce(weight * e, reduction)


def oracle(policy_logps, ref_logps, labels, kl=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0,
           weight=1, **_):  # fmt: skip
    z = beta * (policy_logps - ref_logps - kl)
    return weight * (desirable_weight / (1 + exp(z)) if labels > 0 else undesirable_weight / (1 + exp(-z)))


def symbols(policy_logps, ref_logps, labels, kl=0.0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0, **_):
    return {"x": policy_logps, r"\bar x": ref_logps, "t": labels, "k": kl, r"\beta": beta,
            "D": desirable_weight, "U": undesirable_weight}  # fmt: skip


def completions(draw, *shape):
    return dict(policy_logps=draw.normal(*shape, scale=3.0) - 8, ref_logps=draw.normal(*shape, scale=3.0) - 8,
                labels=draw.integers(*shape, high=2))  # fmt: skip


def sizes(*values, **options):
    """Log-ratios of these sizes, of both signs and labels."""

    def sample(draw):
        x = draw.tensor([s * v for v in values for s in (1.0, 1.0, -1.0, -1.0)])
        return dict(policy_logps=x, ref_logps=0 * x, labels=draw.tensor([0, 1] * (2 * len(values))), beta=1.0) | options

    return sample


SPEC = Spec(
    fn=kto_loss,
    inputs=(
        Input("policy_logps"),
        Input("ref_logps"),
        Input("labels", differentiable=False),
        Input("kl", differentiable=False, batch=None),
        Input("weight", batch=None),
    ),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", beta=0.5, desirable_weight=1.5, undesirable_weight=0.5),
        dict(reduction="sum", beta=1.0, undesirable_weight=1.33),
    ),
    samples={
        "typical": lambda draw: dict(**completions(draw, 3, 4), kl=draw.uniform(4, high=2.0)),
        "without kl": lambda draw: completions(draw, 3, 4),
        "weighted": lambda draw: dict(**completions(draw, 3, 4), kl=draw.uniform(), weight=draw.uniform(4, high=2.0)),
        "scalar": lambda draw: completions(draw),
        "image": lambda draw: completions(draw, 2, 3, 2, 2),
    },
    regimes={
        "summed over a thousand tokens": lambda draw: {**completions(draw, 8), "policy_logps": draw.normal(8) - 2000,
                                                       "ref_logps": draw.normal(8) - 2000},
        "sure": sizes(10.0, 15.0, 20.0, 40.0, 80.0),
        "saturated": sizes(10.0, 1e3, 1e4),
        "tiny": sizes(1e-12, 1e-6),
        "huge": lambda draw: {**completions(draw, 8), "policy_logps": draw.normal(8, scale=1e30)},
    },
    pins=(
        Pin(dict(policy_logps=[0.5, 0.5, 1e4, 1e4], ref_logps=[0.0] * 4, labels=[1, 0, 1, 0], kl=0.5, beta=0.5,
                 desirable_weight=2.0, reduction="none"),
            "at the point of reference, and beyond; nothing overflows", value=[1.0, 0.5, 0.0, 1.0],
            gradient=dict(policy_logps=[-0.25, 0.125, 0.0, 0.0], ref_logps=[0.25, -0.125, 0.0, 0.0])),
        Pin(dict(policy_logps=[-INF, -INF, NAN], ref_logps=[0.0] * 3, labels=[1, 0, 1], reduction="none"),
            "a completion that the policy excludes; NaN is propagated", value=[1.0, 0.0, NAN],
            gradient=dict(policy_logps=[0.0, 0.0, NAN], ref_logps=[0.0, 0.0, NAN])),
    ),
    errors=(
        Error(dict(beta=0.0), ValueError, "beta"),
        Error(dict(beta="1"), TypeError, "beta"),
        Error(dict(desirable_weight=-1.0), ValueError, "desirable_weight"),
        Error(dict(undesirable_weight=INF), ValueError, "undesirable_weight"),
        Error(dict(undesirable_weight="1"), TypeError, "undesirable_weight"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(ref_logps=lambda ref_logps, **_: ref_logps[:2]), ValueError, "ref_logps"),
        Error(dict(labels=lambda labels, **_: labels[:2]), ValueError, "labels"),
        Error(dict(kl=lambda labels, **_: labels[:2].double()), RuntimeError, "kl"),
        Error(dict(kl="0"), TypeError, "kl"),
        Error(dict(weight=lambda labels, **_: labels[:2].double()), RuntimeError, "weight"),
        Error({k: lambda k=k, **all: all[k].long() for k in ("policy_logps", "ref_logps")},
              NotImplementedError, "kto_loss"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "log-ratio of a desirable completion",
    (-6, 6),
    lambda s, kl, beta: dict(policy_logps=s, ref_logps=0 * s, labels=torch.ones_like(s), kl=kl, beta=beta),
    {"kl": curves.Slider("kl, the point of reference", 0.0, 0.0, 2.0, 0.25), "beta": preference.BETA},
)
