"""Is it the same function on a CUDA device, and is it usable as a device wants it: no waiting, any stream, any size?

Beside what parity asks on every device: kernels against formulas, no worse than torch's own function there, the memory
of the results poisoned first, twice the same bits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradcheck.checks import layout
from gradcheck.checks.again import again
from gradcheck.checks.cases import each, raised
from gradcheck.checks.oracle import of_peer
from gradcheck.checks.purity import fenced
from gradcheck.compare import Result, compare, expect, failed, noted
from gradcheck.conditioning import widened
from gradcheck.spec import Case, Settings, Spec, named

# the largest entry, against float64 at the same rounded inputs; a half is rounded again where it was broadcast
BOUNDS = {torch.float64: 256.0, torch.float32: 8.0, torch.bfloat16: 2.0, torch.float16: 2.0}
LARGE = 2**31  # elements that no 32-bit number counts


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    """``settings`` are those of the device."""
    on_cpu = replace(settings, device="cpu")
    for dtype in settings.dtypes:
        wide = dtype in (torch.float64, torch.float32)
        samples = {**spec.samples, **spec.regimes} if wide else spec.samples

        def against_cpu(case: Case, dtype: torch.dtype = dtype) -> Iterator[Result]:
            here = spec.case(on_cpu, case.sample, case.params, dtype)
            yield from like_cpu(case, here)

        graph = (captured,) if "capture" in spec.promises else ()
        for body in (fenced, against_cpu, beside_torch, *graph, elsewhere):
            name = str(dtype).removeprefix("torch.")
            for result in each(spec.covering(settings, dtype, samples), body):
                yield result._replace(dtype=name, case=f"{result.case}, {name}")
    yield from each(spec.covering(settings), layout.upstreams)
    yield from each([spec.case(settings)], bad_index)
    if spec.large is not None:
        yield from _sized(spec, settings)


def like_cpu(case: Case, here: Case) -> Iterator[Result]:
    """Against this function in float64 on the CPU, at the inputs as the dtype has rounded them."""
    value, gradient = case.differentiate()
    wide = widened(here)
    expected, expected_gradient = wide.differentiate(g=case.upstream(value).double().cpu())
    bound = BOUNDS[case.dtype]
    yield compare("value, on cuda", value, expected, bound, dtype=case.dtype)
    for name, d in gradient.items():
        yield compare(f"gradient of {name}, on cuda", d, expected_gradient[name], bound, dtype=case.dtype)


def beside_torch(case: Case) -> Iterator[Result]:
    """Against torch's own op on the same device, in float64, where its error is no larger than what is allowed here."""
    if case.dtype is not torch.float64 or case.sample not in case.spec.samples:
        return  # narrower dtypes, and points at which torch's own loses digits: parity asks which of the two is closer
    ours = named(*case.differentiate())
    for what, t in of_peer(case, case.upstream(ours["value"])).items():
        yield compare(f"{what}, beside torch's on cuda", ours[what], t, BOUNDS[torch.float64])


def captured(case: Case) -> Iterator[Result]:
    """Forward and backward in a CUDA graph, which any waiting for the device would break; replayed into NaNs."""
    expected = named(*case.differentiate())
    leaves = case.leaves()
    g = case.upstream(expected["value"])

    def step() -> list[Tensor | None]:
        value = case.call(**leaves)
        gradients: tuple[Tensor | None, ...] = ()
        if value.requires_grad:
            gradients = torch.autograd.grad(value, list(leaves.values()), g, allow_unused=True)
        return [value.detach(), *gradients]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles what has not been
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    for t in results:
        if t is not None:
            t.fill_(float("nan"))
    graph.replay()
    for (what, wanted), t in zip(expected.items(), results, strict=False):
        yield again(f"{what}, in a CUDA graph", t, wanted, case)


def elsewhere(case: Case) -> Iterator[Result]:
    """On a stream of one's own, and on the last device while another one is current."""
    expected = named(*case.differentiate())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = named(*case.differentiate())
    torch.cuda.current_stream().wait_stream(stream)
    for what, t in found.items():
        yield again(f"{what}, on another stream", t, expected[what], case)
    last = torch.cuda.device_count() - 1
    if last == 0:
        yield noted("second device", "there is one only")
        return
    moved = case.at({k: t.to(f"cuda:{last}") for k, t in case.tensors.items()})
    for what, t in named(*moved.differentiate()).items():
        yield again(f"{what}, on another device", t, expected[what], case)


def bad_index(case: Case) -> Iterator[Result]:
    """A class index out of range raises, or spoils the result for everyone to see: no plausible number comes of it."""
    if not case.spec.compiled("cuda"):  # a formula's assertion on the device would be the end of this process
        yield noted("index out of range", "no kernel is loaded, and torch's own ops stop the device")
        return
    for error in case.spec.errors:
        made = {k: v(**case.arguments) if callable(v) else v for k, v in error.arguments.items()}
        if not all(by_values_alone(t, case.arguments.get(k)) for k, t in made.items()):
            continue
        wrong = replace(case, arguments={**case.arguments, **made})
        try:
            value, gradient = wrong.differentiate()
        except (IndexError, RuntimeError) as refusal:
            yield expect("index out of range", re.search(error.match, str(refusal)), raised(refusal))
            continue
        for what, t in {"value": value, **gradient}.items():
            yield expect(f"{what}, index out of range", t is None or t.isnan().any(), "is a plausible number")


def by_values_alone(wrong: Any, right: Any) -> bool:
    """Whether integers are wrong by what they are, not by how many there are, or of what type."""
    if not (isinstance(wrong, Tensor) and isinstance(right, Tensor)) or wrong.is_floating_point():
        return False
    return wrong.shape == right.shape and wrong.dtype is right.dtype


def _sized(spec: Spec, settings: Settings) -> Iterator[Result]:
    """More than 2**31 elements: the last of them as in a call with them alone."""
    needed = 16 * LARGE  # bytes: two inputs, two results, and what a formula may need besides
    free, _ = torch.cuda.mem_get_info()
    if free < needed:
        yield noted("more than 2**31 elements", f"needs {needed >> 30} GiB, {free >> 30} are free")
        return
    try:
        tensors, last = spec.large(LARGE + (1 << 20))
        tail = {k: t[-last:].clone() for k, t in tensors.items()}
        large, small = (Case(spec, "large", {**some, "reduction": "none"}) for some in (tensors, tail))
        x, y = (some["input"].detach().requires_grad_() for some in (tensors, tail))
        for what, a, b in zip(("value", "gradient"), _of_sum(large, x), _of_sum(small, y), strict=True):
            yield again(f"{what}, more than 2**31 elements", a[-last:], b, small)
    except torch.OutOfMemoryError:
        yield noted("more than 2**31 elements", "another process took the memory meanwhile")
    except Exception as error:
        yield failed("more than 2**31 elements", raised(error))
    finally:
        torch.cuda.empty_cache()


def _of_sum(case: Case, x: Tensor) -> tuple[Tensor, Tensor]:
    value = case.call(input=x)
    (gradient,) = torch.autograd.grad(value, x, torch.ones((), dtype=x.dtype, device=x.device).expand(value.shape))
    return value.detach(), gradient
