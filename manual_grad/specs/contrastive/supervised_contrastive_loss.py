"""The supervised contrastive loss: labels with several positives, with one and with none."""

from __future__ import annotations

import math

import torch

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.contrastive.supervised_contrastive_loss import supervised_contrastive_loss
from manual_grad.specs import pairs
from manual_grad.specs.pairs import GAPS, LOG2, NAN, dot, lse
from manual_grad.study import curves


def definition(features, labels, temperature=0.1, reduction="none"):
    z = features @ features.mT / temperature
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    same = (labels.unsqueeze(1) == labels) & ~own
    log_p = z.masked_fill(own, -math.inf).log_softmax(1)
    loss = -torch.where(same, log_p, 0.0).sum(1) / same.sum(1).clamp_min(1)
    return reduce(loss, reduction)


def oracle(features, labels, temperature=0.1, **_):
    scores = [dot(features[0], x) / temperature for x in features[1:]]
    positive = [z for z, y in zip(scores, labels[1:], strict=True) if y == labels[0]]
    return sum(lse(scores) - z for z in positive) / len(positive) if positive else 0


def symbols(draw, features, labels, temperature=0.1, **_):
    if len(features[0]) > 4:
        return None  # second derivatives by differences take their time
    made = pairs.letters(draw, dict(x=features), dict(T=temperature))
    return made | {"y": labels, **dict.fromkeys("ij", Each(range(len(labels))))}


def labelled(labels, scores=None, **options):
    def sample(draw):
        z = pairs.eighths(draw, len(labels), len(labels)) if scores is None else scores(draw)
        made = {k: v(draw) if callable(v) else v for k, v in options.items()}
        return dict(features=pairs.scored_alike(draw, z), labels=draw.tensor(labels), **made)

    return sample


def confident(gap, right=True, labels=(1, 1, 2, 2), **options):
    """The scores of the vectors with the same label, or of all others, lead by a gap."""
    y = torch.tensor(labels)
    same = (y.unsqueeze(1) == y) == right
    return labelled(
        list(labels),
        lambda draw: pairs.eighths(draw, len(y), len(y)) + gap * same.double(),
        **{"temperature": 1.0, **options},
    )


SPEC = Spec(
    fn=supervised_contrastive_loss,
    inputs=(Input("features", batch=None), Input("labels", batch=None),
            Input("temperature", domain=pairs.POSITIVE, batch=None)),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    blocks=pairs.BLOCKS,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", temperature=0.5),
        dict(reduction="sum", temperature=0.7),
    ),
    samples={
        "typical": labelled([1, 2, 1, 1]),
        "learned temperature": labelled([1, 2, 2, 1], temperature=pairs.learned),
        "few features": lambda draw: dict(features=draw.tensor(pairs.eighths(draw, 4, 2)),
                                          labels=draw.tensor([3, 3, 3, 1])),
        "few features, other labels": lambda draw: dict(features=draw.tensor(pairs.eighths(draw, 4, 2)),
                                                        labels=draw.tensor([0, 1, 0, 1])),
        "one label": labelled([5, 5, 5]),
        "all apart": labelled([1, 2, 3]),
        "one vector": labelled([1]),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        "confident 20, three of a label": confident(20, labels=(1, 1, 1, 2)),
        **{f"wrong by {gap}": confident(gap, right=False) for gap in (20, 80)},
        "learned, confident 20": confident(20, temperature=pairs.learned),
        "tiny": labelled([1, 2, 1, 1], lambda draw: 2.0**-60 * pairs.eighths(draw, 4, 4)),
        "saturated": confident(1e4),
        "tied": labelled([1, 2, 1, 1], lambda draw: torch.zeros(4, 4)),
    },
    pins=(
        Pin(dict(features=[[3.0]], labels=[1], reduction="mean"), "a vector alone has no positive: 0", value=0.0,
            gradient=dict(features=[[0.0]])),
        Pin(dict(features=[[1.0], [2.0], [3.0]], labels=[1, 2, 3], reduction="none"), "no vector has a positive",
            value=[0.0, 0.0, 0.0], gradient=dict(features=[[0.0], [0.0], [0.0]])),
        Pin(dict(features=[[0.0], [0.0], [0.0]], labels=[1, 1, 2], reduction="mean"),
            "the mean divides by all vectors, also by the one without a positive", value=2 * LOG2 / 3),
        Pin(dict(features=[[NAN], [0.0], [0.0]], labels=[1, 2, 2], reduction="none"),
            "a vector without a positive is 0 whatever it holds", value=[0.0, NAN, NAN]),
    ),
    errors=(
        *pairs.errors("features", None),
        *pairs.not_positive("temperature", "features"),
        Error(dict(labels=lambda labels, **_: labels[:2]), RuntimeError, "labels: expected shape"),
        Error(dict(labels=lambda labels, **_: labels.double()), RuntimeError, "labels: expected integers"),
    ),
    widens=True,
    order=3,
)  # fmt: skip


def turning(s, others, temperature):
    """A vector turns away from the one with its label, which is at 0; two others are at a given angle."""
    angles = curves.rows(s, 0, others, others + 0.5)
    rest = torch.stack([angles.cos(), angles.sin()], -1)
    first = curves.rows(s, s.cos(), s.sin()).unsqueeze(1)
    return dict(features=torch.cat([first, rest], 1), labels=torch.tensor([1, 1, 2, 2]), temperature=temperature)


CURVE = curves.Curve(
    "angle of a vector to the one with its label, in radians",
    (-3.1, 3.1),
    turning,
    {
        "others": curves.Slider("angle of the others", 2.0, 0.0, 3.0, 0.5),
        "temperature": curves.Slider("temperature", 0.5, 0.125, 2.0, 0.125),
    },
    pairs.at_each(supervised_contrastive_loss),
)
