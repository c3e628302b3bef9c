"""The parts of the GPU benchmark that can be tested without a GPU."""

from __future__ import annotations

import pytest
import torch

from benchmarks import cuda
from benchmarks.__main__ import main

SMALL = {1: (64,), 2: (6, 10)}


@pytest.mark.parametrize("case", cuda.CASES, ids=lambda case: f"{case.loss} {case.make.__name__} {case.shape}")
def test_what_is_timed_is_right(case: cuda.Case) -> None:
    inputs = case.make(SMALL[len(case.shape)], torch.float32, "cpu")
    assert cuda.error(case, inputs) <= cuda.TOLERANCE[torch.float32]
    assert set(cuda.implementations(case)) >= {"manual_grad", "eager", "compiled"}
    cuda.step(case, cuda.implementations(case)["manual_grad"], backward=True)(inputs)
    assert all(t.grad is None for t in inputs)


def test_copies_are_larger_than_the_cache() -> None:
    inputs = cuda.pointwise("mse_loss").make((1000,), torch.float32, "cpu")
    rotation = cuda.copies(inputs, l2=40_000)
    assert sum(t.nbytes for some in rotation for t in some) > 2 * 40_000
    assert len({t.data_ptr() for some in rotation for t in some}) == 2 * len(rotation)
    assert all(x.requires_grad for x, _ in rotation)


def test_a_row_of_the_table() -> None:
    timings = {"manual_grad": cuda.Timing(1e-3, 1e-3, 1e-3, 3), "eager": cuda.Timing(2e-3, 2e-3, 2e-3, 3)}
    result = cuda.Result("mse_loss", (8, 4), "float32", {}, True, 2 * 10**9, 0.0, timings)
    assert result.row(copy=4e12) == [
        "mse_loss 8×4 float32", "forward, backward", "manual_grad 1.000 (1.00x)", "eager 2.000 (2.00x)",
        "2000 GB/s", "50% of copy",
    ]  # fmt: skip


def test_the_file_is_named_after_the_device() -> None:
    assert cuda.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cuda"]) == 2
    assert "no CUDA device" in capsys.readouterr().err
