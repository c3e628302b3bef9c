"""Linear cross entropy in blocks: same result as unblocked, in memory that does not grow with rows times classes."""

from __future__ import annotations

import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import manual_grad
from benchmarks.scaling import memory
from closeness import assert_no_further_than_torch
from manual_grad import kernels
from manual_grad.engine import linear, older_torch
from manual_grad.losses.linear.linear_cross_entropy import linear_cross_entropy
from manual_grad.losses.rowwise.cross_entropy_head import WithHead

# torch's, or a composition of torch 2.10's functions
scores_first = older_torch.loss("linear_cross_entropy")
needs_kernels = pytest.mark.skipif(kernels.op("cross_entropy") is None, reason="the kernels are not built here")


@pytest.fixture(autouse=True)
def seed_and_one_thread() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads are slower on tensors this small
    yield
    torch.set_num_threads(threads)


ROWS, CLASSES, FEATURES = 7, 5, 3
PROBLEMS = {
    "indices": dict(),
    "everything": dict(bias=True, weight=True, ignore_index=2, label_smoothing=0.125),
    "positions": dict(positions=(2, 3), bias=True, weight=True),
    "probabilities": dict(soft=True, bias=True, weight=True, label_smoothing=0.125),
    "positions of probabilities": dict(soft=True, positions=(2,), weight=True),
}


def problem(
    rows: int = ROWS,
    classes: int = CLASSES,
    features: int = FEATURES,
    positions: tuple[int, ...] = (),
    bias: bool = False,
    weight: bool = False,
    soft: bool = False,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> dict[str, Any]:
    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype).requires_grad_()

    made = dict(input=leaf(rows, features), linear_weight=leaf(classes, *positions, features), **options)
    if bias:
        made["linear_bias"] = leaf(classes, *positions)
    if soft:
        target = 7 * torch.randn(rows, classes, *positions, dtype=dtype).softmax(1) - 0.5  # torch accepts any numbers
        made["target"] = target.requires_grad_()
    else:
        made["target"] = torch.randint(max(classes, 1), (rows, *positions))
    if weight:
        made["weight"] = (torch.rand(classes, dtype=dtype) + 0.5).requires_grad_(soft)
    return made


def derivatives(fn: Callable[..., Tensor], arguments: dict[str, Any], reduction: str) -> Iterator[Tensor]:
    """The loss, its gradient, a Hessian-vector product, and a directional derivative."""
    torch.manual_seed(1)
    names = [k for k, t in arguments.items() if isinstance(t, Tensor) and t.requires_grad]
    leaves = [arguments[k] for k in names]
    directions = [torch.randn(t.shape, dtype=t.dtype) for t in leaves]
    loss = fn(**arguments, reduction=reduction)
    g = torch.randn_like(loss)
    yield loss.detach()
    yield from torch.autograd.grad(loss, leaves, g, retain_graph=True)
    gradient = torch.autograd.grad(loss, leaves, g, create_graph=True)
    yield from torch.autograd.grad(gradient, leaves, directions)
    plain = {k: t.detach() if isinstance(t, Tensor) else t for k, t in arguments.items()}

    def by_leaves(*tensors: Tensor) -> Tensor:
        return fn(**{**plain, **dict(zip(names, tensors, strict=True))}, reduction=reduction)

    yield torch.func.jvp(by_leaves, tuple(t.detach() for t in leaves), tuple(directions))[1]


