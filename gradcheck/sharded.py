"""Auditing a function whose tensors are spread over processes: on several of them, against one that has everything."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradcheck.api import draw_like
from gradcheck.checks.definition import BOUND
from gradcheck.checks.second import BOUND as BENT
from gradcheck.checks.second import NOISE, derivatives, directions, largest
from gradcheck.compare import Result, compare, expect, failed
from gradcheck.conditioning import judge, scale_of, scales, widened
from gradcheck.ranks import FIRST_BACKWARD, Call, Job, meet, work
from gradcheck.run import Report
from gradcheck.spec import REAL, Case, Input, Named, Settings, Spec

START = 300.0  # seconds that the processes have to import everything, and to meet
SETTLE = 0.2  # seconds for a process that has failed to end
NARROW = 16.0  # eps of a dtype narrower than float64
RESULT = "return"


def check_sharded(
    fn: Callable[..., Tensor] | str,
    definition: Callable[..., Tensor],
    inputs: Mapping[str, Sequence[int] | Tensor],
    shard: Mapping[str, int | str],
    *,
    processes: int = 2,
    seconds: float = 30.0,
    differentiable: Collection[str] | None = None,
    domain: Mapping[str, tuple[float, float]] | None = None,
    params: Mapping[str, Any] | None = None,
    order: int = 1,
    settings: Settings | None = None,
    name: str = "",
) -> Report:
    """Audit a function that talks to other processes, such as a loss of which each has a part of the classes.

    It is run on processes that are connected by gloo, each with its shards, and what comes out is put together and
    compared with ``definition`` of the whole tensors in this process, as :func:`gradcheck.check` compares.

    Args:
        fn: Called in every process with one tensor for each of ``inputs``, in that order, and with ``params`` as
            keywords. It must be defined in a module that the other processes can import; or give its place as text,
            "path/to/file.py:Name" or "package.module:Name".
        definition: The same function of the whole tensors, in plain torch ops, on one process.
        inputs: As for :func:`gradcheck.check`, the whole tensors.
        shard: For an input of which each process has a part, the dimension that is divided (as by
            ``torch.tensor_split``, into parts that may be unequal). Any other is given to every process whole. Its
            gradient must then be the same, and the whole one, in every process; with "sum" instead of a dimension,
            the gradients of all processes must add up to it. The key "return" gives the dimension along which the
            value is divided; without it the value must be the same, and the whole one, in every process.
        processes: How many.
        seconds: How long the calls may take: after that they hang.
        differentiable: As for :func:`gradcheck.check`.
        domain: As for :func:`gradcheck.check`.
        params: Keyword arguments of the function and of the definition.
        order: 1, or 2 for a function that promises double backward too. That is compared in the widest of the dtypes.
            Each process differentiates its gradients along its part of a direction, or along the whole one where its
            gradient is the whole one, or one to be added up. What comes out is divided as the inputs are, and for the
            upstream gradient as the value is.
        settings: The seed, and the dtypes: float64 by default.
        name: What the report calls the function.

    Returns:
        A report, true if nothing failed.
    """
    settings = settings or Settings(dtypes=(torch.float64,))
    domain, params = domain or {}, dict(params or {})
    name = name or (fn.rpartition(":")[2] if isinstance(fn, str) else _name(fn))
    _refuse(fn, inputs, shard, processes, order, {*domain, *(differentiable or ())})

    def whole(**given: Any) -> Tensor:
        tensors = [given.pop(k) for k in inputs]
        return definition(*tensors, **given)

    spec = Spec(
        fn=whole,
        name=name,
        inputs=tuple(
            Input(k, differentiable is None or k in differentiable, domain.get(k, REAL), batch=None) for k in inputs
        ),
        samples={"sharded": lambda draw: {k: draw_like(draw, v, domain.get(k, REAL)) for k, v in inputs.items()}},
        definition=whole,
        params=(params,),
        order=order,
    )
    for k, dim in shard.items():
        t = spec.case(settings).tensors.get(k)
        if t is not None and dim != "sum" and not -t.dim() <= int(dim) < t.dim():
            raise ValueError(f"shard: {k} has {t.dim()} dimensions, so that {dim} is none of them")
    start = time.perf_counter()
    report = Report((name,), ("sharded",), settings)
    cases = [spec.case(settings, dtype=dtype) for dtype in settings.dtypes]
    for case, result in _results(fn, cases, dict(shard), processes, seconds):
        label = f"{processes} processes, {str(case.dtype).removeprefix('torch.')}"
        report.results.append(result._replace(loss=name, check="sharded", case=label, sample="sharded"))
    report.seconds = time.perf_counter() - start
    return report


def _name(fn: Callable[..., Any]) -> str:
    owner = getattr(fn, "__self__", None)
    return getattr(owner, "__name__", None) or getattr(fn, "__name__", "function")


def _refuse(
    fn: Callable[..., Tensor] | str,
    inputs: Mapping[str, Any],
    shard: Mapping[str, int | str],
    processes: int,
    order: int,
    named: Collection[str],
) -> None:
    if not inputs:
        raise ValueError("inputs: at least one tensor argument is needed, as name -> shape or example")
    unknown = {*named, *shard} - {*inputs, RESULT}
    if unknown:
        raise ValueError(f"not among inputs: {', '.join(sorted(unknown))}")
    for k, dim in shard.items():
        if not isinstance(dim, int) and (dim != "sum" or k == RESULT):
            raise ValueError(f"shard: {k} must be a dimension{'' if k == RESULT else ', or sum'}, got {dim!r}")
    if processes < 2:
        raise ValueError(f"processes: there must be at least 2, got {processes}")
    if order not in (1, 2):
        raise ValueError(f"order: it must be 1 or 2, got {order}")
    try:
        pickle.dumps(fn)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"fn: {_name(fn)} cannot be sent to other processes ({error}): "  # type: ignore[arg-type]
            "define it at the top of a module, or give its place as 'path/to/file.py:Name'"
        ) from None


def _results(
    fn: Callable[..., Tensor] | str, cases: list[Case], shard: dict[str, int | str], processes: int, seconds: float
) -> Iterator[tuple[Case, Result]]:
    names = tuple(cases[0].spec.by_name)
    places = tuple(i for i, k in enumerate(names) if k in cases[0].differentiable)
    upstreams = [case.upstream(case.call()) for case in cases]
    widest = min(cases, key=lambda case: torch.finfo(case.dtype).eps)
    along = [directions(case) if case is widest and case.spec.order > 1 else {} for case in cases]

    def of(rank: int, case: Case, g: Tensor, along: dict[str, dict[str, Tensor]]) -> Call:
        parts = tuple(_part(case.tensors[k], shard.get(k), rank, processes) for k in names)
        bent = tuple(_part(v[k], shard.get(k), rank, processes) for k, v in along.items())
        return parts, _part(g, shard.get(RESULT), rank, processes), bent

    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job(
                fn, tuple(of(rank, *call) for call in zip(cases, upstreams, along, strict=True)), places,
                cases[0].params, Path(folder), rank, processes, seconds,
            )
            for rank in range(processes)
        ]  # fmt: skip
        found = _run(jobs)
    if isinstance(found, Result):
        yield cases[0], found
        return
    for i, (case, g) in enumerate(zip(cases, upstreams, strict=True)):
        for turn, label in enumerate(("", ", run again")):
            ranks = [one[i][turn] for one in found]
            for result in _compared(ranks, case, g, shard, label):
                yield case, result
            for k, v in enumerate(along[i].values()):
                if all(r["gradients"] is not None for r in ranks):
                    for result in _bent([r["bent"][k] for r in ranks], case, g, v, shard, label):
                        yield case, result


@dataclass(frozen=True)
class _Judge:
    """How far from one process's results those of several may be: ``bound`` eps, or what the case's ``size`` leaves."""

    case: Case
    processes: int
    bound: float
    size: Callable[[], Named]
    noise: float = 0.0

    def __call__(self, what: str, label: str, t: Tensor | None, wanted: Tensor | None) -> Result:
        dtype = self.case.dtype
        near = functools.partial(compare, f"{what}{label}", t, bound=self.bound, dtype=dtype, noise=self.noise)
        result = judge(near(wanted), t, wanted, dtype, self.size, what)
        if result.ok or t is None or wanted is None or t.shape != wanted.shape:
            return result
        for factor in (self.processes, 1 / self.processes):
            if near(factor * wanted).ok:
                said = f"{factor:.9g} times what is expected, and there are {self.processes} processes"
                return result._replace(message=f"{said}; {result.message}")
        return result


def _compared(
    found: list[dict[str, Any]], case: Case, g: Tensor, shard: dict[str, int | str], label: str
) -> Iterator[Result]:
    """What the processes found against one process, in float64."""
    value, gradient = widened(case).differentiate(g=g.double())
    bound = BOUND if case.dtype is torch.float64 else NARROW
    judged = _Judge(case, len(found), bound, functools.cache(functools.partial(scales, case, g)))
    yield from _values([r["value"] for r in found], value, shard.get(RESULT), label, judged)
    if any(r["gradients"] is None for r in found):
        return  # of a value of another shape
    for i, (name, wanted) in enumerate(gradient.items()):
        for key, which in (("gradients", label), ("again", f", second backward{label}")):
            parts = [r[key][i] for r in found]
            yield from _gradients(f"gradient of {name}", which, parts, wanted, shard.get(name), judged)
    for i, name in enumerate(case.spec.by_name):
        ranks = [str(rank) for rank, r in enumerate(found) if not r["unchanged"][i]]
        yield expect(f"{name} unchanged", not ranks, f"was written to in process {', '.join(ranks)}")


def _bent(
    found: list[list[Tensor | None]], case: Case, g: Tensor, v: dict[str, Tensor], shard: dict[str, int | str],
    label: str,
) -> Iterator[Result]:  # fmt: skip
    """The derivatives of one input's gradient along its direction, likewise."""
    wide, g, v = widened(case), g.double(), {k: t.double() for k, t in v.items()}
    (name,) = v

    def of(at: Case) -> Named:
        return {f"{what} of d/d{name}": d for what, d in derivatives(at, v, 2, g=g).items()}

    expected = of(wide)
    noise = NOISE * largest([*expected.values(), *wide.differentiate(g=g)[1].values()])
    judged = _Judge(case, len(found), BENT, functools.cache(lambda: scale_of(lambda at, _: of(at), wide)), noise)
    for i, (k, (what, wanted)) in enumerate(zip([*case.differentiable, RESULT], expected.items(), strict=True)):
        yield from _gradients(what, label, [bent[i] for bent in found], wanted, shard.get(k), judged)


