"""Is it the same function with kernels and without, in every dtype, on every device, in every run?"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from gradcheck import conditioning
from gradcheck.checks import cuda
from gradcheck.checks.again import again
from gradcheck.checks.cases import each, everything, in_blocks
from gradcheck.checks.oracle import of_peer
from gradcheck.compare import Result, compare, distance, expect, noted
from gradcheck.conditioning import judge
from gradcheck.spec import Case, Draw, Named, Settings, Spec, named

# float32 formulas run in float64 on the CPU; in float64 the exponential of a sum of size s has s eps, either way
KERNELS = {torch.float64: 256.0, torch.float32: 8.0, torch.bfloat16: 2.0, torch.float16: 2.0}
ENTRIES = 1 << 17  # four of the longest units of parallel work


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    yield from on_a_device(spec, settings)
    if not torch.cuda.is_available():
        graph = ", and no graph captured" if "capture" in spec.promises else ""
        yield noted("cuda", f"there is no CUDA device, so that only the CPU was checked{graph}")
        return
    on_cuda = replace(settings, device="cuda")
    if settings.device != "cuda":
        yield from on_a_device(spec, on_cuda)
    yield from cuda.check(spec, on_cuda)


def on_a_device(spec: Spec, settings: Settings) -> Iterator[Result]:
    """What is asked of every kind of device."""
    compiled = spec.compiled(settings.device)
    if spec.kernels is not None and not compiled:
        yield noted("kernels", "none is loaded: the formulas alone were audited")

    def agrees(case: Case) -> Iterator[Result]:
        ours = everything(case)
        scales = sizes(case, ours)
        if compiled:
            yield from switched(case, ours, scales)
        if case.dtype is not torch.float64 and (case.sample in spec.samples or unjudged):
            yield from no_worse_than_peer(case, ours, scales)

    unjudged = spec.oracle is None  # then nothing else looks at the hard points
    if unjudged and spec.regimes and set(settings.dtypes) <= {torch.float64}:
        yield noted("regimes", "they are judged in float32 and in half dtypes, of which none was asked for")
    for dtype in settings.dtypes:
        half = dtype in (torch.bfloat16, torch.float16)
        if half:  # the same code, between two conversions
            cases = spec.covering(settings, dtype)
        else:
            hard = spec.regimes if compiled or unjudged else {}
            cases = spec.cases(settings, dtype, {**spec.samples, **hard} if hard else None)
        yield from tag(dtype, each(cases, agrees))
        if half and spec.peer is not None:
            yield from tag(dtype, each(spec.covering(settings, dtype), autocast))
        if half:
            yield from tag(dtype, each([spec.case(settings, dtype=dtype)], autocast_elsewhere))
        if dtype is torch.float32 and spec.peer is not None:
            yield from tag(dtype, each(spec.covering(settings, dtype), promotion))
        yield from tag(dtype, each(spec.covering(settings, dtype), poisoned))
    yield from blocked(spec, settings)
    # the bound on a product of so many rows is tight enough only in float64
    yield from each(spec.covering(settings, torch.float64 if spec.multiplies else torch.float32), repeated)


def tag(dtype: torch.dtype, results: Iterator[Result]) -> Iterator[Result]:
    name = str(dtype).removeprefix("torch.")
    for result in results:
        yield result._replace(dtype=name, case=f"{result.case}, {name}")


def switched(case: Case, ours: Named, scales: Named) -> Iterator[Result]:
    """Kernels on against kernels off."""
    with case.spec.kernels.switched(False):
        formulas = everything(case)
    size = functools.cache(functools.partial(conditioning.scales, case, case.upstream(formulas["value"])))
    for what, t in ours.items():
        scale = scales.get(what, None if case.dtype is widest(case) else formulas[what])
        result = alike(f"{what}, by kernel", t, formulas[what], case, scale)
        yield judge(result, t, formulas[what], case.dtype, size, what)


def blocked(spec: Spec, settings: Settings) -> Iterator[Result]:
    """In blocks of other sizes, the same at hard points and at the pins too, where ties and infinities meet."""
    if not spec.blocks:
        return
    draw = Draw(0, spec.dtype, settings.device)
    pins = [spec.pinned(pin, draw) for pin in spec.pins]
    cases = [*spec.covering(settings, samples={**spec.samples, **spec.regimes}), *pins]
    whole = {id(case): everything(case) for case in cases}

    def body(case: Case) -> Iterator[Result]:
        size = functools.cache(functools.partial(conditioning.scales, case, case.upstream(whole[id(case)]["value"])))
        for what, t in everything(case).items():
            expected = whole[id(case)][what]
            result = compare(f"{what}, in blocks", t, expected, KERNELS[case.dtype], dtype=case.dtype, nan=True)
            yield judge(result, t, expected, case.dtype, size, what)

    yield from in_blocks(spec, lambda: each(cases, body), settings.device)


def widest(case: Case) -> torch.dtype:
    """The widest dtype that anything is computed in."""
    on_cpu = next(iter(case.tensors.values())).is_cpu and not case.spec.interpreted
    return torch.float64 if on_cpu or case.dtype is torch.float64 else torch.float32


def sizes(case: Case, ours: Named) -> Named:
    """Of gradients that are products of matrices, summed over losses in the dtype itself: the sums of the sizes."""
    if not case.spec.multiplies:
        return {}
    apart = conditioning.widened(case)
    if "reduction" in case.arguments:
        apart = replace(apart, arguments={**apart.arguments, "reduction": "none"})
    leaves = apart.leaves()
    value = apart.call(**leaves)
    g = case.upstream(ours["value"]).double().expand_as(value)
    how = dict(retain_graph=True, materialize_grads=True, allow_unused=True)
    terms = [
        torch.autograd.grad(value, list(leaves.values()), e, **how)
        for e in torch.diag_embed(g.flatten()).reshape(-1, *g.shape)
    ]
    found = {}
    for name, parts in zip(leaves, zip(*terms, strict=True), strict=True):
        d, total = ours[f"gradient of {name}"], torch.stack(parts)
        if d is not None:  # of a mean, but for its denominator
            ratio = (d.double().abs().max() / total.sum(0).abs().max()).nan_to_num(1.0)
            found[f"gradient of {name}"] = ratio * total.abs().sum(0)
    return found


def alike(what: str, a: Tensor | None, b: Tensor | None, case: Case, scale: Tensor | None) -> Result:
    """Entry by entry, where formulas or kernels have digits to spare; products to the sum of the sizes of their terms.

    By the largest entry where they have none, in the widest dtype. There an entry that cancels, sigma(x) - t or
    log(t) - x + 1, is what two ways of rounding have left of it, and torch's own float32 is as far from the exact one.
    A device's float32 is the widest, since float64 is slow on most, so that the kernels for it are compared like this
    in the interpreter, too.
    """
    bound = KERNELS[case.dtype]
    if case.spec.interpreted and case.dtype is torch.bfloat16:
        bound *= 2  # Triton's interpreter cuts off where a device rounds, which costs one eps instead of a half
    return compare(what, a, b, bound, dtype=case.dtype, scale=scale)


def of_another(case: Case, g: Tensor) -> Named:
    """The peer's results, or where there is none those of the definition, in the dtype of the case.

    What every implementation must lose there is not charged to this one.
    """
    if case.spec.peer is not None or case.spec.definition is None:
        return of_peer(case, g)
    return named(*case.differentiate(case.spec.definition, g=g))


def no_worse_than_peer(case: Case, ours: Named, scales: Named) -> Iterator[Result]:
    """Against float64 at the same rounded inputs: at most twice the error of torch's own function, or one eps.

    At a hard point a function without a definition is held against itself in float64, of whose digits half must be
    left: it may do without them, but not without telling.
    """
    dtype = case.dtype
    alone = case.spec.definition is None
    if alone:
        if case.sample in case.spec.samples or not case.spec.double:
            return
        case = replace(case, spec=replace(case.spec, definition=case.spec.fn))
    g = case.upstream(ours["value"])
    wide = conditioning.widened(case)
    exact = named(*wide.differentiate(case.spec.definition, g=g.double()))
    theirs = {} if alone else of_another(case, g)
    size = functools.cache(functools.partial(conditioning.scales, case, g))
    for what, t in ours.items():
        if exact[what] is None:
            continue
        if case.sample in case.spec.regimes and (reason := not_to_be_told(t, exact[what])):
            yield noted(what, reason)
            continue
        peer, scale, error = theirs.get(what), scales.get(what), None
        if peer is not None:
            error = distance(peer, exact[what], dtype, scale)
        # what is computed in no wider dtype is rounded at every step; kernels for some instruction sets compute float32
        # in float32, and round twice or three times; a bound of 5 % would let the canaries through
        least = 4.0 if dtype is widest(case) or scale is not None else 2.0 if dtype is torch.float32 else 1.0
        least = torch.finfo(dtype).eps ** -0.5 if alone else least
        bound = min(max(2 * (error or 0.0), least), 0.05 / torch.finfo(dtype).eps)
        result = compare(what, t, exact[what], bound, dtype=dtype, scale=scale)._replace(peer_error=error)
        result = judge(result, t, exact[what], dtype, size, what)
        if not result.ok and error is not None and result.bound < result.error <= 2 * error:
            result = noted(what, f"cannot be judged: in {result.dtype} the definition is as far off")
        if alone and result.message:
            result = result._replace(message=f"{result.message}, which it gives in float64")
        yield result
        wide = what == "value" and case.spec.widens
        expected = torch.promote_types(dtype, torch.float32) if wide else dtype
        yield expect(f"type of {what}", t is None or t.dtype is expected, f"is not {expected}")


def not_to_be_told(t: Tensor | None, exact: Tensor) -> str | None:
    """Why a definition in float64 is no judge of what is more exact than itself."""
    if t is None or not t.isfinite().all():
        return None
    if not exact.isfinite().all():
        return "cannot be judged: the definition is not finite there, even in float64"
    if t.any() and not exact.any() and t.abs().max() <= 64 * torch.finfo(torch.float64).eps:
        return "cannot be judged: the definition rounds to 0 there, even in float64"
    return None


def autocast(case: Case) -> Iterator[Result]:
    """Under autocast: torch's own output dtype, and gradients in the dtypes of the inputs."""
    with torch.autocast(next(iter(case.tensors.values())).device.type, case.dtype):
        yield from typed("under autocast", case)


