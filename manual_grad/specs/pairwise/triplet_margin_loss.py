"""Triplet margin: the anchor should be closer to the positive than to the negative, in a norm of any degree."""

from __future__ import annotations

from dataclasses import replace

import torch
from mpmath import mpf

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pairwise.triplet_margin_loss import triplet_margin_loss
from manual_grad.study import curves

INF, NAN = float("inf"), float("nan")


def norm(x, p):
    if p == 0:
        return (x != 0).sum(-1).to(x.dtype)
    return x.abs().amax(-1) if p == INF else (x.abs() ** p).sum(-1) ** (1 / p)


def definition(anchor, positive, negative, margin=1.0, p=2.0, eps=1e-6, swap=False, reduction="mean"):
    to_positive, to_negative = norm(anchor - positive + eps, p), norm(anchor - negative + eps, p)
    if swap:
        to_negative = torch.minimum(to_negative, norm(positive - negative + eps, p))
    return reduce(torch.relu(margin + to_positive - to_negative), reduction)


def oracle(anchor, positive, negative, margin=1.0, p=2.0, eps=1e-6, swap=False, **_):
    def distance(x, y):
        sizes = [abs(a - b + mpf(eps)) for a, b in zip(x, y, strict=True)]
        return max(sizes) if p == INF else sum(size ** mpf(p) for size in sizes) ** (1 / mpf(p))

    nearest = distance(anchor, negative)
    if swap:
        nearest = min(nearest, distance(positive, negative))
    return max(mpf(0), margin + distance(anchor, positive) - nearest)


def kinks(anchor, positive, negative, margin=1.0, p=2.0, eps=1e-6, swap=False, **_):
    """The kink of the hinge; where it is active, also equal distances to the negative and kinks of the norms used."""
    u, v, w = anchor - positive + eps, anchor - negative + eps, positive - negative + eps
    to_positive, to_negative, swapped = norm(u, p), norm(v, p), norm(w, p)
    s = margin + to_positive - (torch.minimum(to_negative, swapped) if swap else to_negative)
    found = [s]
    if swap:
        found.append(torch.where(s > 0, to_negative - swapped, 1.0))
    uses_w = (swapped < to_negative) & torch.tensor(swap)
    for x, counts in ((u, s > 0), (v, (s > 0) & ~uses_w), (w, (s > 0) & uses_w)):
        found.append(torch.where(counts.unsqueeze(-1), corners(x, p), 1.0))
    return torch.cat([d.flatten() for d in found])


def corners(x, p):
    """Signed distances from the coordinates' zeros (p = 1), or from the ties for the largest (p = inf)."""
    if p == 1:
        return x
    if p != INF:
        return torch.ones_like(x)
    size = x.abs()
    i, j = torch.combinations(torch.arange(size.shape[-1])).T
    leads = torch.maximum(size[..., i], size[..., j]) == size.amax(-1, keepdim=True)
    return torch.where(leads, size[..., i] - size[..., j], 1.0)


def normal(*shape, scale=1.0, **options):
    return lambda draw: dict(
        anchor=draw.normal(*shape, scale=scale),
        positive=draw.normal(*shape, scale=scale),
        negative=draw.normal(*shape, scale=scale),
        **options,
    )


def ordered(**options):
    """No coordinate of a difference is near 0, where the curvature is infinite for degrees below 2."""
    return lambda draw: dict(
        anchor=draw.uniform(3, 4, low=1.0, high=2.0),
        positive=draw.uniform(3, 4, low=-1.5, high=0.0),
        negative=draw.uniform(3, 4, low=3.0, high=4.5),
        **options,
    )


def near(positive, negative, **options):
    """An anchor, and a positive and a negative at these distances from it."""

    def sample(draw):
        a = draw.normal(3, 4)
        return dict(anchor=a, positive=a + positive * draw.normal(3, 4), negative=a + negative * draw.normal(3, 4),
                    **options)  # fmt: skip

    return sample


