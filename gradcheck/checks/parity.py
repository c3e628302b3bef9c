"""Is it the same function with kernels and without, in every dtype, on every device, in every run?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from gradcheck.checks.cases import each
from gradcheck.checks.oracle import of_peer
from gradcheck.compare import Result, bitwise_equal, compare, distance, expect, noted
from gradcheck.spec import Case, Settings, Spec
from gradcheck.switch import active, kernels

# float32 formulas run in float64 on the CPU; in float64 the exponential of a sum of size s has s eps, either way
KERNELS = {torch.float64: 256.0, torch.float32: 8.0, torch.bfloat16: 2.0, torch.float16: 2.0}
ENTRIES = 300_000  # enough for several blocks and threads


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    compiled = "kernels" in spec.promises and settings.device == "cpu"
    if compiled and not active():
        yield noted("kernels", "none is loaded: the formulas alone were audited")
    for dtype in settings.dtypes:
        wide = dtype in (torch.float64, torch.float32)
        samples = {**spec.samples, **spec.regimes} if wide else spec.samples
        if compiled and active():
            yield from tag(dtype, each(spec.cases(settings, dtype, samples), switched))
        if dtype is not torch.float64:
            yield from tag(dtype, each(spec.cases(settings, dtype), no_worse_than_peer))
        if dtype in (torch.bfloat16, torch.float16) and spec.peer is not None:
            yield from tag(dtype, each(spec.covering(settings, dtype), autocast))
        if dtype is torch.float32 and spec.peer is not None:
            yield from tag(dtype, each(spec.covering(settings, dtype), promotion))
        yield from tag(dtype, each(spec.covering(settings, dtype), poisoned))
    yield from each(spec.covering(settings, torch.float32), repeated)
    yield from devices(spec, settings)


def everything(case: Case) -> dict[str, Tensor | None]:
    value, gradient = case.differentiate()
    return {"value": value, **{f"gradient of {k}": d for k, d in gradient.items()}}


def tag(dtype: torch.dtype, results: Iterator[Result]) -> Iterator[Result]:
    name = str(dtype).removeprefix("torch.")
    for result in results:
        yield replace(result, dtype=name, case=f"{result.case}, {name}")


def switched(case: Case) -> Iterator[Result]:
    """Kernels on against kernels off."""
    with kernels(False):
        formulas = everything(case)
    for what, t in everything(case).items():
        yield alike(f"{what}, by kernel", t, formulas[what], case.dtype, what in summed(case))


def summed(case: Case) -> set[str]:
    """The gradients that are matrix products: sums, in the dtype itself, of terms that were rounded before."""
    shared = (i.name for i in case.spec.inputs if i.batch is None)
    return {f"gradient of {name}" for name in shared if case.spec.family == "linear"}


def alike(what: str, a: Tensor | None, b: Tensor | None, dtype: torch.dtype, rounded: bool = False) -> Result:
    """Entry by entry; by the largest where an entry that cancels loses digits, differently: in float64, and in a sum of
    ``rounded`` terms."""
    return compare(what, a, b, KERNELS[dtype], dtype=dtype, scale=None if rounded or dtype is torch.float64 else b)


def no_worse_than_peer(case: Case) -> Iterator[Result]:
    """Against float64 at the same rounded inputs: at most twice the error of torch's own function, or one eps; or two
    for a matrix product, where 1/N, the term, the sum and its product with the upstream gradient are rounded."""
    dtype = case.dtype
    if case.spec.definition is None:
        return
    wide = case.at({k: t.double() for k, t in case.tensors.items() if t.is_floating_point()})
    expected, expected_gradient = wide.differentiate(case.spec.definition, g=case.upstream(case.call()).double())
    exact = {"value": expected, **{f"gradient of {k}": d for k, d in expected_gradient.items()}}
    theirs = of_peer(case, case.upstream(case.call()))
    for what, t in everything(case).items():
        if exact[what] is None:
            continue
        peer, error = theirs.get(what), None
        if peer is not None:
            error = distance(peer.detach().to("cpu", torch.float64), exact[what].cpu(), dtype)
        # a bound of 5 % would let the canaries through
        least = 2.0 if what in summed(case) else 1.0
        bound = min(max(2 * (error or 0.0), least), 0.05 / torch.finfo(dtype).eps)
        yield replace(compare(what, t, exact[what], bound, dtype=dtype), peer_error=error)
        yield expect(f"type of {what}", t is None or t.dtype is dtype, "is not the input's")


def autocast(case: Case) -> Iterator[Result]:
    """Under autocast: torch's own output dtype, and gradients in the dtypes of the inputs."""
    with torch.autocast(next(iter(case.tensors.values())).device.type, case.dtype):
        yield from typed("under autocast", case)


