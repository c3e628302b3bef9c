"""Group relative policy optimization: PPO's clipped surrogate, and a penalty on leaving a reference."""

from __future__ import annotations

import math

import torch
from mpmath import exp

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.grpo_loss import grpo_loss
from manual_grad.specs.pointwise import ppo_clip_loss as ppo
from manual_grad.specs.policy import ERRORS, MASK, of_pairs
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(log_prob, old_log_prob, advantages, mask=None, ref_log_prob=None, beta=0.0, reduction="mean",
               **bounds):  # fmt: skip
    e = ppo.definition(log_prob, old_log_prob, advantages, reduction="none", **bounds)
    if beta:
        d = ref_log_prob - log_prob
        e = e + beta * (d.exp() - 1 - d)
    w = torch.ones_like(e) if mask is None else mask.to(e.dtype).expand_as(e)
    return reduce(w * e, reduction, w.sum())


def oracle(log_prob, old_log_prob, advantages, mask=1, ref_log_prob=0, beta=0.0, **bounds):
    e, share = ppo.oracle(log_prob, old_log_prob, advantages, **bounds)
    d = ref_log_prob - log_prob
    return mask * (e + beta * (exp(d) - 1 - d)), mask * share


def symbols(log_prob, old_log_prob, advantages, mask=1, ref_log_prob=0, beta=0.0, **bounds):
    given = ppo.symbols(log_prob, old_log_prob, advantages, mask, **bounds)
    return given and {**given, "y": ref_log_prob, r"\beta": beta}


def edges(ref_log_prob=None, beta=0.0, **arguments):
    return ppo.edges(**arguments)


def ratios(*values, **options):
    def sample(draw):
        made = ppo.ratios(*values)(draw)
        return made | dict(ref_log_prob=made["log_prob"] + 1e-3 * draw.normal(4 * len(values))) | options

    return sample


SAMPLES = of_pairs("old_log_prob", advantages=lambda draw, *shape: draw.normal(*shape),
                   ref_log_prob=lambda draw, *shape: draw.normal(*shape) - 3)  # fmt: skip

SPEC = Spec(
    fn=grpo_loss,
    inputs=(Input("log_prob"), Input("old_log_prob"), Input("advantages", differentiable=False), MASK,
            Input("ref_log_prob", differentiable=lambda beta=0.0, **_: beta != 0)),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean", beta=0.04),
        dict(reduction="none", epsilon=0.1, epsilon_high=0.3, beta=0.5),
        dict(reduction="sum", epsilon=0.3, delta=1.8, beta=1.0),
        dict(reduction="mean"),
        dict(reduction="sum", epsilon_high=0.28, beta=0.25),
    ),
    samples=SAMPLES,
    regimes={
        "near the old policy": ratios(1e-12, 1e-6, 1e-3, 1e-2),
        "near the edges": ratios(math.log(1.2) * (1 + 2**-22), math.log(1.2) * (1 - 2**-22), epsilon=0.2),
        "far": ratios(1.0, 5.0, 20.0, 80.0),
        "at the reference, without advantages": lambda draw: dict(
            log_prob=0 * draw.normal(6), old_log_prob=draw.normal(6), advantages=0 * draw.normal(6),
            ref_log_prob=draw.tensor([1e-8, -1e-6, 1e-4, -1e-2, 0.5, -3.0]), beta=1.0),
    },
    kinks={1: edges},
    pins=(
        Pin(dict(log_prob=[0.0, 0.0], old_log_prob=[0.0, 0.0], advantages=[2.0, -2.0], ref_log_prob=[0.0, 0.0],
                 epsilon=0.0, beta=1.0, reduction="none"),
            "a token on the edge has the slope of the inner side; at the reference there is no penalty",
            value=[-2.0, 2.0], gradient=dict(log_prob=[-2.0, 2.0], old_log_prob=[2.0, -2.0], ref_log_prob=[0.0, 0.0])),
        Pin(dict(log_prob=[0.0, 0.0], old_log_prob=[0.0, -1e4], advantages=[0.0, 0.0], ref_log_prob=[1.0, -INF],
                 beta=0.5, reduction="none"), "without an advantage the penalty is left", value=[0.5 * math.e - 1, INF],
            gradient=dict(log_prob=[0.5 - 0.5 * math.e, 0.5], old_log_prob=[0.0, 0.0])),
        Pin(dict(log_prob=[[NAN, -1.0]], old_log_prob=[[-INF, -1.0]], advantages=[1.0], mask=[[0, 1]],
                 ref_log_prob=[[INF, -1.0]], beta=0.5, reduction="sequence"),
            "a token that does not count may hold anything; one advantage per completion", value=-1.0,
            gradient=dict(log_prob=[[0.0, -1.0]], old_log_prob=[[0.0, 1.0]], ref_log_prob=[[0.0, 0.0]])),
        Pin(dict(log_prob=[[-1.0, -2.0]], old_log_prob=[[-3.0, -3.0]], advantages=[1.0], mask=[[0, 0]],
                 ref_log_prob=[[-1.0, -2.0]], beta=0.5, reduction="mean"), "all tokens masked", value=0.0,
            gradient=dict(log_prob=[[0.0, 0.0]])),
        Pin(dict(log_prob=[[0.25, -0.25, NAN], [4.0, 0.0, 0.0]], old_log_prob=[[0.0, 0.0, 0.0]] * 2,
                 advantages=[1.0, 1.0], mask=[[1, 1, 0], [1, 1, 1]], level="sequence", reduction="sequence"),
            "level 'sequence': a ratio of 1, and one that is clipped", value=-1.1,
            gradient=dict(log_prob=[[-0.25, -0.25, 0.0], [0.0, 0.0, 0.0]])),
    ),
    errors=(
        *ERRORS,
        Error(dict(level="batch"), ValueError, "level"),
        Error(dict(level="sequence"), ValueError, "advantages"),
        Error(dict(beta=-1.0), ValueError, "beta"),
        Error(dict(beta="0"), TypeError, "beta"),
        Error(dict(beta=0.5, ref_log_prob=None), ValueError, "ref_log_prob"),
        Error(dict(ref_log_prob=lambda log_prob, **_: log_prob[:2]), ValueError, "ref_log_prob"),
        Error(dict(old_log_prob=lambda log_prob, **_: log_prob[:2]), ValueError, "old_log_prob"),
        Error(dict(advantages=lambda log_prob, **_: log_prob[:2]), ValueError, "advantages"),
        Error(dict(epsilon=-0.1), ValueError, "epsilon"),
        Error(dict(delta=1.1), ValueError, "delta"),
        Error({k: lambda k=k, **all: all[k].long() for k in ("log_prob", "old_log_prob", "advantages", "ref_log_prob")},
              NotImplementedError, "grpo_loss"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "log-probability, less that of the old policy",
    (-1, 1),
    lambda s, advantage, epsilon, beta: dict(
        log_prob=s,
        old_log_prob=torch.zeros_like(s),
        advantages=curves.everywhere(s, advantage),
        ref_log_prob=torch.zeros_like(s),
        epsilon=epsilon,
        beta=beta,
    ),
    {
        "advantage": curves.Slider("advantage", 1.0, -1.0, 1.0, 0.5),
        "epsilon": curves.Slider("epsilon", 0.2, 0.1, 0.5, 0.1),
        "beta": curves.Slider("beta", 0.25, 0.0, 1.0, 0.25),
    },
)
