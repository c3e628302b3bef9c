"""Efficient exact optimization: the reverse divergence of a choice between two completions."""

from __future__ import annotations

import math

import torch
from mpmath import exp, log
from torch.nn import functional as F

from gradcheck.spec import Error, Pin, Spec, reduce
from manual_grad.losses.pointwise.exo_loss import exo_loss
from manual_grad.specs import preference
from manual_grad.specs.preference import margins
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
LOGIT = 6.906754778648554  # of 1 - 1e-3


def definition(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
               label_smoothing=1e-3, reduction="mean", weight=1.0):  # fmt: skip
    h = (policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps)
    z, epsilon = beta * h, torch.tensor(label_smoothing, dtype=h.dtype)
    chosen, rejected = F.logsigmoid(z), F.logsigmoid(-z)
    e = z.sigmoid() * (chosen - (-epsilon).log1p()) + (-z).sigmoid() * (rejected - epsilon.log())
    return reduce(weight * e, reduction)


def oracle(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
           label_smoothing=1e-3, weight=1, **_):  # fmt: skip
    h = (policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps)
    z, epsilon = beta * h, h * 0 + label_smoothing
    p, n = 1 / (1 + exp(-z)), 1 / (1 + exp(z))
    return weight * (p * (-log(1 + exp(-z)) - log(1 - epsilon)) + n * (-log(1 + exp(z)) - log(epsilon)))


def symbols(
    policy_chosen_logps,
    policy_rejected_logps,
    ref_chosen_logps,
    ref_rejected_logps,
    beta=0.1,
    label_smoothing=1e-3,
    **_,
):
    return {"x": policy_chosen_logps, "y": policy_rejected_logps, r"\bar x": ref_chosen_logps,
            r"\bar y": ref_rejected_logps, r"\beta": beta, r"\epsilon": label_smoothing}  # fmt: skip


SPEC = Spec(
    fn=exo_loss,
    inputs=preference.INPUTS,
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        *preference.PARAMS,
        dict(reduction="mean", beta=0.5, label_smoothing=0.25),
    ),
    samples=preference.SAMPLES,
    regimes={
        **preference.REGIMES,
        "sure": margins(10.0, 15.0, 20.0, 40.0, 80.0),
        "saturated": margins(10.0, 100.0, 1e3, 1e4),
        "undecided": margins(1e-12, 1e-6, 1e-3, label_smoothing=0.5),
        "at the minimum": margins(LOGIT, LOGIT + 1e-4, LOGIT - 1e-2, LOGIT + 0.49, LOGIT + 0.51, 5.0,
                                  label_smoothing=1e-3),
        "hard target": margins(1.0, 10.0, 20.0, 23.0, 40.0, label_smoothing=1e-10),
    },
    pins=(
        Pin(dict(policy_chosen_logps=[0.0, 1e4], policy_rejected_logps=[0.0] * 2, ref_chosen_logps=[0.0] * 2,
                 ref_rejected_logps=[0.0] * 2, beta=1.0, label_smoothing=0.5, reduction="none"),
            "the target is met; a sure policy has no slope", value=[0.0, math.log(2)],
            gradient=dict(policy_chosen_logps=[0.0, 0.0], policy_rejected_logps=[0.0, 0.0],
                          ref_chosen_logps=[0.0, 0.0], ref_rejected_logps=[0.0, 0.0])),
        Pin(dict(policy_chosen_logps=[-INF, INF, NAN], policy_rejected_logps=[0.0] * 3, ref_chosen_logps=[0.0] * 3,
                 ref_rejected_logps=[0.0] * 3, beta=1.0, label_smoothing=0.25, reduction="none"),
            "certainty costs the logarithm of the target; NaN is propagated",
            value=[math.log(4), math.log(4 / 3), NAN], gradient=dict(policy_chosen_logps=[0.0, 0.0, NAN])),
    ),
    errors=(
        *preference.errors("exo_loss"),
        Error(dict(label_smoothing=0.0), ValueError, "label_smoothing"),
        Error(dict(label_smoothing=1.0), ValueError, "label_smoothing"),
        Error(dict(label_smoothing="0"), TypeError, "label_smoothing"),
    ),
    order=3,
)  # fmt: skip

CURVE = preference.along_the_margin(label_smoothing=curves.Slider("label_smoothing", 0.1, 0.05, 0.5, 0.05))