def _part(t: Tensor, dim: int | str | None, rank: int, processes: int) -> Tensor:
    whole = t.detach()
    return (whole.tensor_split(processes, dim)[rank] if isinstance(dim, int) else whole).contiguous().clone()


def _values(
    values: list[Tensor], expected: Tensor, dim: int | str | None, label: str, judged: _Judge
) -> Iterator[Result]:
    if dim is None:
        for rank, value in enumerate(values):
            yield judged("value", f" in process {rank}{label}", value, expected)
        return
    shapes = [tuple(part.shape) for part in expected.tensor_split(len(values), int(dim))]
    for rank, (value, shape) in enumerate(zip(values, shapes, strict=True)):
        if value.shape != shape:
            yield failed(f"value in process {rank}{label}", f"has shape {list(value.shape)}, expected {list(shape)}")
            return
    yield judged("value", label, torch.cat(values, int(dim)), expected)


def _gradients(
    what: str, label: str, parts: list[Tensor | None], wanted: Tensor | None, dim: int | str | None, judged: _Judge
) -> Iterator[Result]:
    if dim is None:
        for rank, d in enumerate(parts):
            yield judged(what, f" in process {rank}{label}", d, wanted)
        return
    given = [d for d in parts if d is not None]
    whole: Tensor | None = None
    if dim == "sum" and given:
        whole = torch.stack(given).sum(0)
    elif len(given) == len(parts):
        whole = torch.cat(given, int(dim))
    elif given:
        ranks = ", ".join(str(rank) for rank, d in enumerate(parts) if d is None)
        yield failed(f"{what}{label}", f"is missing in process {ranks}")
        return
    yield judged(what, label, whole, wanted)


