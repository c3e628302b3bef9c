"""Compile the Triton kernels for GPUs that are not present, and collect what the compiler reports about each.

The kernels are called as usual, on CPU tensors. Triton is told that there is a GPU of the given architecture, and stops
after compiling, before it would load and launch the kernel.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


@dataclass(frozen=True)
class Usage:
    """The resources of one kernel instance; spills and arrays indexed at run time appear as local memory."""

    kernel: str
    architecture: int
    warps: int
    registers: int
    shared: int  # bytes
    local: int  # bytes

    def __str__(self) -> str:
        return (
            f"{self.kernel:16} sm_{self.architecture} {self.warps:2} warps {self.registers:4} registers "
            f"{self.shared:6} B shared {self.local:4} B local"
        )


class _Driver:
    """A driver for a device of that architecture; Triton caches compiled kernels by device number."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0


@contextlib.contextmanager
def compiling(architecture: int, cache: Path) -> Iterator[list[Any]]:
    """Compile the kernels that are called inside instead of running them, and collect them in the list."""
    compiled: list[Any] = []
    run = JITFunction.run

    def warm_up(self: JITFunction, *args: Any, warmup: bool, **kwargs: Any) -> None:
        kernel = run(self, *args, warmup=True, **kwargs)
        if kernel not in compiled:
            compiled.append(kernel)

    driver = triton.runtime.driver
    before = dict(vars(driver))  # reading the active driver would look for a device
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(cache)
        driver.set_active(_Driver(architecture))
        JITFunction.run = warm_up
        try:
            yield compiled
        finally:
            JITFunction.run = run
            vars(driver).update(before)


def usage(kernel: Any, folder: Path) -> Usage:
    cubin = folder / f"{kernel.hash}.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    text = subprocess.check_output([CUOBJDUMP, "--dump-resource-usage", cubin], text=True)
    figures = dict(re.findall(r"(\w+):(\d+)", text))
    local = int(figures["LOCAL"]) + int(figures["STACK"])
    metadata = kernel.metadata
    return Usage(metadata.name, metadata.target.arch, metadata.num_warps, int(figures["REG"]), metadata.shared, local)