def at_the_margin(draw):
    """Distances of 5 and, up to a few steps of the dtype, 10, with a margin of 5; the last is far from it."""
    steps = torch.finfo(draw.dtype).eps * draw.tensor([8.0, -8.0, -24.0, 0.0]).unsqueeze(-1)
    far = draw.tensor([0.0, 0.0, 0.0, 2.0]).unsqueeze(-1)
    return dict(anchor=draw.tensor([[0.0, 0.0]] * 4), positive=draw.tensor([[3.0, 4.0]] * 4) + far,
                negative=draw.tensor([[6.0, 8.0]] * 4) + steps, margin=5.0, eps=0.0)  # fmt: skip


def symbols(draw, anchor, positive, negative, margin=1.0, p=2.0, eps=1e-6, swap=False, **_):
    if p == INF:  # the equations do not cover it
        return None
    t = draw.normal(len(anchor)).tolist()
    return {"a": anchor, "p": positive, "n": negative, "m": margin, "q": p, r"\epsilon": eps, "or": int(swap),
            **dict.fromkeys("ij", Each(range(len(anchor)))), "t": t, r"\dot u": t}  # fmt: skip


SPEC = Spec(
    fn=triplet_margin_loss,
    inputs=(Input("anchor"), Input("positive"), Input("negative")),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(
        dict(reduction="mean"),
        dict(reduction="none", margin=0.5, swap=True),
        dict(reduction="sum", margin=2.0, eps=0.01, swap=True),
    ),
    samples={
        "typical": normal(3, 4),
        "unbatched": normal(5),
        "three dimensions": normal(2, 3, 4),
        "broadcast": lambda draw: dict(anchor=draw.normal(3, 4), positive=draw.normal(1, 4),
                                       negative=draw.normal(3, 4)),
        "p = 1": normal(3, 4, p=1.0),
        "p = inf": normal(3, 4, p=INF),
        "p = 3": ordered(p=3.0, margin=4.0),
        "p = 1.5": ordered(p=1.5, margin=4.0),
        "p = 0.5": ordered(p=0.5, margin=40.0),
        "p = -1": ordered(p=-1.0, margin=0.5),
    },
    regimes={
        **{f"near positive {d:g}": near(d, 1.0) for d in (1e-2, 1e-4, 1e-6)},
        "collapsed": near(1e-3, 1e-3),
        "collapsed to a point": near(0.0, 0.0),
        "hard negative": near(1.0, 1e-4),
        "far from both": lambda draw: dict(anchor=50 + draw.normal(3, 4), positive=draw.normal(3, 4),
                                           negative=draw.normal(3, 4)),
        "at the margin": at_the_margin,
        "offset": lambda draw: {k: 1e5 + t for k, t in normal(4, 4)(draw).items()},
        "tiny": normal(4, 4, scale=1e-30, eps=0.0),
        "huge": normal(4, 4, scale=1e30, eps=0.0),
        "tiny, p = 3": normal(4, 4, scale=1e-30, eps=0.0, p=3.0),
        "huge, p = 12": normal(4, 4, scale=1e30, eps=0.0, p=12.0),
        "huge, p = 0.5": normal(4, 4, scale=1e25, eps=0.0, p=0.5),
        "huge, p = -2": normal(4, 4, scale=1e30, eps=0.0, p=-2.0),
    },
    kinks={1: kinks},
    pins=(
        *(
            Pin(dict(anchor=[[1.0, 2.0]], positive=[[1.0, 2.0]], negative=[[1.0, 3.0]], margin=5.0, eps=0.0, p=p,
                     reduction="none"),
                "a coordinate of 0 and a zero vector have slope 0, as in torch", value=[4.0],
                gradient=dict(anchor=[[0.0, 1.0]], positive=[[0.0, 0.0]], negative=[[0.0, -1.0]]))
            for p in (0.5, 1.0, 1.5, 2.0, 3.0, INF)
        ),
        Pin(dict(anchor=[[1.0, 2.0]], positive=[[1.0, 5.0]], negative=[[2.0, 3.0]], margin=5.0, eps=0.0, p=0.0,
                 reduction="none"),
            "degree 0 counts, with slope 0", value=[4.0],
            gradient=dict(anchor=[[0.0, 0.0]], positive=[[0.0, 0.0]], negative=[[0.0, 0.0]])),
        Pin(dict(anchor=[[1.0, 2.0]], positive=[[1.0, 3.0]], negative=[[3.0, 4.0]], margin=5.0, eps=0.0, p=-1.0,
                 reduction="none"),
            "of negative degree, the norm of a vector with a coordinate of 0 is 0, with slope 0, as in torch",
            value=[4.0], gradient=dict(anchor=[[0.25, 0.25]], positive=[[0.0, 0.0]], negative=[[-0.25, -0.25]])),
        Pin(dict(anchor=[[1.0, 2.0, 0.0]], positive=[[0.0, 1.0, 0.0]], negative=[[0.0, 0.0, 0.0]], margin=5.0, eps=0.0,
                 p=INF, reduction="none"),
            "coordinates that tie for the largest share equally, as in torch", value=[4.0],
            gradient=dict(anchor=[[0.5, -0.5, 0.0]], positive=[[-0.5, -0.5, 0.0]], negative=[[0.0, 1.0, 0.0]])),
        Pin(dict(anchor=[[0.0]], positive=[[0.0]], negative=[[1.0]], eps=0.0, reduction="none"),
            "at the margin the hinge is active, as in torch", value=[0.0],
            gradient=dict(anchor=[[1.0]], positive=[[0.0]], negative=[[-1.0]])),
        Pin(dict(anchor=[[0.0]], positive=[[0.0]], negative=[[1.0]], eps=0.0, margin=2.0, swap=True, reduction="none"),
            "equal distances to the negative share equally, as in torch", value=[1.0],
            gradient=dict(anchor=[[0.5]], positive=[[0.5]], negative=[[-1.0]])),
        Pin(dict(anchor=[[0.0, 0.0]], positive=[[1.0, 0.0]], negative=[[INF, 0.0]], reduction="none"),
            "an infinitely far negative is easy", value=[0.0],
            gradient=dict(anchor=[[0.0, 0.0]], positive=[[0.0, 0.0]], negative=[[0.0, 0.0]])),
        *(
            Pin(dict(anchor=[[1.0, 1.0]], positive=[[INF, 0.0]], negative=[[2.0, 2.0]], p=0.5, eps=0.0, swap=swap,
                     reduction="none"),
                "below degree 1, a finite coordinate next to an infinite one has an infinite slope", value=[INF],
                gradient=dict(anchor=[[NAN, INF]], positive=[[NAN, -INF]], negative=[[-2.0, -2.0]]))
            for swap in (False, True)
        ),
        Pin(dict(anchor=[[]], positive=[[]], negative=[[]], reduction="none"),
            "empty vectors have distance 0", value=[1.0]),
    ),
    errors=(
        Error(dict(margin=0.0), ValueError, "margin must be greater than 0"),
        Error(dict(margin="1"), TypeError, "'<='"),
        Error(dict(p=None), TypeError, "argument 'p'"),
        Error(dict(eps="0"), TypeError, "argument 'eps'"),
        Error(dict(swap=1), TypeError, "argument 'swap'"),
        Error(dict(positive=lambda positive, **_: positive[0]), RuntimeError, "positive 1D"),
        Error(dict(positive=lambda positive, **_: positive[:2]), RuntimeError, "size of tensor a|[Bb]roadcast"),
        Error(dict(negative=lambda negative, **_: negative[:, :3]), RuntimeError, "size of tensor a|[Bb]roadcast"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "position of the negative, which passes the anchor",
    (-2.5, 2.5),
    curves.negative_passes,
    {"p": curves.Slider("p, of the norm", 2.0, 1.5, 4.0, 0.5), "margin": replace(curves.MARGIN, low=0.25, step=0.25)},
)
