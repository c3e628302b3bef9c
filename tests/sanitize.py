"""Run the kernels under sanitizers: ``python tests/sanitize.py [address|thread]``, by default both, in half an hour.

``address``
    AddressSanitizer and UndefinedBehaviorSanitizer: access outside of a tensor or of scratch memory, use after free,
    overflow, invalid shifts, misaligned access. Their runtime is preloaded, so that torch's tensors also come from its
    allocator, which detects access beyond their ends.
``thread``
    ThreadSanitizer: data races. It does not understand the barriers of OpenMP, so the kernels run on C++ threads in
    place of torch's.

The kernels are compiled in a copy of this tree, with a g++ that adds the sanitizer. First the script provokes each kind
of fault, which must be reported. Then it runs the kernels for every instruction set that this machine supports.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
CAPABILITIES = ("default", "avx2", "avx512")

# a tensor in memory that is one element too short
BEYOND = """
import ctypes, torch, manual_grad.functional as M
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
memory = (ctypes.c_char * 160).from_address(malloc(ctypes.c_size_t(156)))
M.mse_loss(torch.frombuffer(memory, dtype=torch.float32), torch.zeros(40))
"""
MISALIGNED = """
import torch, manual_grad.functional as M
M.cross_entropy(torch.frombuffer(bytearray(41), dtype=torch.float32, offset=1).view(2, 5), torch.tensor([0, 1]))
"""
# two concurrent calls that write to the same tensor
RACE = """
import threading, torch
from manual_grad import kernels
op, y = kernels.op("cross_entropy"), torch.zeros(400, dtype=torch.long)
z, dz = torch.randn(400, 100), torch.empty(400, 100)
def call():
    for _ in range(20):
        op(z, y, None, None, -100, 0.0, True, 1.0, True, None, dz, None, None)
threads = [threading.Thread(target=call) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""

THREADS = """
#include <thread>
#include <vector>
#include "abi.h"

extern "C" AOTITorchError torch_parallel_for(int64_t begin, int64_t end, int64_t,
                                             void (*fn)(int64_t, int64_t, void*), void* context) {
  std::vector<std::thread> threads;
  const int64_t step = (end - begin + 3) / 4;
  for (; begin < end; begin += step) threads.emplace_back(fn, begin, begin + step < end ? begin + step : end, context);
  for (std::thread& thread : threads) thread.join();
  return 0;
}
"""


@dataclass(frozen=True)
class Sanitizer:
    flags: str
    runtimes: tuple[str, ...]
    environment: dict[str, str]
    faults: dict[str, str]  # from a phrase in the report to the program that causes it
    programs: tuple[str, ...]
    sources: dict[str, str]


SANITIZERS = {
    "address": Sanitizer(
        flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined",
        runtimes=("libasan.so", "libubsan.so"),
        # memory that Python never frees would be reported as leaks
        environment={"ASAN_OPTIONS": "detect_leaks=0"},
        faults={"156-byte region": BEYOND, "misaligned address": MISALIGNED},
        programs=(
            "-m gradcheck --check oracle parity layout",
            "-m pytest -q tests/test_fuzz.py tests/test_concurrency.py tests/test_large_tensors.py",
        ),
        sources={},
    ),
    "thread": Sanitizer(
        flags="-fsanitize=thread",
        runtimes=("libtsan.so",),
        environment={
            "TSAN_OPTIONS": "halt_on_error=1 ignore_noninstrumented_modules=1",
            "OMP_NUM_THREADS": "1",  # for torch's own operations
        },
        faults={"data race": RACE},
        programs=(
            "-m gradcheck --jobs 1 --check parity",
            # the sanitizer does not support threads started after a fork
            "-m pytest -q tests/test_concurrency.py --deselect tests/test_concurrency.py::test_fork_after_use",
        ),
        sources={"threads.cpp": THREADS},
    ),
}


def main(*names: str) -> int:
    if not set(names) <= set(SANITIZERS):
        print(__doc__, file=sys.stderr)
        return 2
    best = CAPABILITIES.index(torch.backends.cpu.get_cpu_capability().lower())
    for name in names or SANITIZERS:
        sanitizer = SANITIZERS[name]
        with tempfile.TemporaryDirectory() as folder:
            tree = build(sanitizer, Path(folder, "manual_grad"))
            for report, program in sanitizer.faults.items():
                found = run(sanitizer, tree, ["-c", program], capture=True)
                if found.returncode == 0 or report not in found.stderr:
                    print(f"{name}: no report of {report!r}\n{found.stderr}", file=sys.stderr)
                    return 1
                print(f"{name}: reports {report!r}", flush=True)
            for capability in CAPABILITIES[: best + 1]:
                for program in sanitizer.programs:
                    print(f"{name}, {capability}: python {program}", flush=True)
                    status = run(sanitizer, tree, program.split(), ATEN_CPU_CAPABILITY=capability).returncode
                    if status != 0:
                        return status
    return 0


def build(sanitizer: Sanitizer, tree: Path) -> Path:
    """Copy what is needed of this tree, and compile instrumented kernels in it."""
    for name in ("manual_grad", "gradcheck", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "not_built.txt"))
    for name in ("compile_kernels.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tree)
    for name, text in sanitizer.sources.items():
        (tree / "manual_grad" / "kernels" / "cpu" / name).write_text(text, encoding="utf-8")
    # after the build's own flags, because with -O3 the line numbers in a report are wrong
    compiler = shlex.join(["sh", "-c", f'exec g++ "$@" {sanitizer.flags} -g1 -O1', "g++"])
    variables = {"CXX": compiler, "MANUAL_GRAD_INSTRUCTION_SETS": "all", "XDG_CACHE_HOME": str(tree.parent)}
    subprocess.run([sys.executable, "compile_kernels.py"], cwd=tree, env=os.environ | variables, check=True)
    return tree


def run(
    sanitizer: Sanitizer, tree: Path, arguments: list[str], capture: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    paths = (subprocess.check_output(["g++", f"-print-file-name={name}"], text=True) for name in sanitizer.runtimes)
    environment |= {**sanitizer.environment, "LD_PRELOAD": ":".join(p.strip() for p in paths), "PYTHONPATH": str(tree)}
    command = [sys.executable, *arguments]
    if (
        subprocess.call(["setarch", "-R", "true"], stderr=subprocess.DEVNULL) == 0
    ):  # shadow memory needs fixed addresses
        command = ["setarch", "-R", *command]
    return subprocess.run(command, cwd=tree, env=os.environ | environment, capture_output=capture, text=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
