"""Self-play preference optimization: each completion's log-ratio has a target."""

from __future__ import annotations

from gradcheck.spec import Pin, Spec, reduce
from manual_grad.losses.pointwise.sppo_loss import sppo_loss
from manual_grad.specs import preference
from manual_grad.specs.preference import ratios

INF, NAN = float("inf"), float("nan")


def definition(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
               reduction="mean", weight=1.0):  # fmt: skip
    a, b = policy_chosen_logps - ref_chosen_logps, policy_rejected_logps - ref_rejected_logps
    return reduce(weight * ((a - 0.5 / beta) ** 2 + (b + 0.5 / beta) ** 2), reduction)


def oracle(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
           weight=1, **_):  # fmt: skip
    a, b = policy_chosen_logps - ref_chosen_logps, policy_rejected_logps - ref_rejected_logps
    t = 1 / (2 * (a * 0 + beta))
    return weight * ((a - t) ** 2 + (b + t) ** 2)


def symbols(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, **_):
    return {"x": policy_chosen_logps, "y": policy_rejected_logps, r"\bar x": ref_chosen_logps,
            r"\bar y": ref_rejected_logps, r"\beta": beta}  # fmt: skip


SPEC = Spec(
    fn=sppo_loss,
    inputs=preference.INPUTS,
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=preference.PARAMS,
    samples=preference.SAMPLES,
    regimes={
        **preference.REGIMES,
        "huge": lambda draw: preference.pairs(draw, 8, scale=1e15),
        "at the targets": ratios(0.5, 0.5 + 2**-24, 0.5 - 2**-25, 0.501),
        "far": ratios(10.0, 1e4, 1e15),
    },
    pins=(
        Pin(dict(policy_chosen_logps=[1.0, 0.0], policy_rejected_logps=[-1.0, 0.0], ref_chosen_logps=[0.0] * 2,
                 ref_rejected_logps=[0.0] * 2, beta=0.5, reduction="none"),
            "log-ratios of 1 / (2 beta) and its opposite are left alone", value=[0.0, 2.0],
            gradient=dict(policy_chosen_logps=[0.0, -2.0], policy_rejected_logps=[0.0, 2.0],
                          ref_chosen_logps=[0.0, 2.0], ref_rejected_logps=[0.0, -2.0])),
        Pin(dict(policy_chosen_logps=[-INF, NAN], policy_rejected_logps=[0.0] * 2, ref_chosen_logps=[0.0] * 2,
                 ref_rejected_logps=[0.0] * 2, beta=0.5, reduction="none"),
            "a completion that the policy excludes; NaN is propagated", value=[INF, NAN],
            gradient=dict(policy_chosen_logps=[-INF, NAN])),
    ),
    errors=preference.errors("sppo_loss"),
    order=3,
)  # fmt: skip

CURVE = preference.along_the_margin()
