"""Log-cosh: half the square of a small residual, the absolute value of a large one."""

from __future__ import annotations

import math

from mpmath import cosh, log

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.log_cosh_loss import log_cosh_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(input, target, reduction="mean", weight=1.0):
    return reduce(weight * (input - target).cosh().log(), reduction)


def oracle(input, target, weight=1, **_):
    return weight * log(cosh(input - target))


def sizes(*values):
    """Residuals of these sizes, of both signs."""
    return lambda draw: dict(input=draw.tensor([s * v for v in values for s in (1.0, -1.0)]),
                             target=draw.tensor([0.0] * (2 * len(values))))  # fmt: skip


SPEC = Spec(
    fn=log_cosh_loss,
    inputs=(Input("input"), Input("target"), Input("weight")),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, **_: {"x": input, "t": target},
    params=(dict(reduction="mean"), dict(reduction="none"), dict(reduction="sum")),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 4, scale=2), target=draw.normal(3, 4)),
        "weighted": lambda draw: dict(input=draw.normal(3, 4), target=draw.normal(3, 4), weight=draw.uniform(3, 4)),
        "scalar": lambda draw: dict(input=draw.normal(), target=draw.normal()),
        "broadcast": lambda draw: dict(input=draw.normal(2, 3, scale=2), target=draw.normal(3)),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2, scale=2), target=draw.normal(2, 3, 2, 2)),
    },
    regimes={
        "small": sizes(1e-1, 1e-2, 1e-3, 1e-4),
        "smaller": sizes(1e-6, 1e-8, 1e-10, 1e-12),
        "change of forms": sizes(0.5, 0.74, 0.7499, 0.75, 0.7501, 0.76, 1.0),
        "large": sizes(2.0, 5.0, 10.0, 20.0, 40.0),
        "larger": sizes(80.0, 90.0, 800.0, 1e4, 1e18),
        "tiny": lambda draw: dict(input=draw.normal(8, scale=1e-16), target=draw.normal(8, scale=1e-16)),
        "huge": lambda draw: dict(input=draw.normal(8, scale=1e30), target=draw.normal(8)),
        "offset": lambda draw: dict(input=1e6 + draw.normal(8), target=1e6 + draw.normal(8)),
        "steep, weighted": lambda draw: dict(input=draw.normal(8, scale=5), target=draw.normal(8),
                                             weight=draw.normal(8)),
    },
    pins=(
        Pin(dict(input=[1.0, -0.0], target=[1.0, 0.0], reduction="none"), "a perfect fit has slope 0",
            value=[0.0, 0.0], gradient=dict(input=[0.0, 0.0], target=[0.0, 0.0])),
        Pin(dict(input=[1000.0, -1000.0], target=[0.0, 0.0], reduction="none"), "nothing overflows",
            value=[1000 - math.log(2)] * 2, gradient=dict(input=[1.0, -1.0], target=[-1.0, 1.0])),
        Pin(dict(input=[INF, 0.0, NAN], target=[0.0, INF, 0.0], reduction="none"),
            "an infinite residual has slope ±1; NaN is propagated",
            value=[INF, INF, NAN], gradient=dict(input=[1.0, -1.0, NAN], target=[-1.0, 1.0, NAN])),
        Pin(dict(input=[1e-12], target=[0.0], reduction="none"), "the parabola keeps its digits",
            value=[5e-25], gradient=dict(input=[1e-12])),
    ),
    errors=(
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(target=lambda target, **_: target[:1]), UserWarning, "target size"),
        Error(dict(weight=lambda input, **_: input[0]), ValueError, "[Ww]eight"),
        Error(dict(input=lambda input, **_: input.long(), target=lambda target, **_: target.long()),
              NotImplementedError, "log_cosh_loss: expected a floating point"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve("residual x − t", (-3, 3), curves.weighted_residual, {"weight": curves.WEIGHT})
