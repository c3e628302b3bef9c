"""Binary cross entropy of probabilities, with a weight of each element."""

from __future__ import annotations

import torch
from mpmath import log, mpf

from gradcheck.spec import UNIT, Error, Input, Pin, Spec, reduce
from manual_grad.losses.pointwise.binary_cross_entropy import binary_cross_entropy
from manual_grad.study import curves

NAN = float("nan")
GAPS = (5, 10, 15)


def definition(input, target, reduction="mean", weight=1.0):
    logs = (p.log().clamp_min(-100) for p in (input, 1 - input))
    return reduce(-weight * sum(t * log_p for t, log_p in zip((target, 1 - target), logs, strict=True)), reduction)


def oracle(input, target, weight=1, **_):
    cut = [log(p) if p > 0 and log(p) > -100 else mpf(-100) for p in (input, 1 - input)]
    return -weight * (target * cut[0] + (1 - target) * cut[1])


def confident(gap):
    """Predictions with a logit gap: two right, two wrong."""
    return lambda draw: dict(input=(gap * draw.tensor([1.0, -1.0, 1.0, -1.0]) + draw.normal(4, scale=0.01)).sigmoid(),
                             target=draw.tensor([1.0, 0.0, 0.0, 1.0]))  # fmt: skip


def inner(draw, *shape):
    return dict(input=draw.uniform(*shape, low=0.2, high=0.8), target=draw.uniform(*shape, low=0.2, high=0.8))


SPEC = Spec(
    fn=binary_cross_entropy,
    inputs=(Input("input", domain=UNIT), Input("target", domain=UNIT), Input("weight")),
    definition=definition,
    oracle=oracle,
    symbols=lambda input, target, **_: {"x": input, "t": target},
    params=(dict(reduction="mean"), dict(reduction="none"), dict(reduction="sum")),
    samples={
        "typical": lambda draw: inner(draw, 3, 4),
        "weighted": lambda draw: dict(**inner(draw, 3, 4), weight=draw.uniform(3, 4, high=2.0)),
        "row weights": lambda draw: dict(**inner(draw, 3, 4), weight=draw.uniform(3, 1)),
        "scalar": lambda draw: inner(draw),
        "image": lambda draw: inner(draw, 2, 3, 2, 2),
    },
    regimes={
        **{f"confident {gap}": confident(gap) for gap in GAPS},
        "hard labels": lambda draw: dict(input=draw.uniform(8), target=draw.tensor([0.0, 1.0] * 4)),
        "undecided": lambda draw: dict(input=0.5 + draw.normal(8, scale=1e-5), target=draw.uniform(8)),
        "matched": lambda draw: (lambda x: dict(input=x, target=x * (1 + 1e-6)))(draw.uniform(8, low=0.1, high=0.9)),
        "near 0": lambda draw: dict(input=draw.tensor([2e-12, 1e-9, 1e-6, 1e-3] * 2), target=draw.uniform(8)),
        "right near 0": lambda draw: dict(input=draw.tensor([2e-12, 1e-9, 1e-6, 1e-3]), target=draw.tensor([0.0] * 4)),
        "near 1": lambda draw: dict(input=1 - draw.tensor([1e-7, 1e-6, 1e-4, 1e-2] * 2), target=draw.uniform(8)),
    },
    pins=(  # closer than 1e-12 to 0 or 1 the gradient is a convention, which the oracle does not cover
        Pin(dict(input=[0.0, 1.0], target=[0.0, 1.0], reduction="none"), "certain and right: loss and gradient 0",
            value=[0.0, 0.0], gradient=dict(input=[0.0, 0.0])),
        Pin(dict(input=[0.0, 1.0], target=[1.0, 0.0], reduction="none"),
            "certain and wrong: logarithms are clamped at -100, the denominator of the slope at 1e-12",
            value=[100.0, 100.0], gradient=dict(input=[-1e12, 1e12])),
        Pin(dict(input=[1e-20, 1e-30], target=[0.25, 1.0], reduction="none"), "almost certain and wrong",
            value=[11.512925464970229, 69.07755278982137],
            gradient=dict(input=[-0.25e12, -1e12], target=[46.051701859880914, 69.07755278982137])),
        Pin(dict(input=[0.0, 1.0], target=[0.25, 0.25], reduction="none"), "linear in the target",
            value=[25.0, 75.0], gradient=dict(target=[100.0, -100.0])),
        Pin(dict(input=[0.5], target=[0.5], reduction="none"), "undecided",
            gradient=dict(input=[0.0], target=[0.0])),
    ),
    errors=(
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(size_average=False), UserWarning, "size_average and reduce args will be deprecated"),
        Error(dict(target=lambda target, **_: target[0]), ValueError, "target size"),
        Error(dict(weight=lambda input, **_: input[:2]), RuntimeError, "weight"),
        Error(dict(target=lambda target, **_: target.float()), RuntimeError, "Found dtype torch.float32 of target"),
        Error(dict(input=lambda input, **_: input.long(), target=lambda target, **_: target.long()),
              NotImplementedError, "input"),
        *(Error({name: lambda input, value=value, **_: torch.full_like(input, value)}, RuntimeError,
                f"all elements of {name} should be between 0 and 1")
          for name in ("input", "target") for value in (-1e-9, 1.0000001, NAN)),
    ),
    order=3,
)  # fmt: skip

CURVE = curves.Curve(
    "probability x",
    (0.02, 0.98),
    lambda s, target: dict(input=s, target=curves.everywhere(s, target)),
    {"target": curves.SHARE},
)