def promotion(case: Case) -> Iterator[Result]:
    """One input in float64 among float32, wherever torch's own function takes that: likewise, or the promoted dtype."""
    for name, t in case.tensors.items():
        if t.is_floating_point():
            mixed = case.at({name: t.double()})
            try:
                mixed.call(case.spec.peer)
            except (RuntimeError, ValueError):
                continue
            yield from typed(f"with {name} in float64", mixed, torch.float64)


def typed(label: str, case: Case, *also: torch.dtype) -> Iterator[Result]:
    theirs = case.call(case.spec.peer).dtype
    value, gradient = case.differentiate()
    yield expect(f"type {label}", value.dtype in (theirs, *also), f"is {value.dtype}, torch's {theirs}")
    for name, d in gradient.items():
        right = d is None or d.dtype is case.tensors[name].dtype
        yield expect(f"type of gradient of {name} {label}", right, "is not the input's")


def poisoned(case: Case) -> Iterator[Result]:
    """With every new tensor full of NaN, bit by bit the same: no output is read, or left, as it was allocated."""
    clean = everything(case)
    with poison():
        dirty = everything(case)
    for what, t in dirty.items():
        yield same_bits(f"{what}, memory poisoned", t, clean[what])


@contextlib.contextmanager
def poison() -> Iterator[None]:
    """torch fills uninitialised memory with NaN while its deterministic mode is on."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        if not torch.empty(8).isnan().all():
            raise RuntimeError("torch did not poison uninitialised memory")
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def repeated(case: Case) -> Iterator[Result]:
    """A large batch, bit by bit: again, and, with kernels, on one thread."""
    if not case.batch:
        return
    count = ENTRIES // max(t.numel() for t in case.tensors.values()) + 1
    tiles = {k: [count if i == d else 1 for i in range(case.tensors[k].dim())] for k, d in case.batch.items()}
    large = case.at({k: case.tensors[k].repeat(n) for k, n in tiles.items()})
    once = everything(large)
    for what, t in everything(large).items():
        yield same_bits(f"{what}, run again", t, once[what])
    if "kernels" not in case.spec.promises or not active() or not next(iter(case.tensors.values())).is_cpu:
        return
    threads = torch.get_num_threads()
    for other in {1, 2} - {threads}:
        torch.set_num_threads(other)
        try:
            found = everything(large)
        finally:
            torch.set_num_threads(threads)
        for what, t in found.items():
            yield same_bits(f"{what}, {other} threads against {threads}", t, once[what])


def same_bits(what: str, a: Tensor | None, b: Tensor | None) -> Result:
    same = a is b if a is None or b is None else bitwise_equal(a, b)
    return expect(what, same, "is not the same bit by bit")


def devices(spec: Spec, settings: Settings) -> Iterator[Result]:
    """CUDA against the CPU, wherever there is a device."""
    if not torch.cuda.is_available():
        yield noted("cuda", "no device")
        return
    on_cuda = replace(settings, device="cuda")
    for dtype in settings.dtypes:
        wide = dtype in (torch.float64, torch.float32)
        samples = {**spec.samples, **spec.regimes} if wide else spec.samples

        def body(case: Case, dtype: torch.dtype = dtype) -> Iterator[Result]:
            there = spec.case(on_cuda, case.sample, case.params, dtype)
            expected = everything(case)
            for what, t in everything(there).items():
                yield alike(f"{what}, on cuda", t, expected[what], dtype)

        yield from tag(dtype, each(spec.cases(replace(settings, device="cpu"), dtype, samples), body))