def _run(jobs: list[Job]) -> list[Any] | Result:
    """What each process found; or, if one fails or they hang, which and where."""
    context = _context()
    running = [context.Process(target=work, args=(job,), daemon=True) for job in jobs]
    for process in running:
        process.start()
    try:
        _wait(jobs, running, START, "ready")
        # those who wait for a process that has failed, or is lost, are ended by the one who waits for all of them
        _wait(jobs, running, jobs[0].seconds + 1.0, "found")
        return _outcome(jobs, running)
    finally:
        for process in running:
            process.join(0.5)
            if process.is_alive():
                process.kill()
                process.join()


def _context() -> Any:
    """On Linux the processes are forked from one that has imported torch, and started none of its threads."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__, FIRST_BACKWARD])
    return context


def _wait(jobs: list[Job], running: Sequence[BaseProcess], seconds: float, kind: str) -> None:
    """Until every process has left a file of that kind, one has ended without it, or the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all(job.file(kind).exists() or job.file("found").exists() for job in jobs):
            return
        for job, process in zip(jobs, running, strict=True):
            if job.file("error").exists() or (not process.is_alive() and not job.file("found").exists()):
                return
        time.sleep(0.01)


def _outcome(jobs: list[Job], running: Sequence[BaseProcess]) -> list[Any] | Result:
    """What was found, or what came first: where one process fails, the others lose their connection to it."""
    if not all(job.file("found").exists() for job in jobs):
        time.sleep(SETTLE)
    errors = [job for job in jobs if job.file("error").exists()]
    for job, process in zip(jobs, running, strict=True):
        if not process.is_alive() and job not in errors and not job.file("found").exists():
            return failed(f"process {job.rank}", f"ended with status {process.exitcode}, without a traceback")
    if errors:
        job = min(errors, key=lambda job: job.file("error").stat().st_mtime_ns)
        lines = job.file("error").read_text(encoding="utf-8").strip()
        return failed(f"process {job.rank}", f"{lines.splitlines()[-1]}\n{lines}")
    if not all(job.file("ready").exists() for job in jobs):
        return failed("start", f"the processes did not meet within {START:g} s")
    hung = [job for job in jobs if not job.file("found").exists()]
    if hung:
        stacks = "\n".join(f"process {job.rank}:\n{_stack(job)}" for job in hung)
        others = [str(job.rank) for job in jobs if job.file("found").exists()]
        ended = f"; process {', '.join(others)} ended" if others else ""
        ranks = ", ".join(str(job.rank) for job in hung)
        return failed("hang", f"no answer from process {ranks} within {jobs[0].seconds:g} s{ended}\n{stacks}")
    return [torch.load(job.file("found"), weights_only=True) for job in jobs]


def _stack(job: Job) -> str:
    text = job.file("stack").read_text(encoding="utf-8") if job.file("stack").exists() else ""
    if f" in {meet.__name__}\n" in text:
        return "  (had finished, and waited for the others)"
    calls = [line for line in text.splitlines() if line.startswith("  File")]
    ours = next((i for i, line in enumerate(calls) if work.__code__.co_filename in line), len(calls))
    return "\n".join(calls[:ours]) or "  (where it was is not known)"


def shards(text: str) -> dict[str, int | str]:
    """``shard`` from "x: 0; weight: sum; return: 1"."""
    found: dict[str, int | str] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, colon, dim = (word.strip() for word in part.partition(":"))
        if not colon or not (dim == "sum" or dim.removeprefix("-").isdecimal()):
            raise ValueError(f"--shard: expected 'name: dimension' or 'name: sum', got {part!r}")
        found[name] = dim if dim == "sum" else int(dim)
    return found
