"""The examples run as a user would run them, and their claims are true."""

from __future__ import annotations

import importlib
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import matplotlib.image
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from processes import on_processes

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def examples() -> Iterator[None]:
    """Make the examples importable, also for the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        yield


@pytest.fixture(scope="module")
def example(examples: None) -> ModuleType:
    return importlib.import_module("digits")


@pytest.fixture(scope="module")
def language_model(examples: None) -> ModuleType:
    return importlib.import_module("language_model")


def output_of(name: str, options: str, folder: Path) -> str:
    return printed([str(ROOT / "examples" / f"{name}.py"), *options.split(), "--output", "figure.png"], folder)


def printed(options: list[str], folder: Path) -> str:
    command, environment = [sys.executable, *options], {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_digits_as_a_user_runs_it(tmp_path: Path, example: ModuleType) -> None:
    printed = output_of("digits", "--epochs 2", tmp_path)
    difference = re.search(r"largest difference .*: (\S+)", printed)
    assert float(difference[1]) <= example.ROUNDING
    for name in ("plain", "nines cost 5"):
        assert re.search(rf"^{name} +\d+\.\d% right$", printed, re.MULTILINE)
        read_as = re.search(rf"^  {name} +(.*)$", printed, re.MULTILINE)[1].split()
        assert sum(int(count) for count in read_as if count != "·") == 120  # every nine of the test set is counted

    figure = matplotlib.image.imread(tmp_path / "figure.png")
    height, width, _ = figure.shape
    assert height > 900 and width > 1600
    for part in (figure[: height // 2, : width // 2], figure[: height // 2, width // 2 :], figure[height // 2 :]):
        assert part.std() > 0.05


class Wrong(torch.autograd.Function):
    """The identity, with a gradient that is not its own."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, g: Tensor) -> Tensor:
        return 1.01 * g


def test_a_wrong_factor_parts_the_curves(example: ModuleType) -> None:
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


def test_language_model_as_a_user_runs_it(tmp_path: Path, language_model: ModuleType) -> None:
    printed = output_of("language_model", "--steps 3 --vocabulary 2000", tmp_path)
    difference = re.search(r"largest relative difference .*: (\S+)", printed)
    assert float(difference[1]) <= language_model.ROUNDING
    for name in language_model.HEADS:
        line = re.search(rf"^{name} +test loss (\S+) -> (\S+), +(\S+) tokens per second, .* (\d+) MB$", printed, re.M)
        assert float(line[1]) == pytest.approx(math.log(2000), abs=0.1)  # knows nothing: all pieces are equally likely
        assert all(float(number.replace(",", "")) > 0 for number in line.groups())

    figure = matplotlib.image.imread(tmp_path / "figure.png")
    height, width, _ = figure.shape
    assert height > 600 and width > 1600
    assert all(figure[:, part].std() > 0.05 for part in (slice(0, width // 2), slice(width // 2, None)))


def test_text_is_spelled_with_known_pieces(language_model: ModuleType) -> None:
    text = "for node in nodes:\n    node += 1\n" * 3 + "förth"
    words = language_model.split(text)
    assert words[:7] == ["for", " node", " in", " nodes", ":", "\n    ", "node"]
    characters = len(set(text))
    pieces = language_model.known_pieces(words, characters + 3)
    assert sorted(pieces.values()) == list(range(characters + 3))
    spelled = [piece for word in words for piece in language_model.spell(word, pieces)]
    assert "".join(spelled) == text
    assert list(language_model.spell(" nodes", {**pieces, " node": 0})) == [" node", "s"]


def test_a_step_learns_and_a_wrong_factor_parts_the_curves(language_model: ModuleType) -> None:
    def wrong(*inputs: Tensor) -> Tensor:
        return Wrong.apply(language_model.with_logits(*inputs))

    tokens = torch.arange(2000) % 50
    text = language_model.Text(tokens, tokens, 50)
    heads = {**language_model.HEADS, "wrong": wrong}
    steps = 2 * language_model.EVERY
    runs = language_model.train(text, steps, seed=0, report=lambda loss: None, heads=heads)
    assert len(runs["torch"].train) == steps and len(runs["torch"].test) == 3
    assert runs["torch"].test[0] > 3 and runs["torch"].test[-1] < 0.5
    assert language_model.largest_difference(runs["manual_grad"], runs["torch"]) <= language_model.ROUNDING
    assert language_model.largest_difference(runs["wrong"], runs["torch"]) > language_model.ROUNDING


def test_memory_is_that_of_training(language_model: ModuleType) -> None:
    """torch stores the logits and their gradient, manual_grad a block of them."""
    vocabulary = 32_000
    theirs, ours = (language_model.peak_memory(name, vocabulary, seed=0) for name in ("torch", "manual_grad"))
    logits = 4 * language_model.BATCH * language_model.CONTEXT * vocabulary
    assert theirs - ours > logits


Curve = list[tuple[int, float, float]]  # steps, losses, norms of gradients
VOCABULARY, STEPS, STOPPED = 1001, 4, 2  # which two processes cannot share evenly


def curve(rank: int, tensor_parallel: int, checkpoints: Path | None) -> Curve:
    """What the language model in the folder of examples does on these processes."""
    sys.path.insert(0, str(ROOT / "examples"))
    import language_model_sharded as example

    mesh = example.grid("cpu", tensor_parallel)
    return list(example.train(example.load(VOCABULARY), mesh, STEPS, seed=1, checkpoints=checkpoints))


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="torch is built without gloo, which connects processes on a CPU",
)
def test_a_divided_language_model_as_a_user_runs_it(tmp_path: Path) -> None:
    """Four processes stop, two go on from their checkpoint in another grid, and the curve is that of one."""
    script, checkpoints = ROOT / "examples" / "language_model_sharded.py", tmp_path / "run"
    start = "-m torch.distributed.run --standalone --nproc-per-node 4".split()
    options = f"--vocabulary {VOCABULARY} --steps {STOPPED} --checkpoint".split()
    lines = printed([*start, str(script), *options, str(checkpoints)], tmp_path)
    steps = re.findall(r"^step (\d+): loss (\S+), gradient (\S+)$", lines, re.MULTILINE)
    before = [(int(step), float(loss), float(norm)) for step, loss, norm in steps]
    after, other = on_processes(curve, 2, 1, checkpoints)
    (whole,) = on_processes(curve, 1, 1, None)
    assert after == other  # the same bits
    found = [*before, *after]
    assert [step for step, *_ in found] == list(range(1, STEPS + 1))
    torch.testing.assert_close(torch.tensor(found), torch.tensor(whole), rtol=1e-5, atol=0)
    assert whole[0][1] == pytest.approx(math.log(VOCABULARY), abs=0.1) and whole[-1][1] < whole[0][1] - 0.3
