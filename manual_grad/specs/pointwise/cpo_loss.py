"""Contrastive preference optimization: the cross entropy of a comparison, and the likelihood of what was chosen."""

from __future__ import annotations

import math

from mpmath import exp, log
from torch.nn import functional as F

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.cpo_loss import cpo_loss
from manual_grad.specs import preference
from manual_grad.specs.preference import POLICY, margins, pairs
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(policy_chosen_logps, policy_rejected_logps, beta=0.1, label_smoothing=0.0, alpha=1.0,
               reduction="mean", weight=1.0):  # fmt: skip
    z, q = beta * (policy_chosen_logps - policy_rejected_logps), label_smoothing
    e = -(1 - q) * F.logsigmoid(z) - q * F.logsigmoid(-z) - alpha * policy_chosen_logps
    return reduce(weight * e, reduction)


def oracle(policy_chosen_logps, policy_rejected_logps, beta=0.1, label_smoothing=0.0, alpha=1.0, weight=1, **_):
    z = beta * (policy_chosen_logps - policy_rejected_logps)
    q = z * 0 + label_smoothing
    return weight * ((1 - q) * log(1 + exp(-z)) + q * log(1 + exp(z)) - alpha * policy_chosen_logps)


def symbols(policy_chosen_logps, policy_rejected_logps, beta=0.1, label_smoothing=0.0, alpha=1.0, **_):
    return {"x": policy_chosen_logps, "y": policy_rejected_logps, r"\beta": beta, "q": label_smoothing,
            r"\alpha": alpha}  # fmt: skip


SPEC = Spec(
    fn=cpo_loss,
    inputs=(*map(Input, POLICY), Input("weight", batch=None)),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", beta=0.5, alpha=0.0),
        dict(reduction="sum", beta=2.0, alpha=0.25, label_smoothing=0.1),
        dict(reduction="mean", beta=0.5, alpha=0.0, label_smoothing=0.1),
    ),
    samples=preference.samples(POLICY),
    regimes={
        "summed over a thousand tokens": lambda draw: {name: draw.normal(8, scale=100.0) - 2000 for name in POLICY},
        "huge": lambda draw: pairs(draw, 8, scale=1e30, names=POLICY),
        "sure": margins(10.0, 20.0, 40.0, 80.0, names=POLICY, alpha=0.0, label_smoothing=0.0),
        "saturated": margins(10.0, 1e3, 1e4, names=POLICY, alpha=0.0, label_smoothing=0.0),
        "undecided": margins(1e-12, 1e-8, 1e-4, names=POLICY, alpha=0.0, label_smoothing=0.5),
        "sure, with likelihood": margins(10.0, 40.0, 80.0, names=POLICY, alpha=1.0),
    },
    pins=(
        Pin(dict(policy_chosen_logps=[-3.0, 0.0, -1e4], policy_rejected_logps=[-3.0, -1e4, 0.0], beta=0.5,
                 reduction="none"), "undecided, right and wrong; nothing overflows",
            value=[3 + math.log(2), 0.0, 1.5e4],
            gradient=dict(policy_chosen_logps=[-1.25, -1.0, -1.5], policy_rejected_logps=[0.25, 0.0, 0.5])),
        Pin(dict(policy_chosen_logps=[-INF, 0.0, NAN], policy_rejected_logps=[0.0, -INF, 0.0], beta=0.5, alpha=0.0,
                 reduction="none"), "a completion that the policy excludes; NaN is propagated", value=[INF, 0.0, NAN],
            gradient=dict(policy_chosen_logps=[-0.5, 0.0, NAN], policy_rejected_logps=[0.5, 0.0, NAN])),
    ),
    errors=(
        *preference.errors("cpo_loss", POLICY[1:]),
        Error(dict(label_smoothing=1.0), ValueError, "label_smoothing"),
        Error(dict(alpha=-1.0), ValueError, "alpha"),
        Error(dict(alpha=INF), ValueError, "alpha"),
        Error(dict(alpha="1"), TypeError, "alpha"),
    ),
    order=3,
)  # fmt: skip

CURVE = preference.along_the_margin(
    POLICY, label_smoothing=preference.SMOOTHING, alpha=curves.Slider("alpha", 0.0, 0.0, 1.0, 0.5)
)
