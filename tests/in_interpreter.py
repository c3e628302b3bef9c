"""Tests of the Triton kernels, which test_triton.py runs in the interpreter, on CPU tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import far_apart
import manual_grad.functional as M
from gradcheck.checks import cuda, parity
from gradcheck.checks.cases import each
from gradcheck.compare import Result
from gradcheck.spec import Case, Draw, Pin, Settings, Spec
from manual_grad import kernels, specs
from manual_grad.kernels import switched
from manual_grad.kernels import triton as kernels_in_triton
from manual_grad.kernels.triton import launch

POINTWISE = sorted(kernels_in_triton.POINTWISE)
STRUCTURED = [
    "huber_loss", "cross_entropy", "nll_loss", "multi_margin_loss", "multilabel_margin_loss", "cosine_embedding_loss",
    "triplet_margin_loss", "ctc_loss", "distillation_loss", "topk_distillation_loss",
]  # fmt: skip


def both(call: object, *inputs: Tensor) -> list[list[Tensor]]:
    """Value and gradients, with kernels and from the formulas."""
    results = []
    for on in (True, False):
        with switched(on):
            leaves = [t.detach().requires_grad_() if t.is_floating_point() else t for t in inputs]
            value = call(*leaves)
            g = torch.linspace(1, 2, value.numel(), dtype=value.dtype).view(value.shape)
            results.append([value, *torch.autograd.grad(value, [t for t in leaves if t.requires_grad], g)])
    return results


def alike(call: object, *inputs: Tensor) -> None:
    ours, expected = both(call, *inputs)
    for a, b in zip(ours, expected, strict=True):
        # the kernels compute in float32, and entries may cancel: a few eps of the largest
        torch.testing.assert_close(a, b, rtol=0, atol=16 * 2**-23 * float(b.detach().abs().max()))


def test_a_negative_variance_is_nan() -> None:
    """On a device, a bad index cannot raise without a sync, so a huge index must not be taken for a small one."""
    x, t = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    var = torch.tensor([-1.0, 4.0])
    loss, dx, _, da, _ = kernels.op("gaussian_nll_loss", x)(
        x, t, var, None, None, 0.0, 1e-6, 1.0, False, True, True, False, True, False
    )
    for found in (loss, dx, da):
        assert found.isnan().tolist() == [True, False]


def test_the_interpreter_is_in_use() -> None:
    assert "interpreted" in kernels.show_config()
    for name in kernels_in_triton.OPS:
        assert kernels.op(name, torch.empty(1)) is not None


def on_and_off(case: Case, *checks: Callable[[Case, Any, Any], Iterator[Result]]) -> Iterator[Result]:
    ours = parity.everything(case)
    for check in checks or (parity.switched,):
        yield from check(case, ours, parity.sizes(case, ours))


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of sizes that differ and modules that are empty
@pytest.mark.parametrize("name", specs.NAMES)
def test_kernels_and_formulas_agree(name: str) -> None:
    """Every loss has a kernel or is composed of losses that have one, for every sample and regime and all outputs."""
    spec, quick = specs.load(name), Settings(quick=True)
    # the linear losses share the regimes of cross entropy, whose kernel they use; for a
    # path, whose frames are slow in the interpreter, use every third case
    step = {"linear": len(spec.regimes) + 1, "path": 3}.get(spec.family, 1)
    samples = {**spec.samples, **dict(itertools.islice(spec.regimes.items(), step - 1, None, step))}
    results = [
        *each(spec.covering(quick, torch.float32, samples), on_and_off),
        *each(itertools.islice(spec.covering(quick, torch.float32), 2), parity.poisoned),
    ]
    assert not [result for result in results if not result.ok]
    assert any("by kernel" in result.what and not result.note for result in results)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", STRUCTURED)
def test_other_dtypes(name: str, dtype: torch.dtype) -> None:
    """Every structured loss; pointwise losses share one conversion, so one of them is enough."""
    spec = specs.load(name)
    count = 1 if name == "ctc_loss" else 3  # its frames are slow in the interpreter
    for case in itertools.islice(spec.covering(Settings(quick=True), dtype), count):
        assert not [result for result in on_and_off(case, parity.switched, parity.no_worse_than_peer) if not result.ok]


@pytest.mark.parametrize("name", STRUCTURED)
def test_edges(name: str) -> None:
    """The pinned subgradients, infinities and NaNs of the spec: kernels agree with formulas."""
    spec = specs.load(name)
    for pin in spec.pins:
        ours, expected = (pinned(spec, pin, on) for on in (True, False))
        torch.testing.assert_close(ours, expected, rtol=16 * 2**-52, atol=0, equal_nan=True)


def pinned(spec: Spec, pin: Pin, on: bool) -> tuple[object, ...]:
    draw = Draw(0)
    tensors = {i.name for i in spec.inputs}
    arguments = {k: draw.tensor(v) if k in tensors else v for k, v in pin.arguments.items()}
    with switched(on):
        return Case(spec, "pin", arguments).differentiate()


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_many_blocks(reduction: str) -> None:
    x, t = torch.randn(2, 5, 1003, generator=torch.Generator().manual_seed(0))
    alike(lambda x, t: M.huber_loss(x, t, reduction=reduction), x, t)
    alike(lambda x, t: M.huber_loss(x, t, reduction=reduction), x.T.contiguous().T, t)
    alike(lambda x, t: M.huber_loss(x, t, reduction=reduction), x, t[:1].expand(5, -1))
    alike(lambda x, t: M.huber_loss(x, t, reduction=reduction), x[:, :1002:2], t[:, 1::2])


@pytest.mark.parametrize(("rows", "classes"), [(3, 9001), (700, 3), (40, 60), (1, 4097)])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "weight": True}], ids=["plain", "smooth, weighted"])
def test_rows_of_every_length(rows: int, classes: int, options: dict[str, object]) -> None:
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn(rows, classes, generator=generator), torch.randint(classes, (rows,), generator=generator)
    z[:, : classes // 2] = -float("inf")  # a block without a finite score
    y = y // 2 + classes // 2
    y[0] = -100 if rows > 1 else y[0]
    options = dict(options)
    if options.pop("weight", False):
        options["weight"] = torch.rand(classes, generator=generator)
        z = z.nan_to_num(neginf=-50.0)
    alike(lambda z: M.cross_entropy(z, y, **options), z)
    q = torch.rand(rows, classes, generator=generator)
    alike(lambda z, q: M.cross_entropy(z.clamp_min(-50.0), q, **options), z, q)


@pytest.mark.parametrize(("rows", "classes", "strided"), [(3, 1031, False), (700, 3, False), (70, 20, True)])
def test_other_losses_of_rows_of_every_length(rows: int, classes: int, strided: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(rows, classes, generator=generator), torch.rand(classes, generator=generator)
    x = x.T.contiguous().T if strided else x
    y = torch.randint(classes, (rows,), generator=generator)
    labels = torch.full((rows, classes), -1)
    labels[:, 0], labels[1:, 1], labels[1:, 2] = (
        y,
        1,
        y[1:],
    )  # some rows have one label, others three, one of them twice
    ignored = y.masked_fill(torch.arange(rows) == 1, -100)
    alike(lambda x: M.nll_loss(x, ignored, w), x)
    alike(lambda x: M.multi_margin_loss(x, y, p=2, weight=w), x)
    alike(lambda x: M.multilabel_margin_loss(x, labels), x)


def test_more_classes_than_a_tile_holds() -> None:
    x = torch.randn(2, 9001, generator=torch.Generator().manual_seed(0))
    alike(lambda x: M.nll_loss(x, torch.tensor([0, 9000])), x)


def test_classes_that_are_not_next_to_each_other() -> None:
    z, y = torch.randn(2, 20, 7, 5), torch.randint(20, (2, 7, 5))
    for loss in (M.cross_entropy, M.nll_loss):
        alike(lambda z, loss=loss: loss(z, y, reduction="none"), z)
        alike(lambda z, loss=loss: loss(z, y), z.to(memory_format=torch.channels_last))


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 2.5, float("inf"), -float("inf")])
@pytest.mark.parametrize(("rows", "length"), [(2, 1031), (130, 5)])
def test_triplets_of_every_length(rows: int, length: int, p: float) -> None:
    a, b, c = torch.randn(3, rows, length, generator=torch.Generator().manual_seed(0))
    alike(lambda a, b, c: M.triplet_margin_loss(a, b, c, p=p, margin=50.0, swap=rows == 2), a, b.T.contiguous().T, c)


def test_a_gradient_may_take_the_place_of_the_logits() -> None:
    """The layout that linear_cross_entropy uses."""
    z, y = torch.randn(5, 300), torch.randint(300, (5,))
    dz, inside, one = torch.empty_like(z), z.clone(), torch.ones(())
    op = kernels.op("cross_entropy", z)
    op(z, y, None, one, -100, 0.1, False, 1.0, False, None, dz, None, None)
    op(inside, y, None, one, -100, 0.1, False, 1.0, False, None, inside, None, None)
    assert torch.equal(inside, dz)


@pytest.mark.parametrize("name", ["huber_loss", "cross_entropy", "cosine_embedding_loss", "ctc_loss"])
def test_backward_again(name: str) -> None:
    """The first backward scales the stored gradient; later ones pass the upstream gradient to the kernel."""
    case = specs.load(name).case(Settings(), params={"reduction": "mean"}, dtype=torch.float64)
    leaves = case.leaves()
    value, g = case.call(**leaves), torch.tensor(-0.75, dtype=torch.float64)
    with switched(False):
        expected = case.differentiate(g=g)[1]
    for _ in range(2):
        found = torch.autograd.grad(value, list(leaves.values()), g, retain_graph=True)
        for d, wanted in zip(found, expected.values(), strict=True):
            torch.testing.assert_close(d, wanted, rtol=1e-12, atol=1e-14)


def test_an_unsure_leader_keeps_its_digits() -> None:
    """With 5000 nearly equal classes, the probability of the largest, 1/5000, must be accurate to the last digit."""
    z = torch.linspace(0, 1e-3, 5000)[None]
    ours, expected = both(lambda z: M.cross_entropy(z, torch.zeros(1, dtype=torch.int64)), z)
    torch.testing.assert_close(ours[1], expected[1], rtol=8 * 2**-23, atol=0)


def test_confident_rows_keep_their_digits() -> None:
    gaps = torch.tensor([5.0, 15.0, 20.0, 40.0, 80.0])
    z = torch.tensor([[100.3, 0.0, 99.7]]).expand(5, 3) - torch.stack([0 * gaps, 100 + 0 * gaps, gaps], 1)
    y = torch.zeros(5, dtype=torch.int64)
    ours, expected = both(lambda z: M.cross_entropy(z, y, reduction="none"), z)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=8 * 2**-23, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_sum_of_many_parts(dtype: torch.dtype) -> None:
    parts = torch.linspace(0, 1, 40_001, dtype=torch.float64)
    out = torch.empty((), dtype=dtype)
    launch.total(parts, out, 0.5, torch.tensor(4.0, dtype=torch.float64))
    torch.testing.assert_close(out.double(), parts.sum() / 8, rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("g", [1.0, 0.5])
def test_scaling_in_place(g: float) -> None:
    d = torch.randn(7, 300).T
    expected = d * g
    kernels.op("scale_", d)(d, torch.tensor(g))
    assert torch.equal(d, expected)


BY_INDEX = {
    "cross_entropy": lambda x, y: M.cross_entropy(x, y, reduction="none"),
    "nll_loss": lambda x, y: M.nll_loss(x, y, reduction="none"),
    "multi_margin_loss": lambda x, y: M.multi_margin_loss(x, y, reduction="none"),
    "multilabel_margin_loss": lambda x, y: M.multilabel_margin_loss(x, one_label(y), reduction="none"),
}


def one_label(y: Tensor) -> Tensor:
    return torch.stack([y, *[torch.full_like(y, -1)] * 4], 1)


@pytest.mark.parametrize("index", [7, -2, 2**40])
@pytest.mark.parametrize("loss", BY_INDEX)
def test_a_bad_index_spoils_its_row_and_no_other(loss: str, index: int) -> None:
    z = torch.randn(3, 5, requires_grad=True)
    value = BY_INDEX[loss](z, torch.tensor([0, index, 4]))
    (dz,) = torch.autograd.grad(value.sum(), z)
    assert value.isnan().tolist() == [False, True, False]
    assert dz.isnan().all(1).tolist() == dz.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("name", [*BY_INDEX, "ctc_loss"])
def test_no_plausible_number_comes_of_a_bad_index(name: str) -> None:
    """The check that gradcheck runs on a device."""
    results = list(cuda.bad_index(specs.load(name).case(Settings())))
    assert len(results) > 1
    assert not [result for result in results if not result.ok]


LENGTHS = [([4, 9, 4], [1, 2, 1]), ([4, 4, 4], [1, 2**40, 1]), ([4, 4, 4], [1, 3, 1])]


@pytest.mark.parametrize(("frames", "labels"), LENGTHS)
def test_lengths_that_do_not_fit_spoil_their_samples(frames: list[int], labels: list[int]) -> None:
    """With concatenated targets, also the samples after a bad length, whose targets start at an unknown place."""
    x = torch.randn(4, 3, 5, requires_grad=True)
    value = M.ctc_loss(x, torch.tensor([1, 2, 3, 4]), torch.tensor(frames), torch.tensor(labels), reduction="none")
    (dx,) = torch.autograd.grad(value.sum(), x)
    spoilt = [False, frames[1] > 4 or labels[1] > 4, sum(labels) > 4]
    assert value.isnan().tolist() == spoilt
    assert dx.isnan().all(2).all(0).tolist() == dx.isnan().any(2).any(0).tolist() == spoilt


def test_offsets_beyond_32_bits() -> None:
    """Entries 2**30 apart; untouched memory costs nothing."""
    x = torch.empty(2**31 + 1, dtype=torch.float16)[:: 2**30]
    x.copy_(torch.tensor([1.0, 2.0, 3.0]))
    value = M.mse_loss(x, torch.zeros(3, dtype=torch.float16), reduction="none")
    assert value.tolist() == [1.0, 4.0, 9.0]


@pytest.mark.parametrize("name", POINTWISE)
def test_an_op_for_torch_compile(name: str) -> None:
    """The fake implementation and the schema of each op agree with the op."""
    n, options = kernels_in_triton.POINTWISE[name].inputs, kernels_in_triton.POINTWISE[name].options
    inputs = torch.rand(n, 3, 4).unbind()
    args = (*inputs, None, torch.ones(()), *[0.5] * options, 1.0, True, True, *[True] * n, False)
    op = getattr(torch.ops.manual_grad, name).default
    kernels.op(name, inputs[0])
    torch.library.opcheck(op, args, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("name", ["huber_loss", "cross_entropy", "cosine_embedding_loss", "ctc_loss"])
def test_under_torch_compile(name: str) -> None:
    case = specs.load(name).case(Settings(), dtype=torch.float32)
    expected = case.differentiate()
    compiled = torch.compile(case.spec.fn, fullgraph=True, backend="aot_eager")
    found = case.differentiate(lambda **arguments: compiled(**arguments))
    torch.testing.assert_close(found, expected)


@pytest.mark.skipif(not far_apart.ON_DEMAND, reason="memory cannot be had on demand here")
@pytest.mark.parametrize("name", specs.NAMES)
def test_strides_of_more_than_32_bits(name: str) -> None:
    assert far_apart.check(name, **({"blank": 3} if name == "ctc_loss" else {}))
