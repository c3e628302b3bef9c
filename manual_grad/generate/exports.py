"""Generates the modules that export the losses from the catalogue."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from manual_grad.catalogue import FAMILIES, LOSSES, of_family


def functional() -> str:
    names = [(loss.path, name) for loss in LOSSES if loss.functional for name in (loss.name, *loss.also)]
    title = '"""The losses as functions, with torch\'s names and signatures: ``import manual_grad.functional as F``."""'
    return _exporting(title, names)


def modules() -> str:
    title = '"""The losses as Modules, grouped by what the loss is a function of.\n\n' + _table() + '"""'
    return _exporting(title, [(loss.path, name) for loss in LOSSES for name in loss.modules])


def _exporting(docstring: str, names: Iterable[tuple[str, str]]) -> str:
    by_path: dict[str, list[str]] = {}
    for path, name in sorted(names):
        by_path.setdefault(path, []).append(name)
    imports = [f"from {path} import {', '.join(found)}" for path, found in by_path.items()]
    exported = [f'    "{name}",' for name in sorted(name for _, name in names)]
    return "\n".join([docstring, "", *imports, "", "__all__ = [", *exported, "]", ""])


def _table() -> str:
    """A table of the families, what their losses are functions of, and their Modules without the suffix Loss."""
    left, middle, right = max(map(len, FAMILIES)), max(map(len, FAMILIES.values())), 58
    rule = f"{'=' * left}  {'=' * middle}  {'=' * right}"
    lines = [rule]
    for family, what in FAMILIES.items():
        members = ", ".join(_short(loss.modules[0]) for loss in of_family(family) if loss.modules)
        first, *rest = textwrap.wrap(members, right)
        lines.append(f"{family:{left}}  {what:{middle}}  {first}")
        lines += [" " * (left + middle + 4) + line for line in rest]
    return "\n".join([*lines, rule, ""])


def _short(module: str) -> str:
    return module if module.endswith("WithLoss") else module.removesuffix("Loss")
