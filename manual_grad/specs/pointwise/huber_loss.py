"""Huber: half the square up to delta, linear beyond."""

from __future__ import annotations

import torch

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.huber_loss import huber_loss
from manual_grad.study import curves


def definition(input, target, reduction="mean", delta=1.0, weight=1.0):
    r = (input - target).abs()
    return reduce(weight * torch.where(r <= delta, r**2 / 2, delta * (r - delta / 2)), reduction)


def oracle(input, target, delta=1, weight=1, **_):
    r = abs(input - target)
    return weight * (r**2 / 2 if r <= delta else delta * (r - delta / 2))


def boundary(draw):
    """Residuals of delta = 1, one step to either side of it, and 0."""
    target = draw.tensor([0.25, -2.0, 0.5, 3.0, 0.0, 1.0])
    one = draw.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 0.0])
    step = draw.tensor([0.0, 0.0, 1.0, -1.0, -1.0, 0.0]) * torch.finfo(draw.dtype).eps
    return dict(input=target + one + step, target=target)


SPEC = Spec(
    fn=huber_loss,
    inputs=(Input("input"), Input("target"), Input("weight")),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, delta=1.0, **_: {"x": input, "t": target, r"\delta": delta},
    params=(dict(reduction="mean"), dict(reduction="none", delta=0.5), dict(reduction="sum", delta=2.5)),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 4, scale=2), target=draw.normal(3, 4)),
        "weighted": lambda draw: dict(input=draw.normal(3, 4), target=draw.normal(3, 4), weight=draw.uniform(3, 4)),
        "scalar": lambda draw: dict(input=draw.normal(), target=draw.normal()),
        "broadcast": lambda draw: dict(input=draw.normal(2, 3, scale=2), target=draw.normal(3)),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2, scale=2), target=draw.normal(2, 3, 2, 2)),
    },
    regimes={
        "boundary": boundary,
        "tiny": lambda draw: dict(input=draw.normal(8, scale=1e-16), target=draw.normal(8, scale=1e-16)),
        "huge": lambda draw: dict(input=draw.normal(8, scale=1e30), target=draw.normal(8)),
        "offset": lambda draw: dict(input=1e6 + draw.normal(8), target=1e6 + draw.normal(8)),
        "mixed": lambda draw: dict(input=draw.normal(8) * draw.tensor([1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12, 1e18]),
                                   target=draw.tensor([0.0] * 8)),
    },
    kinks={2: lambda input, target, delta=1.0, **_: (input - target).abs() - delta},
    pins=(
        Pin(dict(input=[1.0, -1.0], target=[0.0, 0.0], reduction="none"), "both pieces agree at delta",
            value=[0.5, 0.5], gradient=dict(input=[1.0, -1.0], target=[-1.0, 1.0])),
        Pin(dict(input=[float("inf"), float("nan")], target=[0.0, 0.0], reduction="none"),
            "the slope is clamped at delta; NaN is propagated",
            value=[float("inf"), float("nan")], gradient=dict(input=[1.0, float("nan")])),
    ),
    errors=(
        Error(dict(delta=0.0), RuntimeError, "delta"),
        Error(dict(delta=float("nan")), RuntimeError, "delta"),
        Error(dict(delta="1"), TypeError, "delta"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(target=lambda target, **_: target[:1]), UserWarning, "target size"),
        Error(dict(weight=lambda input, **_: input[0]), ValueError, "[Ww]eight"),
        Error(dict(input=lambda input, **_: input.long()), NotImplementedError, "input"),
    ),
)  # fmt: skip

CURVE = curves.Curve(
    "residual x − t",
    (-3, 3),
    curves.residual,
    {"delta": curves.Slider("delta, where the parabola ends", 1.0, 0.125, 2.5, 0.125)},
)
