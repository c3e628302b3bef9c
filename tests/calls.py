"""One call of every loss and one instance of every Module, for tests that apply to all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import manual_grad
import manual_grad.functional as M
from gradcheck import Settings
from manual_grad import specs

MODULES = [name for name in manual_grad.__all__ if inspect.isclass(getattr(manual_grad, name))]
# the Modules that this torch also has; torch 2.10 lacks the linear cross entropy
FUNCTIONALS = [name for name in M.__all__ if name in specs.NAMES]  # one of each file; it has the spec
SHARED = [name for name in M.__all__ if hasattr(torch.nn.functional, name)]
SHARED_MODULES = [name for name in MODULES if hasattr(torch.nn, name)]


def example(name: str, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """The keyword arguments of an ordinary call, tensors first: the first sample of the loss's spec."""
    case = specs.load(name).case(Settings(), dtype=dtype)
    return {**case.tensors, **case.arguments}


def functional_of(module: str) -> str | None:
    """The functional of a Module: the one in its file, which is named after the loss."""
    name = getattr(manual_grad, module).__module__.rpartition(".")[2]
    return name if name in M.__all__ else None


def inputs(module: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Arguments of the Module's forward."""
    functional = functional_of(module)
    if functional is None:  # AdaptiveLogSoftmaxWithLoss: features and classes
        return torch.linspace(-1, 1, 80, dtype=dtype).reshape(4, 20), torch.tensor([0, 2, 5, 8])
    arguments = example(functional, dtype)
    _, *parameters = inspect.signature(getattr(manual_grad, module).forward).parameters.values()
    names = ["input" if p.name == "log_input" else p.name for p in parameters]
    while names[-1] not in arguments:  # an optional one that the sample does not give
        names.pop()
    return tuple(arguments[name] for name in names)


class Scaled(torch.nn.Module):
    """A model with one parameter, by which it scales the input of the loss."""

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.loss, self.scale = loss, torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        return self.loss(self.scale * first, *others)


def distance(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().sum(-1)


# a value other than the default for each constructor argument
OTHERWISE = {
    "beta": 0.5,
    "bias": True,
    "blank": 1,
    "cutoffs": [2, 4],
    "delta": 2.0,
    "distance_function": distance,
    "div_value": 2.0,
    "eps": 1e-4,
    "full": True,
    "head_bias": True,
    "ignore_index": 1,
    "label_smoothing": 0.125,
    "level": "token",  # the other takes one advantage per completion
    "log_input": False,
    "log_target": True,
    "margin": 0.25,
    "n_classes": 9,
    "reduction": "sum",
    "swap": True,
    "zero_infinity": True,
}
LEGACY = ("size_average", "reduce")
LEFT = ("device", "dtype", "options", "out_features", "group")  # arguments that do not change the loss of these inputs


def constructor_arguments(module: str, required_only: bool = False) -> dict[str, Any]:
    """Arguments of the constructor: all, with values other than the defaults, or only the required ones."""
    features = inputs(module)[0].shape[-1]
    functional = functional_of(module)
    projection = example(functional).get("linear_weight") if functional else None
    classes = features if projection is None else len(projection)
    values = {
        **(example(functional) if functional else {}),
        **{k: v for params in (specs.load(functional).params if functional else ()) for k, v in params.items()},
        **OTHERWISE,
        "in_features": features,
        "num_classes": classes,
        "p": 2 if module == "MultiMarginLoss" else 3.0,
        "pos_weight": torch.linspace(2, 3, features),
        "weight": torch.linspace(0.5, 1.5, classes),
    }
    known = getattr(torch.nn, module, getattr(manual_grad, module))  # what both have, where torch has it too
    _, *parameters = inspect.signature(known.__init__).parameters.values()
    asked = (p.name for p in parameters if p.default is p.empty or not required_only)
    return {name: values[name] for name in asked if name not in (*LEGACY, *LEFT)}


def pair(module: str, **arguments: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Our Module and torch's, with the same parameters and buffers."""
    ours, torchs = getattr(manual_grad, module)(**arguments), getattr(torch.nn, module)(**arguments)
    ours.load_state_dict(torchs.state_dict())
    return ours, torchs
