"""Is it the function it claims to be, value and gradient, at ordinary points and for every parameter?

Against autograd of the definition, in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

from torch.utils._python_dispatch import TorchDispatchMode

from gradcheck.checks.cases import each, in_blocks
from gradcheck.compare import Result, compare, expect, failed, noted
from gradcheck.conditioning import judge, scales
from gradcheck.spec import Case, Settings, Spec

# autograd of a textbook formula rounds at every step; at ordinary points a few dozen steps lose a few dozen eps
BOUND = 256.0


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    if spec.definition is None:
        yield noted("definition", "none was given, so that finite differences alone judge the gradient")
        return
    silent: set[str] = set()
    heard: set[str] = set()

    def body(case: Case) -> Iterator[Result]:
        value, gradient = case.differentiate()
        expected, expected_gradient = case.differentiate(spec.definition)
        size = functools.cache(functools.partial(scales, case, case.upstream(value)))
        result = compare("value", value, expected, BOUND)
        yield judge(result, value, expected, case.dtype, size, "value")
        for name, d in gradient.items():
            wanted = expected_gradient[name]
            (silent if wanted is None or not wanted.any() else heard).add(name)
            what = f"gradient of {name}"
            result = compare(what, d, wanted, BOUND)
            result = judge(result, d, wanted, case.dtype, size, what)
            others = {f"the gradient of {k}": t for k, t in expected_gradient.items() if k != name and t is not None}
            yield result._replace(compared=result.compared and result.compared._replace(others=others))

    yield from each(spec.cases(settings), body)
    every = replace(settings, quick=False)
    yield from in_blocks(spec, lambda: each(spec.covering(every), body), settings.device)
    yield from shrinking(spec, settings)
    for name in sorted(silent - heard):
        yield failed(
            f"gradient of {name}",
            "by the definition it is zero, or None, at all these inputs, so that nothing was compared",
        )


def shrinking(spec: Spec, settings: Settings) -> Iterator[Result]:
    """Blocks of another size are other operations; if not, nothing has been compared."""
    whole = operations(spec.case(settings))
    for name, shrunk in spec.blocks.items():
        with shrunk():
            other = operations(spec.case(settings))
        yield expect(f"blocks: {name}", other != whole, "changes nothing: the sample has as many blocks as before")


def operations(case: Case) -> list[str]:
    """What is computed, forwards and backwards."""
    with _Listing() as listing:
        case.differentiate()
    return listing.names


class _Listing(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))
