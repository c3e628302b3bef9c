"""A function named on the command line: ``package.module:Name`` or ``path/to/file.py:Name``, and inputs for it."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

NAMED = re.compile(r"(?P<place>.+):(?P<name>[A-Za-z_][\w.]*)")


@dataclass(frozen=True)
class Target:
    """A function, and what its inputs are like.

    Args:
        fn: The function, called with tensors alone.
        inputs: Name -> shape, or an example.
        domain: Name -> interval.
    """

    fn: Callable[..., Any]
    inputs: Mapping[str, Sequence[int] | Tensor]
    domain: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def is_target(text: str) -> bool:
    return NAMED.fullmatch(text) is not None


def load(text: str) -> tuple[ModuleType, Any]:
    """The module and the object in it; a ValueError says what cannot be found."""
    found = NAMED.fullmatch(text)
    if found is None:
        raise ValueError(f"{text}: expected package.module:Name or path/to/file.py:Name")
    module = _module(found["place"])
    try:
        return module, functools.reduce(getattr, found["name"].split("."), module)
    except AttributeError:
        names = ", ".join(name for name, value in vars(module).items() if _is_function(value)) or "none"
        raise ValueError(f"{text}: there is no {found['name']}; autograd Functions there: {names}") from None


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        sys.path.insert(0, "")
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ValueError(f"{place}: {error}") from None
        finally:
            sys.path.remove("")
    path = Path(place)
    if not path.is_file():
        raise ValueError(f"{place}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses, and pickle, look for it
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _is_function(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Function) and value is not Function


def _is_module(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, torch.nn.Module)


def callable_of(value: Any) -> Callable[..., Any]:
    """What is called: the ``apply`` of an autograd Function, a Module, or the function itself.

    The class of a Module stays one, so that it is made with the params of each call; one with parameters becomes an
    instance, and so must be made without arguments.
    """
    if _is_function(value):
        return value.apply
    if _is_module(value):
        try:
            made = value()
        except TypeError:  # it needs arguments
            return value
        return made if any(True for _ in made.parameters()) else value
    if not callable(value):
        raise ValueError(f"{value!r} is not callable")
    return value


def argument_names(value: Any) -> list[str]:
    """The names of the positional arguments, as far as they can be known."""
    module = _is_module(value)
    function = value.forward if _is_function(value) or module or isinstance(value, torch.nn.Module) else value
    try:
        names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    except (TypeError, ValueError):
        return []
    with_context = _is_function(value) and value.setup_context is Function.setup_context
    return names[1:] if with_context or module else names


def described(value: Any, like: str) -> Target:
    """``like`` is a description such as "x: 3 4; p: [0,1] 3 4; label: <10 3; scale:", of shapes.

    An interval before a shape is the domain of the input. After ``<n`` it holds integers from 0 to n - 1. An input
    without a shape is a number.
    """
    inputs: dict[str, Sequence[int] | Tensor] = {}
    domain: dict[str, tuple[float, float]] = {}
    for part in filter(None, map(str.strip, like.split(";"))):
        name, colon, rest = part.partition(":")
        name, words = name.strip(), rest.replace(",", " , ").replace(" ,", ",").replace(", ", ",").split()
        if not colon or not name.isidentifier():
            raise ValueError(f"--like: expected 'name: sizes', got {part!r}")
        high = None
        if words and words[0].startswith("<"):
            high = _number(int, words.pop(0)[1:], part)
        elif words and words[0].startswith("["):
            low, _, end = words.pop(0).strip("[]").partition(",")
            domain[name] = _number(float, low, part), _number(float, end, part)
        if not all(word.isdecimal() for word in words):
            raise ValueError(f"--like: sizes of {name} must be integers, got {' '.join(words)!r}")
        shape = tuple(map(int, words))
        inputs[name] = shape if high is None else torch.arange(torch.Size(shape).numel()).view(shape) * 7 % high
    if not inputs:
        raise ValueError("--like: no input is described")
    return Target(callable_of(value), inputs, domain)


def _number(kind: type[Any], text: str, part: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        example = "<10" if kind is int else "[0,1]"
        raise ValueError(f"--like: expected a number, as in {example}, got {text!r} in {part!r}") from None


def params(text: str) -> list[dict[str, Any]]:
    """Keyword arguments from "gamma=2 reduction=sum; gamma=0.5": a mapping for each part, of literals or words."""
    found = []
    for part in filter(None, map(str.strip, text.split(";"))):
        pairs = [word.partition("=") for word in part.split()]
        for name, equals, _ in pairs:
            if not equals or not name.isidentifier():
                raise ValueError(f"--params: expected 'name=value', got {part!r}")
        found.append({name: _literal(word) for name, _, word in pairs})
    return found or [{}]


def _literal(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def called(value: Any, arguments: Sequence[Any]) -> Target:
    """With the arguments of a call; those that are no tensors stay as they are."""
    names = argument_names(value)
    fn = callable_of(value)
    tensors = {i: a for i, a in enumerate(arguments) if isinstance(a, Tensor)}
    if not tensors:
        raise ValueError("the call has no tensor among its arguments")

    def with_tensors(*given: Tensor) -> Any:
        rest = dict(zip(tensors, given, strict=True))
        return (fn() if _is_module(fn) else fn)(*(rest.get(i, a) for i, a in enumerate(arguments)))

    inputs = {names[i] if i < len(names) else f"x{i}": t.detach().clone() for i, t in tensors.items()}
    return Target(with_tensors if len(tensors) < len(arguments) else fn, inputs)


def made(value: Any, example: Callable[[], Any]) -> Target:
    """With what a function returns: a dict of tensors by name, a tuple of arguments, or one tensor."""
    found = example()
    if isinstance(found, Mapping):
        return Target(callable_of(value), dict(found))
    return called(value, found if isinstance(found, (tuple, list)) else (found,))


@contextmanager
def recording(value: Any, owner: Any, name: str) -> Iterator[list[tuple[Any, ...]]]:
    """The arguments of every call of ``owner.name`` while the context lasts."""
    calls: list[tuple[Any, ...]] = []
    on = value if _is_function(value) else owner
    attribute = "apply" if _is_function(value) else name
    original = getattr(on, attribute)

    def recorded(*arguments: Any) -> Any:
        calls.append(tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in arguments))
        return original(*arguments)

    setattr(on, attribute, recorded)
    try:
        yield calls
    finally:
        if _is_function(value):
            delattr(on, attribute)  # it was inherited
        else:
            setattr(on, attribute, original)


def recorded(text: str, script: str) -> Target:
    """With the arguments of the first call in a script."""
    module, value = load(text)
    with recording(value, module, text.rpartition(":")[2]) as calls:
        runpy.run_path(script, run_name="__main__")
    if not calls:
        raise ValueError(f"{script} does not call {text}")
    return called(value, calls[0])
