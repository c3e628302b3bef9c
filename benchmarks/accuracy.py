"""``python -m benchmarks.accuracy FILE``: the errors of each loss and of torch's function, and what torch's supports.

Writes a JSON file with the worst errors of value and gradient, over all regimes and in each of them, the kernels that
were used, and which of the :data:`ABILITIES` torch's function has.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from gradcheck.compare import Result
from gradcheck.report import plain
from gradcheck.run import audit, environment
from gradcheck.spec import Settings, Spec
from manual_grad import catalogue, kernels, specs

SETTINGS = Settings(dtypes=(torch.float32,))


def main(file: str) -> int:
    if not kernels.loaded():
        print("no kernels are loaded, but the table must name them", file=sys.stderr)
        return 1
    losses = {}
    for name in specs.NAMES:
        print(name, file=sys.stderr, flush=True)
        spec = specs.load(name)
        report = audit([spec], ["oracle"], SETTINGS)
        if not report:
            print(plain(report), file=sys.stderr)
            return 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses[name] = {
                "kernels": kernels_of(spec),
                "torch": abilities(catalogue.BY_NAME[name].peer, spec),
                **errors(report.results),
                "regimes": {
                    sample: errors([r for r in report.results if r.sample == sample])
                    for sample in dict.fromkeys(r.sample for r in report.results)
                },
            }
    text = json.dumps({"environment": specs.environment() | environment(), "losses": losses}, indent=1)
    Path(file).write_text(text + "\n", encoding="utf-8")
    return 0


def errors(results: list[Result]) -> dict[str, Any]:
    """The largest errors of the value and of any component of a gradient."""
    gradients = [r for r in results if r.what.startswith("gradient")]
    return {"value": worst([r for r in results if r.what == "value"]), "gradient": worst(gradients)}


def worst(results: list[Result]) -> dict[str, Any]:
    """The largest errors of ours and of torch's, in eps."""
    peers = [r.peer_error for r in results if r.peer_error is not None]
    return {"error": _number(max(r.error for r in results)), "torch": _number(max(peers)) if peers else None}


def _number(error: float) -> float | str:
    return float(f"{error:.3g}") if isfinite(error) else "inf"  # JSON has no infinity, but float() parses "inf"


def kernels_of(spec: Spec) -> list[str]:
    """The names of the kernels that the samples of the spec use."""
    served, op = set(), kernels.op

    def recording(name: str | None, *tensors: Tensor | None) -> Any:
        kernel = op(name, *tensors)
        if kernel is not None:
            served.add(name)
        return kernel

    with mock.patch.object(kernels, "op", recording):
        for case in spec.cases(SETTINGS, torch.float32):
            case.differentiate()
    return sorted(served)


Call = Callable[..., Tensor]


def second(call: Call, x: Tensor, *others: Tensor) -> None:
    (dx,) = torch.autograd.grad(call(x, *others), x, create_graph=True)
    torch.autograd.grad(dx.sum() + 0 * x.sum(), x)  # if the slope is constant, it has no graph


def forward(call: Call, x: Tensor, *others: Tensor) -> None:
    torch.func.jvp(lambda x: call(x, *others), (x,), (torch.ones_like(x),))


def vmap(call: Call, *tensors: Tensor) -> None:
    torch.vmap(torch.func.grad(call))(*(torch.stack([t, t]) for t in tensors))


def compile(call: Call, *tensors: Tensor) -> None:
    torch.compiler.reset()
    torch.compile(call, fullgraph=True, backend="aot_eager")(*tensors).backward()


ABILITIES: dict[str, Callable[..., None]] = {"second": second, "forward": forward, "vmap": vmap, "compile": compile}


def abilities(fn: Call | None, spec: Spec) -> list[str] | None:
    """The abilities that do not raise on the first sample in float64, differentiating its first tensor."""
    if fn is None:
        return None
    case = spec.case(SETTINGS)
    x, *others = case.differentiable.values()

    def works(ability: Callable[..., None]) -> bool:
        try:
            ability(lambda *tensors: case.function(fn)(*tensors).sum(), x.detach().requires_grad_(), *others)
        except Exception:
            return False
        return True

    return [name for name, ability in ABILITIES.items() if works(ability)]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.accuracy FILE")
    sys.exit(main(sys.argv[1]))
