"""Estimates of a divergence from sampled tokens: k1, k2 and k3."""

from __future__ import annotations

import math

import torch
from mpmath import exp

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.sampled_kl import sampled_kl
from manual_grad.specs.policy import ERRORS, MASK, of_pairs
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(log_prob, ref_log_prob, mask=None, estimator="k3", reduction="mean"):
    d = ref_log_prob - log_prob
    e = {"k1": -d, "k2": d**2 / 2, "k3": d.exp() - 1 - d}[estimator]
    w = torch.ones_like(e) if mask is None else mask.to(e.dtype).expand_as(e)
    return reduce(w * e, reduction, w.sum())


def oracle(log_prob, ref_log_prob, estimator="k3", mask=1, **_):
    d = ref_log_prob - log_prob
    return mask * {"k1": -d, "k2": d**2 / 2, "k3": exp(d) - 1 - d}[estimator], mask + 0 * d


def symbols(log_prob, ref_log_prob, estimator="k3", mask=1, **_):
    return {"x": log_prob, r"\bar x": ref_log_prob, "j": int(estimator[1])} if mask == 1 else None


def differences(*values, **options):
    """Differences of these sizes, of both signs."""

    def sample(draw):
        ref_log_prob = draw.tensor([s * v for v in values for s in (1.0, -1.0)])
        return dict(ref_log_prob=ref_log_prob, log_prob=0 * ref_log_prob) | options

    return sample


SPEC = Spec(
    fn=sampled_kl,
    inputs=(Input("log_prob"), Input("ref_log_prob"), MASK),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", estimator="k1"),
        dict(reduction="sum", estimator="k2"),
        dict(reduction="mean", estimator="k2"),
        dict(reduction="mean", estimator="k1"),
        dict(reduction="sum", estimator="k3"),
    ),
    samples=of_pairs("ref_log_prob"),
    regimes={
        "small": differences(1e-1, 1e-2, 1e-3, 1e-4),
        "smaller": differences(1e-6, 1e-8, 1e-10, 1e-12, 1e-16),
        "change of forms": differences(0.9, 1 - 2**-24, 1.0, 1 + 2**-23, 1.1),
        "large": differences(5.0, 20.0, 80.0),
        "tiny log-probabilities": lambda draw: dict(log_prob=-draw.uniform(8, high=1e-6),
                                                    ref_log_prob=-draw.uniform(8, high=1e-6)),
        "near the reference": lambda draw: (lambda x: dict(log_prob=x, ref_log_prob=x + 1e-4 * draw.normal(8)))(
            draw.normal(8) - 10),
    },
    pins=(
        Pin(dict(log_prob=[-3.0, -3.0], ref_log_prob=[-3.0, -3.0], reduction="none"),
            "no divergence from an equal policy", value=[0.0, 0.0],
            gradient=dict(log_prob=[0.0, 0.0], ref_log_prob=[0.0, 0.0])),
        Pin(dict(log_prob=[-2.0, 0.0], ref_log_prob=[-2.0 + 2**-20, 1e4], reduction="none"),
            "the parabola keeps its digits; overflow is infinite", value=[2**-41 * (1 + 2**-20 / 3 + 2**-40 / 12), INF],
            gradient=dict(log_prob=[-math.expm1(2**-20), -INF])),
        Pin(dict(log_prob=[-INF, 0.0, NAN], ref_log_prob=[0.0, -INF, 0.0], reduction="none"),
            "a token that the policy or the reference excludes; NaN is propagated", value=[INF, INF, NAN],
            gradient=dict(log_prob=[-INF, 1.0, NAN])),
        Pin(dict(log_prob=[NAN, -1.0], ref_log_prob=[-INF, -1.0], mask=[0.0, 1.0], reduction="mean"),
            "a token that does not count may hold anything", value=0.0,
            gradient=dict(log_prob=[0.0, 0.0], ref_log_prob=[0.0, 0.0])),
        Pin(dict(log_prob=[[-1.0, -2.0]], ref_log_prob=[[-3.0, -3.0]], mask=[[0.0, 0.0]], reduction="sequence"),
            "all tokens masked", value=0.0, gradient=dict(log_prob=[[0.0, 0.0]])),
    ),
    errors=(
        *ERRORS,
        Error(dict(estimator="k4"), ValueError, "estimator"),
        Error(dict(ref_log_prob=lambda ref_log_prob, **_: ref_log_prob[:2]), ValueError, "ref_log_prob"),
        Error({k: lambda k=k, **all: all[k].long() for k in ("log_prob", "ref_log_prob")},
              NotImplementedError, "sampled_kl"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "log-probability, less that of the reference",
    (-3, 3),
    lambda s: dict(log_prob=s, ref_log_prob=torch.zeros_like(s)),
)
