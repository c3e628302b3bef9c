"""Is it a function at all: the same twice, and leaving alone, and letting go of, what is not its own?

What fails here invalidates everything else, so this comes first.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradcheck.checks.cases import each, everything
from gradcheck.compare import Result, bitwise_equal, compare, expect
from gradcheck.guards import Guards
from gradcheck.spec import Case, Settings, Spec, named

AROUND = "memory around tensors"
READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::item")  # each waits for a device


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    for dtype in settings.dtypes:
        for result in each(spec.covering(settings, dtype), fenced):
            yield result
            if result.what == AROUND and not result.ok:
                return  # the next call may be the end of this process
    for body in (unchanged, twice, lets_go):
        yield from each(spec.covering(settings), body)
    if "asynchronous" in spec.promises:
        yield from each(spec.covering(settings), never_waits)


def fenced(case: Case) -> Iterator[Result]:
    """Inputs, upstream gradient and every new tensor between bands: nothing is written there, or comes from there.

    What comes from there is NaN. (torch takes other formulas for some ops while it is being watched.)
    """
    guards = Guards()
    inside = case.at({k: guards.around(t) for k, t in case.tensors.items()})
    with guards:
        found = named(*inside.differentiate())
    broken = guards.broken()
    yield expect(AROUND, not broken, "; ".join(broken[:3]))
    if broken:
        return
    for what, clean in everything(case).items():
        t = found[what]
        spoilt = t is not None and (clean is None or (t.isnan() & ~clean.isnan()).any())
        yield expect(f"{what}, between guards", not spoilt, "NaN, which is what lies beside every tensor, is in it")


def unchanged(case: Case) -> Iterator[Result]:
    """Inputs, upstream gradient and saved tensors, bit by bit, after everything."""
    value = case.call()
    watched = {**case.tensors, "upstream": case.upstream(value)}
    before = {k: t.detach().clone() for k, t in watched.items()}
    versions = {k: t._version for k, t in watched.items()}
    saved: list[tuple[Tensor, Tensor]] = []

    def pack(t: Tensor) -> Tensor:
        saved.append((t.detach(), t.detach().clone()))
        return t

    for _ in range(2):
        leaves = case.leaves()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = case.call(**leaves)
        if out.requires_grad:
            torch.autograd.grad(out, list(leaves.values()), watched["upstream"], allow_unused=True)
    for name, t in watched.items():
        intact = bitwise_equal(t, before[name]) and t._version == versions[name]
        yield expect(f"{name} unchanged", intact, changed(before[name], t))
    written = next((pair for pair in saved if not bitwise_equal(*pair)), None)
    yield expect("saved tensors unchanged", written is None, changed(*reversed(written)) if written else "")


def changed(before: Tensor, after: Tensor) -> str:
    differ = ~((before == after) | (before.isnan() & after.isnan()))
    if not differ.any():
        return "an operation in place left the same numbers in it"
    where = tuple(differ.nonzero()[0].tolist())
    return f"its entry {list(where)} was {before[where]:.9g} before and {after[where]:.9g} after"


def twice(case: Case) -> Iterator[Result]:
    """Value and gradient, run again; products of matrices to the order of their sums."""
    once, again = everything(case), everything(case)
    for what, t in again.items():
        result = compare(f"{what}, run again", t, once[what], 64.0 if case.spec.multiplies else 0.0, nan=True)
        yield result if result.ok else result._replace(message=f"another result each time: {result.message}")


def lets_go(case: Case) -> Iterator[Result]:
    """After the last reference to the result is gone, nobody holds an input, without the garbage collector's help."""
    gc.disable()
    try:
        held = [what for what, ref in references(case).items() if ref() is not None]
    finally:
        gc.enable()
    yield expect(
        "memory released",
        not held,
        f"{', '.join(held)} stayed alive when the result was deleted: a reference cycle, or a global",
    )


def references(case: Case) -> dict[str, weakref.ref[Tensor]]:
    leaves = {k: t.clone().requires_grad_() for k, t in case.differentiable.items()}
    others = {k: t.clone() for k, t in case.tensors.items() if k not in leaves}
    value = case.call(**leaves, **others)
    if value.requires_grad:
        torch.autograd.grad(value, list(leaves.values()), case.upstream(value), allow_unused=True)
    return {k: weakref.ref(t) for k, t in {**leaves, **others, "the result": value}.items()}


def never_waits(case: Case) -> Iterator[Result]:
    """No value is read on the host, neither forwards nor backwards."""
    with _Watch() as watch:
        everything(case)
    yield expect("asynchronous", not watch.reads, f"it calls {', '.join(sorted(watch.reads))}, as .item() does")


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.reads: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.name() in READS:
            self.reads.add(func.name())
        return func(*args, **(kwargs or {}))
