"""Quantile: the absolute error with a different cost on each side."""

from __future__ import annotations

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.quantile_loss import quantile_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(input, target, reduction="mean", quantile=0.5, weight=1.0):
    missing = target - input
    return reduce(weight * (quantile * missing.relu() + (1 - quantile) * (-missing).relu()), reduction)


def oracle(input, target, quantile=0.5, weight=1, **_):
    missing = target - input
    return weight * max(quantile * missing, (quantile - 1) * missing)


SPEC = Spec(
    fn=quantile_loss,
    inputs=(Input("input"), Input("target"), Input("weight")),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, quantile=0.5, **_: {"x": input, "t": target, r"\tau": quantile},
    params=(dict(reduction="mean"), dict(reduction="none", quantile=0.9), dict(reduction="sum", quantile=0.05)),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 4), target=draw.normal(3, 4)),
        "weighted": lambda draw: dict(input=draw.normal(3, 4), target=draw.normal(3, 4), weight=draw.uniform(3, 4)),
        "scalar": lambda draw: dict(input=draw.normal(), target=draw.normal()),
        "broadcast": lambda draw: dict(input=draw.normal(2, 3), target=draw.normal(3)),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2), target=draw.normal(2, 3, 2, 2)),
    },
    regimes={
        # the median, where the slope 0 at a tie is the mean of the slopes on both sides
        "tie": lambda draw: dict(input=draw.tensor([1.0, 2.0, -3.0]), target=draw.tensor([1.0, 2.5, -3.0]),
                                 quantile=0.5),
        "tiny": lambda draw: dict(input=draw.normal(8, scale=1e-30), target=draw.normal(8, scale=1e-30)),
        "huge": lambda draw: dict(input=draw.normal(8, scale=1e30), target=draw.normal(8, scale=1e30)),
        "offset": lambda draw: dict(input=1e6 + draw.sign(8) * draw.uniform(8, low=0.5, high=2.0),
                                    target=draw.tensor([1e6] * 8)),
        "rare": lambda draw: dict(input=draw.normal(8), target=draw.normal(8), quantile=1 - 1e-9),
        "rarer": lambda draw: dict(input=draw.normal(8), target=draw.normal(8), quantile=1e-30),
        "spread": lambda draw: dict(input=draw.tensor([1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12, 1e18]),
                                    target=draw.tensor([0.0] * 8), weight=draw.uniform(8)),
    },
    kinks={1: lambda input, target, **_: input - target},
    pins=(
        Pin(dict(input=[1.0, -0.0], target=[1.0, 0.0], quantile=0.75, reduction="none"),
            "a perfect fit has slope 0",
            value=[0.0, 0.0], gradient=dict(input=[0.0, 0.0], target=[0.0, 0.0])),
        Pin(dict(input=[0.0, 2.0], target=[2.0, 0.0], quantile=0.75, reduction="none"),
            "a high quantile penalizes low forecasts more",
            value=[1.5, 0.5], gradient=dict(input=[-0.75, 0.25], target=[0.75, -0.25])),
        Pin(dict(input=[INF, 0.0, NAN], target=[0.0, INF, 0.0], quantile=0.75, reduction="none"),
            "an infinite residual has the usual slope; NaN is propagated",
            value=[INF, INF, NAN], gradient=dict(input=[0.25, -0.75, NAN], target=[-0.25, 0.75, NAN])),
    ),
    errors=(
        Error(dict(quantile=0.0), ValueError, "quantile"),
        Error(dict(quantile=1), ValueError, "quantile"),
        Error(dict(quantile=NAN), ValueError, "quantile"),
        Error(dict(quantile="0.5"), TypeError, "quantile"),
        Error(dict(reduction=0.9), ValueError, "0.9 is not a valid value for reduction"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(target=lambda target, **_: target[:1]), UserWarning, "target size"),
        Error(dict(weight=lambda input, **_: input[0]), ValueError, "[Ww]eight"),
        Error(dict(input=lambda input, **_: input.long(), target=lambda target, **_: target.long()),
              NotImplementedError, "quantile_loss: expected a floating point"),
    ),
)  # fmt: skip

CURVE = curves.Curve(
    "residual x − t", (-3, 3), curves.residual, {"quantile": curves.Slider("quantile", 0.75, 0.125, 0.875, 0.125)}
)
