"""The log-probability and the entropy of a linear layer's scores: each output alone and two together.

The samples are such that no product is rounded; see :mod:`manual_grad.specs.linear.linear_cross_entropy`.
"""

from __future__ import annotations

from typing import Any

import torch

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.linear import linear_log_prob as loss
from manual_grad.specs.linear import linear_cross_entropy
from manual_grad.specs.linear.linear_cross_entropy import scores_of_row
from manual_grad.specs.rowwise import selected_log_prob as rows
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def linear_log_prob(hidden, weight, index, bias=None, output="log_prob", reduction="none", **options):
    """One of the outputs, or a combination of two."""
    if output == "log_prob":
        log_prob: Any = loss.linear_log_prob(hidden, weight, index, bias, **options)
        return reduce(log_prob, reduction)
    found: Any = loss.linear_log_prob(hidden, weight, index, bias, entropy=True, lse=True, accuracy=True, **options)
    return reduce(2 * found.entropy - found.log_prob if output == "both" else getattr(found, output), reduction)


def definition(hidden, weight, index, bias=None, **options):
    scores = hidden @ weight.mT
    return rows.definition(scores if bias is None else scores + bias, index, **options)


def oracle(hidden, weight, index, bias=None, **options):
    return rows.oracle(scores_of_row(hidden, weight, bias), index, **options)


NAMES = {"input": "hidden", "linear_weight": "weight", "target": "index", "linear_bias": "bias"}


def renamed(sample):
    return lambda draw: {NAMES.get(name, name): value for name, value in sample(draw).items()}


def indices(*shape, **layout):
    return renamed(linear_cross_entropy.indices(*shape, **layout))


def symbols(draw, hidden, weight, index, bias=None, **options):
    scores = [float(s) for s in scores_of_row(hidden, weight, bias)]
    letters = rows.symbols(draw, scores, index, **options)
    if letters is None:
        return None
    shared = ("y", "a", "T", r"\kappa", "or", "g_y", "g_H", "g_s", "c", "i", "j")
    kept = {k: v for k, v in letters.items() if k in shared}
    return {**kept, "x": hidden, "W": weight, "b": bias or [0.0 for _ in scores]}


SPEC = Spec(
    fn=linear_log_prob,
    chapter=loss.__doc__,
    inputs=(
        Input("hidden"),
        Input("weight", batch=None),
        Input("index"),
        Input("bias", batch=None),
    ),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(*rows.SPEC.params, dict(output="lse", temperature=0.75)),
    samples={
        "typical": indices(3, 5),
        "biased": indices(3, 5, bias=True),
        "ignored": lambda draw: {**indices(4, 5)(draw), "index": draw.tensor([2, 1, 0, 2]), "ignore_index": 2},
        "unbatched": indices(6, bias=True),
        "one class": indices(3, 2, high=1),
    },
    regimes={name: renamed(linear_cross_entropy.projected(sample)) for name, sample in rows.SPEC.regimes.items()},
    pins=(
        Pin(dict(hidden=[[1.0], [NAN]], weight=[[1.0], [2.0]], index=[-100, -100], output="both"),
            "the contents of an ignored row do not matter", value=[0.0, 0.0], gradient=dict(hidden=[[0.0], [0.0]])),
        Pin(dict(hidden=[[1.0]], weight=[[0.0], [0.0], [0.0]], bias=[0.0, -INF, 0.0], index=[0], output="log_prob"),
            "an impossible class", value=[-0.6931471805599453],
            gradient=dict(bias=[0.5, 0.0, -0.5], weight=[[0.5], [0.0], [-0.5]])),
        Pin(dict(hidden=[[NAN], [0.0]], weight=[[1.0], [1.0]], index=[1, 1], output="entropy"), "NaN stays in its row",
            value=[NAN, 0.6931471805599453]),
    ),
    errors=(
        Error(dict(weight=lambda weight, **_: weight[0]), RuntimeError, "weight: expected shape"),
        Error(dict(weight=lambda weight, **_: weight[:, :4]), RuntimeError, "weight: expected shape"),
        Error(dict(weight=lambda weight, **_: weight.float()), RuntimeError, "weight: expected scalar type"),
        Error(dict(bias=lambda hidden, **_: hidden[0, :3]), RuntimeError, "bias: expected shape"),
        Error(dict(index=lambda index, **_: index + 4), IndexError, r"[Tt]arget \d+ is out of bounds"),
        Error(dict(index=lambda index, **_: index[:2]), RuntimeError, "index: expected shape"),
        Error(dict(index=lambda index, **_: index.int()), RuntimeError, "index: expected scalar type Long"),
        Error(dict(hidden=lambda hidden, **_: hidden.long()), NotImplementedError, "floating point"),
        Error(dict(temperature=0.0), ValueError, "temperature"),
        Error(dict(softcap="high"), TypeError, "softcap"),
        Error(dict(ignore_index=1.5), TypeError, "ignore_index"),
    ),
    widens=True,
    order=3,
)  # fmt: skip


def growing(s, bias, temperature):
    weight = torch.tensor([[1.0, -1.0], [0.5, 1.0], [-1.0, 0.0]], dtype=s.dtype)
    offset = torch.tensor([bias, 0.0, 0.0], dtype=s.dtype)
    shares = dict(bias=offset, temperature=temperature, output="both")
    return dict(hidden=curves.features(s), weight=weight, index=curves.classes(s, 0), **shares)


CURVE = curves.Curve(
    "features, as a multiple of a fixed direction",
    (-3, 4),
    growing,
    {
        "bias": curves.Slider("bias of the class asked for", 0.0, -2.0, 2.0, 0.5),
        "temperature": curves.Slider("temperature", 1.0, 0.25, 2.0, 0.25),
    },
)
