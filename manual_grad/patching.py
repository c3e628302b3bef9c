"""The losses of manual_grad in place of torch's, in a program that knows nothing of them."""

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
    """A place that holds something of ours."""

    before: Any  # _ABSENT if there was nothing
    ours: Any
    patches: int = 0  # that have asked for it and have not been undone


_ABSENT = object()
_HELD: dict[Place, _Held] = {}
_LOCK = threading.Lock()


def patch(*names: str) -> Patch:
    """Put the losses of manual_grad in place of torch's, everywhere in the running program.

    ``manual_grad.patch()`` holds until the program ends, or until :meth:`Patch.undo` of what it returns; in a ``with``
    statement it holds for the block::

        manual_grad.patch()  # from here on

        with manual_grad.patch("cross_entropy", "ctc_loss"):  # only these, only here
            trainer.fit()

    What is replaced are the functions of :mod:`torch.nn.functional`. torch's Modules look them up in every call, so
    that each instance computes with the new ones, made before or after; its class, state dict and pickle stay torch's.
    (A Module that calls no loss function, such as ``AdaptiveLogSoftmaxWithLoss``, has its methods replaced.)
    A function compiled by torch.compile is compiled anew after a change.

    Patches may be nested, overlap and be undone in any order, in a ``with`` block also by an exception: a name is
    torch's again, or whatever else it was, when the last patch that holds it is undone. What someone else has put
    there since is left alone.

    The change is one of the process: all threads see it at once, while processes that are spawned patch for
    themselves. A name taken out of torch before (``from torch.nn.functional import cross_entropy``) keeps torch's
    function, so patch first. What torch.jit scripts or traces and what torch.export exports is torch's own loss,
    patched or not.

    Args:
        names: Names of :mod:`manual_grad.functional`, or of Modules that have no function there; all by default.

    Raises:
        ValueError: There is no such loss.
    """
    ours = _losses()
    for name in names:
        if name not in ours:
            raise ValueError(f"no loss named {name!r} to be patched; there are: {', '.join(ours)}")
    return Patch({place: new for name in names or ours for place, new in ours[name].items()})


class Patch:
    """What :func:`patch` has put in place, until :meth:`undo`, or the end of a ``with`` block."""

    def __init__(self, replacements: dict[Place, Any]) -> None:
        self._places = list(replacements)
        with _LOCK:
            for place, new in replacements.items():
                owner, name = place
                held = _HELD.setdefault(place, _Held(vars(owner).get(name, _ABSENT), new))
                held.patches += 1
                setattr(owner, name, new)

    def undo(self) -> None:
        """Give torch its losses back, but those that another patch still holds; a second time does nothing."""
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
    """Name -> what goes where, of all that this torch has."""
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
