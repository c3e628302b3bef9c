"""Which losses there are: their families and their kernels."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re

import manual_grad
from manual_grad import losses
from manual_grad.engine.function import LossFunction

NAMES = tuple(module.name for module in pkgutil.iter_modules(losses.__path__))


def check(name: str) -> str:
    """The name, if there is such a loss."""
    if name in NAMES:
        return name
    close = difflib.get_close_matches(name, NAMES)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(NAMES)}"
    raise ValueError(f"no loss named {name!r}; {hint}")


def families() -> dict[str, list[str]]:
    """The losses by family: the table in the docstring of manual_grad, which names the Modules without their Loss."""
    _, table, _ = re.split(r"^=[= ]+$", inspect.getdoc(manual_grad) or "", flags=re.MULTILINE)
    found: dict[str, list[str]] = {}
    family = ""
    for line in table.strip("\n").splitlines():
        family = line.split()[0] if line[:1].strip() else family
        short = [name.strip() for name in line.split("  ")[-1].rstrip(",").split(",")]
        modules = [getattr(manual_grad, name + "Loss", None) or getattr(manual_grad, name) for name in short]
        found.setdefault(family, []).extend(module.__module__.rpartition(".")[2] for module in modules)
    return found


def kernels_of(name: str) -> set[str]:
    """The kernels of a loss' Functions, its own and those of other losses that its file imports."""
    module = importlib.import_module(f"{losses.__name__}.{name}")
    found: set[str] = set()
    for value in vars(module).values():
        origin = getattr(value, "__module__", "")
        if isinstance(value, type) and issubclass(value, LossFunction) and value.kernel:
            found.add(value.kernel)
        elif origin.startswith(losses.__name__) and origin != module.__name__:
            found |= kernels_of(origin.rpartition(".")[2])
    return found
