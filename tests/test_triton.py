"""Test the Triton kernels without a GPU: interpreted against the formulas, compiled ahead of time, and mutated."""

# ruff: noqa: E402 - where Triton is not installed, nothing below is imported
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

import triton.language as tl

import ahead_of_time
import manual_grad.functional as M
from gradcheck.spec import Settings
from manual_grad import kernels, specs
from manual_grad.engine import divergence
from manual_grad.kernels import triton as kernels_in_triton

ROOT = Path(__file__).parent.parent
ARCHITECTURES = [80, 90, 100]


def interpret(*arguments: object, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(ROOT))), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, ROOT / "tests/interpreter.py", *map(str, arguments)]
    if "gradcheck" in arguments:
        command += ["--jobs", "1"]  # other processes would run the unmodified interpreter, which is slow
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_in_the_interpreter() -> None:
    found = interpret("pytest", "-q", "-W", "ignore::RuntimeWarning", ROOT / "tests/in_interpreter.py")
    assert found.returncode == 0, found.stdout + found.stderr


# from fault to file, right code, wrong code, and where it shows: loss, case, result. All faults are applied at once,
# so each is tested where no other shows: the scale of a sum is 1, and the mean of l1 does not use the mask.
BROKEN = {
    "missing mask": (
        "pointwise.py", "tl.sum(tl.where(inside, e, 0))", "tl.sum(e)",
        "binary_cross_entropy_with_logits", "reduction='sum'", "value, by kernel"),
    "wrong scale": (
        "pointwise.py", "total(parts, e, scale)", "total(parts, e)", "l1_loss", "reduction='mean'", "value, by kernel"),
    "lost upstream": (
        "pointwise.py", "slope * slopes[k]", "up * slopes[k]",
        "mse_loss", "reduction='none'", "gradient of target, by kernel"),
    "unwritten ignored row": (
        "cross_entropy.py", "at[3], step[3], every", "at[3], step[3], inside",
        "cross_entropy", "", "gradient of input, memory poisoned"),
    "unwritten ignored row of nll": (
        "nll_loss.py", "mask=inside_n[:, None] & (c", "mask=kept[:, None] & (c",
        "nll_loss", "", "gradient of input, memory poisoned"),
    "a label against itself": (
        "class_margin.py", "others = inside & (times == 0)", "others = inside",
        "multi_margin_loss", "", "value, by kernel"),
    "a repeated label counts once": (
        "class_margin.py", "received *= tl.load(counts", "received *= 1 + 0 * tl.load(counts",
        "multilabel_margin_loss", "repeated", "gradient of input, by kernel"),
    "the farther negative": (
        "triplet_margin_loss.py", "tl.where(w_f < v_f,", "tl.where(w_f > v_f,",
        "triplet_margin_loss", "swap=True", "gradient of negative, by kernel"),
}  # fmt: skip


