"""Cross entropy of a linear layer's scores: bias, class weights, ignored rows, label smoothing, several positions.

A float32 product has rounding errors that no rule can avoid. To test only the rule against the oracle, the samples are
such that no product is rounded: every feature affects one class, with a power of two as its weight, and if a class has
two features, these have few bits. Then no sum over classes cancels in the gradient of a feature either.
"""

from __future__ import annotations

import functools
from unittest import mock

import torch
from mpmath import mpf
from torch.nn import functional as F

from gradcheck.spec import UNIT, Error, Input, Module, Pin, Spec
from manual_grad.engine import linear
from manual_grad.losses.linear.linear_cross_entropy import LinearCrossEntropyLoss, linear_cross_entropy
from manual_grad.specs.rowwise import cross_entropy as rows
from manual_grad.specs.rowwise.cross_entropy import GAPS, INF, NAN, probabilities
from manual_grad.study import curves


def definition(input, linear_weight, target, linear_bias=None, weight=None, ignore_index=None, **params):
    scores = torch.tensordot(input, linear_weight, dims=([-1], [-1]))
    if linear_bias is not None:
        scores = scores + linear_bias
    return rows.definition(scores, target, weight, -100 if ignore_index is None else ignore_index, **params)


def scores_of_row(input, linear_weight, linear_bias):
    scores = [sum(x * w for x, w in zip(input, row, strict=True)) for row in linear_weight]
    return scores if linear_bias is None else [z + b for z, b in zip(scores, linear_bias, strict=True)]


def oracle(input, linear_weight, target, linear_bias=None, weight=None, ignore_index=None, **params):
    scores = scores_of_row(input, linear_weight, linear_bias)
    return rows.oracle(scores, target, weight, -100 if ignore_index is None else ignore_index, **params)


def scores_of(draw, *shape, positions=(), classes=4, bias=False):
    """Features of shape ``shape`` with few bits, and a weight with which the d-th affects class d % classes."""
    features = shape[-1]
    owner = F.one_hot(torch.arange(features) % classes, classes).T.reshape(classes, *(1 for _ in positions), features)
    size = 2.0 ** draw.integers(classes, *positions, features, low=-1, high=2).cpu()
    size = size * draw.sign(*positions, features).cpu().double()
    made = dict(input=eighths(draw, *shape), linear_weight=draw.tensor(size.double() * owner))
    return {**made, "linear_bias": eighths(draw, classes, *positions)} if bias else made


def eighths(draw, *shape):
    return draw.tensor(draw.integers(*shape, low=-15, high=16).double() / 8)


def projected(sample):
    """A sample of cross entropy with its logits as features, doubled and reversed; the projection undoes this."""

    def made(draw):
        arguments = dict(sample(draw))
        logits = arguments.pop("input")
        weight = draw.tensor(0.5 * torch.eye(logits.shape[-1], dtype=torch.float64).flip(0))
        return dict(input=2 * logits.flip(-1), linear_weight=weight, **arguments)

    return made


def indices(*shape, high=4, **layout):
    return lambda draw: dict(**scores_of(draw, *shape, classes=high, **layout),
                             target=draw.integers(*shape[:-1], *layout.get("positions", ()), high=high))  # fmt: skip


def soft(*shape, classes=4, **layout):
    positions = layout.get("positions", ())
    return lambda draw: dict(**scores_of(draw, *shape, classes=classes, **layout),
                             target=probabilities(draw, *shape[:-1], classes, *positions))  # fmt: skip


def with_weight(sample, low=0.5):
    def made(draw):
        arguments = sample(draw)
        return {**arguments, "weight": draw.uniform(len(arguments["linear_weight"]), low=low)}

    return made


