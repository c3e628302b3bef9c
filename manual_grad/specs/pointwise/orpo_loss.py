"""Odds ratio preference optimization: the odds of two completions, and the likelihood of what was chosen."""

from __future__ import annotations

import math

import torch
from mpmath import exp, log

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.orpo_loss import orpo_loss
from manual_grad.specs import preference
from manual_grad.specs.preference import POLICY
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
SIZES = (1e-30, 1e-12, 1e-6, 1e-3, 0.1, 0.69, 0.7, 5.0, 40.0, 90.0)


def definition(policy_chosen_logps, policy_rejected_logps, beta=0.1, alpha=1.0, reduction="mean", weight=1.0):
    def odds(x):
        return x.exp() / (1 - x.exp())

    penalty = (odds(policy_rejected_logps) / odds(policy_chosen_logps)).log1p()
    return reduce(weight * (beta * penalty - alpha * policy_chosen_logps), reduction)


def oracle(policy_chosen_logps, policy_rejected_logps, beta=0.1, alpha=1.0, weight=1, **_):
    x, y = policy_chosen_logps, policy_rejected_logps
    penalty = log(1 + exp(y - x) * (1 - exp(x)) / (1 - exp(y)))
    return weight * (beta * penalty - alpha * x)


def symbols(policy_chosen_logps, policy_rejected_logps, beta=0.1, alpha=1.0, **_):
    return {"x": policy_chosen_logps, "y": policy_rejected_logps, r"\beta": beta, r"\alpha": alpha}


def means(draw, *shape):
    """Means over the tokens of a completion."""
    return {name: -draw.uniform(*shape, low=0.1, high=4.0) for name in POLICY}


def near(draw, **options):
    """All pairs of sizes, from certain to all but excluded."""
    x, y = (t.flatten() for t in torch.meshgrid(*[draw.tensor([-size for size in SIZES])] * 2, indexing="ij"))
    return dict(zip(POLICY, (x, y), strict=True)) | options


SPEC = Spec(
    fn=orpo_loss,
    inputs=(*(Input(name, domain=(-INF, 0.0)) for name in POLICY), Input("weight", batch=None)),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", beta=0.5, alpha=0.0),
        dict(reduction="sum", beta=2.0, alpha=0.25),
    ),
    samples={
        "typical": lambda draw: means(draw, 3, 4),
        "weighted": lambda draw: dict(**means(draw, 3, 4), weight=draw.uniform(4, high=2.0)),
        "scalar": lambda draw: means(draw),
        "image": lambda draw: means(draw, 2, 3, 2, 2),
    },
    regimes={
        "from certain to excluded": lambda draw: near(draw, alpha=0.0, reduction="none"),
        "likewise, with likelihood": lambda draw: near(draw, alpha=1.0, reduction="none"),
        "sums over a thousand tokens": lambda draw: {name: draw.normal(8, scale=20.0) - 2000 for name in POLICY},
        "one certain": lambda draw: {POLICY[0]: draw.tensor([0.0] * 4),
                                     POLICY[1]: draw.tensor([-1e-9, -1e-3, -1.0, -50.0])},
    },
    pins=(
        Pin(dict(policy_chosen_logps=[-0.5, 0.0], policy_rejected_logps=[-0.5, -math.log(2)], beta=1.0, alpha=0.0,
                 reduction="none"),
            "equal odds, and a certain completion: its slope is the limit", value=[math.log(2), 0.0],
            gradient=dict(policy_chosen_logps=[-0.5 / -math.expm1(-0.5), -1.0],
                          policy_rejected_logps=[0.5 / -math.expm1(-0.5), 0.0])),
        Pin(dict(policy_chosen_logps=[-INF, -1.0, NAN], policy_rejected_logps=[-math.log(2), -INF, -1.0],
                 beta=1.0, alpha=0.0, reduction="none"),
            "a completion that the policy excludes; NaN is propagated", value=[INF, 0.0, NAN],
            gradient=dict(policy_chosen_logps=[-1.0, 0.0, NAN], policy_rejected_logps=[2.0, 0.0, NAN])),
        Pin(dict(policy_chosen_logps=[-math.log(2)], policy_rejected_logps=[0.0], beta=1.0, alpha=0.0,
                 reduction="none"), "a certain rejected completion", value=[INF],
            gradient=dict(policy_chosen_logps=[-2.0], policy_rejected_logps=[INF])),
    ),
    errors=(
        *preference.errors("orpo_loss", POLICY[1:]),
        Error(dict(alpha=-1.0), ValueError, "alpha"),
        Error(dict(alpha="1"), TypeError, "alpha"),
        *(Error({name: lambda name=name, **all: -all[name]}, ValueError, name) for name in POLICY),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "log-probability of the chosen completion",
    (-4, -0.05),
    lambda s, rejected, **options: dict(zip(POLICY, (s, curves.everywhere(s, rejected)), strict=True)) | options,
    {
        "rejected": curves.Slider("log-probability of the rejected one", -1.0, -4.0, -1.0, 1.0),
        "beta": preference.BETA,
        "alpha": curves.Slider("alpha", 0.0, 0.0, 1.0, 0.5),
    },
)
