"""Robust regression, and losses on images."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.field.table import Point, entry

PAIR: dict[str, Any] = {"x": (2, 3), "y": (2, 3)}
FAR: dict[str, Point] = {f"difference {d:g}": Point({"x": [[d]], "y": [[0.0]]}) for d in (1e-5, 0.01, 1.0, 30.0, 1e4)}
ROBUST = {
    "charbonnier_loss": lambda m, d: m.sqrt(d**2 + 1) - 1,
    "cauchy_loss": lambda m, d: m.log1p(d**2 / 2),
    "geman_mcclure_loss": lambda m, d: 2 * d**2 / (d**2 + 4),
    "welsch_loss": lambda m, d: 1 - m.exp(-(d**2) / 2),
}
for name, formula in ROBUST.items():
    entry(
        f"kornia.losses:{name}",
        call=lambda f, x, y: f(x, y, reduction="mean"),
        formula=lambda m, x, y, formula=formula: formula(m, x - y).mean(),
        inputs=PAIR,
        points=FAR,
        by=("x", "y"),
    )


def mean_error(x: Any, y: Any) -> Any:
    return ((x - y) ** 2).mean()


SAME = {"equal but for 1e-4": Point({"x": [[[[0.5, 0.2501]]]], "y": [[[[0.5, 0.25]]]]})}
IMAGE: dict[str, Any] = {
    "x": torch.tensor([[[[0.5, 0.25, 0.75], [0.1, 0.9, 0.4]]]], dtype=torch.float64),
    "y": torch.tensor([[[[0.4, 0.35, 0.7], [0.3, 0.8, 0.6]]]], dtype=torch.float64),
}
entry(
    "kornia.losses:psnr_loss",
    call=lambda f, x, y: f(x, y, 1.0).reshape(1),
    formula=lambda m, x, y: (10 / 2.302585092994045684) * m.log(m.stack([mean_error(x, y)])),
    inputs=IMAGE,
    points=SAME,
    by=("x", "y"),
)
entry(
    "piq.psnr:psnr",
    call=lambda f, x, y: -f(x, y).reshape(1),
    formula=lambda m, x, y, eps=0.0: (10 / 2.302585092994045684) * m.log(m.stack([mean_error(x, y) + eps])),
    inputs=IMAGE,
    points=SAME,
    by=("x", "y"),
    options={"domain": {"x": (0.0, 1.0), "y": (0.0, 1.0)}},
    guard={"eps": 1e-8},
)
entry(
    "kornia.losses:inverse_depth_smoothness_loss",
    call=lambda f, x, y: f(x, y.expand(1, 3, 2, 3)),
    formula=lambda m, x, y: (
        (m.abs(x[..., 1:] - x[..., :-1]) * m.exp(-m.abs(y[..., 1:] - y[..., :-1]))).mean()
        + (m.abs(x[..., 1:, :] - x[..., :-1, :]) * m.exp(-m.abs(y[..., 1:, :] - y[..., :-1, :]))).mean()
    ),
    inputs=IMAGE,
    points={
        "flat": Point(
            {"x": [[[[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]]], "y": [[[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]]]}, kink=True
        )
    },
    by=("x", "y"),
)
entry(
    "piq.tv:total_variation",
    call=lambda f, x, norm="l2": f(x, norm_type=norm).reshape(1),
    formula=lambda m, x, norm="l2": m.stack([total_variation(m, x, norm)]),
    inputs={"x": IMAGE["x"]},
    points={
        "flat, l1": Point({"x": [[[[0.5, 0.5], [0.5, 0.5]]]]}, {"norm": "l1"}, kink=True),
        "flat, l2": Point({"x": [[[[0.5, 0.5], [0.5, 0.5]]]]}, {"norm": "l2"}, kink=True),
        "ordinary, l2": Point({"x": [[[[0.5, 0.25], [0.125, 0.75]]]]}, {"norm": "l2"}),
    },
    options={"domain": {"x": (0.0, 1.0)}},
)


def total_variation(m: Any, x: Any, norm: str) -> Any:
    rows, columns = x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
    if norm == "l1":
        return m.abs(rows).sum() + m.abs(columns).sum()
    return m.sqrt(m.stack([(rows**2).sum() + (columns**2).sum()]))[0]


def windowed(x: Any) -> Any:
    """By the window (1, 2, 1) / 4 in either direction."""
    x = (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4
    return (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4


def structure(m: Any, x: Any, y: Any) -> tuple[Any, Any]:
    a, b = windowed(x), windowed(y)
    both, each = windowed(x * y) - a * b, windowed(x * x) - a * a + windowed(y * y) - b * b
    contrast = (2 * both + 0.0009) / (each + 0.0009)
    return ((2 * a * b + 0.0001) / (a * a + b * b + 0.0001) * contrast).mean(), contrast.mean()


def multiscale(m: Any, x: Any, y: Any) -> Any:
    """Two levels with the exponents 1/4 and 3/4; what is negative counts as 0."""
    first = structure(m, x, y)[1]
    x, y = (pooled(m, t) for t in (x, y))
    second = structure(m, x, y)[0]
    return m.relu(m.stack([first])) ** 0.25 * m.relu(m.stack([second])) ** 0.75


def pooled(m: Any, x: Any) -> Any:
    """Means over 2 by 2, of an odd size with a border of 0 before it."""
    x = m.concat([0 * x[..., :1], x], -1)
    x = m.concat([0 * x[..., :1, :], x], -2)
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


WINDOW = torch.tensor([[[[0.25, 0.5, 0.25]]]], dtype=torch.float64)
RAMP = [[[[(3 * i + 5 * j) % 7 / 8 for j in range(5)] for i in range(5)]]]
OTHER = [[[[(2 * i + 3 * j) % 5 / 8 for j in range(5)] for i in range(5)]]]
BRIGHT = [[[[0.9375 + v / 1024 for v in row] for row in RAMP[0][0]]]]
TALL = [[[[(3 * i + 5 * j) % 7 / 8 for j in range(33)] for i in range(33)]]]
NEGATIVE = [[[[0.875 - v for v in row] for row in TALL[0][0]]]]
entry(
    "pytorch_msssim:ssim",
    call=lambda f, x, y: f(x, y, data_range=1.0, win=WINDOW.to(x)),
    formula=lambda m, x, y: structure(m, x, y)[0],
    inputs={
        "x": torch.tensor(RAMP, dtype=torch.float64),
        "y": torch.tensor(OTHER, dtype=torch.float64),
    },
    points={
        "bright and even": Point({"x": BRIGHT, "y": RAMP}),
        "equal": Point({"x": RAMP, "y": RAMP}),
        "flat": Point({"x": [[[[0.5] * 3] * 3]], "y": [[[[0.5] * 3] * 3]]}),
    },
    by=("x",),
)
entry(
    "pytorch_msssim:ms_ssim",
    call=lambda f, x, y: f(x, y, data_range=1.0, win=WINDOW.to(x), weights=[0.25, 0.75]).reshape(1),
    formula=multiscale,
    inputs={"x": torch.tensor(TALL, dtype=torch.float64), "y": torch.tensor(TALL, dtype=torch.float64).sqrt()},
    points={"an image and its negative": Point({"x": TALL, "y": NEGATIVE}, kink=True)},
    by=("x",),
    options={"checks": ("definition", "differences", "purity")},
)


def total_squares(y: Any) -> Any:
    return ((y - y.mean()) ** 2).mean()


entry(
    "catalyst.contrib.losses:HuberLossV0",
    call=lambda f, x, y: f()(x, y),
    formula=lambda m, x, y: m.where(m.abs(x - y) < 1, (x - y) ** 2 / 2, m.abs(x - y) - 0.5).mean(),
    inputs=PAIR,
    points=FAR,
    by=("x", "y"),
)
entry(
    "catalyst.contrib.losses:RSquareLoss",
    call=lambda f, x, y: f()(x, y),
    formula=lambda m, x, y: 1 - mean_error(x, y) / total_squares(y),
    inputs={"x": (4,), "y": (4,)},
    points={"far from 0": Point({"x": [1000.5, 1001.0, 1002.0], "y": [1000.0, 1001.5, 1003.0]})},
    options={"differentiable": {"x"}},
)
