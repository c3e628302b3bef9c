"""What a call takes beside its inputs: the peak of the resident set, as the kernel of Linux counts it.

Allocators cannot be asked instead, since scratch memory in C++ does not go through torch's. Every figure comes from a
process of its own, forked from a server that has torch loaded and no thread running.
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

Task = tuple[Case, Callable[..., Tensor], "str | tuple[int, ...]"]  # the loss of a case, at a size or a shape

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"


def measurable() -> bool:
    return os.access(CLEAR, os.W_OK)


def peaks(tasks: Sequence[Task]) -> list[int]:
    """Bytes for each task, at the worst moment of forward and backward: what was resident before is not counted."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with context.Pool(1, maxtasksperchild=1) as pool:
        return pool.starmap(peak, tasks, chunksize=1)


def peak(case: Case, loss: Callable[..., Tensor], size: str | tuple[int, ...]) -> int:
    step(case, loss, case.inputs("medium"))()  # loads code and starts threads
    run = step(case, loss, case.inputs(size))
    ctypes.CDLL(None).malloc_trim(0)  # memory that is free but resident would be taken without being counted
    before = reset_peak()
    run()
    return resident_peak() - before


def reset_peak() -> int:
    """What is resident now, in bytes, which is the peak from here on."""
    CLEAR.write_text(RESET_PEAK, encoding="utf-8")
    return resident_peak()


def resident_peak() -> int:
    (line,) = (line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10
