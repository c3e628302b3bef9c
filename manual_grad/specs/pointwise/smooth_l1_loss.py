"""Smooth L1: half the square divided by beta up to beta, the absolute error minus beta / 2 beyond."""

from __future__ import annotations

import torch

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.smooth_l1_loss import smooth_l1_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(input, target, reduction="mean", beta=1.0):
    r = (input - target).abs()
    return reduce(torch.where(r < beta, r**2 / (2 * max(beta, 1e-300)), r - beta / 2), reduction)


def oracle(input, target, beta=1, **_):
    r = abs(input - target)
    return r**2 / (2 * beta) if r < beta else r - beta / 2


def boundary(draw):
    """Residuals of beta = 1, one step to either side of it, and 0."""
    target = draw.tensor([0.25, -2.0, 0.5, 3.0, 0.0, 1.0])
    one = draw.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 0.0])
    step = draw.tensor([0.0, 0.0, 1.0, -1.0, -1.0, 0.0]) * torch.finfo(draw.dtype).eps
    return dict(input=target + one + step, target=target)


SPEC = Spec(
    fn=smooth_l1_loss,
    inputs=(Input("input"), Input("target")),
    definition=definition,
    oracle=oracle,
    # beta = 0 gives the absolute error
    symbols=lambda input, target, beta=1.0, **_: {"x": input, "t": target, r"\beta": beta} if beta else None,
    params=(dict(reduction="mean"), dict(reduction="none", beta=0.3), dict(reduction="sum", beta=2.5)),
    samples={
        "typical": lambda draw: dict(input=draw.normal(3, 4, scale=2), target=draw.normal(3, 4)),
        "absolute": lambda draw: dict(input=draw.normal(3, 4), target=draw.normal(3, 4), beta=0.0),
        "scalar": lambda draw: dict(input=draw.normal(), target=draw.normal()),
        # residuals of one sign: the gradient of a target is a sum, which is compared entry by entry and must not cancel
        "broadcast": lambda draw: dict(input=draw.uniform(2, 3, low=0.5, high=3.0), target=draw.uniform(3, high=0.25)),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2, scale=2), target=draw.normal(2, 3, 2, 2)),
    },
    regimes={
        "boundary": boundary,
        "tiny": lambda draw: dict(input=draw.normal(8, scale=1e-16), target=draw.normal(8, scale=1e-16)),
        "tiny beta": lambda draw: dict(input=draw.normal(8, scale=1e-25), target=draw.normal(8, scale=1e-25),
                                       beta=1e-24),
        "huge": lambda draw: dict(input=draw.normal(8, scale=1e30), target=draw.normal(8)),
        "offset": lambda draw: dict(input=1e6 + draw.normal(8), target=1e6 + draw.normal(8)),
        "mixed": lambda draw: dict(input=draw.normal(8) * draw.tensor([1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12, 1e18]),
                                   target=draw.tensor([0.0] * 8)),
    },
    kinks={
        1: lambda input, target, beta=1.0, **_: input - target if beta == 0 else torch.ones(()),
        2: lambda input, target, beta=1.0, **_: (input - target).abs() - beta if beta > 0 else torch.ones(()),
    },
    pins=(
        Pin(dict(input=[1.0, -1.0], target=[0.0, 0.0], reduction="none"), "both pieces agree at beta",
            value=[0.5, 0.5], gradient=dict(input=[1.0, -1.0], target=[-1.0, 1.0])),
        Pin(dict(input=[1.0, 2.0], target=[1.0, 0.0], beta=0.0, reduction="none"), "beta = 0: slope 0 at a fit",
            value=[0.0, 2.0], gradient=dict(input=[0.0, 1.0], target=[0.0, -1.0])),
        Pin(dict(input=[INF, -INF, NAN], target=[0.0, 0.0, 0.0], reduction="none"),
            "the slope is clamped at 1; NaN is propagated",
            value=[INF, INF, NAN], gradient=dict(input=[1.0, -1.0, NAN])),
    ),
    errors=(
        Error(dict(beta=-1.0), RuntimeError, "beta"),
        Error(dict(beta=NAN), RuntimeError, "beta"),
        Error(dict(beta="1"), TypeError, "beta"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a"),
        Error(dict(target=lambda target, **_: target[:1]), UserWarning, "target size"),
        Error(dict(input=lambda input, **_: input.long(), target=lambda target, **_: target.long()),
              NotImplementedError, "input"),
    ),
)  # fmt: skip

CURVE = curves.Curve(
    "residual x − t",
    (-3, 3),
    curves.residual,
    {"beta": curves.Slider("beta, where the parabola ends", 1.0, 0.0, 2.5, 0.125)},
)
