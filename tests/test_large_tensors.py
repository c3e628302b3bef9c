"""More elements and larger strides than fit into 32 bits."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import far_apart
import manual_grad.functional as M
from manual_grad import kernels, specs

MORE = 2**31 + 1000

SOURCES = Path(kernels.__file__).parent / "cpu"

needs_kernels = pytest.mark.skipif(not kernels.loaded(), reason="the kernels are not built here")


@needs_kernels
@pytest.mark.skipif(not far_apart.ON_DEMAND, reason="memory cannot be had on demand here")
@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", specs.NAMES)
def test_strides_of_more_than_32_bits(name: str) -> None:
    assert sum(far_apart.check(name, sample) for sample in specs.load(name).samples)


@needs_kernels
def test_more_elements_than_32_bits_can_count() -> None:
    """All elements of a row share one address, but the two rows differ."""
    x, t = torch.tensor([[3.0], [5.0]]).expand(2, MORE // 2), torch.zeros(2, 1).expand(2, MORE // 2)
    assert M.mse_loss(x, t, reduction="mean") == (9 + 25) / 2


@pytest.mark.parametrize("source", sorted(str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.cpp")))
def test_no_index_is_narrowed(source: str) -> None:
    """A row of 2^31 classes, without running it: the compiler finds no narrowing conversion."""
    compiler = next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler is None:
        pytest.skip("no C++ compiler")
    flags = "-std=c++17 -fsyntax-only -Wconversion -Werror=conversion -Wno-psabi".split()
    done = subprocess.run([compiler, *flags, str(SOURCES / source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
