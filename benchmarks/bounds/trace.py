"""Which instructions of a library a call executes, and how often.

The call runs in a forked process that Linux stops after every instruction. So what is counted is what is executed: of a
loop that has branches for what is optional, only those taken. (Counting in the disassembly counts all of them.)
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

TRACEME, PEEKUSER, SINGLESTEP, SETOPTIONS = 0, 3, 9, 0x4200  # requests of ptrace(2)
EXITKILL = 1 << 20
RIP = 16 * 8  # offset of the instruction pointer in struct user

MAPPED = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) .* (/.*/manual_grad_(\w+)\.so)$", re.MULTILINE)
INSTRUCTION = re.compile(r"^ *([0-9a-f]+):\t([^#\n]*)", re.MULTILINE)


class Unsupported(Exception):
    """Raised with the reason why instructions cannot be counted here."""


@dataclass(frozen=True)
class Library:
    path: Path
    instruction_set: str
    addresses: range  # in this process


def library() -> Library:
    """The kernels' library, which must be loaded."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Unsupported("instructions are counted on Linux on x86-64 only")
    found = MAPPED.findall(Path("/proc/self/maps").read_text(encoding="utf-8"))
    if not found:
        raise Unsupported("the kernels are not loaded; python -m manual_grad config says why")
    (first, *_), (_, last, path, instruction_set) = found[0], found[-1]
    return Library(Path(path), instruction_set, range(int(first, 16), int(last, 16)))


def disassemble(library: Library) -> dict[int, str]:
    """Every instruction, by its offset from the library's first address."""
    if not shutil.which("objdump"):
        raise Unsupported("there is no objdump to disassemble the kernels; binutils has it")
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(library.path)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {int(offset, 16): text.strip() for offset, text in INSTRUCTION.findall(listing)}


def executed(run: Callable[[], object], addresses: range) -> Counter[int]:
    """How often a call executes the instruction at each of the addresses, by offset from the first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking loses other threads; the call must need none
        child = os.fork()
    if child == 0:
        _be_traced(run)
    _wait(child)
    _ptrace(SETOPTIONS, child, 0, EXITKILL)
    counts: Counter[int] = Counter()
    while True:
        _ptrace(SINGLESTEP, child)
        if (stopped_by := _wait(child)) != signal.SIGTRAP:
            break
        address = _ptrace(PEEKUSER, child, RIP)
        if address in addresses:
            counts[address - addresses.start] += 1
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if stopped_by != signal.SIGSTOP:
        raise ChildProcessError(f"the call ended by {signal.Signals(stopped_by).name}")
    return counts


def _be_traced(run: Callable[[], object]) -> NoReturn:
    """Stop before the call and after it."""
    try:
        if _ptrace(TRACEME) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            run()
            os.kill(os.getpid(), signal.SIGSTOP)
    finally:
        os._exit(1)


def _wait(child: int) -> int:
    """Wait until the child stops; return the signal."""
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        raise Unsupported(
            "the process to trace ended: the call failed, or this system does not let processes be traced"
        )
    return os.WSTOPSIG(status)


def _ptrace(request: int, pid: int = 0, address: int = 0, data: int = 0) -> int:
    return _LIBC.ptrace(request, pid, address, data)


_LIBC = ctypes.CDLL(None)
if hasattr(_LIBC, "ptrace"):
    _LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    _LIBC.ptrace.restype = ctypes.c_long
