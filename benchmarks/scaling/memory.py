"""Measure the memory of a call beyond its inputs: the peak resident set size, as reported by the Linux kernel.

torch's allocator cannot report it, because C++ scratch memory does not come from it. Every measurement runs in its own
process, forked from a server that has loaded torch and runs no other thread.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from benchmarks.cases import Case
from benchmarks.timing import step

Task = tuple[Case, Callable[..., Tensor], "str | tuple[int, ...]"]  # a case, its loss, and a size or a shape

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def measurable() -> bool:
    return os.access(CLEAR, os.W_OK)


def peaks(tasks: Sequence[Task]) -> list[int]:
    """The peak bytes of each task during forward and backward, beyond what was resident before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with context.Pool(1, maxtasksperchild=1) as pool:
        return pool.starmap(peak, tasks, chunksize=1)


def peak(case: Case, loss: Callable[..., Tensor], size: str | tuple[int, ...]) -> int:
    step(case, loss, case.inputs("medium"))()  # loads code and starts threads
    run = step(case, loss, case.inputs(size))
    ctypes.CDLL(None).malloc_trim(0)  # otherwise the call could reuse free resident memory, which is not counted
    before = reset_peak()
    run()
    return resident_peak() - before


def reset_peak() -> int:
    """Reset the peak to the current resident size, and return it in bytes."""
    CLEAR.write_text(RESET_PEAK, encoding="utf-8")
    return resident_peak()


def resident_peak() -> int:
    (line,) = (line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10