def symbols(draw, input, linear_weight, target, linear_bias=None, weight=None, ignore_index=None, **params):
    scores = scores_of_row(input, linear_weight, linear_bias)
    made = rows.symbols(draw, scores, target, weight, -100 if ignore_index is None else ignore_index, **params)
    if made is None:
        return None
    smoothing = made[r"\varepsilon"]
    q = [w * ((1 - smoothing) * t + smoothing / mpf(len(scores))) for w, t in zip(made["w"], made["t"], strict=True)]
    direction = {r"\dot x": draw.normal(len(input)).tolist(), r"\dot b": draw.normal(len(scores)).tolist(),
                 r"\dot W": draw.normal(len(scores), len(input)).tolist()}  # fmt: skip
    return {"x": input, "W": linear_weight, "b": linear_bias or [0.0] * len(scores), "q": q,
            **dict.fromkeys("cj", made["c"]), **direction}  # fmt: skip


def in_blocks(**sizes):
    every = dict.fromkeys(("SCORES", "SCORES_ON_DEVICE", "SCORES_OF_FORMULAS"), sizes.pop("scores"))
    return functools.partial(mock.patch.multiple, linear, **every, **sizes)


def sizes(linear_weight, linear_bias=None):
    classes, *positions, features = linear_weight.shape
    bias = linear_bias is not None
    return dict(in_features=features, num_classes=classes, out_features=tuple(positions), bias=bias)


def state(linear_weight, linear_bias=None):
    weight = {"linear.weight": linear_weight.flatten(0, -2)}
    return weight if linear_bias is None else {**weight, "linear.bias": linear_bias.flatten()}


