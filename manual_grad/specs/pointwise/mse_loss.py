"""Squared error."""

from __future__ import annotations

import torch

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.mse_loss import mse_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(input, target, reduction="mean", weight=None):
    e = (input - target) ** 2
    return reduce(e, reduction) if weight is None else reduce(weight * e, reduction, weight.sum())


def oracle(input, target, weight=1, **_):
    return weight * (input - target) ** 2, weight


def large(numel):
    x = torch.empty(numel, dtype=torch.bfloat16, device="cuda").normal_()
    return {"input": x, "target": x.flip(0)}, 4096


SPEC = Spec(
    large=large,
    fn=mse_loss,
    inputs=(Input("input"), Input("target"), Input("weight")),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, **_: {"x": input, "t": target},
    params=(dict(reduction="mean"), dict(reduction="none"), dict(reduction="sum")),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 4), target=draw.normal(3, 4)),
        "weighted": lambda draw: dict(input=draw.normal(3, 4), target=draw.normal(3, 4), weight=draw.uniform(3, 4)),
        "scalar": lambda draw: dict(input=draw.normal(), target=draw.normal()),
        "broadcast": lambda draw: dict(input=draw.normal(2, 3), target=draw.normal(3)),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2), target=draw.normal(2, 3, 2, 2)),
    },
    regimes={
        "tie": lambda draw: dict(input=draw.tensor([1.0, 2.0, -3.0]), target=draw.tensor([1.0, 2.5, -3.0])),
        "tiny": lambda draw: dict(input=draw.normal(8, scale=1e-16), target=draw.normal(8, scale=1e-16)),
        "huge": lambda draw: dict(input=draw.normal(8, scale=1e17), target=draw.normal(8, scale=1e17)),
        "offset": lambda draw: dict(input=1e6 + draw.normal(8), target=1e6 + draw.normal(8)),
        "spread": lambda draw: dict(input=draw.tensor([1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12, 1e18]),
                                    target=draw.tensor([0.0] * 8), weight=draw.uniform(8)),
    },
    pins=(
        Pin(dict(input=[1.0, INF, INF, NAN], target=[1.0, 0.0, INF, 0.0], reduction="none"), "infinities and NaN",
            value=[0.0, INF, NAN, NAN], gradient=dict(input=[0.0, INF, NAN, NAN])),
        Pin(dict(input=[[0.0, 2.0]], target=[[0.0, 0.0], [4.0, 0.0]], weight=[[1.0, 3.0]]),
            "a broadcast weight counts as often as it is used; torch divides by 4", value=5.0),
        Pin(dict(input=[1, 4], target=[3, 3], weight=[1, 3]), "integers, with a weight, as in torch", value=1.75),
    ),
    errors=(
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(target=lambda target, **_: target[:1]), UserWarning, "target size"),
        Error(dict(weight=lambda input, **_: input[0]), ValueError, "[Ww]eight"),
        Error(dict(input=lambda input, **_: input.long(), target=lambda target, **_: target.long()),
              NotImplementedError, "input"),
    ),
)  # fmt: skip

CURVE = curves.Curve("residual x − t", (-3, 3), curves.weighted_residual, {"weight": curves.WEIGHT})
