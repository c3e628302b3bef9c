"""Running a check over cases, so that one case that raises does not hide the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

from gradcheck.compare import Result, failed, noted
from gradcheck.spec import Case, Named, Spec, named

Body = Callable[[Case], Iterable[Result]]


def each(cases: Iterable[Case], body: Body, promised: bool = True) -> Iterator[Result]:
    for case in cases:
        yield from guarded(case, body, promised)


def guarded(case: Case, body: Body, promised: bool = True) -> Iterator[Result]:
    """The results of ``body``, marked with the case; an exception becomes a failed result.

    What is not ``promised`` may raise: refusing is right, only a silently wrong answer is not.
    """
    try:
        for result in body(case):
            yield located(result, case)
    except Exception as error:
        if not promised and isinstance(error, (RuntimeError, NotImplementedError, ValueError)):
            result = noted("call", "it raises, which it may: it was not promised")
        else:
            result = failed("call", raised(error))
        yield located(result, case)


def located(result: Result, case: Case) -> Result:
    """Marked with the case, whose tensors help to say what a difference comes from."""
    compared = result.compared and result.compared._replace(tensors=case.tensors)
    return result._replace(case=str(case), sample=case.sample, compared=compared)


def everything(case: Case) -> Named:
    """The value and every gradient, by name."""
    return named(*case.differentiate())


def either_way(case: Case, body: Body) -> Iterator[Result]:
    """:func:`guarded`, with kernels and, if there are any, without."""
    kernels = case.spec.kernels
    if kernels is None:
        yield from guarded(case, body)
        return
    for on in (True, False):
        with kernels.switched(on):
            yield from guarded(case, body)


def in_blocks(spec: Spec, run: Callable[[], Iterator[Result]], device: str | None = None) -> Iterator[Result]:
    """What ``run`` finds with each of the block sizes that the spec names; on a device, with kernels and without.

    The last block, the one before it and what is carried from one to the next are wrong in other ways than the first.
    """
    for name, shrunk in spec.blocks.items():
        for on in (True, False) if device is not None and spec.compiled(device) else (True,):
            kernels = nullcontext() if on or spec.kernels is None else spec.kernels.switched(on)
            with shrunk(), kernels:
                for result in run():
                    yield result._replace(case=", ".join(filter(None, (result.case, name))))


def raised(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"raised {type(error).__name__}: {lines[0].strip() if lines else ''}"
