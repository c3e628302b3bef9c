"""Which losses there are: their families, titles and kernels."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from types import ModuleType

import manual_grad
from manual_grad import kernels, losses
from manual_grad.engine.function import LossFunction

NAMES = tuple(module.name for module in pkgutil.iter_modules(losses.__path__))


def module(name: str) -> ModuleType:
    """The file of a loss."""
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, n=3, cutoff=0.5)
        close += [other for other in NAMES if name in other and other not in close]
        hint = f"did you mean {', '.join(close)}?" if close else f"there are: {', '.join(NAMES)}"
        raise ValueError(f"no loss named {name!r}; {hint}")
    return importlib.import_module(f"{losses.__name__}.{name}")


def chapter(name: str) -> str:
    """Its derivation, in reStructuredText; the first line is the title."""
    return inspect.getdoc(module(name)) or ""


def title(name: str) -> str:
    return chapter(name).split("\n\n")[0].replace("\n", " ").rstrip(".")


def families() -> dict[str, list[str]]:
    """The losses by family, from the table in the docstring of :mod:`manual_grad`."""
    _, _, rows, *_ = (inspect.getdoc(manual_grad) or "").split("=  =")
    found: dict[str, list[str]] = {}
    for line in rows.splitlines()[1:]:
        family, _, text = (part.strip() for part in (line[:11], line[11:48], line[48:]))
    return found


def kernel_names(name: str) -> set[str]:
    """The kernels of its Functions, and of those it calls from the file of another loss."""
    found: set[str] = set()
    for value in vars(module(name)).values():
        if isinstance(value, type) and issubclass(value, LossFunction):
            found |= {value.kernel} - {None}
        other = getattr(value, "__module__", "").rpartition(".")[2]
    return found
