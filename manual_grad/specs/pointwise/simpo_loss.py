"""Simple preference optimization: the cross entropy of a comparison of mean log-probabilities, with a margin."""

from __future__ import annotations

import math

from mpmath import exp, log
from torch.nn import functional as F

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.simpo_loss import simpo_loss
from manual_grad.specs import preference
from manual_grad.specs.preference import POLICY, margins, pairs
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(policy_chosen_logps, policy_rejected_logps, beta=2.0, gamma=0.5, label_smoothing=0.0,
               reduction="mean", weight=1.0):  # fmt: skip
    z, q = beta * (policy_chosen_logps - policy_rejected_logps) - gamma, label_smoothing
    return reduce(weight * (-(1 - q) * F.logsigmoid(z) - q * F.logsigmoid(-z)), reduction)


def oracle(policy_chosen_logps, policy_rejected_logps, beta=2.0, gamma=0.5, label_smoothing=0.0, weight=1, **_):
    z = beta * (policy_chosen_logps - policy_rejected_logps) - gamma
    q = z * 0 + label_smoothing
    return weight * ((1 - q) * log(1 + exp(-z)) + q * log(1 + exp(z)))


def symbols(policy_chosen_logps, policy_rejected_logps, beta=2.0, gamma=0.5, label_smoothing=0.0, **_):
    return {"x": policy_chosen_logps, "y": policy_rejected_logps, r"\beta": beta, r"\gamma": gamma,
            "q": label_smoothing}  # fmt: skip


SPEC = Spec(
    fn=simpo_loss,
    inputs=(*map(Input, POLICY), Input("weight", batch=None)),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", beta=0.5, gamma=1.5),
        dict(reduction="sum", beta=1.0, label_smoothing=0.1),
    ),
    samples=preference.samples(POLICY),
    regimes={
        "means over tokens": lambda draw: {name: -draw.uniform(8, high=4.0) for name in POLICY},
        "huge": lambda draw: pairs(draw, 8, scale=1e30, names=POLICY),
        "sure": margins(10.0, 20.0, 40.0, 80.0, names=POLICY, label_smoothing=0.0),
        "saturated": margins(10.0, 1e3, 1e4, names=POLICY, label_smoothing=0.0),
        "undecided": margins(0.5, 0.5 + 2**-24, 0.5 - 2**-25, names=POLICY, label_smoothing=0.5, gamma=0.5),
    },
    pins=(
        Pin(dict(policy_chosen_logps=[-1.0, 0.0, -1e4], policy_rejected_logps=[-1.25, -1e4, 0.0], reduction="none"),
            "the margin is met, exceeded and missed; nothing overflows", value=[math.log(2), 0.0, 20000.5],
            gradient=dict(policy_chosen_logps=[-1.0, 0.0, -2.0], policy_rejected_logps=[1.0, 0.0, 2.0])),
        Pin(dict(policy_chosen_logps=[-INF, 0.0, NAN], policy_rejected_logps=[0.0, -INF, 0.0], reduction="none"),
            "a completion that the policy excludes; NaN is propagated", value=[INF, 0.0, NAN],
            gradient=dict(policy_chosen_logps=[-2.0, 0.0, NAN], policy_rejected_logps=[2.0, 0.0, NAN])),
    ),
    errors=(
        *preference.errors("simpo_loss", POLICY[1:]),
        Error(dict(label_smoothing=1.0), ValueError, "label_smoothing"),
        Error(dict(gamma=INF), ValueError, "gamma"),
        Error(dict(gamma="1"), TypeError, "gamma"),
    ),
    order=3,
)  # fmt: skip

CURVE = preference.along_the_margin(POLICY, gamma=curves.Slider("gamma, the margin", 0.5, 0.0, 2.0, 0.25))
