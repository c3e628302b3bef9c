"""Running checks over specs, and what comes of it."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import multiprocessing.context
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import Any

import mpmath
import numpy
import scipy
import torch

from gradcheck import sources
from gradcheck.checks import CHECKS
from gradcheck.checks.cases import raised
from gradcheck.checks.purity import AROUND
from gradcheck.compare import Result, failed, noted
from gradcheck.families import FAMILIES
from gradcheck.relations import heat, relation
from gradcheck.spec import Settings, Spec

Listener = Callable[[str, str, "Result | None"], None]  # loss, check, and the result, None at the start of a check


@dataclass
class Report:
    """The results of a run. It is true if nothing failed, and prints as a table with the failures below."""

    losses: tuple[str, ...]
    checks: tuple[str, ...]
    settings: Settings = field(default_factory=Settings)
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def failures(self) -> list[Result]:
        return [r for r in self.results if not r.ok]

    @property
    def ok(self) -> bool:
        return not self.failures and not self.interrupted

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        from gradcheck.report import plain

        return plain(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from gradcheck.html import fragment

        return fragment(self)

    def of(self, loss: str, check: str) -> list[Result]:
        return [r for r in self.results if r.loss == loss and r.check == check]

    def caught_by(self) -> set[str]:
        """The checks that failed."""
        return {r.check for r in self.failures}

    def as_dict(self) -> dict[str, Any]:
        """For JSON: an infinite error is None there, its reason is in the message."""

        def plain(result: Result) -> dict[str, Any]:
            row = {"ok": result.ok, **result._asdict()}
            del row["compared"]
            return {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in row.items()}

        return {
            "ok": self.ok,
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
            "losses": self.losses,
            "checks": self.checks,
            "settings": {**asdict(self.settings), "dtypes": [str(d) for d in self.settings.dtypes]},
            "environment": environment(),
            "results": [plain(r) for r in self.results],
        }


def audit(
    functions: Sequence[Spec],
    checks: Iterable[str] | None = None,
    settings: Settings | None = None,
    listen: Listener = lambda loss, check, result: None,
) -> Report:
    """Run ``checks`` (all of them by default) over ``functions``; an interrupt ends the run and keeps what there is."""
    settings = settings or Settings()
    checks = tuple(CHECKS if checks is None else checks)
    report = Report(tuple(spec.name for spec in functions), checks, settings)

    def safely(spec: Spec, check: str) -> Iterator[Result]:
        if any(r.loss == spec.name and r.what == AROUND for r in report.failures):
            yield noted(check, "not run, since the function writes to memory that is not its own")
        else:
            yield from _of(spec, check, settings)

    tasks = ((spec.name, check, safely(spec, check)) for spec in functions for check in checks)
    with _quietly():
        return _collect(report, tasks, listen)


def audit_in_processes(
    names: Sequence[str],
    checks: Sequence[str],
    settings: Settings,
    listening: AbstractContextManager[Listener],
    jobs: int,
    fresh: bool = False,
) -> Report:
    """:func:`audit` of the functions of installed specs by name, in ``jobs`` processes.

    They begin with the families that take longest, so that no process is left with a long loss at the end. Where this
    process is ``fresh``, in that it has imported torch and done nothing with it, they are forks of it; so they are
    made before the listener, which may have a thread.
    """
    report = Report(tuple(names), tuple(checks), settings)
    families = list(FAMILIES)
    by_length = sorted(names, key=lambda name: -families.index(sources.load(name).family))
    with ProcessPoolExecutor(jobs, _context(fresh)) as pool:
        found = [(name, check, pool.submit(_of_name, name, check, settings)) for name in by_length for check in checks]
        tasks = ((name, check, _awaited(future)) for name, check, future in found)
        with listening as listen:
            _collect(report, tasks, listen)
        pool.shutdown(cancel_futures=True)
    report.results.sort(key=lambda r: (report.losses.index(r.loss), report.checks.index(r.check)))
    return report


def _context(fresh: bool) -> multiprocessing.context.BaseContext:
    """On Linux the processes are forked from one that has imported everything, and started no threads of torch's."""
    if sys.platform != "linux" or torch.cuda.is_available():  # a device does not survive a fork
        return multiprocessing.get_context("spawn")
    late = "torch._dynamo"  # which torch imports when it is first asked for forward mode or a graph, for seconds
    if fresh:
        importlib.import_module(late)
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, late])
    return context


def _collect(report: Report, tasks: Iterable[tuple[str, str, Iterable[Result]]], listen: Listener) -> Report:
    start = time.perf_counter()
    try:
        for loss, check, results in tasks:
            listen(loss, check, None)
            for result in results:
                report.results.append(result._replace(loss=loss, check=check))
                listen(loss, check, report.results[-1])
    except KeyboardInterrupt:
        report.interrupted = True
    report.seconds = time.perf_counter() - start
    return report


def _awaited(future: Future[list[Result]]) -> Iterator[Result]:
    yield from future.result()


def _of_name(name: str, check: str, settings: Settings) -> list[Result]:
    gc.freeze()  # what has been imported is no garbage, and takes long to look through
    with _quietly():
        return list(_of(sources.load(name), check, settings))


NEEDS_DOUBLE = ("differences", "kinks")
ROUNDER = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps


def _of(spec: Spec, check: str, settings: Settings) -> Iterator[Result]:
    if not spec.double:
        if check in NEEDS_DOUBLE:
            yield noted(check, "needs float64, which the function does not take")
            return
        settings = replace(settings, dtypes=tuple(d for d in settings.dtypes if d is not torch.float64))
    try:
        for result in CHECKS[check](spec, settings):
            if not spec.double and result.dtype == "float64":  # what was compared is float32
                result = in_float32(result)
            yield related(result)
    except Exception as error:  # in the spec itself: a sample, a kink's distance
        yield failed("spec", raised(error))


def in_float32(result: Result) -> Result:
    compared = result.compared
    if compared is not None:
        compared = compared._replace(excess=compared.excess * ROUNDER, allowed=compared.allowed / ROUNDER)
    return result._replace(error=result.error * ROUNDER, dtype="float32", compared=compared)


def related(result: Result) -> Result:
    """With what a failed comparison shows, in words and as a map, instead of its entries."""
    if result.compared is None:
        return result
    said = relation(result.compared, result.what)
    return result._replace(relation=result.relation or said, drawing=heat(result.compared), compared=None)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings, which bad calls give on purpose, and on one thread, which is faster for tensors this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)


def environment() -> dict[str, str]:
    """What the figures depend on."""
    return {
        **sources.environment(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "mpmath": mpmath.__version__,
        "CUDA device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
