"""Which losses there are: their families and their kernels."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable

import manual_grad
from manual_grad import losses
from manual_grad.engine.function import LossFunction

NAMES = tuple(module.name for module in pkgutil.iter_modules(losses.__path__))


def find(name: str) -> str:
    """The loss that ``name`` means: its own name or its Module's, with or without "Loss", or the start of one.

    Case and underscores do not matter. A start that several losses have in common is refused, as is a wrong name.
    """
    known, wanted = _spellings(), _plain(name)
    found = {known[wanted]} if wanted in known else {loss for key, loss in known.items() if key.startswith(wanted)}
    if wanted and len(found) == 1:
        return found.pop()
    if wanted and found:
        raise ValueError(f"{name!r} may be {_listed(found)}")
    close = {known[key] for key in difflib.get_close_matches(wanted, known)}
    hint = f"did you mean {_listed(close)}?" if close else f"there are: {', '.join(NAMES)}"
    raise ValueError(f"no loss named {name!r}; {hint}")


@functools.cache
def _spellings() -> dict[str, str]:
    """Plain spelling -> loss; for BCE, that of BCELoss, not the start of BCEWithLogitsLoss."""
    named = [(name, name) for name in NAMES]
    for name, value in vars(manual_grad).items():
        if isinstance(value, type) and value.__module__.startswith(f"{losses.__name__}."):
            named.append((name, value.__module__.rpartition(".")[2]))
    plain = [(_plain(name), loss) for name, loss in named]
    return dict([*((key.removesuffix("loss"), loss) for key, loss in plain), *plain])


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _listed(names: Iterable[str]) -> str:
    *others, last = sorted(names)
    return f"{', '.join(others)} or {last}" if others else last


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
