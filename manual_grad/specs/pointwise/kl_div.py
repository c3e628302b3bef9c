"""Kullback-Leibler divergence, of log-probabilities from probabilities or from log-probabilities."""

from __future__ import annotations

import math

import torch
from mpmath import exp, log

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.kl_div import kl_div
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")
BATCH = 3  # the first size of every sample; the oracle, which sees one element, needs it


def definition(input, target, reduction="mean", log_target=False):
    e = target.exp() * (target - input) if log_target else target * (target.log() - input)
    return e.sum() / BATCH if reduction == "batchmean" and len(e) else reduce(e, reduction.removeprefix("batch"))


def oracle(input, target, reduction="mean", log_target=False):
    e = exp(target) * (target - input) if log_target else target * (log(target) - input)
    return e / BATCH if reduction == "batchmean" else e


def typical(draw, log_target, *shape):
    target = draw.normal(*shape) - 1.0 if log_target else draw.uniform(*shape, low=0.25)
    return dict(input=draw.normal(*shape) - 1.0, target=target, log_target=log_target)


def distributions(draw, log_target, scale, gap):
    """Softmax probabilities of random logits of size ``scale``, and of the same logits perturbed by ``gap``."""
    logits = draw.normal(BATCH, 9, scale=scale).double()
    p = (logits + draw.normal(BATCH, 9, scale=gap).double()).softmax(-1)
    return dict(input=draw.tensor(logits.log_softmax(-1)), target=draw.tensor(p.log() if log_target else p),
                log_target=log_target)  # fmt: skip


def matched(draw, log_target):
    """Almost equal distributions; less so in float64, which has no wider type for the difference."""
    return distributions(draw, log_target, 1.0, 1e-6 if draw.dtype is torch.float32 else 0.05)


def extreme(draw, log_target):
    """Probabilities down to 1e-35, code lengths from 0 to very large, and values that are not probabilities."""
    log_p = draw.tensor([[0.0, -1e-6, -46.0], [-80.0, -2.5, -1.5], [-0.1, 3.0, 20.0]])
    input = draw.tensor([[-1e-30, -1.0, -1e4], [-1e-12, -103.0, -1e30], [0.0, 5.0, 1e3]])
    return dict(input=input, target=log_p if log_target else log_p.exp(), log_target=log_target)


def both(**samples):
    """Each sample with probabilities and with log-probabilities."""
    return {
        f"{name}{', log target' if flag else ''}": lambda draw, sample=sample, flag=flag: sample(draw, flag)
        for name, sample in samples.items()
        for flag in (False, True)
    }


SPEC = Spec(
    fn=kl_div,
    inputs=(Input("input"), Input("target")),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, log_target=False, **_: {"x": input, "t": target, "or": int(log_target)},
    params=tuple(dict(reduction=reduction) for reduction in ("sum", "batchmean", "none", "mean")),
    samples={
        **both(
            typical=lambda draw, log_target: typical(draw, log_target, BATCH, 4),
            vector=lambda draw, log_target: typical(draw, log_target, BATCH),
            image=lambda draw, log_target: typical(draw, log_target, BATCH, 3, 2, 2),
        ),
        "scalar": lambda draw: dict(input=draw.normal(), target=draw.tensor(0.4), reduction="sum"),
        "broadcast": lambda draw: dict(input=draw.normal(BATCH, 4), target=draw.uniform(4, low=0.25)),
    },
    regimes=both(
        apart=lambda draw, log_target: distributions(draw, log_target, 1.0, 1.0),
        matched=matched,
        sharp=lambda draw, log_target: distributions(draw, log_target, 8.0, 8.0),
        extreme=extreme,
    ),
    pins=(
        Pin(dict(input=[-1.0, -INF, NAN], target=[0.0, 0.0, 0.0], reduction="none"),
            "0 log 0 = 0: a class of probability 0 has loss and gradient 0; NaN is propagated",
            value=[0.0, 0.0, NAN], gradient=dict(input=[0.0, 0.0, 0.0], target=[0.0, 0.0, NAN])),
        Pin(dict(input=[-1.0, -INF, NAN], target=[-INF, -INF, -INF], reduction="none", log_target=True),
            "0 log 0 = 0; the slopes are limits",
            value=[0.0, 0.0, NAN], gradient=dict(input=[0.0, 0.0, 0.0], target=[0.0, 0.0, NAN])),
        Pin(dict(input=[-INF], target=[0.5], reduction="none"), "possible, but predicted impossible",
            value=[INF], gradient=dict(input=[-0.5], target=[INF])),
        Pin(dict(input=[-INF], target=[0.0], reduction="none", log_target=True), "certain, but predicted impossible",
            value=[INF], gradient=dict(input=[-1.0], target=[INF])),
        Pin(dict(input=[0.0], target=[-0.5], reduction="none"), "a negative probability has no logarithm",
            value=[NAN], gradient=dict(input=[0.5], target=[NAN])),
        Pin(dict(input=0.0, target=1.0, reduction="batchmean", log_target=True), "a scalar has batch size 1",
            value=2.718281828459045),
        Pin(dict(input=[[0.0], [0.0]], target=[0.0], reduction="batchmean", log_target=True), "the input's batch size",
            value=0.0, gradient=dict(input=[[-0.5], [-0.5]])),
        Pin(dict(input=[0.0], target=[[0.0], [0.0]], reduction="batchmean", log_target=True),
            "the input's batch size, not the target's", gradient=dict(input=[-2.0])),
    ),
    errors=(
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(reduction="mean"), UserWarning, "'batchmean' divides only by the batch size"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
        Error(dict(log_target=1), TypeError, "log_target"),
        Error(dict(input=lambda input, **_: input.long()), RuntimeError, "Integral inputs not supported"),
        Error(dict(target=lambda target, **_: target > 0), RuntimeError, "Integral inputs not supported"),
        Error(dict(target=lambda target, **_: target + 0j), RuntimeError, "Complex inputs not supported"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
    ),
    order=3,
)  # fmt: skip


def coin(s, model):
    return dict(input=curves.rows(s, math.log(model), math.log(1 - model)), target=curves.rows(s, s, 1 - s))


CURVE = curves.Curve(
    "probability of heads t, of a coin",
    (0.01, 0.99),
    coin,
    {"model": curves.Slider("probability of heads in the model", 0.5, 0.05, 0.95, 0.05)},
)
