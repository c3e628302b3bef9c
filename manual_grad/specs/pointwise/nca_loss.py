"""Noise contrastive alignment: each completion against the reference."""

from __future__ import annotations

import math

from mpmath import exp, log
from torch.nn import functional as F

from gradcheck.spec import Pin, Spec, reduce
from manual_grad.losses.pointwise.nca_loss import nca_loss
from manual_grad.specs import preference
from manual_grad.specs.preference import ratios

INF, NAN = float("inf"), float("nan")
LOG_2 = math.log(2)


def definition(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
               reduction="mean", weight=1.0):  # fmt: skip
    a, b = policy_chosen_logps - ref_chosen_logps, policy_rejected_logps - ref_rejected_logps
    a, b = beta * a, beta * b
    return reduce(weight * (-F.logsigmoid(a) - 0.5 * F.logsigmoid(-a) - 0.5 * F.logsigmoid(-b)), reduction)


def oracle(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
           weight=1, **_):  # fmt: skip
    a, b = policy_chosen_logps - ref_chosen_logps, policy_rejected_logps - ref_rejected_logps
    a, b = beta * a, beta * b
    return weight * (log(1 + exp(-a)) + log(1 + exp(a)) / 2 + log(1 + exp(b)) / 2)


def symbols(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, **_):
    return {"x": policy_chosen_logps, "y": policy_rejected_logps, r"\bar x": ref_chosen_logps,
            r"\bar y": ref_rejected_logps, r"\beta": beta}  # fmt: skip


SPEC = Spec(
    fn=nca_loss,
    inputs=preference.INPUTS,
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=preference.PARAMS,
    samples=preference.SAMPLES,
    regimes={
        **preference.REGIMES,
        "sure": ratios(10.0, 20.0, 40.0, 80.0),
        "saturated": ratios(100.0, 1e4),
        "tiny": ratios(1e-12, 1e-6),
        "at the minimum": ratios(LOG_2, LOG_2 + 1e-6, 0.69, 0.7),
    },
    pins=(
        Pin(dict(policy_chosen_logps=[0.0, 1e3, -1e3], policy_rejected_logps=[0.0, -1e3, 1e3],
                 ref_chosen_logps=[0.0] * 3, ref_rejected_logps=[0.0] * 3, beta=1.0, reduction="none"),
            "a policy equal to the reference has loss 2 log 2; nothing overflows", value=[2 * LOG_2, 500.0, 1500.0],
            gradient=dict(policy_chosen_logps=[-0.25, 0.5, -1.0], policy_rejected_logps=[0.25, 0.0, 0.5],
                          ref_chosen_logps=[0.25, -0.5, 1.0], ref_rejected_logps=[-0.25, 0.0, -0.5])),
        Pin(dict(policy_chosen_logps=[-INF, 0.0, NAN], policy_rejected_logps=[0.0, -INF, 0.0],
                 ref_chosen_logps=[0.0] * 3, ref_rejected_logps=[0.0] * 3, beta=1.0, reduction="none"),
            "a completion that the policy excludes; NaN is propagated", value=[INF, 1.5 * LOG_2, NAN],
            gradient=dict(policy_chosen_logps=[-1.0, -0.25, NAN], policy_rejected_logps=[0.25, 0.0, 0.25])),
    ),
    errors=preference.errors("nca_loss"),
    order=3,
)  # fmt: skip

CURVE = preference.along_the_margin()
