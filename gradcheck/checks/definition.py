"""Is it the function it claims to be, value and gradient, at ordinary points and for every parameter?

Against autograd of the definition, in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from gradcheck.checks.cases import each
from gradcheck.compare import Result, compare, failed, noted
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
    for name in sorted(silent - heard):
        yield failed(
            f"gradient of {name}",
            "by the definition it is zero, or None, at all these inputs, so that nothing was compared",
        )
