"""Triplet margin with any distance."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from mpmath import inf, mpf, sqrt

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pairwise.triplet_margin_with_distance_loss import triplet_margin_with_distance_loss
from manual_grad.study import curves

EPSILON = 1e-6


def euclidean(x, y):
    return (x - y + EPSILON).square().sum(-1).sqrt()


def squared(x, y):
    return (x - y).square().sum(-1)


def definition(anchor, positive, negative, distance_function=None, margin=1.0, swap=False, reduction="mean"):
    d = distance_function or euclidean
    nearest = torch.minimum(d(anchor, negative), d(positive, negative)) if swap else d(anchor, negative)
    return reduce(torch.relu(margin + d(anchor, positive) - nearest), reduction)


def oracle(anchor, positive, negative, distance_function=None, margin=1.0, swap=False, **_):
    x, y, z = distances(anchor, positive, negative, distance_function)
    return max(mpf(0), margin + x - (min(y, z) if swap else y))


def distances(anchor, positive, negative, distance_function):
    def d(x, y):
        if distance_function is squared:
            return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
        return sqrt(sum((a - b + mpf(EPSILON)) ** 2 for a, b in zip(x, y, strict=True)))

    return d(anchor, positive), d(anchor, negative), d(positive, negative)


def symbols(anchor, positive, negative, distance_function=None, margin=1.0, swap=False, **_):
    x, y, z = distances(anchor, positive, negative, distance_function)
    return {"x": x, "y": y, "z": z if swap else inf, "m": margin}


def kinks(anchor, positive, negative, distance_function=None, margin=1.0, swap=False, **_):
    """The kink of the hinge and, where it is active, equal distances to the negative."""
    d = distance_function or euclidean
    to_negative, swapped = d(anchor, negative), d(positive, negative)
    s = margin + d(anchor, positive) - (torch.minimum(to_negative, swapped) if swap else to_negative)
    return torch.cat([s.flatten(), torch.where(s > 0, to_negative - swapped, 1.0).flatten()]) if swap else s


def normal(*shape, scale=1.0):
    return lambda draw: dict(anchor=draw.normal(*shape, scale=scale), positive=draw.normal(*shape, scale=scale),
                             negative=draw.normal(*shape, scale=scale))  # fmt: skip


def eighths(*shape, margin):
    """Multiples of 1/8, whose squared distances are exact in float32, since the loss takes the caller's distances.

    To avoid ties, 1/16 is added to one coordinate of the positive and 1/512 to the margin.
    """

    def sample(draw):
        anchor, positive, negative = (draw.integers(*shape, low=-16, high=17).double() / 8 for _ in range(3))
        positive[..., 0] += 1 / 16
        return dict(anchor=draw.tensor(anchor), positive=draw.tensor(positive), negative=draw.tensor(negative),
                    margin=margin + 1 / 512, distance_function=squared)  # fmt: skip

    return sample


def at_the_margin(draw):
    """Squared distances of 25 and 100, with a margin slightly above their difference; the last is far from it."""
    return dict(anchor=draw.tensor([[0.0, 0.0], [0.0, 1.0]]), positive=draw.tensor([[3.0, 4.0], [0.0, 3.0]]),
                negative=draw.tensor([[6.0, 8.0], [0.0, 2.0]]), margin=75 + 2.0**-20,
                distance_function=squared)  # fmt: skip


SPEC = Spec(
    fn=triplet_margin_with_distance_loss,
    inputs=(Input("anchor"), Input("positive"), Input("negative")),
    definition=definition,
    oracle=oracle,
    exact=False,  # the caller's distance has its own rounding errors
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", margin=0.5, swap=True),
        dict(reduction="sum", margin=2.0, swap=True),
    ),
    samples={
        "typical": normal(3, 4),
        "unbatched": normal(5),
        "three dimensions": normal(2, 3, 4),
        "broadcast": lambda draw: dict(anchor=draw.normal(2, 4), positive=draw.normal(1, 4),
                                       negative=draw.normal(2, 4)),
        "squared": eighths(3, 4, margin=1.0),
        "squared, matrices": eighths(2, 3, 4, margin=0.25),
    },
    regimes={
        "at the margin": at_the_margin,
        "tiny": normal(4, 4, scale=1e-6),
        "huge": normal(4, 4, scale=1e12),
    },
    kinks={1: kinks},
    pins=(
        Pin(dict(anchor=[[0.0]], positive=[[1.0]], negative=[[2.0]], distance_function=squared, margin=3.0,
                 reduction="none"),
            "at the margin the hinge is active, as in torch", value=[0.0],
            gradient=dict(anchor=[[2.0]], positive=[[2.0]], negative=[[-4.0]])),
        Pin(dict(anchor=[[0.0]], positive=[[0.0]], negative=[[1.0]], distance_function=squared, margin=2.0, swap=True,
                 reduction="none"),
            "equal distances to the negative share equally, as in torch", value=[1.0],
            gradient=dict(anchor=[[1.0]], positive=[[1.0]], negative=[[-2.0]])),
    ),
    errors=(
        Error(dict(margin=0.0), ValueError, "margin must be greater than 0"),
        Error(dict(margin="1"), TypeError, "'<='"),
        Error(dict(positive=lambda positive, **_: positive[0]), RuntimeError, "positive 1D"),
        Error(dict(positive=lambda positive, **_: positive[:2]), RuntimeError, "size of tensor a|[Bb]roadcast"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(reduction="elementwise_mean"), ValueError, "elementwise_mean is not a valid value for reduction"),
        Error(dict(distance_function=lambda **_: lambda x, y: (x - y).sum(-1) + 0j), NotImplementedError, "complex"),
    ),
    order=3,
)  # fmt: skip


def squared_distance(x, y):
    return (x - y).square().sum(-1)


CURVE = curves.Curve(
    "position of the negative, which passes the anchor; squared distances",
    (-2.5, 2.5),
    functools.partial(curves.negative_passes, distance_function=squared_distance),
    {"margin": replace(curves.MARGIN, low=0.125)},
)
