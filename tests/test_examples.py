"""The examples run as a user would run them, and their claims are true."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import matplotlib.image
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "digits.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module there
    spec.loader.exec_module(module)
    return module


def test_digits_as_a_user_runs_it(tmp_path: Path, example: ModuleType) -> None:
    command = [sys.executable, str(SCRIPT), "--epochs", "2", "--output", "figure.png"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr

    difference = re.search(r"largest difference .*: (\S+)", run.stdout)
    assert float(difference[1]) <= example.ROUNDING
    for name in ("plain", "nines cost 5"):
        assert re.search(rf"^{name} +\d+\.\d% right$", run.stdout, re.MULTILINE)
        read_as = re.search(rf"^  {name} +(.*)$", run.stdout, re.MULTILINE)[1].split()
        assert sum(int(count) for count in read_as if count != "·") == 120  # every nine of the test set is counted

    figure = matplotlib.image.imread(tmp_path / "figure.png")
    height, width, _ = figure.shape
    assert height > 900 and width > 1600
    for part in (figure[: height // 2, : width // 2], figure[: height // 2, width // 2 :], figure[height // 2 :]):
        assert part.std() > 0.05


def test_a_wrong_factor_parts_the_curves(example: ModuleType) -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, loss: Tensor) -> Tensor:
            return loss.clone()

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, g: Tensor) -> Tensor:
            return 1.01 * g

    digits = example.load(seed=0)
    right, again, wrong = (
        example.train(loss, digits, epochs=1, seed=0, report=lambda loss: None)
        for loss in (F.cross_entropy, F.cross_entropy, lambda *inputs: Wrong.apply(F.cross_entropy(*inputs)))
    )
    assert example.largest_difference(right, again) == 0
    assert example.largest_difference(right, wrong) > 1e6 * example.ROUNDING


def test_the_cost_reaches_each_sample(example: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 10, dtype=torch.float64, generator=generator).requires_grad_()
    target = torch.tensor([9, 1, 2, 9, 4, 0])
    cost = torch.ones(10, dtype=torch.float64)
    cost[9] = 5.0

    loss = example.cost_sensitive(F.cross_entropy, cost)(scores, target)
    torch.testing.assert_close(loss, F.cross_entropy(scores, target, weight=cost))

    (by_cost,) = torch.autograd.grad(loss, scores)
    (plain,) = torch.autograd.grad(F.cross_entropy(scores, target), scores)
    factor = (by_cost / plain).mean(dim=1)
    torch.testing.assert_close(factor / factor[1], cost[target])
