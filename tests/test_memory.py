"""Memory: no call leaks, however it ends, and running out of memory is an error."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gradcheck.spec import Case, Settings
from manual_grad import specs

CALLS = 1000


class Allocated(ctypes.Structure):
    """glibc's mallinfo2: the memory in use, in arenas and mapped."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
if mallinfo is not None:
    mallinfo.restype = Allocated
needs_mallinfo = pytest.mark.skipif(mallinfo is None, reason="this C library does not tell what is allocated")


def left_by(call: Callable[[], object]) -> tuple[float, float, float]:
    """Average leak per call: C++ bytes and Python blocks still in use, and objects that only the collector frees."""

    def measured() -> tuple[int, int, int]:
        garbage = gc.collect()
        found = mallinfo()
        return found.uordblks + found.hblkhd, sys.getallocatedblocks(), garbage

    gc.freeze()  # ignore objects that existed before
    gc.disable()
    try:
        for _ in range(CALLS // 10):  # warm up
            call()
        memory, blocks, _ = measured()
        for _ in range(CALLS):
            call()
        later, more, garbage = measured()
    finally:
        gc.enable()
        gc.unfreeze()
    return (later - memory) / CALLS, (more - blocks) / CALLS, garbage / CALLS


def case(name: str) -> Case:
    return specs.load(name).case(Settings(), dtype=torch.float32)


@needs_mallinfo
@pytest.mark.parametrize("name", specs.NAMES)
def test_no_call_leaves_anything_behind(name: str) -> None:
    memory, blocks, garbage = left_by(case(name).differentiate)
    assert memory < 16  # the smallest allocation of malloc
    assert blocks < 1
    assert garbage < 1


@needs_mallinfo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", specs.NAMES)
def test_no_call_that_fails_leaves_anything_behind(name: str) -> None:
    this = case(name)
    bad = [
        {k: v(**this.arguments) if callable(v) else v for k, v in error.arguments.items()} for error in this.spec.errors
    ]

    def call() -> None:
        for arguments in bad:
            with contextlib.suppress(Exception):
                this.spec.fn(**{**this.arguments, **arguments})

    memory, blocks, _ = left_by(call)  # an exception and its frames may form a cycle
    assert memory < 16
    assert blocks < 1


# -- out of memory

FAILING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <stdatomic.h>

atomic_long countdown = -1;  // allocations before one that fails; none does while it is negative
static int fails(void) { return countdown >= 0 && atomic_fetch_sub(&countdown, 1) == 0; }

int posix_memalign(void** result, size_t alignment, size_t size) {  // where torch's tensors come from
  int (*real)(void**, size_t, size_t) = (int (*)(void**, size_t, size_t))dlsym(RTLD_NEXT, "posix_memalign");
  return fails() ? ENOMEM : real(result, alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) {  // and the scratch memory of the kernels
  void* (*real)(size_t, size_t) = (void* (*)(size_t, size_t))dlsym(RTLD_NEXT, "aligned_alloc");
  return fails() ? NULL : real(alignment, size);
}
"""
FAIL_EVERYWHERE = """
import ctypes, itertools, sys, torch
from manual_grad import specs
from gradcheck.checks.again import again
from gradcheck.spec import Settings

countdown = ctypes.c_long.in_dll(ctypes.CDLL(sys.argv[1]), "countdown")
for name in specs.NAMES:
    case = specs.load(name).case(Settings(), dtype=torch.float32)
    expected, gradients = case.differentiate()
    for successes in itertools.count():
        countdown.value = successes
        try:
            case.differentiate()
        except RuntimeError as error:
            assert countdown.value < 0, error
        else:
            assert countdown.value >= 0, (name, successes, "went unnoticed")
            break
        finally:
            countdown.value = -1
        value, found = case.differentiate()
        assert again("value", value, expected, case).ok
        assert all(again(k, found[k], d, case).ok for k, d in gradients.items())
    print(name, successes)
    assert successes > 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="functions are replaced as the loader of Linux does it")
def test_every_allocation_may_fail(tmp_path: Path) -> None:
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "failing.c").write_text(FAILING)
    subprocess.run([compiler, "-shared", "-fPIC", "failing.c", "-o", "failing.so", "-ldl"], cwd=tmp_path, check=True)
    library = tmp_path / "failing.so"
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FAIL_EVERYWHERE, library]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