def autocast_elsewhere(case: Case) -> Iterator[Result]:
    """Under autocast for another type of device, the same."""
    other = "cuda" if next(iter(case.tensors.values())).is_cpu else "cpu"
    without, before = everything(case), torch.is_autocast_enabled(other)
    torch.set_autocast_enabled(other, True)  # torch.autocast refuses a device that is missing
    try:
        within = everything(case)
    finally:
        torch.set_autocast_enabled(other, before)
    for what, t in within.items():
        yield again(f"{what}, under autocast for {other}", t, without[what], case)


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
    if case.spec.definition is None:
        return
    # the same numbers as in float64, whatever has been cast: to a few eps of the narrowest dtype in play
    narrowest = max((t.dtype for t in (value, *case.differentiable.values())), key=lambda d: torch.finfo(d).eps)
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        g = case.upstream(value)
        wide = conditioning.widened(case)
        exact = named(*wide.differentiate(case.spec.definition, g.double()))
        size = functools.cache(functools.partial(conditioning.scales, case, g))
        for what, t in named(value, gradient).items():
            result = compare(f"{what} {label}", t, exact[what], 4.0, dtype=narrowest)
            yield judge(result, t, exact[what], narrowest, size, what)


def poisoned(case: Case) -> Iterator[Result]:
    """With every new tensor full of NaN, the same: no output is read, or left, as it was allocated."""
    clean = everything(case)
    with poison():
        dirty = everything(case)
    for what, t in dirty.items():
        result = again(f"{what}, memory poisoned", t, clean[what], case)
        if not result.ok and t is not None and t.isnan().sum() > clean[what].isnan().sum():
            result = result._replace(message="NaN, with which new memory was filled, is left in it")
        yield result


