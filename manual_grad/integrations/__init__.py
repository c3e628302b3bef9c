"""Programs that bring losses of their own, which :func:`manual_grad.patch` replaces: one file for each program.

A file states where the program defines its losses, which of ours takes the place of each, and in which versions. The
signature of ours, without its first parameter, is the signature that theirs must have. That first parameter is theirs,
to be called for what ours does not compute.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manual_grad.engine.dtypes import HALF

PROGRAMS = ("transformers", "trl")  # packages, and files of this folder


@dataclass(frozen=True)
class Program:
    """A package and its losses."""

    name: str
    versions: tuple[str, str]  # at least the first, below the second
    losses: Mapping[str, Callable[..., Any]]  # module.name of theirs -> ours

    def replacements(self) -> dict[tuple[Any, str], Any]:
        """Where the program defines a loss -> what replaces it; imports the program.

        Raises:
            ImportError: The program is not installed.
            RuntimeError: Its version is not supported, or a loss is not what it is in those that are.
        """
        least, below = self.versions
        try:
            version = importlib.import_module(self.name).__version__
        except ModuleNotFoundError as error:
            if error.name != self.name:
                raise
            message = f"patch({self.name!r}) needs {self.name}, which is not installed"
            raise ImportError(message, name=self.name) from None
        if not _numbers(least) <= _numbers(version) < _numbers(below):
            raise RuntimeError(
                f"patch({self.name!r}) supports {self.name} from {least} to below {below}, and this is {version}"
            )
        found = {}
        for path, ours in self.losses.items():
            module, _, name = path.rpartition(".")
            try:
                home = importlib.import_module(module)
                theirs = vars(home)[name]
            except ModuleNotFoundError as error:
                if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                    raise
                raise self._moved(version, path, "is not there") from None
            except KeyError:
                raise self._moved(version, path, "is not there") from None
            by_apply = isinstance(theirs, type)  # a Function
            has = _parameters(theirs.forward, 1) if by_apply else _parameters(theirs, 0)
            if has != (expected := _parameters(ours, 1)):
                raise self._moved(version, path, f"takes {has}, not {expected}")
            found[home, name] = _in_the_form_of(theirs, ours)
        return found

    def _moved(self, version: str, path: str, what: str) -> RuntimeError:
        return RuntimeError(f"patch({self.name!r}) does not know {self.name} {version}: its {path} {what}")


def load(name: str) -> Program:
    """One of :data:`PROGRAMS`."""
    return importlib.import_module(f"{__name__}.{name}").PROGRAM


def _numbers(version: str) -> list[int]:
    """What versions are compared by: 4.57.1.dev0 -> [4, 57]."""
    return [int(number) for number in re.findall(r"\d+", version)[:2]]


def _parameters(function: Callable[..., Any], skipped: int) -> str:
    """The names, kinds and defaults of the parameters, without the first ones."""
    parameters = list(inspect.signature(function).parameters.values())[skipped:]
    return str(inspect.Signature([parameter.replace(annotation=parameter.empty) for parameter in parameters]))


def _in_the_form_of(theirs: Any, ours: Callable[..., Any]) -> Any:
    """``ours`` as a function or, if theirs is a Function, as a subclass of it with another ``apply``."""
    by_apply = isinstance(theirs, type)
    original = theirs.apply if by_apply else theirs

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return ours(original, *args, **kwargs)

    if not by_apply:
        return replacement
    names = {name: getattr(theirs, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(theirs.__name__, (theirs,), {**names, "apply": staticmethod(replacement)})


def is_plain(tensor: Tensor) -> bool:
    """Whether ours computes with it as theirs would; a tensor subclass, such as a DTensor, is left to theirs."""
    return type(tensor) in (Tensor, torch.nn.Parameter) and torch.amp.is_autocast_available(tensor.device.type)


def result_in_float32(logits: Tensor, wanted: bool = True) -> AbstractContextManager[object]:
    """Context in which ours returns float32 for halves, without a copy of them, or, if not wanted, their own dtype."""
    if logits.dtype not in HALF:
        return nullcontext()
    return torch.autocast(logits.device.type, logits.dtype, enabled=wanted)
