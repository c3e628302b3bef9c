"""Multi-class margin: how far the target falls short of leading each other class by a margin, or the square of it."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.rowwise.multi_margin_loss import multi_margin_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def shortfalls(input, target, margin=1.0, **_):
    """margin - x_y + x_j, for the other classes; far below 0 for the target itself."""
    own = F.one_hot(target, input.shape[-1]).bool().view(input.shape)
    return (margin - input[own].view(*input.shape[:-1], 1) + input).masked_fill(own, -1e3)


def definition(input, target, p=1, margin=1.0, weight=None, reduction="mean"):
    h = shortfalls(input, target, margin)
    w = 1.0 if weight is None else weight[target]
    return reduce(w * (h.clamp(min=0) ** p).mean(-1).view(target.shape), reduction)


def oracle(input, target, p=1, margin=1, weight=None, **_):
    h = [margin - input[target] + x for c, x in enumerate(input) if c != target]
    return (weight[target] if weight else 1) * sum(max(0, s) ** p for s in h) / len(input)


def kink(order):
    """Signed distances to where the ``order``-th derivative jumps: for p = ``order``, at a shortfall of 0."""

    def distances(input, p=1, **arguments):
        return shortfalls(input, **arguments) if p == order else torch.ones(1)

    return distances


def boundary(draw):
    """Shortfalls one step to either side of 0, for a margin of 1."""
    step = torch.finfo(draw.dtype).eps
    rows = [[1.0, step, -step], [2.0, 1 + step, 1 - step], [0.0, -1 + step, -1 - step]]
    return dict(input=draw.tensor(rows), target=draw.tensor([0, 0, 0]), margin=1.0)


def scores(draw, *shape, high=5, **options):
    return dict(input=draw.normal(*shape, high, scale=1.5), target=draw.integers(*shape, high=high), **options)


def symbols(draw, input, target, p=1, margin=1.0, weight=None, **_):
    if len(input) > 9:  # few classes suffice to check the equations
        return None
    v = draw.normal(len(input)).tolist()
    return {"x": input, "y": target, "p": p, "m": margin, "w": weight or [1.0] * len(input), "C": len(input),
            "j": Each(range(len(input))), "v": v, r"\dot x": v}  # fmt: skip


SPEC = Spec(
    fn=multi_margin_loss,
    inputs=(Input("input"), Input("target"), Input("weight", differentiable=False, batch=None)),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", p=2),
        dict(reduction="sum", margin=0.5),
        dict(reduction="mean", p=2, margin=2.0),
        dict(reduction="none", margin=0.75),
        dict(reduction="sum", p=2, margin=-0.5),
    ),
    samples={
        "typical": lambda draw: scores(draw, 3),
        "weighted": lambda draw: scores(draw, 3, weight=draw.uniform(5, low=0.5)),
        "many rows": lambda draw: scores(draw, 21, high=3),
        "many classes": lambda draw: scores(draw, 2, high=70),
        "unbatched": lambda draw: scores(draw),
        "one row": lambda draw: scores(draw, 1),
        "two classes": lambda draw: scores(draw, 5, high=2, weight=draw.uniform(2, low=0.5)),
    },
    regimes={
        "boundary": boundary,
        "tiny": lambda draw: dict(input=draw.normal(4, 5, scale=1e-20), target=draw.integers(4, high=5)),
        "tiny margin": lambda draw: dict(input=draw.normal(4, 5, scale=1e-12), target=draw.integers(4, high=5),
                                         margin=1e-12),
        "huge": lambda draw: dict(input=draw.normal(4, 5, scale=1e12), target=draw.integers(4, high=5)),
        "offset": lambda draw: dict(input=1e6 + draw.normal(4, 5), target=draw.integers(4, high=5), margin=0.8),
        "nearly enough": lambda draw: dict(
            input=draw.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]) + draw.uniform(3, 3, high=1e-6),
            target=draw.tensor([0, 0, 0]), margin=1.0),
        "enough": lambda draw: dict(input=10.0 * F.one_hot(draw.integers(4, high=3), 3) + draw.normal(4, 3),
                                    target=draw.integers(4, high=3)),
        "uneven weights": lambda draw: scores(draw, 8, weight=draw.tensor([1e-6, 1e-3, 1.0, 1e3, 1e6])),
    },
    kinks={1: kink(1), 2: kink(2)},
    pins=(
        Pin(dict(input=[[1.0, 0.0, 0.5]], target=[0], reduction="none"), "a class exactly at the margin has slope 0",
            value=[0.5 / 3], gradient=dict(input=[[-1 / 3, 0.0, 1 / 3]])),
        Pin(dict(input=[[1.0, 0.0, 0.5]], target=[0], p=2, reduction="none"), "the square is smooth there",
            value=[0.25 / 3], gradient=dict(input=[[-1 / 3, 0.0, 1 / 3]])),
        Pin(dict(input=[[0.0, NAN, 0.5, -5.0]], target=[0], reduction="none"), "NaN is propagated only to its pair",
            value=[NAN], gradient=dict(input=[[NAN, NAN, 0.25, 0.0]])),
        Pin(dict(input=[[NAN, 0.0], [3.0, 0.0]], target=[0, 0], p=2, reduction="none"), "and not to another row",
            value=[NAN, 0.0], gradient=dict(input=[[NAN, NAN], [0.0, 0.0]])),
        Pin(dict(input=[[3.0, 0.0], [0.0, 0.0]], target=[0, 1], weight=[INF, 1.0], reduction="none"),
            "a loss of 0 stays 0 with an infinite weight", value=[0.0, 0.5],
            gradient=dict(input=[[0.0, 0.0], [0.5, -0.5]])),
        Pin(dict(input=[[-INF, 0.0, 0.0]], target=[0], reduction="none"), "an impossible target falls infinitely short",
            value=[INF], gradient=dict(input=[[-2 / 3, 1 / 3, 1 / 3]])),
        Pin(dict(input=[[0.5, -INF, 0.0]], target=[0], reduction="none"), "an impossible class has no effect",
            value=[0.5 / 3], gradient=dict(input=[[-1 / 3, 0.0, 1 / 3]])),
        Pin(dict(input=[0.5, 0.0], target=[0], reduction="none"), "one row, with its class in a tensor of size 1",
            value=[0.25], gradient=dict(input=[-0.5, 0.5])),
        Pin(dict(input=2.0, target=0, reduction="none"), "a single class has no competitors", value=0.0,
            gradient=dict(input=0.0)),
    ),
    errors=(
        Error(dict(target=lambda target, **_: target + 5), RuntimeError, "target out of range"),
        Error(dict(target=lambda target, **_: -1 - target), RuntimeError, "target out of range"),
        Error(dict(target=lambda target, **_: 0 * target + 5), RuntimeError, r"got 5, expected \[0, 4\]"),
        Error(dict(target=lambda target, **_: 0 * target - 1), RuntimeError, r"got -1, expected \[0, 4\]"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, r"Expected target size \[3\], but got \[2\]"),
        Error(dict(target=lambda target, **_: target[0]), RuntimeError, "target tensor should be 1-D"),
        Error(dict(target=lambda target, **_: target.int()), RuntimeError, "expected scalar type Long but found Int"),
        Error(dict(p=3), ValueError, "only p == 1 and p == 2 supported"),
        Error(dict(margin="1"), TypeError, "margin"),
        Error(dict(weight=lambda input, **_: input), ValueError, "weight must be one-dimensional"),
        Error(dict(weight=lambda input, **_: input[0, :2]), RuntimeError, "inconsistent weight size, expected 5"),
        Error(dict(weight=lambda input, **_: input[0].float()), RuntimeError, "weight.*expected scalar type"),
        Error(dict(weight=lambda input, **_: input[0].detach().requires_grad_()), RuntimeError, "'weight'"),
        Error(dict(input=lambda input, **_: input[None]), RuntimeError, "Expected non-empty vector or matrix"),
        Error(dict(input=lambda input, **_: input[:, :0]), RuntimeError, "Expected non-empty vector or matrix"),
        Error(dict(input=lambda input, **_: input.long()), NotImplementedError, "input"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
    ),
)  # fmt: skip

CURVE = curves.Curve(
    "score of the target; the others are 0 and 0.5",
    (-2, 3),
    lambda s, p, margin: dict(input=curves.rows(s, s, 0, 0.5), target=curves.classes(s, 0), p=int(p), margin=margin),
    {"p": curves.Slider("p, the power of the hinge: 1 or 2", 1.0, 1.0, 2.0, 1.0), "margin": curves.MARGIN},
)
