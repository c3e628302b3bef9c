"""What is audited: a table of functions, each with its formula, an ordinary call and points where digits are at stake.

The formulas are written from the documentation of the libraries and from the papers that they cite.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.field.arithmetic import evaluate

# where there are no checks in float64, gradients are asked for of three sizes, one after the other
UPSTREAM = {"gradient": 1.0, "gradient, upstream 2,": 2.0, "gradient, upstream 2 again,": 2.0}
# packages whose own __init__ imports models, and with them torchvision; their losses need none of that
BARE = ("segmentation_models_pytorch", "timm", "piq", "lightly", "lightly.loss")
PACKAGES = {  # what is imported -> what is installed
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "pytorch_metric_learning": "pytorch-metric-learning",
    "liger_kernel": "liger-kernel",
    "pytorch_msssim": "pytorch-msssim",
    "focal_loss": "focal-loss-torch",
    "balanced_loss": "balanced-loss",
    "info_nce": "info-nce-pytorch",
    "torchcrf": "pytorch-crf",
}


@dataclass(frozen=True)
class Point:
    """A call in float32: inputs as nested lists, and params.

    With ``kink`` the point lies where the slope jumps: then the gradient only has to be finite.
    """

    inputs: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    kink: bool = False

    def tensors(self, like: Mapping[str, Any]) -> dict[str, Tensor]:
        def tensor(name: str, values: Any) -> Tensor:
            model = like[name]
            integers = isinstance(model, Tensor) and not model.is_floating_point()
            return torch.tensor(values, dtype=model.dtype if integers else torch.float32)

        return {k: tensor(k, v) for k, v in self.inputs.items()}


@dataclass(frozen=True)
class Entry:
    """A function of a library.

    Args:
        path: The module and the name in it.
        variant: What is special about this entry, where the function has another.
        call: How it is called: with what ``path`` names, the inputs and the params.
        formula: What the documentation says it is; see :mod:`benchmarks.field.arithmetic`.
        inputs: Those of the ordinary call, as for :func:`gradcheck.check`: shapes, or examples.
        points: By name.
        by: The inputs that it is differentiated by; the first, by default.
        options: For :func:`gradcheck.check`.
        casts: Whether it computes in float32 whatever it is given. For the checks in float64 that cast is to float64.
        guard: Params of the formula for a constant that the documentation names, such as one added before a log.
            The points are judged without it; where it alone explains a difference, that is said.
        curved: The point at which the second derivative is compared, too.
        single: Whether it computes in float32, at least in part, so that the checks in float64 have nothing to ask.
    """

    path: str
    call: Callable[..., Tensor]
    formula: Callable[..., Any]
    inputs: Mapping[str, Any]
    points: Mapping[str, Point]
    variant: str = ""
    by: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    guard: Mapping[str, Any] = field(default_factory=dict)
    curved: str = ""
    casts: bool = False
    single: bool = False

    @property
    def library(self) -> str:
        top = self.path.partition(".")[0].partition(":")[0]
        return PACKAGES.get(top, top)

    @property
    def name(self) -> str:
        return self.path.replace(":", ".") + (f", {self.variant}" if self.variant else "")

    @property
    def differentiated(self) -> tuple[str, ...]:
        return self.by or tuple(self.inputs)[:1]

    def function(self) -> Callable[..., Tensor]:
        function = functools.partial(self.call, load(self.path))
        apart = [name not in self.differentiated for name in self.inputs]

        def call(*tensors: Tensor, **params: Any) -> Tensor:
            return function(*(t.detach() if off else t for t, off in zip(tensors, apart, strict=True)), **params)

        return call

    def exact(self, label: str, guarded: bool = False) -> dict[str, list[Any] | None]:
        """What the function should give at a point, by the name of what is compared; None is anything finite."""
        point = self.points[label]
        tensors, by = point.tensors(self.inputs), self.differentiated
        params = {**point.params, **(self.guard if guarded else {})}
        if point.kink:
            value = evaluate(self.formula, tensors, params, ())
            return {**value, **{f"gradient of {k}": None for k in by}}
        found: dict[str, Any] = evaluate(self.formula, tensors, params, by, curved=label == self.curved)
        if self.single:
            for k in by:
                found[f"{k} after the call"] = tensors[k].flatten().tolist()
                for what, upstream in UPSTREAM.items():
                    found[f"{what} of {k}"] = [upstream * d for d in found[f"gradient of {k}"]]
        return found


ENTRIES: dict[str, Entry] = {}


def entry(path: str, **described: Any) -> None:
    found = Entry(path, **described)
    assert found.name not in ENTRIES, path
    ENTRIES[found.name] = found


def load(path: str) -> Any:
    """The object that a path names; an ImportError where its library is not installed."""
    module, _, name = path.partition(":")
    for package in BARE:
        if module.startswith(package + ".") and package not in sys.modules:
            sys.modules[package] = _bare(package)
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def _bare(package: str) -> types.ModuleType:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    module = types.ModuleType(package)
    module.__path__ = list(spec.submodule_search_locations)
    return module


def version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
