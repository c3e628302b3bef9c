"""Sequence likelihood calibration: a hinge on the margin of two log-ratios."""

from __future__ import annotations

from gradcheck.spec import Pin, Spec, reduce
from manual_grad.losses.pointwise.slic_loss import slic_loss
from manual_grad.specs import preference
from manual_grad.specs.preference import margins

INF, NAN = float("inf"), float("nan")


def definition(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
               reduction="mean", weight=1.0):  # fmt: skip
    h = (policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps)
    return reduce(weight * (1 - beta * h).relu(), reduction)


def oracle(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
           weight=1, **_):  # fmt: skip
    h = (policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps)
    return weight * max(1 - beta * h, 0)


def symbols(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, **_):
    return {"x": policy_chosen_logps, "y": policy_rejected_logps, r"\bar x": ref_chosen_logps,
            r"\bar y": ref_rejected_logps, r"\beta": beta}  # fmt: skip


def corner(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, **_):
    return beta * ((policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps)) - 1


SPEC = Spec(
    fn=slic_loss,
    inputs=preference.INPUTS,
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=preference.PARAMS,
    samples=preference.SAMPLES,
    regimes={
        **preference.REGIMES,
        "at the margin": margins(1 - 2**-24, 1 - 1e-3, 1 + 2**-23, 1.5),
        "far": margins(10.0, 1e4, 1e30),
    },
    kinks={1: corner},
    pins=(
        Pin(dict(policy_chosen_logps=[2.0, 1.5, 3.0], policy_rejected_logps=[0.0] * 3, ref_chosen_logps=[0.0] * 3,
                 ref_rejected_logps=[0.0] * 3, beta=0.5, reduction="none"),
            "a pair that has the margin is left alone", value=[0.0, 0.25, 0.0],
            gradient=dict(policy_chosen_logps=[0.0, -0.5, 0.0], policy_rejected_logps=[0.0, 0.5, 0.0],
                          ref_chosen_logps=[0.0, 0.5, 0.0], ref_rejected_logps=[0.0, -0.5, 0.0])),
        Pin(dict(policy_chosen_logps=[-INF, 0.0, NAN], policy_rejected_logps=[0.0, -INF, 0.0],
                 ref_chosen_logps=[0.0] * 3, ref_rejected_logps=[0.0] * 3, beta=0.5, reduction="none"),
            "a completion that the policy excludes; NaN is propagated", value=[INF, 0.0, NAN],
            gradient=dict(policy_chosen_logps=[-0.5, 0.0, 0.0])),
    ),
    errors=preference.errors("slic_loss"),
    order=3,
)  # fmt: skip

CURVE = preference.along_the_margin()
