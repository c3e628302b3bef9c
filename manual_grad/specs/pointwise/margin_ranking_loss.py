"""Margin ranking: a hinge on the lead of the score that should be higher."""

from __future__ import annotations

import torch
from mpmath import mpf

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.margin_ranking_loss import margin_ranking_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def definition(input1, input2, target, margin=0.0, reduction="mean"):
    return reduce(torch.relu(margin - target * (input1 - input2)), reduction)


def oracle(input1, input2, target, margin=0, **_):
    return max(mpf(0), margin - target * (input1 - input2))


def short_of_margin(input1, input2, target, margin=0.0, **_):
    return margin - target * (input1 - input2)


def scores(draw, scale=1.0, offset=0.0):
    return dict(input1=offset + draw.normal(3, 4, scale=scale), input2=offset + draw.normal(3, 4, scale=scale),
                target=draw.sign(3, 4))  # fmt: skip


def at_the_margin(draw):
    """Leads a few steps of the dtype from a margin of 0.7, which is not a binary number; one far behind."""
    steps = torch.finfo(draw.dtype).eps * draw.tensor([1.0, -1.0, 2.0, -3.0, 8.0, 0.0])
    lead = steps + draw.tensor([0.7, 0.7, 0.7, 0.7, 0.7, -3.0])
    target = draw.tensor([1.0, 1.0, -1.0, -1.0, 1.0, 1.0])
    return dict(input1=0.125 + target * lead, input2=draw.tensor([0.125] * 6), target=target, margin=0.7)


SPEC = Spec(
    fn=margin_ranking_loss,
    inputs=(Input("input1"), Input("input2"), Input("target")),
    definition=definition,
    oracle=oracle,
    symbols=lambda input1, input2, target, margin=0.0, **_: {
        "x_1": input1, "x_2": input2, "t": target, "m": margin},
    params=(dict(reduction="mean"), dict(reduction="none", margin=0.3), dict(reduction="sum", margin=-0.25)),
    samples={
        "typical": scores,
        "integer target": lambda draw: dict(input1=draw.normal(5), input2=draw.normal(5),
                                            target=draw.tensor([1, -1, 1, -1, 1])),
        "graded target": lambda draw: dict(input1=draw.normal(9), input2=draw.normal(9),
                                           target=draw.normal(9, scale=2.0)),
        "scalar": lambda draw: dict(input1=draw.normal(), input2=draw.normal(), target=draw.sign()),
        "broadcast": lambda draw: dict(input1=draw.normal(3, 1), input2=draw.normal(1, 4), target=draw.sign(3, 4)),
        "image": lambda draw: dict(input1=draw.normal(2, 3, 2, 2), input2=draw.normal(2, 3, 2, 2),
                                   target=draw.sign(2, 3, 2, 2)),
    },
    regimes={
        "at the margin": at_the_margin,
        "tie": lambda draw: dict(input1=draw.tensor([1.0, -2.0]), input2=draw.tensor([1.0, -2.0]),
                                 target=draw.tensor([1.0, -1.0]), margin=1.0),
        "near tie": lambda draw: dict(input1=1 + draw.normal(8, scale=1e-6), input2=1 + draw.normal(8, scale=1e-6),
                                      target=draw.sign(8)),
        "tiny": lambda draw: scores(draw, 1e-30),
        "huge": lambda draw: scores(draw, 1e30),
        "offset": lambda draw: scores(draw, offset=1e6),
        "spread": lambda draw: dict(input1=draw.tensor([1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e12, 1e18]),
                                    input2=draw.tensor([0.0] * 8), target=draw.tensor([-1.0, 1.0] * 4)),
    },
    kinks={1: short_of_margin},
    pins=(
        Pin(dict(input1=[1.0, 2.0], input2=[1.0, 2.0], target=[1.0, -1.0], reduction="none"),
            "at a tie the hinge is active, as in torch", value=[0.0, 0.0],
            gradient=dict(input1=[-1.0, 1.0], input2=[1.0, -1.0], target=[0.0, 0.0])),
        Pin(dict(input1=[1.5, 0.0], input2=[1.0, 0.5], target=[1.0, -1.0], margin=0.5, reduction="none"),
            "at the margin the hinge is active, as in torch", value=[0.0, 0.0],
            gradient=dict(input1=[-1.0, 1.0], input2=[1.0, -1.0], target=[-0.5, 0.5])),
        Pin(dict(input1=[INF, 0.0], input2=[0.0, INF], target=[1.0, 1.0], reduction="none"),
            "an infinite lead suffices; an infinite deficit has the usual slope", value=[0.0, INF],
            gradient=dict(input1=[0.0, -1.0], input2=[0.0, 1.0], target=[0.0, INF])),
        Pin(dict(input1=[NAN, INF], input2=[0.0, INF], target=[1.0, 1.0], reduction="none"),
            "as torch: NaN in the value, slope 0", value=[NAN, NAN],
            gradient=dict(input1=[0.0, 0.0], input2=[0.0, 0.0], target=[NAN, NAN])),
        Pin(dict(input1=[1.0, 2.0], input2=[0.0, 0.0], target=[NAN, INF], reduction="none"),
            "a NaN target gives NaN slopes; an infinite one that is satisfied has slope 0",
            value=[NAN, 0.0], gradient=dict(input1=[NAN, 0.0], input2=[NAN, 0.0])),
    ),
    errors=(
        Error(dict(input2=lambda input2, **_: input2[0]), RuntimeError, "input2"),
        Error(dict(target=lambda target, **_: target[0]), RuntimeError, "target"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "size of tensor a|[Bb]roadcast"),
        Error(dict(target=lambda target, **_: target > 0), RuntimeError, "target.*bool"),
        Error(dict(input1=lambda input1, **_: input1 + 0j), NotImplementedError, "complex"),
        Error(dict(margin="0"), TypeError, "margin"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "lead of the first score, x1 − x2",
    (-3, 3),
    lambda s, target, margin: dict(
        input1=s, input2=curves.everywhere(s, 0), target=curves.everywhere(s, target), margin=margin
    ),
    {"target": curves.SIGN, "margin": curves.MARGIN},
)
