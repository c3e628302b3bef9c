"""Modules as functions: which arguments go to the constructor, and which to the method, by their signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from gradcheck.spec import Module

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class NotTaken(ValueError):
    """An argument that neither the constructor nor the method takes, so that the Module has no such call."""


@dataclass(frozen=True)
class Bound:
    """A method of a Module with the arguments of one call."""

    module: torch.nn.Module
    made_with: Mapping[str, Any]
    state: Mapping[str, Tensor]
    arguments: Sequence[Any]

    def call(self, method: str = "forward") -> Any:
        state = {f"module.{k}": t for k, t in self.state.items()}
        return functional_call(_Method(self.module, method), state, tuple(self.arguments))


class _Method(torch.nn.Module):
    """A Module whose forward is another one's method, since functional_call calls no other."""

    def __init__(self, module: torch.nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *arguments: Any) -> Any:
        return self.module(*arguments) if self.method == "forward" else getattr(self.module, self.method)(*arguments)


def described(module: type[torch.nn.Module] | Module) -> Module:
    return module if isinstance(module, Module) else Module(module)


def bind(module: Module, inputs: Sequence[str], given: Mapping[str, Any], method: str = "forward") -> Bound:
    """The Module made with, and ``method`` called with, the arguments ``given`` to its function.

    ``inputs`` are the names of the tensors in the order of the function.
    """
    given = {k: a for k, a in given.items() if a is not None}
    taken = {name for f in (module.options, module.state) for name in _names(f)} | {*_names(module.value)[1:]}
    constructor = inspect.signature(module.made.__init__).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in constructor.values())
    options = {
        k: a for k, a in given.items() if k not in taken and (k in constructor or (anything and k not in inputs))
    }
    rest = [k for k in inputs if k not in taken and k not in options]
    while rest and rest[-1] not in given:
        rest.pop()
    left = {*given} - taken - {*options} - {*rest}
    room = _room(getattr(module.made, method))
    if method != "forward":
        rest = rest[:room]
    elif left or len(rest) > room:
        raise NotTaken(f"{module.name} does not take {', '.join(sorted(left) or rest[room:])}")
    made_with = {**options, **_with(module.options, given)}
    made = module.made(**made_with)
    return Bound(made, made_with, _with(module.state, given), [given.get(k) for k in rest])


def as_function(module: Module, inputs: Sequence[str], method: str = "forward") -> Callable[..., Tensor]:
    """The Module as a function of the keyword arguments of its function."""

    def call(**given: Any) -> Tensor:
        result = bind(module, inputs, given, method).call(method)
        if method == "forward":
            result = module.value(result, **{k: given[k] for k in _names(module.value)[1:] if k in given})
        if not isinstance(result, Tensor):
            raise TypeError(
                f"{module.name}.{method} returns a {type(result).__name__}, not a tensor: what is its value?"
            )
        return result

    return call


def with_parameters(module: torch.nn.Module, inputs: Sequence[str]) -> Callable[..., Any]:
    """An instance as a function of its inputs, its parameters by their names, and keywords."""

    def call(**given: Any) -> Any:
        tensors = [given.pop(k) for k in inputs]
        state = {name: given.pop(name) for name, _ in module.named_parameters() if name in given}
        dtype = next((t.dtype for t in (*state.values(), *tensors) if t.is_floating_point()), None)
        for name, t in module.named_buffers():
            state[name] = t.to(dtype) if dtype is not None and t.is_floating_point() else t.clone()
        return functional_call(module, state, tuple(tensors), given)

    return call


def _names(f: Callable[..., Any]) -> list[str]:
    return [name for name, p in inspect.signature(f).parameters.items() if p.kind is not p.VAR_KEYWORD]


def _with(f: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    return f(**{k: given[k] for k in _names(f) if k in given})


def _room(method: Callable[..., Any]) -> int:
    """How many arguments it takes by position, besides self."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 1 << 20
    return sum(p.kind in POSITIONAL for p in parameters)
