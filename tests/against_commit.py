"""Whether the losses still give the numbers that they gave at another commit: for a change that should change nothing.

    python tests/against_commit.py a75f15f              every loss that both have
    python tests/against_commit.py HEAD~3 huber_loss    some

Both trees get the same inputs, every sample and regime of the specs of this tree with each of their parameters, in
every dtype. Value, gradients and a Hessian-vector product are compared bit by bit, with kernels and by the formulas.
For each loss the number of results that differ is printed, and by how much at most, in eps of their dtype and relative
to the largest entry. The other tree is compiled in a temporary folder. The exit status is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
Call = tuple[str, dict[str, Any]]  # the name of a loss, and its arguments


def squared(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().sum(-1)


def calls(names: list[str]) -> Iterator[Call]:
    from gradcheck.spec import Settings
    from manual_grad import specs

    for name in names or specs.NAMES:
        spec = specs.load(name)
        for dtype in DTYPES:
            for case in spec.cases(Settings(), dtype, {**spec.samples, **spec.regimes}):
                arguments = {k: "squared" if callable(v) else v for k, v in case.arguments.items()}
                for k, t in case.differentiable.items():
                    arguments[k] = t.detach().clone().requires_grad_()
                yield name, arguments


def results(call: Call) -> dict[str, Tensor | None] | None:
    """Of this call in the tree that Python finds; None if it has no such loss."""
    import manual_grad.functional as M

    name, arguments = call
    if not hasattr(M, name):
        return None
    value = getattr(M, name)(
        **{k: squared if isinstance(v, str) and v == "squared" else v for k, v in arguments.items()}
    )
    found: dict[str, Tensor | None] = {"value": value.detach()}
    leaves = {k: t for k, t in arguments.items() if isinstance(t, Tensor) and t.requires_grad}
    if not value.requires_grad:
        return found
    g = torch.linspace(1.25, 1.75, value.numel(), dtype=value.dtype).view(value.shape)
    options: dict[str, Any] = dict(retain_graph=True, allow_unused=True)
    for k, d in zip(leaves, torch.autograd.grad(value, list(leaves.values()), g, **options), strict=True):
        found[f"gradient of {k}"] = d
    first = torch.autograd.grad(value, list(leaves.values()), g, create_graph=True, **options)
    along = [(d * torch.linspace(-1, 1, d.numel(), dtype=d.dtype).view(d.shape)).sum() for d in first if d is not None]
    slope = torch.stack([d.double() for d in along]).sum() if along else torch.zeros(())
    if slope.requires_grad:
        for k, d in zip(leaves, torch.autograd.grad(slope, list(leaves.values()), **options), strict=True):
            found[f"second derivative by {k}"] = d
    return found


def compute(source: str, target: str) -> None:
    from_calls = torch.load(source, weights_only=True)
    torch.save([results(call) for call in from_calls], target)


def differences(a: dict[str, Tensor | None], b: dict[str, Tensor | None]) -> Iterator[float]:
    """In eps, infinity where one result is missing, or is not finite where the other is."""
    for what in {*a, *b}:
        x, y = a.get(what), b.get(what)
        if x is None or y is None:
            yield 0.0 if x is y else float("inf")
        elif x.shape != y.shape or x.dtype is not y.dtype or not torch.equal(x.isfinite(), y.isfinite()):
            yield float("inf")
        else:
            x, y = x.double().nan_to_num(0.0, 0.0, 0.0), y.double().nan_to_num(0.0, 0.0, 0.0)
            worst = float((x - y).abs().max()) if x.numel() else 0.0
            yield worst / max(float(y.abs().max()), 1e-300) / torch.finfo(a[what].dtype).eps if worst else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("losses", nargs="*")
    args = parser.parse_args()
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        inputs, other = f"{folder}/inputs", f"{folder}/tree"
        made = list(calls(args.losses))
        torch.save(made, inputs)
        subprocess.run(["git", "clone", "-q", ROOT, other], check=True)
        subprocess.run(["git", "checkout", "-q", args.commit], cwd=other, check=True)
        subprocess.run([sys.executable, "compile_kernels.py"], cwd=other, check=True)
        for kernels in ("1", "0"):
            outputs = []
            for n, tree in enumerate((ROOT, other)):
                variables = os.environ | {"PYTHONPATH": str(tree), "MANUAL_GRAD_KERNELS": kernels}
                command = [sys.executable, "-W", "ignore", __file__, "--compute", inputs, f"{folder}/{n}"]
                subprocess.run(command, cwd=tree, env=variables, check=True)
                outputs.append(torch.load(f"{folder}/{n}", weights_only=True))
            print("with kernels" if kernels == "1" else "by the formulas")
            rows: dict[str, list[float]] = {}
            for (name, _), ours, theirs in zip(made, *outputs, strict=True):
                if theirs is not None:
                    rows.setdefault(name, []).extend(differences(ours, theirs))
            for name, row in sorted(rows.items()):
                changed = [d for d in row if d]
                differing += len(changed)
                print(f"{name:34} {len(row):6} results  {len(changed):5} differ  {max(row):.3g} eps at most")
    return int(differing > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compute"]:
        compute(*sys.argv[2:])
    else:
        sys.exit(main())
