"""What the specs of losses of sampled tokens share: the mask, samples and bad calls."""

from __future__ import annotations

from gradcheck.spec import Draw, Error, Input, Sample

MASK = Input("mask", differentiable=False)


def log_probs(draw: Draw, *shape: int, other: str, scale: float = 0.5) -> dict:
    """Log-probabilities of tokens, and others that are near them."""
    x = draw.normal(*shape) - 3
    return {"log_prob": x, other: x + draw.normal(*shape, scale=scale)}


def of_pairs(other: str, **more) -> dict[str, Sample]:
    """Samples of two log-probabilities of each token; ``more`` are functions of the draw and the shape."""

    def made(draw: Draw, *shape: int) -> dict:
        return log_probs(draw, *shape, other=other) | {name: make(draw, *shape) for name, make in more.items()}

    return {
        "typical": lambda draw: dict(**made(draw, 3, 4), mask=draw.integers(3, 4, high=2)),
        "without a mask": lambda draw: made(draw, 3, 4),
        "weighted": lambda draw: dict(**made(draw, 3, 4), mask=draw.uniform(3, 4, high=2.0)),
        "scalar": lambda draw: made(draw),
        "three dimensions": lambda draw: made(draw, 2, 3, 4),
    }


ERRORS = (
    Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
    Error(dict(reduction="sum", normalizer=2.0), ValueError, "normalizer"),
    Error(dict(mask=lambda log_prob, **_: log_prob[:2]), RuntimeError, "mask"),
    Error(dict(mask="all"), TypeError, "mask"),
)