SPEC = Spec(
    fn=linear_cross_entropy,
    blocks={
        "blocks of a row": in_blocks(scores=1, LEAST_ROWS=0),
        "blocks of two rows and a class": in_blocks(scores=2, LEAST_ROWS=1, MOST_ROWS=2),
    },
    modules=(Module(LinearCrossEntropyLoss, sizes, state),),
    inputs=(
        Input("input"),
        Input("linear_weight", batch=None),
        Input("target", domain=UNIT),
        Input("linear_bias", batch=None),
        Input("weight", differentiable=lambda target, **_: target.is_floating_point(), batch=None),
    ),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=rows.SPEC.params,
    samples={
        "typical": indices(3, 5),
        "biased": indices(3, 5, bias=True),
        "weighted": with_weight(indices(3, 5, bias=True)),
        "ignored": lambda draw: {**with_weight(indices(4, 5))(draw), "target": draw.tensor([2, 1, 0, 2]),
                                 "ignore_index": 2},
        "probabilities": soft(3, 5),
        "weighted probabilities": with_weight(soft(3, 5, bias=True)),
        "image": indices(2, 4, high=3, positions=(2, 2)),
        "image of probabilities": with_weight(soft(2, 4, classes=3, positions=(2,), bias=True)),
        "unbatched": indices(6, bias=True),
        "unbatched probabilities": soft(6),
        "bytes": lambda draw: {**(made := indices(3, 5)(draw)), "target": made["target"].byte()},
        "all smooth": lambda draw: {**indices(3, 5, bias=True)(draw), "label_smoothing": 1.0},
        "one class": soft(3, 2, classes=1),
    },
    regimes={
        **{f"confident {gap}": projected(rows.confident(gap)) for gap in GAPS},
        **{f"wrong by {gap}": projected(rows.confident(gap, right=False)) for gap in GAPS},
        **{f"soft {gap}": projected(rows.soft(gap)) for gap in (20, 80)},
        "tiny": projected(rows.confident(0, scale=1e-30)),
        "saturated": projected(rows.confident(1e4)),
        "huge": projected(rows.confident(0, scale=1e30)),
        "offset": projected(rows.SPEC.regimes["offset"]),
        "tied leaders": projected(rows.SPEC.regimes["tied leaders"]),
        "weighted, confident": with_weight(projected(rows.confident(20)), low=0.01),
    },
    pins=(
        Pin(dict(input=[[1.0, 2.0]], linear_weight=[[1.0, 0.0], [0.0, 1.0]], target=[-100], reduction="mean"),
            "all rows ignored: the value is 0 / 0, the gradient 0", value=NAN,
            gradient=dict(input=[[0.0, 0.0]], linear_weight=[[0.0, 0.0], [0.0, 0.0]])),
        Pin(dict(input=[[1.0], [NAN]], linear_weight=[[1.0], [2.0]], target=[-100, -100], reduction="sum"),
            "the contents of an ignored row do not matter", value=0.0, gradient=dict(input=[[0.0], [0.0]])),
        Pin(dict(input=[[1.0]], linear_weight=[[0.0], [0.0], [0.0]], linear_bias=[0.0, -INF, 0.0], target=[0],
                 reduction="sum"),
            "an impossible class that is not the target", value=0.6931471805599453,
            gradient=dict(linear_bias=[-0.5, 0.0, 0.5], linear_weight=[[-0.5], [0.0], [0.5]])),
        Pin(dict(input=[[1.0]], linear_weight=[[0.0], [0.0]], linear_bias=[0.0, -INF], target=[1], reduction="sum"),
            "an impossible class that is the target", value=INF),
        Pin(dict(input=[[NAN]], linear_weight=[[1.0], [1.0]], target=[1], reduction="none"), "NaN stays in its row",
            value=[NAN]),
    ),
    errors=(
        Error(dict(input=lambda input, **_: input[None]), RuntimeError, "input with dimensionality 1 or 2, got 3"),
        Error(dict(input=lambda input, **_: input[0, 0]), RuntimeError, "input with dimensionality 1 or 2, got 0"),
        Error(dict(linear_weight=lambda linear_weight, **_: linear_weight[0]), RuntimeError, "at least 2, got 1"),
        Error(dict(linear_weight=lambda linear_weight, **_: linear_weight[:, :4]), RuntimeError, "got 5 and 4, resp"),
        Error(dict(linear_weight=lambda linear_weight, **_: linear_weight.float()), RuntimeError, "scalar type|dtype"),
        Error(dict(linear_bias=lambda input, **_: input[0, :3]), RuntimeError, r"linear_bias shape \(4,\), got \(3,\)"),
        Error(dict(input=lambda input, **_: input[0], linear_weight=lambda linear_weight, **_: linear_weight[:, None]),
              RuntimeError, "requires batched input"),
        Error(dict(target=lambda target, **_: target + 4), IndexError, r"[Tt]arget \d+ is out of bounds"),
        Error(dict(target=lambda target, **_: -1 - target), IndexError, r"[Tt]arget -\d+ is out of bounds"),
        Error(dict(target=lambda target, **_: 0 * target + 4), IndexError, "[Tt]arget 4 is out of bounds"),
        Error(dict(target=lambda target, **_: 0 * target - 1), IndexError, "[Tt]arget -1 is out of bounds"),
        Error(dict(target=lambda target, **_: target[:2]), ValueError, r"batch_size .*target batch_size"),
        Error(dict(target=lambda target, **_: target.int()), RuntimeError, "target dtype"),
        Error(dict(target=lambda target, **_: F.one_hot(target, 4)), RuntimeError, "floating point type for target"),
        Error(dict(target=lambda target, **_: F.one_hot(target, 4).double(), ignore_index=-100), RuntimeError,
              "ignore_index cannot be specified when target contains probabilities"),
        Error(dict(label_smoothing=1.5), RuntimeError, "label_smoothing"),
        Error(dict(weight=lambda input, **_: input[0, :2]), RuntimeError, "weight"),
        Error(dict(weight=lambda input, **_: input[0, :4].float()), RuntimeError, "expected scalar type|weight"),
        Error(dict(ignore_index=1.5), TypeError, "ignore_index"),
        Error(dict(label_smoothing="much"), TypeError, "label_smoothing"),
        Error(dict(options="accurate"), TypeError, "options"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
    ),
    order=3,
)  # fmt: skip


def growing(s, bias, label_smoothing):
    weight = torch.tensor([[1.0, -1.0], [0.5, 1.0], [-1.0, 0.0]], dtype=s.dtype)
    offset = torch.tensor([bias, 0.0, 0.0], dtype=s.dtype)
    shares = dict(linear_bias=offset, label_smoothing=label_smoothing)
    return dict(input=curves.features(s), linear_weight=weight, target=curves.classes(s, 0), **shares)


CURVE = curves.Curve(
    "features, as a multiple of a fixed direction",
    (-3, 4),
    growing,
    {"bias": curves.Slider("bias of the target's class", 0.0, -2.0, 2.0, 0.5), "label_smoothing": curves.SMOOTHING},
)
