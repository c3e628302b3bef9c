"""InfoNCE, one-sided and symmetric, with more keys than queries, and with a temperature that is learned."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from gradcheck.spec import Pin, Spec, reduce
from manual_grad.losses.contrastive.info_nce_loss import info_nce_loss
from manual_grad.specs import pairs
from manual_grad.specs.pairs import GAPS, LOG2, NAN, dot, lse
from manual_grad.study import curves


def definition(query, key, temperature=0.1, symmetric=False, reduction="none"):
    z = query @ key.mT / temperature
    own = torch.arange(len(query), device=query.device)
    loss = F.cross_entropy(z, own, reduction="none")
    if symmetric:
        loss = (loss + F.cross_entropy(z.mT, own, reduction="none")) / 2
    return reduce(loss, reduction)


def oracle(query, key, temperature=0.1, symmetric=False, **_):
    loss = lse([dot(query[0], y) / temperature for y in key]) - dot(query[0], key[0]) / temperature
    if symmetric:
        loss = (loss + lse([dot(x, key[0]) / temperature for x in query]) - dot(query[0], key[0]) / temperature) / 2
    return loss


def symbols(draw, query, key, temperature=0.1, symmetric=False, **_):
    if len(query[0]) > 4 or (symmetric and len(key) != len(query)):
        return None  # second derivatives by differences take their time
    scores = [dot(query[0], y) for y in key]
    made = pairs.letters(draw, dict(x=query, y=key), dict(T=temperature))
    return made | {"k": scores.index(max(scores)), "or": int(symmetric)}


def drawn(N, M, scale=1.0, **more):
    def sample(draw):
        query, key = pairs.scored(draw, scale * pairs.eighths(draw, N, M))
        return dict(query=query, key=key, **{name: make(draw) for name, make in more.items()})

    return sample


def dense(N, M, D):
    """Few features, for the chapter, where many do not matter."""
    return lambda draw: dict(query=draw.tensor(pairs.eighths(draw, N, D)), key=draw.tensor(pairs.eighths(draw, M, D)))


def confident(gap, right=True, M=3, **options):
    def sample(draw):
        query, key = pairs.scored(draw, pairs.leading(draw, 3, M, gap, right))
        return dict(query=query, key=key, temperature=1.0, **options)

    return sample


SPEC = Spec(
    fn=info_nce_loss,
    inputs=pairs.features("query", "key", temperature=pairs.POSITIVE),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    blocks=pairs.BLOCKS,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", temperature=0.5),
        dict(reduction="sum", temperature=0.7),
        dict(reduction="mean", symmetric=True, temperature=0.5),
        dict(reduction="none", symmetric=True),
        dict(reduction="sum", symmetric=True, temperature=0.7),
    ),
    samples={
        "typical": drawn(3, 3),
        "learned temperature": drawn(3, 3, temperature=pairs.learned),
        "extra keys": lambda draw: {**drawn(3, 5)(draw), "symmetric": False},
        "extra keys, learned temperature": drawn(2, 4, temperature=pairs.learned, symmetric=lambda draw: False),
        "few features": dense(3, 3, 2),
        "few features, extra keys": lambda draw: {**dense(2, 3, 2)(draw), "symmetric": False},
        "one pair": drawn(1, 1),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        **{f"confident {gap}, symmetric": confident(gap, symmetric=True) for gap in GAPS},
        **{f"wrong by {gap}": confident(gap, right=False) for gap in (20, 80)},
        **{f"wrong by {gap}, symmetric": confident(gap, right=False, symmetric=True) for gap in (20, 80)},
        "confident 20, extra keys": confident(20, M=5, symmetric=False),
        "learned, confident 20": lambda draw: {**confident(20)(draw), "temperature": pairs.learned(draw)},
        "tiny": drawn(3, 3, 2.0**-60, temperature=lambda draw: 1.0),
        "saturated": confident(1e4),
        "tied": lambda draw: dict(zip(("query", "key"), pairs.scored(draw, torch.zeros(3, 3)), strict=True)),
    },
    pins=(
        Pin(dict(query=[[1.0], [2.0]], key=[[0.0], [0.0]], reduction="none"), "all keys are alike", value=[LOG2, LOG2],
            gradient=dict(query=[[0.0], [0.0]])),
        Pin(dict(query=[[3.0]], key=[[2.0]], reduction="mean"), "the only key", value=0.0,
            gradient=dict(query=[[0.0]], key=[[0.0]])),
        Pin(dict(query=[[NAN], [0.0]], key=[[1.0], [1.0]], reduction="none"), "NaN stays in its row",
            value=[NAN, LOG2]),
    ),
    errors=(*pairs.errors("query", "key"), *pairs.not_positive("temperature", "query")),
    widens=True,
    order=3,
)  # fmt: skip


def turning(s, others, temperature):
    """Two unit vectors, of which the first query turns away from its key; the other key is at a given angle."""
    angles = curves.rows(s, 0, others)
    query = torch.stack([curves.rows(s, s.cos(), s.sin()), curves.rows(s, -1, 0)], 1)
    return dict(query=query, key=torch.stack([angles.cos(), angles.sin()], -1), temperature=temperature)


CURVE = curves.Curve(
    "angle of a query to its key, in radians",
    (-3.1, 3.1),
    turning,
    {
        "others": curves.Slider("angle of the other key", 2.0, 0.0, 3.0, 0.5),
        "temperature": curves.Slider("temperature", 0.5, 0.125, 2.0, 0.125),
    },
    pairs.at_each(info_nce_loss),
)
