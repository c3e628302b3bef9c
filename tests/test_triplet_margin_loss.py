"""Tests of the triplet losses beyond gradcheck's exact arithmetic, and of torch's special broadcasting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import manual_grad.functional as M
from manual_grad import kernels

F = torch.nn.functional


@pytest.fixture(params=[True, False], ids=["kernels", "formulas"])
def both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    with kernels.switched(request.param):
        yield


def triplets(*shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("exponent", [-1000, 1000])
@pytest.mark.parametrize("p", [-2.0, 0.5, 1.0, 2.0, 3.0, 100.0, float("inf")])
def test_distances_whose_powers_leave_the_range_of_float64(p: float, exponent: int) -> None:
    """The loss scales with the vectors; the gradient does not."""
    unit = triplets(6, 5)
    c = 2.0**exponent
    scaled = [(c * x).detach().requires_grad_() for x in unit]
    expected = M.triplet_margin_loss(*unit, margin=0.5, eps=0, p=p, swap=True)
    result = M.triplet_margin_loss(*scaled, margin=0.5 * c, eps=0, p=p, swap=True)
    torch.testing.assert_close(result, c * expected, rtol=1e-13, atol=0)
    gradients = torch.autograd.grad(result, scaled)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, unit), rtol=1e-12, atol=1e-15)


SHAPES = [
    [(), (), ()],
    [(3, 0), (3, 0), (3, 0)],
    [(3, 1, 4), (1, 2, 4), (3, 2, 4)],
    [(2, 3, 2, 4), (2, 1, 1, 4), (1, 3, 2, 4)],
    [(3, 1), (3, 1), (3, 4)],  # the first pair has vectors of length 1
    [(3, 4), (1, 4), (3, 1)],
    [(1,), (4,), (4,)],
]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("name", ["triplet_margin_loss", "triplet_margin_with_distance_loss"])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("swap", [False, True])
def test_broadcasting_is_torchs(name: str, shapes: list[tuple[int, ...]], swap: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    for reduction in ("none", "mean"):
        result, expected = (getattr(module, name)(*vectors, swap=swap, reduction=reduction) for module in (M, F))
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(*(torch.autograd.grad(loss.sum(), vectors) for loss in (result, expected)))


@pytest.mark.parametrize("name", ["triplet_margin_loss", "triplet_margin_with_distance_loss"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.complex128])
def test_integers_and_complex_numbers(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randint(-9, 9, (3, 4), generator=generator).to(dtype) for _ in range(3)]
    for swap in (False, True):
        result, expected = (getattr(module, name)(*vectors, swap=swap) for module in (M, F))
        torch.testing.assert_close(result, expected)
