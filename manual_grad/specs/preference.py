"""What the specs of losses of pairs of completions share: their inputs, samples and bad calls."""

from __future__ import annotations

import math

import torch

from gradcheck.spec import Draw, Error, Input, Sample
from manual_grad.study import curves

POLICY = ("policy_chosen_logps", "policy_rejected_logps")
NAMES = (*POLICY, "ref_chosen_logps", "ref_rejected_logps")
INPUTS = (*map(Input, NAMES), Input("weight", batch=None))
PARAMS = (dict(reduction="mean"), dict(reduction="none", beta=0.5), dict(reduction="sum", beta=2.0))


def pairs(draw: Draw, *shape: int, scale: float = 3.0, names: tuple[str, ...] = NAMES) -> dict:
    """Log-probabilities of completions of a few tokens."""
    return {name: draw.normal(*shape, scale=scale) - 8 for name in names}


def margins(*values: float, names: tuple[str, ...] = NAMES, **options):
    """Margins of these sizes, of both signs, for beta = 1."""

    def sample(draw: Draw) -> dict:
        chosen = draw.tensor([s * v for v in values for s in (1.0, -1.0)])
        return dict(beta=1.0) | options | {names[0]: chosen} | {name: torch.zeros_like(chosen) for name in names[1:]}

    return sample


def ratios(*values: float, **options):
    """Both log-ratios of these sizes, in all combinations of signs, for beta = 1."""

    def sample(draw: Draw) -> dict:
        a = draw.tensor([s * v for v in values for s in (1.0, 1.0, -1.0, -1.0)])
        b = draw.tensor([s * v for v in values for s in (1.0, -1.0) * 2])
        return (
            dict(beta=1.0) | options | dict(zip(NAMES, (a, b, torch.zeros_like(a), torch.zeros_like(a)), strict=True))
        )

    return sample


def samples(names: tuple[str, ...]) -> dict[str, Sample]:
    return {
        "typical": lambda draw: pairs(draw, 3, 4, names=names),
        "weighted": lambda draw: dict(**pairs(draw, 3, 4, names=names), weight=draw.uniform(4, high=2.0)),
        "scalar": lambda draw: pairs(draw, names=names),
        "image": lambda draw: pairs(draw, 2, 3, 2, 2, names=names),
    }


SAMPLES = samples(NAMES)


def near_the_reference(draw: Draw) -> dict:
    x, y = draw.normal(8) - 50, draw.normal(8) - 50
    return dict(zip(NAMES, (x, y, x + 1e-3 * draw.normal(8), y), strict=True))


REGIMES = {
    "summed over a thousand tokens": lambda draw: {name: draw.normal(8, scale=100.0) - 2000 for name in NAMES},
    "near the reference": near_the_reference,
    "huge": lambda draw: pairs(draw, 8, scale=1e30),
}


def errors(name: str, others: tuple[str, ...] = NAMES[1:]) -> tuple[Error, ...]:
    """The bad calls of every loss of pairs that has a ``beta``."""
    first = POLICY[0]
    return (
        Error(dict(beta=0.0), ValueError, "beta"),
        Error(dict(beta=math.inf), ValueError, "beta"),
        Error(dict(beta="1"), TypeError, "beta"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        *(Error({other: lambda **all: all[first][:2]}, ValueError, other) for other in others),
        Error(dict(weight=lambda **all: torch.cat([all[first]] * 2)), RuntimeError, "weight"),
        Error({k: lambda k=k, **all: all[k].long() for k in (first, *others)}, NotImplementedError, name),
    )


def along_the_margin(names: tuple[str, ...] = NAMES, **sliders: curves.Slider) -> curves.Curve:
    def arguments(s: torch.Tensor, **options: float) -> dict:
        return {names[0]: s, **{name: torch.zeros_like(s) for name in names[1:]}, **options}

    return curves.Curve("margin", (-6, 6), arguments, {"beta": BETA, **sliders})


BETA = curves.Slider("beta", 1.0, 0.25, 2.0, 0.25)
SMOOTHING = curves.Slider("label_smoothing", 0.0, 0.0, 0.4, 0.1)
