"""Anchored preference optimization: sigmoids of two log-ratios."""

from __future__ import annotations

from mpmath import exp

from gradcheck.spec import Error, Pin, Spec, reduce
from manual_grad.losses.pointwise.apo_loss import apo_loss
from manual_grad.specs import preference
from manual_grad.specs.preference import ratios

INF, NAN = float("inf"), float("nan")


def definition(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
               loss_type="zero", reduction="mean", weight=1.0):  # fmt: skip
    a, b = policy_chosen_logps - ref_chosen_logps, policy_rejected_logps - ref_rejected_logps
    a, b = beta * a, beta * b
    e = (-a).sigmoid() + b.sigmoid() if loss_type == "zero" else a.sigmoid() + (b - a).sigmoid()
    return reduce(weight * e, reduction)


def oracle(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
           loss_type="zero", weight=1, **_):  # fmt: skip
    a, b = policy_chosen_logps - ref_chosen_logps, policy_rejected_logps - ref_rejected_logps
    a, b = beta * a, beta * b
    if loss_type == "zero":
        return weight * (1 / (1 + exp(a)) + 1 / (1 + exp(-b)))
    return weight * (1 / (1 + exp(-a)) + 1 / (1 + exp(a - b)))


def symbols(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, loss_type="zero", **_
):
    return {"x": policy_chosen_logps, "y": policy_rejected_logps, r"\bar x": ref_chosen_logps,
            r"\bar y": ref_rejected_logps, r"\beta": beta, "or": int(loss_type == "down")}  # fmt: skip


def equal_bells(draw):
    """The rejected completion has almost the log-probability of the reference, or twice the log-ratio of the other."""
    a = draw.tensor([1.0, -2.0, 10.0, 40.0, 1.0, -2.0, 10.0, 40.0])
    b = draw.tensor([1e-12, 1e-9, -1e-6, 1e-3, 2.0 + 2**-22, -4.0, 20.0, 80.0 + 2**-16])
    return dict(zip(preference.NAMES, (a, b, 0 * a, 0 * a), strict=True)) | dict(beta=1.0, loss_type="down")


SPEC = Spec(
    fn=apo_loss,
    inputs=preference.INPUTS,
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        *preference.PARAMS,
        dict(reduction="mean", beta=0.5, loss_type="down"),
        dict(reduction="none", beta=1.0, loss_type="down"),
    ),
    samples=preference.SAMPLES,
    regimes={
        **preference.REGIMES,
        "sure": ratios(10.0, 20.0, 40.0, 80.0),
        "saturated": ratios(10.0, 100.0, 1e4),
        "tiny": ratios(1e-12, 1e-6),
        "down: bells that cancel": equal_bells,
    },
    pins=(
        Pin(dict(policy_chosen_logps=[0.0, 1e3, -1e3], policy_rejected_logps=[0.0, -1e3, 1e3],
                 ref_chosen_logps=[0.0] * 3, ref_rejected_logps=[0.0] * 3, beta=0.5, reduction="none"),
            "zero: a policy equal to the reference has loss 1; nothing overflows", value=[1.0, 0.0, 2.0],
            gradient=dict(policy_chosen_logps=[-0.125, 0.0, 0.0], policy_rejected_logps=[0.125, 0.0, 0.0],
                          ref_chosen_logps=[0.125, 0.0, 0.0], ref_rejected_logps=[-0.125, 0.0, 0.0])),
        Pin(dict(policy_chosen_logps=[0.0, 1e3, -1e3], policy_rejected_logps=[0.0, 0.0, -2e3],
                 ref_chosen_logps=[0.0] * 3, ref_rejected_logps=[0.0] * 3, beta=0.5, loss_type="down",
                 reduction="none"),
            "down: likewise", value=[1.0, 1.0, 0.0],
            gradient=dict(policy_chosen_logps=[0.0, 0.0, 0.0], policy_rejected_logps=[0.125, 0.0, 0.0],
                          ref_chosen_logps=[0.0, 0.0, 0.0], ref_rejected_logps=[-0.125, 0.0, 0.0])),
        Pin(dict(policy_chosen_logps=[-INF, 0.0, NAN], policy_rejected_logps=[0.0, -INF, 0.0],
                 ref_chosen_logps=[0.0] * 3, ref_rejected_logps=[0.0] * 3, beta=1.0, reduction="none"),
            "zero: a completion that the policy excludes; NaN is propagated", value=[1.5, 0.5, NAN],
            gradient=dict(policy_chosen_logps=[0.0, -0.25, NAN], policy_rejected_logps=[0.25, 0.0, 0.25])),
        Pin(dict(policy_chosen_logps=[-INF, 0.0, NAN], policy_rejected_logps=[0.0, -INF, 0.0],
                 ref_chosen_logps=[0.0] * 3, ref_rejected_logps=[0.0] * 3, beta=1.0, loss_type="down",
                 reduction="none"),
            "down: likewise", value=[1.0, 0.5, NAN],
            gradient=dict(policy_chosen_logps=[0.0, 0.25, NAN], policy_rejected_logps=[0.0, 0.0, NAN])),
    ),
    errors=(
        *preference.errors("apo_loss"),
        Error(dict(loss_type="up"), ValueError, "loss_type"),
    ),
    order=3,
)  # fmt: skip

CURVE = preference.along_the_margin()
