"""``python -m benchmarks --device cuda``: timing on a GPU.

Every call is timed between two device events, so Python's overhead counts only where it keeps the device waiting. Calls
rotate through copies of the inputs that together exceed the L2 cache, because in training the inputs are usually not in
it either. The figures are medians. GB/s counts each input read once and each gradient written once. It is compared with
the bandwidth of copying a gigabyte on the same device in the same run.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import manual_grad
import manual_grad.functional
from benchmarks import cases
from manual_grad import catalogue

RESULTS = Path(__file__).parent / "results"
ELEMENTS = 64 << 20
COPY = 1 << 30  # bytes
# relative to the largest entry, against torch in float32 on the same inputs; a kernel that is wrong is not timed
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}

Inputs = tuple[Tensor, ...]
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    loss: str
    shape: tuple[int, ...]
    make: Callable[..., Inputs]  # takes shape, dtype and device
    options: Mapping[str, Any] = field(default_factory=dict)
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the quartiles."""

    lower: float
    median: float
    upper: float
    calls: int


@dataclass(frozen=True)
class Result:
    loss: str
    shape: tuple[int, ...]
    dtype: str
    options: dict[str, Any]
    backward: bool
    bytes: int
    error: float
    timings: dict[str, Timing]  # by implementation; empty if the loss is wrong

    def row(self, copy: float) -> list[str]:
        options = "".join(f", {k}={v}" for k, v in self.options.items())
        name = f"{self.loss}{options} {'×'.join(map(str, self.shape))} {self.dtype}"
        mode = "forward, backward" if self.backward else "forward"
        if not self.timings:
            return [name, mode, f"RED: off by {self.error:.3g}"]
        ours = self.timings["manual_grad"].median
        others = (f"{who} {t.median * 1e3:.3f} ({t.median / ours:.2f}x)" for who, t in self.timings.items())
        speed = self.bytes / ours
        return [name, mode, *others, f"{speed / 1e9:.0f} GB/s", f"{speed / copy:.0%} of copy"]


