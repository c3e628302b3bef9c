"""Replaces torch's losses by those of manual_grad in an unmodified program."""

from __future__ import annotations

import inspect
import threading
from dataclasses import dataclass
from typing import Any

import torch

import manual_grad

Place = tuple[Any, str]  # a module or a class, and the name of one of its attributes


@dataclass
class _Held:
    """A place that currently holds one of our objects."""

    before: Any  # _ABSENT if there was nothing
    ours: Any
    patches: int = 0  # the number of active patches of this place


_ABSENT = object()
_HELD: dict[Place, _Held] = {}
_LOCK = threading.Lock()


def patch(*names: str) -> Patch:
    """Replace torch's losses by those of manual_grad everywhere in the running program.

    ``manual_grad.patch()`` is active until the program ends or :meth:`Patch.undo` is called on the result; in a
    ``with`` statement it is active for the block::

        manual_grad.patch()  # from here on

        with manual_grad.patch("cross_entropy", "ctc_loss"):  # only these, only here
            trainer.fit()

    This replaces the functions of :mod:`torch.nn.functional`. torch's Modules look these up in every call, so all
    instances use the new ones, even those created earlier; their class, state dict and pickle remain torch's. (For a
    Module that calls no loss function, such as ``AdaptiveLogSoftmaxWithLoss``, the methods are replaced.) A function
    compiled by torch.compile is recompiled after a change.

    Patches may be nested, overlap and be undone in any order, in a ``with`` block also by an exception. A name gets its
    original value back when the last patch of it is undone, unless someone else has replaced it in the meantime.

    The change applies to the whole process: all threads see it at once, while spawned processes must patch themselves.
    A name imported before (``from torch.nn.functional import cross_entropy``) still refers to torch's function, so
    patch first. torch.jit and torch.export always use torch's own loss, patched or not.

    Args:
        names: Names of functions in :mod:`manual_grad.functional`, or of Modules without a function; all by default.

    Raises:
        ValueError: There is no such loss.
    """
    ours = _losses()
    for name in names:
        if name not in ours:
            raise ValueError(f"no loss named {name!r} to be patched; there are: {', '.join(ours)}")
    return Patch({place: new for name in names or ours for place, new in ours[name].items()})


class Patch:
    """The replacements made by :func:`patch`, until :meth:`undo` or the end of a ``with`` block."""

    def __init__(self, replacements: dict[Place, Any]) -> None:
        self._places = list(replacements)
        with _LOCK:
            for place, new in replacements.items():
                owner, name = place
                held = _HELD.setdefault(place, _Held(vars(owner).get(name, _ABSENT), new))
                held.patches += 1
                setattr(owner, name, new)

    def undo(self) -> None:
        """Restore torch's losses, except those held by another patch. Calling it again has no effect."""
        with _LOCK:
            while self._places:
                place = owner, name = self._places.pop()
                held = _HELD[place]
                held.patches -= 1
                if held.patches:
                    continue
                del _HELD[place]
                if vars(owner).get(name) is not held.ours:
                    continue
                if held.before is _ABSENT:
                    delattr(owner, name)
                else:
                    setattr(owner, name, held.before)

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *raised: object) -> None:
        self.undo()


def _losses() -> dict[str, dict[Place, Any]]:
    """Name -> replacements, for every loss that the installed torch has."""
    found: dict[str, dict[Place, Any]] = {}
    for name in manual_grad.functional.__all__:
        if hasattr(torch.nn.functional, name):
            found[name] = {(torch.nn.functional, name): getattr(manual_grad.functional, name)}
    for name in manual_grad.__all__:
        ours, theirs = getattr(manual_grad, name), getattr(torch.nn, name, None)
        if inspect.isclass(ours) and theirs and ours.__module__.rpartition(".")[2] not in found:
            methods = {k: v for k, v in vars(ours).items() if inspect.isfunction(v) and k != "__init__"}
            found[name] = {(theirs, k): v for k, v in methods.items()}
    return found
