"""Replaces the losses of torch, transformers and TRL by those of manual_grad in an unmodified program."""

from __future__ import annotations

import inspect
import sys
import threading
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

import manual_grad
from manual_grad import integrations

Place = tuple[Any, str]  # a module or a class, and the name of one of its attributes


@dataclass
class _Held:
    """A place that currently holds one of our objects."""

    before: Any  # _ABSENT if there was nothing
    ours: Any
    everywhere: bool  # whether other names of what was there refer to ours, too
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

    ``manual_grad.patch("trl", "transformers")`` replaces the losses that these programs bring themselves::

        manual_grad.patch("trl")  # log-probabilities and entropies, from logits and from hidden states
        trl.SFTTrainer(...).train()

    It imports the program. Here a name imported before is replaced as well, whatever it is called and in whatever
    module: it is found by what it refers to. What ours do not compute (several classes of a row, a sharded tensor) is
    left to theirs. Without names, these programs are not touched.

    Args:
        names: Names of functions in :mod:`manual_grad.functional`, of Modules without a function, or of programs
            ("transformers", "trl"); by default all functions and Modules.

    Raises:
        ValueError: There is no such loss or program.
        ImportError: The program is not installed.
        RuntimeError: The program's version is not supported, or one of its losses has moved or has other parameters.
    """
    ours = _losses()
    for name in names:
        if name not in ours and name not in integrations.PROGRAMS:
            known = ", ".join([*ours, *integrations.PROGRAMS])
            raise ValueError(f"no loss named {name!r} to be patched; there are: {known}")
    losses: dict[Place, Any] = {}
    programs: dict[Place, Any] = {}
    for name in names or ours:
        if name in integrations.PROGRAMS:
            programs |= integrations.load(name).replacements()
        else:
            losses |= ours[name]
    return Patch(losses, programs)


class Patch:
    """The replacements made by :func:`patch`, until :meth:`undo` or the end of a ``with`` block."""

    def __init__(self, replacements: dict[Place, Any], everywhere: dict[Place, Any]) -> None:
        self._places = [*replacements, *everywhere]
        with _LOCK:
            for place, new in (replacements | everywhere).items():
                owner, name = place
                if place not in _HELD:
                    _HELD[place] = _Held(vars(owner).get(name, _ABSENT), new, place in everywhere)
                held = _HELD[place]
                held.patches += 1
                setattr(owner, name, held.ours)
                if held.everywhere:
                    _rename(owner, held.before, held.ours)

    def undo(self) -> None:
        """Restore the original losses, except those held by another patch. Calling it again has no effect."""
        with _LOCK:
            while self._places:
                place = owner, name = self._places.pop()
                held = _HELD[place]
                held.patches -= 1
                if held.patches:
                    continue
                del _HELD[place]
                if held.everywhere:
                    _rename(owner, held.ours, held.before)
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


def _rename(home: Any, old: Any, new: Any) -> None:
    """Let every name of ``old`` refer to ``new``: globals of all modules, and entries of the program's own tables."""
    program = home.__name__.partition(".")[0]
    for name, module in list(sys.modules.items()):
        if not issubclass(type(module), ModuleType):  # anything may be in sys.modules
            continue
        tables = [vars(module)]
        if name.partition(".")[0] == program:
            tables += [value for value in list(vars(module).values()) if type(value) is dict]
        for table in tables:
            for key, value in list(table.items()):
                if value is old:
                    table[key] = new


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
