"""SimCLR's loss of two views, with a temperature that is a number or is learned."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from gradcheck.spec import Pin, Spec, reduce
from manual_grad.losses.contrastive.nt_xent_loss import nt_xent_loss
from manual_grad.specs import pairs
from manual_grad.specs.pairs import GAPS, dot, lse
from manual_grad.study import curves

LOG3 = 1.0986122886681098


def definition(input1, input2, temperature=0.5, reduction="none"):
    x, N = torch.cat([input1, input2]), len(input1)
    z = x @ x.mT / temperature
    own = torch.arange(2 * N, device=x.device)
    z = z.masked_fill(own.unsqueeze(1) == own, -math.inf)
    loss = F.cross_entropy(z, own.roll(N), reduction="none")
    return reduce((loss[:N] + loss[N:]) / 2, reduction)


def oracle(input1, input2, temperature=0.5, **_):
    def of(x, view, other):
        scores = [dot(x, y) / temperature for y in (*other, *view[1:])]
        return lse(scores) - scores[0]

    return (of(input1[0], input1, input2) + of(input2[0], input2, input1)) / 2


def symbols(draw, input1, input2, temperature=0.5, **_):
    if len(input1[0]) > 4:
        return None  # second derivatives by differences take their time
    return pairs.letters(draw, dict(x=input1, y=input2), dict(T=temperature))


def of_views(scores, **options):
    def sample(draw):
        x = pairs.scored_alike(draw, scores(draw))
        half = len(x) // 2
        return dict(input1=x[:half], input2=x[half:], **{k: v(draw) if callable(v) else v for k, v in options.items()})

    return sample


def drawn(N, scale=1.0, **options):
    return of_views(lambda draw: scale * pairs.eighths(draw, 2 * N, 2 * N), **options)


def confident(gap, right=True, N=2, **options):
    """The score of the other view, or of another vector, leads by a gap."""
    return of_views(
        lambda draw: (
            pairs.eighths(draw, 2 * N, 2 * N) + gap * torch.eye(2 * N, dtype=torch.float64).roll(N if right else 1, 1)
        ),
        **{"temperature": 1.0, **options},
    )


SPEC = Spec(
    fn=nt_xent_loss,
    inputs=pairs.features("input1", "input2", temperature=pairs.POSITIVE),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    blocks=pairs.BLOCKS,
    params=(
        dict(reduction="mean"),
        dict(reduction="none"),
        dict(reduction="sum", temperature=0.7),
    ),
    samples={
        "typical": drawn(2),
        "learned temperature": drawn(2, temperature=pairs.learned),
        "few features": lambda draw: {k: draw.tensor(pairs.eighths(draw, 3, 2)) for k in ("input1", "input2")},
        "few features, two samples": lambda draw: {
            k: draw.tensor(pairs.eighths(draw, 2, 3)) for k in ("input1", "input2")
        },
        "one sample": drawn(1),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        **{f"wrong by {gap}": confident(gap, right=False) for gap in (20, 80)},
        "learned, confident 20": confident(20, temperature=pairs.learned),
        "tiny": drawn(2, 2.0**-60),
        "saturated": confident(1e4),
        "tied": of_views(lambda draw: torch.zeros(4, 4)),
    },
    pins=(
        Pin(dict(input1=[[1.0], [2.0]], input2=[[0.0], [0.0]], reduction="mean", temperature=1.0), "a sample apart",
            value=0.25 * (2 * LOG3 + 2 * math.log(2 + math.exp(2)))),
        Pin(dict(input1=[[3.0]], input2=[[2.0]], reduction="mean"), "the only sample", value=0.0,
            gradient=dict(input1=[[0.0]], input2=[[0.0]])),
    ),
    errors=(*pairs.errors("input1", "input2"), *pairs.not_positive("temperature", "input1")),
    widens=True,
    order=3,
)  # fmt: skip


def turning(s, others, temperature):
    """A view turns away from the other one, which is at 0; another sample has both views at a given angle."""
    first = torch.stack([curves.rows(s, s.cos(), s.sin()), curves.rows(s, math.cos(others), math.sin(others))], 1)
    second = torch.stack([curves.rows(s, 1, 0), curves.rows(s, math.cos(others), math.sin(others))], 1)
    return dict(input1=first, input2=second, temperature=temperature)


CURVE = curves.Curve(
    "angle between the views, in radians",
    (-3.1, 3.1),
    turning,
    {
        "others": curves.Slider("angle of the other sample", 2.0, 0.0, 3.0, 0.5),
        "temperature": curves.Slider("temperature", 0.5, 0.125, 2.0, 0.125),
    },
    pairs.at_each(nt_xent_loss),
)
