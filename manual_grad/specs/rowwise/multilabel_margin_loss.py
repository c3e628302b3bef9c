"""Multi-label margin: how far the labels of a row are from leading every class that is not a label by 1."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.rowwise.multilabel_margin_loss import multilabel_margin_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def shortfalls(input, target, **_):
    """1 - x_y + x_j for every label y, in the order of the list, and class j; far below 0 if that is not a pair."""
    classes = input.shape[-1]
    listed = ((target < 0).cumsum(-1) == 0).unsqueeze(-1)
    labels = target.clamp(min=0)
    is_label = (F.one_hot(labels, classes).bool() & listed).any(-2, keepdim=True)
    h = 1 - input.gather(-1, labels).unsqueeze(-1) + input.unsqueeze(-2)
    return h.masked_fill(~listed | is_label, -1e3)


def definition(input, target, reduction="mean"):
    h = shortfalls(input, target)
    return reduce(h.relu().sum((-2, -1)) / input.shape[-1], reduction)


def oracle(input, target, **_):
    labels = target[: target.index(-1)] if -1 in target else target
    others = [x for c, x in enumerate(input) if c not in labels]
    return sum(max(0, 1 - input[y] + x) for y in labels for x in others) / len(input)


def labelled(draw, *rows, labels, classes=5, scale=1.5, offset=0.0):
    """Scores with a varying number of labels per row, some repeated, and arbitrary labels after the first -1."""
    target = draw.integers(*rows, classes, high=classes)
    if labels < classes:
        end = draw.integers(*rows, 1, low=1, high=labels + 1)
        target = target.masked_fill(torch.arange(classes) == end, -1)
    return dict(input=offset + draw.normal(*rows, classes, scale=scale), target=target)


def boundary(draw):
    """Shortfalls one step to either side of 0, for two labels."""
    step = torch.finfo(draw.dtype).eps
    rows = [[1.0, 2.0, step, -step, 1 + step, 1 - step]]
    return dict(input=draw.tensor(rows), target=draw.tensor([[0, 1, -1, -1, -1, -1]]))


def symbols(input, target, **_):
    if len(input) > 9:  # few classes suffice to check the equations
        return None
    labels = target[: target.index(-1)] if -1 in target else target
    return {"x": input, "y": dict(enumerate(labels, 1)), "Y": frozenset(labels), "L": len(labels), "C": len(input),
            **dict.fromkeys("cij", Each(range(len(input))))}  # fmt: skip


SPEC = Spec(
    fn=multilabel_margin_loss,
    inputs=(Input("input"), Input("target")),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(dict(reduction="mean"), dict(reduction="none"), dict(reduction="sum")),
    samples={
        "typical": lambda draw: labelled(draw, 3, labels=2),
        "one label": lambda draw: labelled(draw, 3, labels=1),
        "repeated": lambda draw: dict(input=draw.normal(2, 4), target=draw.tensor([[1, 1, -1, 0], [3, 0, 3, 3]])),
        "no end": lambda draw: labelled(draw, 3, labels=5),
        "many rows": lambda draw: labelled(draw, 21, labels=3),
        "many classes": lambda draw: labelled(draw, 2, labels=4, classes=70),
        "unbatched": lambda draw: labelled(draw, labels=2),
    },
    regimes={
        "boundary": boundary,
        "tiny": lambda draw: labelled(draw, 4, labels=3, scale=1e-20),
        "huge": lambda draw: labelled(draw, 4, labels=3, scale=1e30),
        "offset": lambda draw: labelled(draw, 4, labels=3, offset=1e5),
        "nearly enough": lambda draw: dict(
            input=draw.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]) + draw.uniform(3, 3, high=1e-6),
            target=draw.tensor([[0, 1, -1]]).repeat(3, 1)),
        "enough": lambda draw: dict(input=draw.tensor([[9.0, 0.0, 9.0]]) + draw.normal(4, 3),
                                    target=draw.tensor([[0, 2, -1]]).repeat(4, 1)),
    },
    kinks={1: shortfalls},
    pins=(
        Pin(dict(input=[[1.0, 0.0, 0.5]], target=[[0, -1, -1]], reduction="none"),
            "a class exactly at the margin has slope 0", value=[0.5 / 3],
            gradient=dict(input=[[-1 / 3, 0.0, 1 / 3]])),
        Pin(dict(input=[[0.0, 0.5]], target=[[0, 0]], reduction="none"), "a repeated label counts repeatedly",
            value=[1.5], gradient=dict(input=[[-1.0, 1.0]])),
        Pin(dict(input=[[0.0, 0.5]], target=[[-1, 0]], reduction="none"), "the list ends at the first -1",
            value=[0.0], gradient=dict(input=[[0.0, 0.0]])),
        Pin(dict(input=[[0.0, NAN, 0.5, -5.0]], target=[[0, 3, -1, -1]], reduction="none"),
            "NaN is propagated to its pairs", value=[NAN], gradient=dict(input=[[NAN, NAN, 0.5, NAN]])),
        Pin(dict(input=[[NAN, 0.0, 0.5]], target=[[0, 1, -1]], reduction="none"), "likewise a label's, but not to "
            "another label", value=[NAN], gradient=dict(input=[[NAN, -1 / 3, NAN]])),
        Pin(dict(input=[[-INF, 0.0, 0.0]], target=[[0, 1, -1]], reduction="none"),
            "an impossible label falls infinitely short", value=[INF], gradient=dict(input=[[-1 / 3, -1 / 3, 2 / 3]])),
        Pin(dict(input=[[0.5, -INF, 0.0]], target=[[0, -1, -1]], reduction="none"),
            "an impossible class has no effect", value=[0.5 / 3], gradient=dict(input=[[-1 / 3, 0.0, 1 / 3]])),
        Pin(dict(input=[[NAN, NAN]], target=[[1, 0]], reduction="none"), "if all are labels, there are no pairs",
            value=[0.0], gradient=dict(input=[[0.0, 0.0]])),
        Pin(dict(input=2.0, target=[0], reduction="none"), "a single class has no competitors", value=0.0,
            gradient=dict(input=0.0)),
    ),
    errors=(
        Error(dict(target=lambda target, **_: target + 5), RuntimeError, "argument #2 'target' is out of range"),
        Error(dict(target=lambda target, **_: target - 6), RuntimeError, "argument #2 'target' is out of range"),
        Error(dict(target=lambda target, **_: 0 * target + 5), RuntimeError, r"got 5, expected \[-1, 4\]"),
        Error(dict(target=lambda target, **_: 0 * target - 2), RuntimeError, r"got -2, expected \[-1, 4\]"),
        Error(dict(target=lambda **_: torch.tensor([[0, -1, 9, 0, 0]] * 3)), RuntimeError, "out of range: got 9"),
        Error(dict(target=lambda target, **_: target[:2]), RuntimeError, "inconsistent target size"),
        Error(dict(target=lambda target, **_: target[0]), RuntimeError, "inconsistent target size"),
        Error(dict(input=lambda input, **_: input[:1, :1], target=lambda target, **_: target[0, :1]), RuntimeError,
              "inconsistent target size"),
        Error(dict(target=lambda target, **_: target.int()), RuntimeError, "expected scalar type Long but found Int"),
        Error(dict(input=lambda input, **_: input[None]), RuntimeError, "Expected non-empty vector or matrix"),
        Error(dict(input=lambda input, **_: input[:, :0]), RuntimeError, "Expected non-empty vector or matrix"),
        Error(dict(input=lambda input, **_: input.long()), NotImplementedError, "input"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
    ),
)  # fmt: skip

CURVE = curves.Curve(
    "score of a label; the other label has 1",
    (-2, 4),
    lambda s, rival: dict(input=curves.rows(s, s, 1, rival, -0.5), target=curves.classes(s, [0, 1, -1, -1])),
    {"rival": curves.Slider("rival, the score of a class that is no label", 0.5, -1.0, 2.0, 0.125)},
)