def break_in_a_copy(root: Path, *changes: tuple[str, ...]) -> None:
    """A copy of the package with faults in its kernels."""
    shutil.copytree(ROOT / "manual_grad", root / "manual_grad", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for file, right, wrong in changes:
        path = root / "manual_grad/kernels/triton" / file
        text = path.read_text(encoding="utf-8")
        assert right in text
        path.write_text(text.replace(right, wrong), encoding="utf-8")


def test_every_broken_kernel_is_caught(tmp_path: Path) -> None:
    """Run all faults in one process, because it starts slowly."""
    break_in_a_copy(tmp_path, *(fault[:3] for fault in BROKEN.values()))
    report = tmp_path / "report.json"
    losses = dict.fromkeys(fault[3] for fault in BROKEN.values())
    found = interpret(
        "gradcheck", *losses, "--quick", "--check", "parity", "--dtype", "float32", "--json", report, root=tmp_path
    )
    assert found.returncode == 1, found.stdout + found.stderr
    results = json.loads(report.read_text(encoding="utf-8"))["results"]
    failures = [(r["loss"], r["case"], r["what"]) for r in results if not r["ok"]]
    for fault, (*_, loss, case, what) in BROKEN.items():
        assert any((loss, what) == (where, result) and case in of for where, of, result in failures), fault


def test_a_32_bit_offset_is_caught(tmp_path: Path) -> None:
    break_in_a_copy(
        tmp_path,
        ("launch.py", "offset = i.to(tl.int64) * 0", "offset = i.to(tl.int32) * 0"),
        ("launch.py", "at.to(tl.int64) * stride[d]", "at.to(tl.int32) * stride[d]"),
    )
    options = "-q", "-W", "ignore::RuntimeWarning", "-k", "beyond_32_bits"
    found = interpret("pytest", *options, ROOT / "tests/in_interpreter.py", root=tmp_path)
    assert found.returncode != 0, found.stdout + found.stderr  # a wrong number or an invalid address


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass CPU tensors to the functions that launch the kernels."""
    monkeypatch.setattr(kernels, "_op", lambda name, device: kernels_in_triton.OPS[name][1])


def distil(scores: torch.Tensor, *options: Any) -> torch.Tensor:
    return M.distillation_loss(scores, (2 * scores).detach().requires_grad_(), *options, mask=torch.ones(len(scores)))


def calls() -> list[Any]:
    """Calls that launch each kernel with all inputs and outputs, with large tensors so that tiles are wide."""
    scores, image = torch.rand(4, 9000, requires_grad=True), torch.rand(2, 40, 8, 8, requires_grad=True)
    vectors = torch.rand(3, 4, 1024, requires_grad=True)
    weight, index, labels = torch.rand(9000), torch.arange(4), torch.zeros(4, 9000, dtype=torch.int64)
    found = [
        lambda: M.cross_entropy(scores, index, weight, label_smoothing=0.1),
        lambda: M.cross_entropy(scores, torch.rand(4, 9000, requires_grad=True), weight, label_smoothing=0.1),
        lambda: M.cross_entropy(image, torch.zeros(2, 8, 8, dtype=torch.int64)),
        lambda: M.cross_entropy(scores.bfloat16(), index),
        lambda: M.cross_entropy(scores.double(), index),
        lambda: sum(M.log_prob_and_entropy(scores, index)).sum(),
        lambda: sum(M.log_prob_and_entropy(scores.bfloat16(), index, softcap=2.0)).sum(),
        lambda: M.selected_log_prob(scores.double(), index).sum(),
        *(partial(distil, scores, *options) for options in product(divergence.NAMES, [0.1], [0.7])),
        lambda: distil(scores.bfloat16(), "jsd"),
        lambda: distil(scores.double(), "jsd"),
        lambda: M.topk_distillation_loss(scores, torch.full((4, 9), -3.0), torch.arange(9).expand(4, 9), "jsd"),
        lambda: M.nll_loss(scores, index, weight),
        lambda: M.multi_margin_loss(scores, index, p=2, weight=weight),
        lambda: M.multilabel_margin_loss(scores, labels),
        lambda: M.triplet_margin_loss(*vectors, swap=True),
        lambda: M.triplet_margin_loss(*vectors.double(), swap=True),
        lambda: M.triplet_margin_loss(*vectors, p=3.0, swap=True),
        lambda: M.cosine_embedding_loss(*vectors[:2], torch.ones(4)),
        specs.load("ctc_loss").case(Settings(), dtype=torch.float32).differentiate,
        lambda: kernels_in_triton.OPS["scale_"][1](torch.empty(300), torch.ones(())),
    ]
    for name, loss in kernels_in_triton.POINTWISE.items():
        n = loss.inputs
        inputs = [torch.rand(300, requires_grad=True) for _ in range(n)]
        operands = (*inputs, None, torch.ones(()), *[0.5] * loss.options, 1.0, True, True, *[True] * n, False)
        found.append(lambda name=name, operands=operands: kernels_in_triton.OPS[name][1](*operands))
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles_without_spills(
    served: None, architecture: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # compile all for the first device, and each for one of the others: all have 255 registers per thread
    share = slice(None) if architecture == ARCHITECTURES[0] else slice(ARCHITECTURES.index(architecture) - 1, None, 2)
    with ahead_of_time.compiling(architecture, tmp_path) as compiled:
        for call in calls()[share]:
            result = call()
            if isinstance(result, torch.Tensor):
                result.backward()
    found = [ahead_of_time.usage(kernel, tmp_path) for kernel in compiled]
    with capsys.disabled():
        print("", *found, sep="\n")
    rowwise, pairwise = {"_cross_entropy", "_nll_loss", "_class_margin"}, {"_cosine_embedding", "_triplet_margin"}
    rowwise |= {"_log_prob_state", "_log_prob_gradient", "_distillation_loss", "_topk_distillation_loss"}
    assert architecture != ARCHITECTURES[0] or {"_kernel", "_walk", *rowwise, *pairwise} <= {u.kernel for u in found}
    # older compilers (Triton 3.6 for sm_80) put a number or two aside, which costs nothing
    spilling = [str(u) for u in found if u.local > 16]
    assert not spilling, "\n".join(spilling)


@triton.jit
def crowded(x, y, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    v = tl.load(x + i)
    tl.debug_barrier()
    tl.store(y + i, v)


def test_a_spill_is_seen(tmp_path: Path) -> None:
    x = torch.empty(1 << 15)
    with ahead_of_time.compiling(90, tmp_path) as compiled:
        crowded[(1,)](x, x, BLOCK=1 << 15, num_warps=1, enable_fp_fusion=False)
    assert ahead_of_time.usage(compiled[0], tmp_path).local > 0


@pytest.mark.parametrize("name", kernels_in_triton.OPS)
def test_schemas_are_those_of_the_library_in_cpp(name: str) -> None:
    if kernels._load()[0] is None or name == "scale_":
        pytest.skip("not in a C++ library that is loaded here")
    schema = kernels_in_triton.OPS[name][0]
    ours = torch._C.parse_schema(f"manual_grad::{name}{schema}")
    assert str(getattr(torch.ops.manual_grad, name).default._schema) == str(ours)