def classes(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Inputs:
    z = torch.randn(shape, dtype=dtype, device=device)
    return z.requires_grad_(), torch.randint(shape[1], shape[:1], device=device)


def distributions(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Inputs:
    z = torch.randn(shape, dtype=dtype, device=device)
    return z.requires_grad_(), torch.randn(shape, dtype=dtype, device=device).softmax(1)


def vectors(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Inputs:
    a, b = torch.randn((2, *shape), dtype=dtype, device=device)
    y = torch.where(torch.rand(shape[0], device=device) < 0.5, -1.0, 1.0)
    return a.clone().requires_grad_(), b.clone().requires_grad_(), y


def labels(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Inputs:
    z = torch.randn(shape, dtype=dtype, device=device)
    y = torch.randint(shape[1], shape, device=device)
    return z.requires_grad_(), y.masked_fill(torch.arange(shape[1], device=device) >= 4, -1)


def triplets(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Inputs:
    return tuple(t.clone().requires_grad_() for t in torch.randn((3, *shape), dtype=dtype, device=device))


def pointwise(loss: str) -> Case:
    def make(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Inputs:
        return cases.sample(loss, cases.Enlarged(*shape, dtype=dtype, device=device))

    # bfloat16 cannot resolve probabilities close to 1
    dtypes = (torch.float32,) if loss == "binary_cross_entropy" else (torch.bfloat16, torch.float32)
    return Case(loss, (ELEMENTS,), make, cases.options_of(loss), dtypes)


CASES = (
    *(Case("cross_entropy", shape, classes)
      for shape in ((8192, 32000), (8192, 65536), (4096, 131072), (2048, 262144), (32768, 4096))),
    Case("cross_entropy", (8192, 32000), classes, {"label_smoothing": 0.1}, (torch.bfloat16,)),
    Case("cross_entropy", (8192, 32000), distributions, dtypes=(torch.bfloat16,)),
    *(pointwise(loss.name) for loss in catalogue.of_family("pointwise")),
    Case("nll_loss", (8192, 32000), classes),
    Case("multi_margin_loss", (65536, 1000), classes),
    Case("multilabel_margin_loss", (65536, 1000), labels),
    Case("cosine_embedding_loss", (65536, 1024), vectors),
    Case("triplet_margin_loss", (65536, 1024), triplets),
)  # fmt: skip


def implementations(case: Case) -> dict[str, Loss]:
    """The implementations to time: manual_grad first, then torch, then other libraries if installed and applicable."""
    theirs = cases.theirs(case.loss)
    found: dict[str, Loss] = {
        "manual_grad": getattr(manual_grad.functional, case.loss),
        "eager": theirs,
        "compiled": torch.compile(theirs, dynamic=False),
    }
    if case.loss == "cross_entropy" and case.make is classes:
        if find_spec("liger_kernel"):
            from liger_kernel.transformers.functional import liger_cross_entropy

            found["liger"] = liger_cross_entropy
        if find_spec("quack") and not case.options:
            from quack.cross_entropy import cross_entropy

            found["quack"] = partial(cross_entropy, reduction="mean")
    return found


def error(case: Case, inputs: Inputs) -> float:
    """The error of loss and gradients against torch in float32, relative to the largest entry."""

    def run(loss: Loss, dtype: torch.dtype | None) -> list[Tensor]:
        leaves = [t.detach().to(dtype) if dtype and t.is_floating_point() else t.detach() for t in inputs]
        for leaf, t in zip(leaves, inputs, strict=True):
            leaf.requires_grad_(t.requires_grad)
        value = loss(*leaves, **case.options)
        return [value.detach(), *torch.autograd.grad(value, [t for t in leaves if t.requires_grad])]

    ours = run(getattr(manual_grad.functional, case.loss), None)
    theirs = run(cases.theirs(case.loss), torch.float32)
    pairs = zip(ours, theirs, strict=True)
    return max(((a.float() - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def copies(inputs: Inputs, l2: int) -> list[Inputs]:
    """Enough copies that the inputs of a call have left the L2 cache when their turn comes again."""
    size = sum(t.nbytes for t in inputs)
    count = max(2, math.ceil(3 * l2 / size))
    return [tuple(t.detach().clone().requires_grad_(t.requires_grad) for t in inputs) for _ in range(count)]


def timed(run: Callable[[Inputs], object], rotation: Sequence[Inputs], calls: int) -> Timing:
    for i in range(10):  # warm up: compile, allocate, raise the clocks
        run(rotation[i % len(rotation)])
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    torch.cuda.synchronize()
    for i, (start, end) in enumerate(events):
        start.record()
        run(rotation[i % len(rotation)])
        end.record()
    torch.cuda.synchronize()
    seconds = [start.elapsed_time(end) / 1e3 for start, end in events]
    return Timing(*statistics.quantiles(seconds, n=4, method="inclusive"), calls)


def step(case: Case, loss: Loss, backward: bool) -> Callable[[Inputs], object]:
    def forward(inputs: Inputs) -> Tensor:
        with torch.no_grad():
            return loss(*inputs, **case.options)

    def both(inputs: Inputs) -> None:
        loss(*inputs, **case.options).backward()
        for t in inputs:
            t.grad = None

    return both if backward else forward


def copy_speed(calls: int) -> float:
    """The bandwidth of a copy in bytes per second, read plus written."""
    source = torch.empty(COPY, dtype=torch.uint8, device="cuda")
    result = torch.empty_like(source)
    return 2 * COPY / timed(lambda _: result.copy_(source), [()], calls).median


def measure(case: Case, dtype: torch.dtype, calls: int) -> Iterable[Result]:
    inputs = case.make(case.shape, dtype, "cuda")
    off = error(case, inputs)
    red = not off <= TOLERANCE[dtype]
    rotation = [] if red else copies(inputs, torch.cuda.get_device_properties("cuda").L2_cache_size)
    for backward in (False, True):
        timings = {}
        for name, loss in {} if red else implementations(case).items():
            torch.compiler.reset()
            try:
                timings[name] = timed(step(case, loss, backward), rotation, calls)
            except Exception as cause:  # another library may not support a shape
                if name == "manual_grad":
                    raise
                print(f"{case.loss} by {name}: {cause}", file=sys.stderr)
        size = sum(t.nbytes * (2 if backward and t.requires_grad else 1) for t in inputs)
        name = str(dtype).removeprefix("torch.")
        yield Result(case.loss, case.shape, name, dict(case.options), backward, size, off, timings)


def main(losses: Sequence[str], json_path: Path | None, quick: bool) -> int:
    """Return the exit status: 0; 1 if a loss was not timed because it is wrong; 2 without a device."""
    if not torch.cuda.is_available():
        print("--device cuda: there is no CUDA device here", file=sys.stderr)
        return 2
    calls = 20 if quick else 200
    machine = {"device": torch.cuda.get_device_name(), "config": manual_grad.show_config().splitlines()}
    copy = copy_speed(calls)
    print(f"{machine['device']}: a copy reaches {copy / 1e9:.0f} GB/s; milliseconds")
    results: list[Result] = []
    for case in CASES:
        for dtype in case.dtypes if not losses or case.loss in losses else ():
            for result in measure(case, dtype, calls):
                results.append(result)
                print("  ".join(result.row(copy)), flush=True)
            torch.cuda.empty_cache()
    path = json_path or RESULTS / f"{slug(machine['device'])}.json"
    content = {"machine": machine, "copy": copy, "results": [asdict(r) for r in results]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(path)
    return int(any(not r.timings for r in results))


def slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
