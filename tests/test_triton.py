"""The kernels in Triton without a GPU: in the interpreter against the formulas, compiled ahead of time, and broken."""

# ruff: noqa: E402 - where Triton is not installed, nothing below is imported
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

import triton.language as tl
from torch._subclasses.fake_tensor import FakeTensorMode

import ahead_of_time
import manual_grad.functional as M
from gradcheck import specs
from gradcheck.spec import Settings
from manual_grad import kernels
from manual_grad.kernels import triton as kernels_in_triton

ROOT = Path(__file__).parent.parent
NAMES = specs.NAMES  # every loss has a kernel, or is made of one that has
ARCHITECTURES = [80, 90, 100]


def interpret(*arguments: object, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(ROOT))), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, ROOT / "tests/interpreter.py", *map(str, arguments)]
    if "gradcheck" in arguments:
        command += ["--jobs", "1"]  # other processes would run the interpreter as it comes, which is slow
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def parity(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("parity") / "report.json"
    found = interpret("gradcheck", *NAMES, "--quick", "--check", "parity", "--dtype", "float32", "--json", path)
    assert found.returncode in (0, 1), found.stderr
    return json.loads(path.read_text())["results"]


@pytest.mark.parametrize("name", NAMES)
def test_kernels_and_formulas_agree(parity: list[dict[str, Any]], name: str) -> None:
    results = [r for r in parity if r["loss"] == name]
    failed = [f"{r['case']}: {r['what']}: {r['error']} eps, {r['message']}" for r in results if not r["ok"]]
    assert not failed, "\n".join(failed)
    assert any("by kernel" in r["what"] and not r["note"] for r in results)


def test_other_dtypes() -> None:
    dtypes = "float64", "bfloat16", "float16"
    found = interpret(
        "gradcheck", "huber_loss", "cosine_embedding_loss", "--quick", "--check", "parity", "--dtype", *dtypes
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_in_the_interpreter() -> None:
    found = interpret("pytest", "-q", "-W", "ignore::RuntimeWarning", ROOT / "tests/in_interpreter.py")
    assert found.returncode == 0, found.stdout + found.stderr


BROKEN = {
    "missing mask": (
        "pointwise.py", "tl.sum(tl.where(inside, e, 0))", "tl.sum(e)", "binary_cross_entropy_with_logits"),
    "unwritten ignored row": (
        "cross_entropy.py", "d.to(dz.dtype.element_ty), mask=every", "d.to(dz.dtype.element_ty), mask=inside", "cross_entropy"),
    "wrong scale": ("pointwise.py", "total(parts, e, scale)", "total(parts, e)", "l1_loss"),
    "lost upstream": ("pointwise.py", "slope * by_t", "up * by_t", "mse_loss"),
}  # fmt: skip


def broken(tmp_path: Path, file: str, right: str, wrong: str) -> Path:
    """A copy of the package in which one line of a kernel is wrong."""
    shutil.copytree(
        ROOT / "manual_grad", tmp_path / "manual_grad", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    path = tmp_path / "manual_grad/kernels/triton" / file
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    return tmp_path


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_kernel_is_caught(fault: str, tmp_path: Path) -> None:
    *change, name = BROKEN[fault]
    root, report = broken(tmp_path, *change), tmp_path / "report.json"
    arguments = "--quick", "--check", "parity", "--dtype", "float32", "--json", report
    found = interpret("gradcheck", name, *arguments, root=root)
    assert found.returncode == 1, found.stdout + found.stderr
    failed = [r for r in json.loads(report.read_text())["results"] if not r["ok"]]
    assert any("by kernel" in r["what"] or "poisoned" in r["what"] for r in failed)


def test_a_32_bit_offset_is_caught(tmp_path: Path) -> None:
    root = broken(tmp_path, "launch.py", "offset = i.to(tl.int64) * 0", "offset = i.to(tl.int32) * 0")
    path = root / "manual_grad/kernels/triton/launch.py"
    path.write_text(path.read_text().replace("at.to(tl.int64) * stride[d]", "at.to(tl.int32) * stride[d]"))
    found = interpret(
        "pytest",
        "-q",
        "-W",
        "ignore::RuntimeWarning",
        "-k",
        "beyond_32_bits",
        ROOT / "tests/in_interpreter.py",
        root=root,
    )
    assert found.returncode != 0, found.stdout + found.stderr  # a wrong number, or an address that is nobody's


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU tensors go to the functions that start the kernels."""
    monkeypatch.setattr(kernels, "_op", lambda name, device: kernels_in_triton.OPS[name][1])


def calls() -> list[Any]:
    """One that starts each kernel, with every input that it has and all results wanted; large ones for wide tiles."""
    x, y, z = (torch.rand(300, requires_grad=True) for _ in range(3))
    scores, image = torch.rand(4, 9000, requires_grad=True), torch.rand(2, 40, 8, 8, requires_grad=True)
    weight = torch.rand(9000)
    found = [
        lambda: M.cross_entropy(scores, torch.arange(4), weight, label_smoothing=0.1),
        lambda: M.cross_entropy(scores, torch.rand(4, 9000, requires_grad=True), weight, label_smoothing=0.1),
        lambda: M.cross_entropy(image, torch.zeros(2, 8, 8, dtype=torch.int64)),
        lambda: M.cross_entropy(scores.bfloat16(), torch.arange(4)),
        lambda: M.cross_entropy(scores.double(), torch.arange(4)),
        lambda: kernels_in_triton.OPS["scale_"][1](torch.empty(300), torch.ones(())),
    ]
    for name in NAMES:
        if name in kernels_in_triton.pointwise.LOSSES:
            operands = (x, y, z, None, torch.ones(()), 0.5, 0.5, 0.5, 1.0, True, True, True, True, True, False)
            found.append(lambda name=name, operands=operands: kernels_in_triton.OPS[name][1](*operands))
        elif name != "cross_entropy":
            found.append(specs.load(name).case(Settings(), dtype=torch.float32).differentiate)
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles_without_spills(
    served: None, architecture: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ahead_of_time.compiling(architecture, tmp_path) as compiled:
        for call in calls():
            result = call()
            if isinstance(result, torch.Tensor):
                result.backward()
    found = [ahead_of_time.usage(kernel, tmp_path) for kernel in compiled]
    with capsys.disabled():
        print("", *found, sep="\n")
    assert len({u.kernel for u in found}) >= 6
    spilling = [str(u) for u in found if u.local]
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


def on_cuda(t: torch.Tensor) -> torch.Tensor:
    return torch.empty(t.shape, dtype=t.dtype, device="cuda:0")


@pytest.mark.parametrize("name", NAMES)
def test_calls_on_a_device_ask_for_no_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device's tensors without values the op is called, and whatever would wait for a value raises.

    (No graph is built: a torch without CUDA would ask the driver for a stream.)
    """
    started = []
    operator = kernels.op
    monkeypatch.setattr(kernels, "op", lambda *args: started.append(args[0]) or operator(*args))
    case = specs.load(name).case(Settings(), dtype=torch.float32)
    with torch.no_grad(), FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = {k: on_cuda(t) for k, t in case.tensors.items()}
        assert operator(name, next(iter(tensors.values()))) is not None
        value = case.call(**tensors)
    # without a distance of the caller's it is the loss of the vectors
    assert {"triplet_margin_with_distance_loss": "triplet_margin_loss"}.get(name, name) in started
    assert value.is_cuda
