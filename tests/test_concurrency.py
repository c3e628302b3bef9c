"""Threads, processes and signals do not change results."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gradcheck.checks.again import again
from gradcheck.spec import Case, Settings
from manual_grad import kernels, specs

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
both_routes = pytest.mark.usefixtures("route")
THREADS, ROUNDS = 8, 3
LARGE = 1 << 17  # entries, for several threads of the kernels


def case(name: str, entries: int = 0, dtype: torch.dtype = torch.float32, reduction: str = "mean") -> Case:
    """The first sample of the loss, repeated to a batch of about that many entries."""
    spec = specs.load(name)
    if spec.multiplies:
        dtype = torch.float64  # in float32, BLAS's error in such a long sum would hide any fault
    this = spec.case(Settings(), params={**spec.params[0], "reduction": reduction}, dtype=dtype)
    count = entries // max(t.numel() for t in this.tensors.values()) + 1
    tiles = {k: [count if i == d else 1 for i in range(this.tensors[k].dim())] for k, d in this.batch.items()}
    return this.at({k: this.tensors[k].repeat(n) for k, n in tiles.items()})


def everything(this: Case) -> list[Tensor | None]:
    value, gradient = this.differentiate()
    return [value, *gradient.values()]


def same(this: Case, some: list[Tensor | None], others: list[Tensor | None]) -> bool:
    return all(again("", a, b, this).ok for a, b in zip(some, others, strict=True))


def at_once(*calls: Callable[[], bool]) -> None:
    """Run every call in its own thread, starting all at once."""
    barrier = threading.Barrier(len(calls))

    on = kernels.on()  # a new thread has its own context

    def run(call: Callable[[], bool]) -> bool:
        barrier.wait()
        with kernels.switched(on):
            return all([call() for _ in range(ROUNDS)])

    with ThreadPoolExecutor(len(calls)) as pool:
        assert all(pool.map(run, calls))


# -- threads


@both_routes
@pytest.mark.parametrize("name", specs.NAMES)
def test_one_loss_in_many_threads(name: str) -> None:
    this = case(name, LARGE if kernels.on() else 0)
    expected = everything(this)
    at_once(*[lambda: same(this, everything(this), expected)] * THREADS)


@both_routes
def test_all_losses_at_once() -> None:
    cases = [case(name, LARGE >> 5, dtype) for name in specs.NAMES for dtype in (torch.float32, torch.float64)]
    expected = [everything(this) for this in cases]
    at_once(*(lambda c=c, e=e: same(c, everything(c), e) for c, e in zip(cases, expected, strict=True)))


@both_routes
@pytest.mark.parametrize("name", specs.NAMES)
def test_backwards_of_one_graph_at_once(name: str) -> None:
    """One thread gets the gradient computed in the forward pass; the others must not see it modified."""
    this = case(name)
    leaves = this.leaves()
    loss = this.call(**leaves)
    factors = [2.0**i for i in range(THREADS)]  # exact factors, so it does not matter when the gradient is rounded
    expected = [list(this.differentiate(g=torch.tensor(f))[1].values()) for f in factors]

    def backward(factor: float, wanted: list[Tensor | None]) -> bool:
        g = torch.tensor(factor)
        found = torch.autograd.grad(loss, list(leaves.values()), g, retain_graph=True, allow_unused=True)
        return same(this, found, wanted)

    at_once(*(lambda f=f, e=e: backward(f, e) for f, e in zip(factors, expected, strict=True)))


def test_first_use_in_many_threads() -> None:
    """Kernels are loaded and their fakes registered only once, even if several threads start at once."""
    run("""
        import threading, torch
        from manual_grad import functional as F
        barrier, results = threading.Barrier(8), []
        def call():
            x = torch.ones(5, 3, requires_grad=True)
            barrier.wait()
            F.mse_loss(x, torch.zeros(5, 3)).backward()
            F.cross_entropy(x, torch.tensor([0, 1, 2, 1, 0])).backward()
            results.append(x.grad)
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(results) == 8 and all(torch.equal(g, results[0]) for g in results)
    """)


# -- processes


def run(program: str) -> str:
    """Run a script in its own process, with warnings as errors and a timeout against deadlocks."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_fork
def test_fork_after_use() -> None:
    """With one thread, as in DataLoader workers; with several only if torch's own losses do not hang."""
    run("""
        import os, signal, torch, warnings
        import manual_grad.functional as M
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while there are threads

        torch.set_num_threads(2)
        x, t = torch.linspace(-1, 1, 1 << 17).requires_grad_(), torch.zeros(1 << 17)
        def gradient(module, loss):
            return torch.autograd.grad(getattr(module, loss)(x, t, reduction="sum"), x)[0]

        def survives(module, loss, threads, seconds):
            expected = gradient(module, loss)
            child = os.fork()
            if child == 0:
                signal.alarm(seconds)  # ends a deadlock
                torch.set_num_threads(threads)
                os._exit(0 if torch.equal(gradient(module, loss), expected) else 1)
            status = os.waitpid(child, 0)[1]
            assert torch.equal(gradient(module, loss), expected)
            return status == 0

        for loss in ("mse_loss", "binary_cross_entropy_with_logits"):
            assert survives(M, loss, 1, 60)
            assert not survives(torch.nn.functional, loss, 2, 2) or survives(M, loss, 2, 60)
    """)


class Losses(torch.utils.data.Dataset):
    """Value and gradient of each loss, computed in a DataLoader worker."""

    def __len__(self) -> int:
        return len(specs.NAMES)

    def __getitem__(self, index: int) -> list[Tensor | None]:
        return everything(case(specs.NAMES[index]))


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_of_a_data_loader() -> None:
    loader = torch.utils.data.DataLoader(
        Losses(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=120
    )
    for name, found in zip(specs.NAMES, loader, strict=True):
        assert same(case(name), found, everything(case(name)))


# -- signals


class Interrupt(BaseException):
    pass


def interrupt(*_: object) -> None:
    raise Interrupt


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here")
def test_signals_during_a_call() -> None:
    """The handler runs and its exception is raised; computing the interrupted call again gives the same result."""
    this = case("cross_entropy", 1 << 20)
    expected = everything(this)
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        while len(heard) < 5:
            assert same(this, everything(this), expected)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, interrupt)
        with pytest.raises(Interrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            while True:
                everything(this)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert same(this, everything(this), expected)


@pytest.mark.parametrize("name", specs.NAMES)
def test_interrupted_at_any_line(name: str) -> None:
    """An interruption, such as Ctrl-C, must leave no switch changed and nothing half done."""
    this = case(name)
    expected = everything(this)
    folder, reached = str(Path(kernels.__file__).parents[1]), set()

    def trace(frame: Any, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(folder):
            return None
        line = frame.f_code, frame.f_lineno
        if event == "line" and line not in reached:
            reached.add(line)
            sys.settrace(None)
            raise Interrupt
        return trace

    def state() -> tuple[Any, ...]:
        return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_num_threads(), kernels.on()

    before, lines = state(), -1
    while lines < len(reached):  # otherwise the call has finished
        lines = len(reached)
        sys.settrace(trace)
        with contextlib.suppress(Interrupt):
            everything(this)
        sys.settrace(None)
        assert state() == before
        assert same(this, everything(this), expected)
    assert lines > 10