LIMITS = {
    "single rows": dict(SCORES=1, LEAST_ROWS=1),
    "odd blocks of rows": dict(SCORES=5 * 3, LEAST_ROWS=1),
    "single classes": dict(SCORES=1, LEAST_ROWS=9),
    "odd blocks of both": dict(SCORES=6, LEAST_ROWS=9, MOST_ROWS=3),
}


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("limits", LIMITS)
def test_blocks_make_no_difference(
    route: str, limits: str, name: str, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = problem(**PROBLEMS[name])
    expected = list(derivatives(scores_first, arguments, reduction))
    whole = list(derivatives(linear_cross_entropy, arguments, reduction))
    for constant, value in LIMITS[limits].items():
        monkeypatch.setattr(linear, constant, value)
    monkeypatch.setattr(linear, "SCORES_OF_FORMULAS", linear.SCORES)
    split = list(derivatives(linear_cross_entropy, arguments, reduction))
    for results in (whole, split):
        for ours, torchs in zip(results, expected, strict=True):
            assert_close(ours, torchs, rtol=1e-11, atol=1e-13)


def test_blocks_are_even_and_complete() -> None:
    for total, most in itertools.product(range(12), range(6)):
        found = linear.blocks(total, most)
        assert [i for block in found for i in range(total)[block]] == list(range(total))
        assert all(block.stop - block.start <= max(most, 1) for block in found)
        assert len(found) == max(1, math.ceil(total / max(most, 1)))


class Largest(TorchDispatchMode):
    """The size in bytes of the largest tensor that any operation creates."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for t in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(t, Tensor):
                self.size = max(self.size, t.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("name", ["indices", "everything", "positions"])
def test_no_tensor_of_rows_times_classes(route: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, classes = 1024, 128
    monkeypatch.setattr(linear, "SCORES", scores)
    monkeypatch.setattr(linear, "SCORES_OF_FORMULAS", scores)
    monkeypatch.setattr(linear, "LEAST_ROWS", 1)
    largest = {}
    for rows in (64, 256):
        arguments = problem(rows=rows, classes=classes, **PROBLEMS[name])
        with Largest() as mode, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in derivatives(linear_cross_entropy, arguments, "mean"):
                pass
        largest[rows] = mode.size
    row = 8 * classes * math.prod(PROBLEMS[name].get("positions", ()))
    assert largest[64] == largest[256] <= max(8 * scores, FEATURES * row)  # a block, or the weight
    assert largest[64] < 64 * row


@needs_kernels
@pytest.mark.skipif(not memory.measurable(), reason="this system does not let the peak of the resident set be reset")
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}])
def test_peak_of_memory(options: dict[str, Any]) -> None:
    rows, classes = 4096, 1 << 16
    arguments = problem(rows=rows, classes=classes, features=8, dtype=torch.float32, **options)
    linear_cross_entropy(**problem(dtype=torch.float32)).backward()  # warm up
    before = memory.reset_peak()
    linear_cross_entropy(**arguments).backward()
    scores = rows * classes * 4  # 1 GiB, of which torch stores several copies
    assert memory.resident_peak() - before < scores / 8


Options = getattr(torch.nn, "LinearCrossEntropyOptions", None)
OPTIONS = [
    dict(),
    dict(allow_retain_graph=True),
    dict(batch_chunk_size=2),
    dict(chunking_method="aspect_ratio:3"),
    dict(acc_policy="compact"),
    dict(acc_policy="balanced", acc_dtype=torch.float32),
]


@pytest.mark.skipif(Options is None, reason="this torch has no LinearCrossEntropyOptions")
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_change_nothing(name: str, options: dict[str, Any]) -> None:
    for dtype in (torch.float64, torch.float32):
        arguments = problem(**PROBLEMS[name], dtype=dtype)
        without = derivatives(linear_cross_entropy, arguments, "mean")
        found = derivatives(linear_cross_entropy, {**arguments, "options": Options(**options)}, "mean")
        for ours, expected in zip(found, without, strict=True):
            assert_close(ours, expected, rtol=0, atol=256 * torch.finfo(dtype).eps * float(expected.abs().max()))


@pytest.mark.skipif(Options is None, reason="this torch has no LinearCrossEntropyOptions")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_options_stand_for_float32_products(dtype: torch.dtype) -> None:
    arguments = problem(rows=40, classes=30, features=64, dtype=dtype)
    wide = {k: t.detach().double().requires_grad_() if t.is_floating_point() else t for k, t in arguments.items()}
    trios = []
    for fn, given in ((linear_cross_entropy, arguments), (F.linear_cross_entropy, arguments), (F.cross_entropy, wide)):
        x, W, t = given["input"], given["linear_weight"], given["target"]
        loss = fn(x @ W.T, t) if fn is F.cross_entropy else fn(x, W, t, options=Options())
        trios.append((loss, *torch.autograd.grad(loss, (x, W))))
    for trio in zip(*trios, strict=True):
        assert_no_further_than_torch(*trio)
    assert_close(trios[0][0], trios[2][0].to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PROBLEMS)
def test_autocast(route: str, low: torch.dtype, name: str) -> None:
    arguments = problem(**PROBLEMS[name], dtype=torch.float32)
    results = []
    for fn in (linear_cross_entropy, scores_first):
        with torch.autocast("cpu", dtype=low):
            loss = fn(**arguments)
        leaves = [t for t in arguments.values() if isinstance(t, Tensor) and t.requires_grad]
        results.append((loss, *torch.autograd.grad(loss, leaves)))
    for ours, torchs in zip(*results, strict=True):
        assert ours.dtype is torchs.dtype is torch.float32
        assert_close(ours, torchs, rtol=0, atol=4 * torch.finfo(low).eps * float(torchs.detach().abs().max()))


@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 5, 0), (0, 0, 3)], ids=["no rows", "no features", "nothing"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nothing_to_add_up(route: str, shape: tuple[int, int, int], soft: bool, reduction: str) -> None:
    arguments = problem(*shape, bias=True, soft=soft)
    ours, torchs = (list(derivatives(fn, arguments, reduction)) for fn in (linear_cross_entropy, scores_first))
    for a, b in zip(ours[:-1], torchs[:-1], strict=True):  # the tangent of a mean that is NaN is NaN here, 0 in torch
        assert_close(a, b, equal_nan=True)


def test_a_transposed_weight(route: str) -> None:
    arguments = problem(dtype=torch.float32)
    expected = list(derivatives(linear_cross_entropy, arguments, "mean"))
    weight = arguments["linear_weight"].detach().T.contiguous().T.requires_grad_()
    assert not weight.is_contiguous()
    found = derivatives(linear_cross_entropy, {**arguments, "linear_weight": weight}, "mean")
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b)


def test_an_index_out_of_range_is_found_in_any_block(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "SCORES", 1)
    monkeypatch.setattr(linear, "SCORES_OF_FORMULAS", 1)
    for bad in (CLASSES, -1):
        arguments = problem()
        arguments["target"][-1] = bad
        with pytest.raises(IndexError, match=f"Target {bad} is out of bounds"):
            linear_cross_entropy(**arguments)


OURS = manual_grad.LinearCrossEntropyLoss
TORCHS = getattr(torch.nn, "LinearCrossEntropyLoss", None)


class OnOlderTorch(WithHead, older_torch._LinearCrossEntropyLoss):
    """Our Module as it is if torch has none."""

    forward = OURS.forward


@pytest.mark.skipif(TORCHS is None, reason="this torch has no LinearCrossEntropyLoss")
@pytest.mark.parametrize("kind", [OURS, OnOlderTorch])
class TestModule:
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("positions", [(), (2, 3)])
    def test_is_torchs(self, kind: type, bias: bool, positions: tuple[int, ...]) -> None:
        arguments = dict(out_features=positions, bias=bias, reduction="sum", weight=torch.rand(5), ignore_index=1)
        ours, torchs = (module(3, 5, **arguments) for module in (kind, TORCHS))
        ours.load_state_dict(torchs.state_dict())
        torchs.load_state_dict(ours.state_dict())
        assert repr(ours).partition("(")[2] == repr(torchs).partition("(")[2]
        assert ours.label_smoothing == torchs.label_smoothing
        x, target = torch.randn(4, 3), torch.randint(5, (4, *positions))
        for module in (ours, torchs):
            module(x, target).backward()
        assert_close(ours(x, target), torchs(x, target))
        for a, b in zip(ours.parameters(), torchs.parameters(), strict=True):
            assert_close(a.grad, b.grad)

    def test_is_constructed_as_torchs(self, kind: type) -> None:
        ours, torchs = (
            [(p.name, p.kind, p.default) for p in inspect.signature(module).parameters.values()]
            for module in (kind, TORCHS)
        )
        assert ours[: len(torchs)] == torchs
        torch.manual_seed(0)
        ours = kind(3, 5, dtype=torch.float64)
        torch.manual_seed(0)
        torchs = TORCHS(3, 5, dtype=torch.float64)
        assert torch.equal(ours.linear.weight, torchs.linear.weight)
        for wrong in (dict(weight=torch.ones(4)), dict(label_smoothing=1.5), dict(label_smoothing=-0.5)):
            for module in (kind, TORCHS):
                with pytest.raises(RuntimeError, match=next(iter(wrong))):
                    module(3, 5, **wrong)


@pytest.mark.skipif(TORCHS is None, reason="this torch has no linear_cross_entropy")
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_what_stands_in_on_older_torch_is_torchs(name: str, reduction: str) -> None:
    arguments = problem(**PROBLEMS[name])
    stand_in = derivatives(older_torch._linear_cross_entropy, arguments, reduction)
    for found, expected in zip(stand_in, derivatives(F.linear_cross_entropy, arguments, reduction), strict=True):
        assert_close(found, expected)
