"""Negative log-likelihood of class indices: class weights, ignored rows."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional as F

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.rowwise.nll_loss import nll_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(input, target, weight=None, ignore_index=-100, reduction="mean"):
    dim = 1 if input.dim() > 1 else 0
    w = input.new_ones(input.shape[dim]) if weight is None else weight
    kept = target != ignore_index
    target = torch.where(kept, target, 0).long()
    one_hot = F.one_hot(target, input.shape[dim]).movedim(-1, dim)
    w = torch.where(kept, w[target], 0.0)
    return reduce(-w * (one_hot * input).sum(dim), reduction, w.sum())


def oracle(input, target, weight=None, ignore_index=-100, **_):
    if target == ignore_index:
        return 0, 0
    w = weight[target] if weight else 1
    return -w * input[target], w


def log_probabilities(draw, *shape):
    return draw.tensor(draw.normal(*shape).double().log_softmax(1 if len(shape) > 1 else 0))


def spread_weights(draw):
    return draw.tensor([1e-6, 1e-3, 1.0, 1e3, 1e6])


def symbols(input, target, weight=None, ignore_index=-100, **_):
    if target == ignore_index:
        return None
    return {"x": input, "y": target, "w": weight or [1.0] * len(input), **dict.fromkeys("cj", Each(range(len(input))))}


SPEC = Spec(
    fn=nll_loss,
    inputs=(Input("input"), Input("target"), Input("weight", differentiable=False, batch=None)),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(dict(reduction="mean"), dict(reduction="none"), dict(reduction="sum")),
    samples={
        "typical": lambda draw: dict(input=log_probabilities(draw, 3, 5), target=draw.integers(3, high=5)),
        "weighted": lambda draw: dict(input=log_probabilities(draw, 3, 5), target=draw.integers(3, high=5),
                                      weight=draw.uniform(5, low=0.5)),
        "ignored": lambda draw: dict(input=draw.normal(4, 5), target=draw.tensor([2, 1, 0, 2]), ignore_index=2,
                                     weight=draw.uniform(5, low=0.5)),
        "image": lambda draw: dict(input=log_probabilities(draw, 2, 3, 2, 2), target=draw.integers(2, 2, 2, high=3)),
        "sequence": lambda draw: dict(input=log_probabilities(draw, 2, 3, 4), target=draw.integers(2, 4, high=3),
                                      weight=draw.uniform(3, low=0.5)),
        "volume": lambda draw: dict(input=log_probabilities(draw, 2, 3, 2, 1, 2),
                                    target=draw.integers(2, 2, 1, 2, high=3)),
        "unbatched": lambda draw: dict(input=log_probabilities(draw, 5), target=draw.integers(high=5)),
        "bytes": lambda draw: dict(input=log_probabilities(draw, 3, 5), target=draw.integers(3, high=5).byte()),
        "one class": lambda draw: dict(input=draw.normal(3, 1), target=draw.integers(3, high=1)),
        "many rows": lambda draw: dict(input=draw.normal(21, 3), target=draw.integers(21, high=3)),
    },
    regimes={
        "tiny": lambda draw: dict(input=draw.normal(8, 5, scale=1e-30), target=draw.integers(8, high=5)),
        "huge": lambda draw: dict(input=draw.normal(8, 5, scale=1e30), target=draw.integers(8, high=5)),
        "mixed": lambda draw: dict(input=draw.tensor([[-1e-12], [-1e-6], [-1.0], [-1e6], [-1e12]]).expand(5, 5),
                                   target=draw.integers(5, high=5)),
        "uneven weights": lambda draw: dict(input=draw.normal(8, 5), target=draw.integers(8, high=5),
                                            weight=spread_weights(draw)),
    },
    pins=(
        Pin(dict(input=[[1.0, 2.0]], target=[-100], reduction="mean"), "all rows ignored: value 0 / 0, gradient 0",
            value=NAN, gradient=dict(input=[[0.0, 0.0]])),
        Pin(dict(input=[[1.0, 2.0]], target=[1], weight=[1.0, 0.0], reduction="mean"),
            "kept, but with weight 0: 0 / 0", value=NAN, gradient=dict(input=[[0.0, NAN]])),
        Pin(dict(input=[[1.0, 2.0], [NAN, INF]], target=[-100, -100], reduction="sum"),
            "the contents of an ignored row do not matter", value=0.0, gradient=dict(input=[[0.0, 0.0], [0.0, 0.0]])),
        Pin(dict(input=[[-0.5, -INF, NAN]], target=[0], reduction="sum"), "nor do classes that were not observed",
            value=0.5, gradient=dict(input=[[-1.0, 0.0, 0.0]])),
        Pin(dict(input=[[-0.5, -INF]], target=[1], reduction="sum"), "an impossible class was observed",
            value=INF, gradient=dict(input=[[0.0, -1.0]])),
        Pin(dict(input=[[], []], target=[-100, -100]), "no classes, and all rows ignored", value=NAN),
        Pin(dict(input=[[], []], target=[-100, -100], reduction="none"), "no classes, and all rows ignored",
            value=[0.0, 0.0]),
        Pin(dict(input=[[[1.0], [2.0]]], target=[[1]], weight=[[3.0], [5.0]], reduction="none"),
            "for images, class weights may have any shape, as in torch", value=[[-10.0]]),
        Pin(dict(input=[[NAN, 0.0]], target=[0], reduction="none"), "NaN is propagated",
            value=[NAN], gradient=dict(input=[[-1.0, 0.0]])),
        Pin(dict(input=[0.25, -0.5], target=[1], reduction="none"), "one row, with its class in a tensor of size 1",
            value=0.5, gradient=dict(input=[0.0, -1.0])),
    ),
    errors=(
        Error(dict(target=lambda target, **_: target + 5), IndexError, r"[Tt]arget \d+ is out of bounds"),
        Error(dict(target=lambda target, **_: -1 - target), IndexError, r"[Tt]arget -\d+ is out of bounds"),
        Error(dict(target=lambda target, **_: 0 * target + 5), IndexError, "[Tt]arget 5 is out of bounds"),
        Error(dict(target=lambda target, **_: 0 * target - 1), IndexError, "[Tt]arget -1 is out of bounds"),
        Error(dict(target=lambda target, **_: target[:2]), ValueError, r"batch_size .*target batch_size"),
        Error(dict(target=lambda target, **_: target[0]), ValueError, r"batch_size .*target batch_size \(0\)"),
        Error(dict(target=lambda target, **_: target[:, None]), RuntimeError, "multi-target not supported"),
        Error(dict(target=lambda target, **_: target.int()), RuntimeError, "target dtype to be Long or Byte"),
        Error(dict(input=lambda input, **_: input[..., None]), RuntimeError, "Expected target size"),
        Error(dict(input=lambda input, **_: input[0]), ValueError, "1D target must have size 1"),
        Error(dict(input=lambda input, **_: input[0, 0]), ValueError, "Expected 1 or more dimensions"),
        Error(dict(input=lambda input, **_: input.long()), NotImplementedError, "input"),
        Error(dict(weight=lambda input, **_: input[0, :2]), RuntimeError, "weight tensor should be defined"),
        Error(dict(weight=lambda input, **_: input[0].float()), RuntimeError, "expected scalar type|weight"),
        Error(dict(weight=lambda input, **_: input[0].detach().requires_grad_()), RuntimeError, "'weight'"),
        Error(dict(ignore_index=1.5), TypeError, "ignore_index"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
    ),
)  # fmt: skip

CURVE = curves.Curve(
    "log-probability of the target",
    (-5, 0),
    lambda s, weight: dict(
        input=curves.rows(s, s, -1.0), target=curves.classes(s, 0), weight=torch.tensor([weight, 1.0], dtype=s.dtype)
    ),
    {"weight": replace(curves.WEIGHT, label="weight of the target's class")},
)
