"""The head of a language model from hidden states; the additions are those of the spec of cross_entropy_head.

The samples are such that no product is rounded; see :mod:`manual_grad.specs.linear.linear_cross_entropy`.
"""

from __future__ import annotations

import math

import torch

from gradcheck.spec import UNIT, Error, Input, Pin, Spec
from manual_grad.losses.linear import linear_cross_entropy_head as loss
from manual_grad.losses.linear.linear_cross_entropy import linear_cross_entropy
from manual_grad.specs.linear import linear_cross_entropy as scored
from manual_grad.specs.linear.linear_cross_entropy import indices, projected, soft, with_weight
from manual_grad.specs.rowwise import cross_entropy_head as rows
from manual_grad.study import curves

NAN = float("nan")


def linear_cross_entropy_head(
    input, linear_weight, target, linear_bias=None, weight=None, token_weight=None, output="loss", reduction="mean",
    **options,
):  # fmt: skip
    def head(**more):
        given = dict(linear_bias=linear_bias, weight=weight, token_weight=token_weight)
        return linear_cross_entropy(input, linear_weight, target, **given, **more)

    return rows.combined(head, output, reduction, **options)


def definition(input, linear_weight, target, linear_bias=None, weight=None, token_weight=None, **options):
    scores = torch.tensordot(input, linear_weight, dims=([-1], [-1]))
    if linear_bias is not None:
        scores = scores + linear_bias
    return rows.definition(scores, target, weight, token_weight, **options)


def oracle(input, linear_weight, target, linear_bias=None, **options):
    return rows.oracle(scored.scores_of_row(input, linear_weight, linear_bias), target, **options)


def symbols(draw, input, linear_weight, target, linear_bias=None, **options):
    scores = [float(s) for s in scored.scores_of_row(input, linear_weight, linear_bias)]
    letters = rows.symbols(draw, scores, target, **options)
    if letters is None:
        return None
    shared = (r"\lambda", "a", "T", r"\kappa", "or", "c", "i", "j")
    kept = {k: v for k, v in letters.items() if k in shared}
    w, share = letters["w"], letters[r"\varepsilon"]
    q = [w[c] * ((1 - share) * (c == target) + share / len(w)) for c in range(len(w))]
    return {**kept, "q": q, "x": input, "W": linear_weight, "b": linear_bias or [0.0 for _ in scores]}


def with_tokens(sample):
    def made(draw):
        arguments = sample(draw)
        shape = (*arguments["input"].shape[:-1], *arguments["linear_weight"].shape[1:-1])
        return {**arguments, "token_weight": draw.uniform(*shape, low=0.5)}

    return made


SPEC = Spec(
    fn=linear_cross_entropy_head,
    chapter=loss.__doc__,
    inputs=(
        Input("input"),
        Input("linear_weight", batch=None),
        Input("target", domain=UNIT),
        Input("linear_bias", batch=None),
        Input("weight", differentiable=lambda target, **_: target.is_floating_point(), batch=None),
        Input("token_weight"),
    ),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=rows.SPEC.params,
    samples={
        "typical": indices(3, 5),
        "biased": with_tokens(indices(3, 5, bias=True)),
        "weighted": with_weight(indices(3, 5, bias=True)),
        "ignored": with_tokens(lambda draw: {**indices(4, 5)(draw), "target": draw.tensor([2, 1, 0, 2]),
                                             "ignore_index": 2}),
        "probabilities": with_tokens(soft(3, 5)),
        "weighted probabilities": with_weight(soft(3, 5, bias=True)),
        "positions": with_tokens(indices(3, 5, positions=(2,), bias=True)),
        "unbatched": indices(6, bias=True),
        "one class": soft(3, 2, classes=1),
    },
    regimes={name: projected(sample) for name, sample in rows.SPEC.regimes.items() if name != "weighted, confident"},
    pins=(
        Pin(dict(input=[[NAN], [0.0]], linear_weight=[[1.0], [2.0]], target=[0, 1], token_weight=[0, 2],
                 reduction="sum"),
            "a row of weight 0 may hold NaN", value=2 * math.log(2), gradient=dict(input=[[0.0], [-1.0]])),
        Pin(dict(input=[[1.0]], linear_weight=[[0.0], [0.0], [0.0]], linear_bias=[0.0, -float("inf"), 0.0], target=[0],
                 reduction="sum", softcap=5.0),
            "an impossible class", value=math.log(2), gradient=dict(linear_bias=[-0.5, 0.0, 0.5])),
    ),
    errors=(
        Error(dict(temperature=0.0), ValueError, "temperature"),
        Error(dict(z_loss=-1.0), ValueError, "z_loss"),
        Error(dict(normalizer=2.0, reduction="sum"), ValueError, "normalizer"),
        Error(dict(lse=1), TypeError, "lse"),
        Error(dict(token_weight=lambda input, **_: input[:2, 0]), RuntimeError, "token_weight"),
        Error(dict(shift=True, target=lambda input, **_: input[:, :4].softmax(1)), RuntimeError, "shift"),
        Error(dict(target=lambda target, **_: target + 4, z_loss=0.1), IndexError, r"[Tt]arget \d+ is out of bounds"),
    ),
    order=3,
)  # fmt: skip


def growing(s, bias, z_loss):
    return scored.growing(s, bias, 0.0) | dict(z_loss=z_loss)


CURVE = curves.Curve(
    "features, as a multiple of a fixed direction",
    (-3, 4),
    growing,
    {
        "bias": curves.Slider("bias of the target's class", 0.0, -2.0, 2.0, 0.5),
        "z_loss": curves.Slider("factor of the z-loss", 0.1, 0.0, 0.3, 0.05),
    },
    loss=linear_cross_entropy,
)
