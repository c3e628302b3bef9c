"""Cosine embedding: 1 - cos for pairs that belong together, the excess of cos over a margin for others."""

from __future__ import annotations

from dataclasses import replace

import torch
from mpmath import mpf, sqrt

from gradcheck.spec import Error, Input, Pin, Spec, reduce
from manual_grad.losses.pairwise.cosine_embedding_loss import cosine_embedding_loss
from manual_grad.study import curves

EPSILON = 1e-12


def cosine(a, b):
    return (a * b).sum(-1) / (((a * a).sum(-1) + EPSILON) * ((b * b).sum(-1) + EPSILON)).sqrt()


def definition(input1, input2, target, margin=0.0, reduction="mean"):
    c = cosine(input1, input2)
    apart = torch.where(target == -1, (c - margin).clamp_min(0), 0.0)
    return reduce(torch.where(target == 1, 1 - c, apart), reduction)


def oracle(input1, input2, target, margin=0, **_):
    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    c = dot(input1, input2) / sqrt((dot(input1, input1) + mpf(EPSILON)) * (dot(input2, input2) + mpf(EPSILON)))
    return 1 - c if target == 1 else max(0, c - margin) if target == -1 else mpf(0)


def above_margin(input1, input2, target, margin=0.0, **_):
    return torch.where(target == -1, cosine(input1, input2) - margin, 1.0)


def near(angle, target=1.0, factor=1.0):
    """Pairs at a small angle from parallel (antiparallel for a negative factor)."""

    def sample(draw):
        a = draw.normal(3, 4)
        return dict(input1=a, input2=factor * a + angle * draw.normal(3, 4), target=draw.tensor([target] * 3))

    return sample


def scaled(scale1, scale2):
    return lambda draw: dict(input1=draw.normal(4, 4, scale=scale1), input2=draw.normal(4, 4, scale=scale2),
                             target=draw.tensor([1.0, -1.0, 1.0, -1.0]))  # fmt: skip


def symbols(draw, input1, input2, target, margin=0.0, **_):
    u, v = draw.normal(len(input1)).tolist(), draw.normal(len(input1)).tolist()
    return {"a": input1, "b": input2, "y": target, "m": margin, r"\kappa": draw.normal().item(),
            "u": u, r"\dot a": u, "v": v, r"\dot b": v}  # fmt: skip


SPEC = Spec(
    fn=cosine_embedding_loss,
    inputs=(Input("input1"), Input("input2"), Input("target", differentiable=False)),
    definition=definition,
    oracle=oracle,
    symbols=symbols,
    params=(dict(reduction="mean"), dict(reduction="none", margin=0.25), dict(reduction="sum", margin=-0.5)),
    samples={
        "typical": scaled(1.0, 2.0),
        "integer target": lambda draw: dict(input1=draw.normal(3, 4), input2=draw.normal(3, 4),
                                            target=draw.tensor([1, -1, 1])),
        "other targets": lambda draw: dict(input1=draw.normal(4, 3), input2=draw.normal(4, 3),
                                           target=draw.tensor([1.0, 0.0, -1.0, 2.0])),
        "unbatched": lambda draw: dict(input1=draw.normal(5), input2=draw.normal(5), target=draw.tensor(1.0)),
        "broadcast": lambda draw: dict(input1=draw.normal(3, 4), input2=draw.normal(1, 4),
                                       target=draw.tensor([1.0, 1.0, -1.0])),
    },
    regimes={
        **{f"near-parallel {angle:g}": near(angle) for angle in (1e-1, 1e-2, 1e-3, 1e-4, 1e-6)},
        "near-parallel, scaled": near(1e-3, factor=7.0),
        "near-parallel, apart": near(1e-3, target=-1.0),
        "near-antiparallel": near(1e-3, factor=-1.0),
        "parallel": lambda draw: dict(input1=draw.tensor([[1.0, 2.0, 3.0]]), input2=draw.tensor([[2.0, 4.0, 6.0]]),
                                      target=draw.tensor([1.0])),
        "tiny": scaled(1e-6, 1e-6),
        "below epsilon": scaled(1e-9, 1.0),
        "huge": scaled(1e15, 1e15),
        "unequal": scaled(1e-4, 1e10),
    },
    kinks={1: above_margin},
    pins=(
        Pin(dict(input1=[[1e3, 0.0]], input2=[[0.0, 1e3]], target=[-1.0], reduction="sum"),
            "at the margin the active side is chosen, as in torch",
            value=0.0, gradient=dict(input1=[[0.0, 1e-3]], input2=[[1e-3, 0.0]])),
        Pin(dict(input1=[[3.0, 4.0]], input2=[[1.0, 0.0]], target=[0.0], reduction="none"),
            "a target that is neither 1 nor -1 has loss 0", value=[0.0], gradient=dict(input1=[[0.0, 0.0]])),
        Pin(dict(input1=[[0.0, 0.0]], input2=[[0.0, 0.0]], target=[1.0], reduction="none"),
            "zero vectors have cosine 0, because of epsilon", value=[1.0],
            gradient=dict(input1=[[0.0, 0.0]], input2=[[0.0, 0.0]])),
        Pin(dict(input1=[[1.0]], input2=[[3.0, 4.0]], target=[-1.0], margin=0.995, reduction="none"),
            "vectors are broadcast first; torch counts a coordinate once and gets a cosine of 1.4",
            value=[0.0], gradient=dict(input1=[[0.0]], input2=[[0.0, 0.0]])),
    ),
    errors=(
        Error(dict(target=lambda target, **_: target[None]), RuntimeError, "target"),
        Error(dict(target=lambda target, **_: target[0]), RuntimeError, "target"),
        Error(dict(input1=lambda input1, **_: input1[0]), RuntimeError, "input"),
        Error(dict(input2=lambda input2, **_: input2[:, :3]), RuntimeError, "size of tensor a|broadcast"),
        Error(dict(margin="0"), TypeError, "margin"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
    ),
    order=3,
)  # fmt: skip


def turned(s, target, margin):
    return dict(
        input1=curves.rows(s, 1, 0),
        input2=curves.rows(s, s.cos(), s.sin()),
        target=curves.everywhere(s, target),
        margin=margin,
    )


CURVE = curves.Curve(
    "angle between the vectors, in radians",
    (0, 3.1),
    turned,
    {
        "target": replace(curves.SIGN, default=-1.0),
        "margin": curves.Slider("margin, a cosine", 0.0, -0.5, 0.875, 0.125),
    },
)
