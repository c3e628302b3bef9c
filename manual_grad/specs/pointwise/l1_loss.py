"""Absolute error."""

from __future__ import annotations

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.l1_loss import l1_loss
from manual_grad.study import curves

NAN = float("nan")


def definition(input, target, reduction="mean", weight=None):
    e = (input - target).abs()
    return reduce(e, reduction) if weight is None else reduce(weight * e, reduction, weight.sum())


def oracle(input, target, weight=1, **_):
    return weight * abs(input - target), weight


SPEC = Spec(
    fn=l1_loss,
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
        "tiny": lambda draw: dict(input=draw.normal(8, scale=1e-30), target=draw.normal(8, scale=1e-30)),
        "huge": lambda draw: dict(input=draw.normal(8, scale=1e30), target=draw.normal(8, scale=1e30)),
        "offset": lambda draw: dict(input=1e6 + draw.normal(8), target=1e6 + draw.normal(8)),
        "spread": lambda draw: dict(input=draw.tensor([1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12, 1e18]),
                                    target=draw.tensor([0.0] * 8), weight=draw.uniform(8)),
    },
    kinks={1: lambda input, target, **_: input - target},
    pins=(
        Pin(dict(input=[1.0, -0.0], target=[1.0, 0.0], reduction="none"), "a perfect fit has slope 0",
            value=[0.0, 0.0], gradient=dict(input=[0.0, 0.0], target=[0.0, 0.0])),
        Pin(dict(input=[float("inf")], target=[0.0], reduction="none"), "an infinite residual has the usual slope",
            value=[float("inf")], gradient=dict(input=[1.0], target=[-1.0])),
        Pin(dict(input=[[0.0, 2.0]], target=[[0.0, 0.0], [4.0, 0.0]], weight=[[1.0, 3.0]]),
            "a broadcast weight counts as often as it is used; torch divides by 4", value=2.0),
        Pin(dict(input=[1, 4], target=[3, 3], weight=[1, 3]), "integers, with a weight, as in torch", value=1.25),
        Pin(dict(input=[1, 4], target=[3, 3], reduction="sum"), "integers, as in torch, have no mean", value=3.0),
        Pin(dict(input=[1, 4], target=[3, 3], reduction="none"), "integers, as in torch", value=[2.0, 1.0]),
        Pin(dict(input=[NAN], target=[0.0], reduction="none"), "as torch: NaN in the value, slope 0", value=[NAN],
            gradient=dict(input=[0.0], target=[0.0])),
    ),
    errors=(
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(target=lambda target, **_: target[:1]), UserWarning, "target size"),
        Error(dict(weight=lambda input, **_: input[0]), ValueError, "[Ww]eight"),
    ),
)  # fmt: skip

CURVE = curves.Curve("residual x − t", (-3, 3), curves.weighted_residual, {"weight": curves.WEIGHT})