@contextlib.contextmanager
def poison() -> Iterator[None]:
    """torch fills uninitialised memory with NaN while its deterministic mode is on."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    switch = torch._C._set_deterministic_algorithms  # torch.use_deterministic_algorithms imports inductor, for seconds
    switch(True, warn_only=True)
    try:
        if not torch.empty(8).isnan().all():
            raise RuntimeError("torch did not poison uninitialised memory")
        yield
    finally:
        switch(before[0], warn_only=before[1])


def repeated(case: Case) -> Iterator[Result]:
    """A large batch, the same: again, and, with kernels, on another number of threads."""
    if not case.batch:
        return
    count = 2 if case.spec.interpreted else ENTRIES // max(t.numel() for t in case.tensors.values()) + 1
    tiles = {k: [count if i == d else 1 for i in range(case.tensors[k].dim())] for k, d in case.batch.items()}
    large = case.at({k: case.tensors[k].repeat(n) for k, n in tiles.items()})
    once = everything(large)
    for what, t in everything(large).items():
        yield again(f"{what}, run again", t, once[what], large)
    on_cpu = next(iter(case.tensors.values())).is_cpu
    if not case.spec.compiled() or case.spec.interpreted or not on_cpu:
        return
    threads = torch.get_num_threads()
    for other in {1, 2} - {threads}:
        torch.set_num_threads(other)
        try:
            found = everything(large)
        finally:
            torch.set_num_threads(threads)
        for what, t in found.items():
            yield again(f"{what}, {other} threads against {threads}", t, once[what], large)
