"""Losses of which each process has a part: of the classes, of the batch, or of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gradcheck
import manual_grad.functional as F
import sharded_losses as sharded
from gradcheck.spec import Settings
from manual_grad.catalogue import LOSSES
from manual_grad.sharding import layouts
from processes import ProcessError, on_processes, prepare

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="torch is built without gloo, which connects processes on a CPU",
)


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> None:
    prepare()


# Not purity, which looks at the memory of one process, nor what asks for Modules or a device. What depends on the
# classes alone, which hidden states do not change, is asked of scores.
CHECKS = ("oracle", "second", "forward", "transforms")
OF_SCORES = ("definition", "differences", "layout")
BATCHED = "is_grads_batched"  # refused: the tests' own tensors are put together by sums over processes


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("cross_entropy", 3),
        ("cross_entropy_head", 2),
        ("selected_log_prob", 4),
        ("linear_cross_entropy", 2),
        ("linear_cross_entropy_head", 2),
        ("linear_log_prob", 3),
    ],
)
def test_audit(name: str, size: int) -> None:
    """All that gradcheck asks of the loss of whole tensors: exact arithmetic by regime, all modes of AD."""
    checks = CHECKS if name.startswith("linear") else CHECKS + OF_SCORES
    found = on_processes(sharded.audit, size, name, checks, Settings(quick=True))
    for count, failures in found:
        assert count > 100 and [line for line in failures if BATCHED not in line] == []


# What must be whole, by the dimensions of the first tensor counted from the last: classes or features. CTC's samples
# must be whole, too, if the targets are concatenated, and queries if there are more keys.
WHOLE = {"kl_div": {-1}, "ctc_loss": {-3, -2, -1}, "info_nce_loss": {-2, -1}}
BY_CLASSES = ("cross_entropy", "selected_log_prob", "log_prob_and_entropy")


@pytest.mark.parametrize("family", ["pointwise", "rowwise", "pairwise", "path", "linear", "contrastive"])
def test_losses_of_a_spread_batch(family: str) -> None:
    """Along which dimensions the first tensor of each loss may be spread; and that the loss is then the same."""
    names = tuple(loss.name for loss in LOSSES if loss.family == family and loss.functional)
    for refused, wrong in on_processes(sharded.batch_sharded, 2, names):
        assert wrong == []
        by_default = set() if family == "pointwise" else {-1}
        assert refused == {name: WHOLE.get(name, set() if name in BY_CLASSES else by_default) for name in names}


def test_every_loss_of_rows_says_how_it_may_be_spread() -> None:
    """The default is for elementwise losses; of others it would be wrong in silence, so that it is an error."""
    elementwise = {loss.name for loss in LOSSES if loss.family == "pointwise"}
    assert set(F.__all__) - elementwise == set(layouts.LAYOUTS)


def test_a_spread_batch_under_compile() -> None:
    assert set(on_processes(sharded.compiled_dtensors, 2)) == {(0.0, 0.0)}


@pytest.mark.parametrize(
    ("shape", "placements"),
    [
        ((3,), [(1,), (0,), (None,)]),
        ((2, 2), [(0, 1), (1, 0), (1, 1), (0, 0), (None, 1)]),
    ],
)  # fmt: skip
def test_cross_entropy_of_dtensors(shape: tuple[int, ...], placements: list[tuple[int | None, ...]]) -> None:
    for wrong in on_processes(sharded.class_sharded, torch.Size(shape).numel(), shape, placements):
        assert wrong == []


def test_messages() -> None:
    """A maximum and a sum forward; backward none, or for hidden states one; and one sum for a second derivative."""
    rows = (2, 0, 1)
    # a z-loss is a function of a number of the row, whose tangent is one more sum; the gradient of hidden states is one
    # too, both ways; and before the first pass over them, the processes tell each other where their classes begin
    others = {"smoothing, z-loss": (2, 0, 2), "hidden states": (3, 1, 2)}
    for found in on_processes(sharded.counted, 2):
        assert found == {name: others.get(name, rows) for name in found}


def test_plans_of_tensor_parallelism() -> None:
    assert on_processes(sharded.tensor_parallel, 4) == [[]] * 4


def test_compile_and_checkpointing() -> None:
    for apart in on_processes(sharded.compiled, 3):
        assert max(apart) == 0


def test_accumulation_under_ddp() -> None:
    for found, expected in on_processes(sharded.accumulated, 4):
        torch.testing.assert_close(found, expected)


def test_the_same_in_every_process() -> None:
    found = on_processes(sharded.bits, 4)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_leaders_that_tie() -> None:
    """The first of all classes leads, whoever has it."""
    first = [True] + [False] * 4
    for found in on_processes(sharded.tied, 3):
        assert found == [first, first, [True] * 5]  # equal probabilities are led by the first


def test_a_lost_process(tmp_path: Path) -> None:
    """The others get an error of the process group, and do not hang."""
    with pytest.raises(ProcessError, match="process 1 ended without an answer"):
        on_processes(sharded.left_alone, 2, str(tmp_path), seconds=60.0)
    assert "Connection" in (tmp_path / "0").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("processes", "fn", "whole", "inputs", "shard"),
    [
        (
            3, sharded.of_probabilities, sharded.of_probabilities_whole,
            {"input": (4, 7), "target": (4, 7), "weight": (7,)}, {"input": 1, "target": 1, "weight": 0},
        ),
        (
            3, sharded.of_hidden, sharded.of_hidden_whole,
            {"hidden": (5, 3), "weight": (7, 3), "bias": (7,)}, {"weight": 0, "bias": 0},
        ),
        (2, sharded.entropy, sharded.entropy_whole, {"hidden": (4, 3), "weight": (7, 3)}, {"weight": 0}),
        (
            2, sharded.of_rows, sharded.of_rows_whole,
            {"input": (6, 2), "target": (6, 2), "weight": (6, 2)}, dict.fromkeys(("input", "target", "weight"), 0),
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_check_sharded(
    processes: int, fn: Callable[..., Tensor], whole: Callable[..., Tensor], inputs: dict[str, Any],
    shard: dict[str, int],
) -> None:  # fmt: skip
    """gradcheck's own audit of functions that talk to other processes."""
    positive = {name: (0.1, 1.0) for name in ("target", "weight") if fn is not sharded.of_hidden and name in inputs}
    settings = Settings(dtypes=(torch.float64, torch.float32))
    report = gradcheck.check_sharded(
        fn, whole, inputs, shard, processes=processes, domain=positive, order=2, settings=settings, seconds=60.0
    )
    assert report, report


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.cross_entropy(x, torch.zeros(3).long(), group="tp"), TypeError, "argument 'group' must be"),
        (lambda x: F.selected_log_prob(x, torch.zeros(3).long(), group=2), TypeError, "argument 'group' must be"),
    ],
)
def test_bad_groups(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(torch.zeros(3, 4))  # type: ignore[operator]


def test_bad_calls() -> None:
    for found in on_processes(sharded.refusals, 2):
        assert found == [
            "Target 9 is out of bounds: cross_entropy's target must be in [0, 8] or ignore_index (-100).",
            "nll_loss(): argument 'input' must be whole along dimension 1 in every process: redistribute it to "
            "Replicate, or spread it along its rows",
            "cross_entropy(): argument 'group' is for plain tensors; a DTensor says how it is spread",
            "cross_entropy(): the DTensors must have the same device mesh",
        ]
