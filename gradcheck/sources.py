"""Find the specs that installed packages provide, for ``python -m gradcheck``.

A package provides specs by an entry point in the group ``gradcheck.specs``. It points to a module with ``NAMES`` and
``load(name)``. The module may also have ``find(text)``, which returns the name that a user means or raises a
ValueError, and ``environment()``, which describes what the results depend on.
"""

from __future__ import annotations

import functools
from importlib import metadata
from typing import Any

from gradcheck.spec import Spec


@functools.cache
def sources() -> tuple[Any, ...]:
    found = sorted({(entry.name, entry.value) for entry in metadata.entry_points(group="gradcheck.specs")})
    return tuple(metadata.EntryPoint(name, value, "gradcheck.specs").load() for name, value in found)


def names() -> tuple[str, ...]:
    return tuple(name for source in sources() for name in source.NAMES)


def load(name: str) -> Spec:
    return next(source for source in sources() if name in source.NAMES).load(name)


def find(text: str) -> str:
    """The name that ``text`` stands for, according to the sources."""
    if text in names():
        return text
    refusals = []
    for source in sources():
        if hasattr(source, "find"):
            try:
                return source.find(text)
            except ValueError as refusal:
                refusals.append(str(refusal))
    raise ValueError("; ".join(refusals) or f"no function named {text!r}; there are: {', '.join(names()) or 'none'}")


def environment() -> dict[str, str]:
    """That of the sources in use: a function that is named by its place needs none."""
    found: dict[str, str] = {}
    if not sources.cache_info().currsize:
        return found
    for source in sources():
        if hasattr(source, "environment"):
            found |= source.environment()
    return found
