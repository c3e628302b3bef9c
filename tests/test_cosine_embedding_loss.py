"""Tests of cosine_embedding_loss only: gradients of float64, of which the textbook form keeps no digit."""

from __future__ import annotations

import mpmath
import pytest
import torch

import manual_grad.functional as M
from gradcheck.compare import compare
from manual_grad import kernels

EPSILON = mpmath.mpf(1e-12)


def slope(a: list[float], b: list[float]) -> list[mpmath.mpf]:
    """Of minus the cosine in a, by the quotient rule."""

    def dot(u: list[float], v: list[float]) -> mpmath.mpf:
        return mpmath.fsum(mpmath.mpf(x) * y for x, y in zip(u, v, strict=True))

    aa, bb, ab = dot(a, a) + EPSILON, dot(b, b) + EPSILON, dot(a, b)
    return [(ab * x - aa * y) / (aa * mpmath.sqrt(aa * bb)) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("on", [True, False], ids=["kernel", "formulas"])
@pytest.mark.parametrize("angle", [1e-4, 1e-8, 1e-12])
def test_nearly_parallel(angle: float, on: bool) -> None:
    a = 3 * torch.randn(5, 6, dtype=torch.float64)
    b = 2.3 * a + angle * torch.randn(5, 6, dtype=torch.float64)
    leaf = a.clone().requires_grad_()
    with kernels.switched(on):
        M.cosine_embedding_loss(leaf, b, torch.ones(5), reduction="sum").backward()
    with mpmath.workdps(60):
        rows = [[float(d) for d in slope(*row)] for row in zip(a.tolist(), b.tolist(), strict=True)]
    result = compare("gradient", leaf.grad, torch.tensor(rows, dtype=torch.float64), 32)
    assert result.ok, result
