"""Hinge embedding: a distance that should be small for target 1 and above a margin for target -1."""

from __future__ import annotations

from dataclasses import replace

import torch
from mpmath import mpf

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.hinge_embedding_loss import hinge_embedding_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(input, target, margin=1.0, reduction="mean"):
    together, apart = torch.where(target == -1, 0.0, input), torch.where(target == 1, 0.0, torch.relu(margin - input))
    return reduce(together + apart, reduction)


def oracle(input, target, margin=1, **_):
    return (0 if target == -1 else input) + (0 if target == 1 else max(mpf(0), margin - input))


def short_of_margin(input, target, margin=1.0, **_):
    return torch.where(target == 1, 1.0, margin - input)


def distances(draw, scale=1.0, offset=0.0):
    return dict(input=offset + draw.uniform(3, 4, high=2 * scale), target=draw.sign(3, 4))


def at_the_margin(draw):
    """Distances a few steps of the dtype from a margin of 0.7, which is not a binary number; one far from it."""
    steps = torch.finfo(draw.dtype).eps * draw.tensor([0.5, 1.0, -1.0, 2.0, -8.0, 0.0, 3.0])
    return dict(input=steps + draw.tensor([0.7, 0.7, 0.7, 0.7, 0.7, 0.1, 0.7]), margin=0.7,
                target=draw.tensor([-1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 0.0]))  # fmt: skip


SPEC = Spec(
    fn=hinge_embedding_loss,
    inputs=(Input("input"), Input("target", differentiable=False)),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, margin=1.0, **_: {"x": input, "t": target, "m": margin},
    params=(dict(reduction="mean"), dict(reduction="none", margin=0.7), dict(reduction="sum", margin=-0.25)),
    samples={
        "typical": distances,
        "signed": lambda draw: dict(input=draw.normal(3, 4), target=draw.sign(3, 4)),
        "integer target": lambda draw: dict(input=draw.normal(5), target=draw.tensor([1, -1, -1, 0, 2])),
        "other targets": lambda draw: dict(input=draw.normal(5), target=draw.tensor([0.0, 2.0, -0.5, 1.0, -1.0])),
        "scalar": lambda draw: dict(input=draw.normal(), target=draw.tensor(-1.0)),
        "broadcast": lambda draw: dict(input=draw.normal(3, 1), target=draw.sign(4)),
        "image": lambda draw: dict(input=draw.normal(2, 3, 2, 2), target=draw.sign(2, 3, 2, 2)),
    },
    regimes={
        "at the margin": at_the_margin,
        "tiny": lambda draw: distances(draw, 1e-30),
        "huge": lambda draw: distances(draw, 1e30),
        "huge, negative": lambda draw: distances(draw, -1e30),
        "huge, other targets": lambda draw: dict(input=draw.normal(4, scale=1e30),
                                                 target=draw.tensor([0.0, 2.0, 0.0, 2.0])),
        "offset": lambda draw: dict(distances(draw, offset=1e6), margin=1e6 + 1),
    },
    kinks={1: short_of_margin},
    pins=(
        Pin(dict(input=[0.5] * 4, target=[1.0, -1.0, 0.0, 2.0], margin=0.5, reduction="none"),
            "at the margin the hinge is active, as in torch; other targets get both terms",
            value=[0.5, 0.0, 0.5, 0.5], gradient=dict(input=[1.0, -1.0, 0.0, 0.0])),
        Pin(dict(input=[INF, INF, INF, -INF, -INF], target=[1.0, -1.0, 0.0, 1.0, -1.0], reduction="none"),
            "infinite distances of either sign", value=[INF, 0.0, INF, -INF, INF],
            gradient=dict(input=[1.0, 0.0, 1.0, 1.0, -1.0])),
        Pin(dict(input=[NAN, NAN, NAN], target=[1.0, -1.0, 0.0], reduction="none"),
            "as torch: NaN in the value, the slope of the inactive hinge", value=[NAN, NAN, NAN],
            gradient=dict(input=[1.0, 0.0, 1.0])),
        Pin(dict(input=[0.5] * 3, target=[1.0, -1.0, 0.0], margin=NAN, reduction="none"),
            "as torch: a NaN margin is propagated where it is used", value=[0.5, NAN, NAN],
            gradient=dict(input=[1.0, 0.0, 1.0])),
        Pin(dict(input=[0.25], target=[NAN], reduction="none"), "a NaN target is neither 1 nor -1",
            value=[1.0], gradient=dict(input=[0.0])),
    ),
    errors=(
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a|[Bb]roadcast"),
        Error(dict(input=lambda input, **_: input > 0), RuntimeError, "bool"),
        Error(dict(input=lambda input, **_: input.long()), RuntimeError, "dtype"),
        Error(dict(input=lambda input, **_: input + 0j), NotImplementedError, "complex"),
        Error(dict(margin="1"), TypeError, "margin"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
    ),
)  # fmt: skip

CURVE = curves.Curve(
    "distance x",
    (-0.5, 3),
    lambda s, target, margin: dict(input=s, target=curves.everywhere(s, target), margin=margin),
    {"target": replace(curves.SIGN, default=-1.0), "margin": curves.MARGIN},
)
