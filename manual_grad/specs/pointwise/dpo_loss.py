"""Direct preference optimization: the cross entropy of a comparison, by the margin of two log-ratios."""

from __future__ import annotations

import math

from mpmath import exp, log
from torch.nn import functional as F

from gradcheck.spec import Error, Pin, Spec, reduce
from manual_grad.losses.pointwise.dpo_loss import dpo_loss
from manual_grad.specs import preference
from manual_grad.specs.preference import margins

INF, NAN = float("inf"), float("nan")
QUARTER = 1 / (1 + math.exp(0.25))  # the sigmoid of -1/4
NCA = 0.125 + 1.5 * math.log1p(math.exp(-0.25)) + 0.5 * math.log(2)


def share(label_smoothing, loss_type):
    return label_smoothing if loss_type == "sigmoid" else -label_smoothing / (1 - 2 * label_smoothing)


def definition(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
               label_smoothing=0.0, loss_type="sigmoid", reduction="mean", weight=1.0):  # fmt: skip
    z = beta * ((policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps))
    q = share(label_smoothing, loss_type)
    return reduce(weight * (-(1 - q) * F.logsigmoid(z) - q * F.logsigmoid(-z)), reduction)


def oracle(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
           label_smoothing=0.0, loss_type="sigmoid", weight=1, **_):  # fmt: skip
    z = beta * ((policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps))
    q = share(z * 0 + label_smoothing, loss_type)
    return weight * ((1 - q) * log(1 + exp(-z)) + q * log(1 + exp(z)))


def symbols(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1,
            label_smoothing=0.0, loss_type="sigmoid", **_):  # fmt: skip
    return {"x": policy_chosen_logps, "y": policy_rejected_logps, r"\bar x": ref_chosen_logps,
            r"\bar y": ref_rejected_logps, r"\beta": beta, r"\epsilon": label_smoothing,
            "or": int(loss_type == "robust")}  # fmt: skip


SPEC = Spec(
    fn=dpo_loss,
    inputs=preference.INPUTS,
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        *preference.PARAMS,
        dict(reduction="mean", beta=0.5, label_smoothing=0.1),
        dict(reduction="none", beta=0.5, loss_type="robust", label_smoothing=0.25),
    ),
    samples=preference.SAMPLES,
    regimes={
        **preference.REGIMES,
        "sure": margins(10.0, 15.0, 20.0, 40.0, 80.0),
        "saturated": margins(100.0, 1e3, 1e4),
        "undecided": margins(1e-12, 1e-8, 1e-4, 1e-2, label_smoothing=0.5, loss_type="sigmoid"),
        "sure, smoothed": margins(1.0, 10.0, 40.0, 1e3, label_smoothing=1e-3),
        "sure, robust": margins(1.0, 10.0, 40.0, 1e3, label_smoothing=0.1, loss_type="robust"),
    },
    pins=(
        Pin(dict(policy_chosen_logps=[-3.0, 1e4, -1e4], policy_rejected_logps=[-5.0, 0.0, 0.0],
                 ref_chosen_logps=[-3.0, 0.0, 0.0], ref_rejected_logps=[-5.0, 0.0, 0.0], beta=0.5, reduction="none"),
            "a policy equal to the reference has loss log 2; nothing overflows", value=[math.log(2), 0.0, 5e3],
            gradient=dict(policy_chosen_logps=[-0.25, 0.0, -0.5], policy_rejected_logps=[0.25, 0.0, 0.5],
                          ref_chosen_logps=[0.25, 0.0, 0.5], ref_rejected_logps=[-0.25, 0.0, -0.5])),
        Pin(dict(policy_chosen_logps=[-INF, 0.0, NAN, -INF], policy_rejected_logps=[0.0, -INF, 0.0, 0.0],
                 ref_chosen_logps=[0.0, 0.0, 0.0, -INF], ref_rejected_logps=[0.0] * 4, beta=0.5, reduction="none"),
            "a completion that the policy excludes; NaN is propagated, and is what two excluded ones compare to",
            value=[INF, 0.0, NAN, NAN],
            gradient=dict(policy_chosen_logps=[-0.5, 0.0, NAN, NAN], policy_rejected_logps=[0.5, 0.0, NAN, NAN])),
        Pin(dict(policy_chosen_logps=[0.0], policy_rejected_logps=[-INF], ref_chosen_logps=[0.0],
                 ref_rejected_logps=[0.0], beta=1.0, label_smoothing=0.25, reduction="none"),
            "with smoothing, certainty has infinite loss", value=[INF], gradient=dict(policy_chosen_logps=[0.25])),
        *(Pin(dict(policy_chosen_logps=[1.0], policy_rejected_logps=[0.0], ref_chosen_logps=[0.0],
                   ref_rejected_logps=[0.0], beta=0.25, loss_type=loss_type, reduction="none"),
              "the loss that the type names", value=[value])
          for loss_type, value in (("hinge", 0.75), ("ipo", 1.0), ("sppo_hard", 5.0), ("apo_zero", QUARTER + 0.5),
                                   ("apo_down", 1.0), ("nca_pair", NCA))),
        Pin(dict(policy_chosen_logps=[0.0], policy_rejected_logps=[0.0], ref_chosen_logps=[0.0],
                 ref_rejected_logps=[0.0], loss_type="exo_pair", label_smoothing=0.2, reduction="none"),
            "and this one has its label smoothing", value=[math.log(1.25)]),
    ),
    errors=(
        *preference.errors("dpo_loss"),
        Error(dict(label_smoothing=1.0), ValueError, "label_smoothing"),
        Error(dict(label_smoothing=-0.1), ValueError, "label_smoothing"),
        Error(dict(label_smoothing="0"), TypeError, "label_smoothing"),
        Error(dict(label_smoothing=0.5, loss_type="robust"), ValueError, "label_smoothing"),
        Error(dict(loss_type="logistic"), ValueError, "loss_type"),
        Error(dict(loss_type="hinge", label_smoothing=0.1), ValueError, "label_smoothing"),
        Error(dict(loss_type="exo_pair"), ValueError, "label_smoothing"),
    ),
    order=3,
)  # fmt: skip

CURVE = preference.along_the_margin(label_smoothing=preference.SMOOTHING)
