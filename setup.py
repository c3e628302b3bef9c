"""Compiles the CPU kernels; everything else about the package is said in pyproject.toml.

The kernels use neither Python's nor torch's headers, only LibTorch's stable C ABI: one library serves every Python and
every torch from 2.10 on, and building it takes a C++17 compiler but no torch. Where it cannot be built the package is
installed without it, and every loss runs from its formulas; ``manual_grad.show_config()`` then says why.

Environment variables: ``CXX``, the compiler; ``MANUAL_GRAD_REQUIRE_KERNELS=1``, fail where the kernels cannot be built.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.errors import CompileError

SOURCES = Path("manual_grad", "kernels", "cpu")
NOT_BUILT = "not_built.txt"  # read by manual_grad/kernels/__init__.py
FLAGS = "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -Wall -Wextra".split()

# One library per instruction set. In a common one the linker would keep a single copy of an inline function that was
# compiled with several sets, perhaps the AVX-512 copy, and run it on a machine without AVX-512.
INSTRUCTION_SETS: dict[str, list[str]] = {"baseline": []}
if platform.machine() == "x86_64":
    INSTRUCTION_SETS["avx2"] = "-mavx2 -mfma".split()
    INSTRUCTION_SETS["avx512"] = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma".split()


class Kernels:
    """The kernel libraries of one source tree; ``cache`` keeps the objects, named after all they are made from."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.cache.mkdir(parents=True, exist_ok=True)
        self.compiler = find_compiler()
        self.common = run([*self.compiler, "--version"]).encode()
        for header in sorted(SOURCES.glob("*.h")):
            self.common += header.read_bytes()

    def build(self) -> list[Path]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            pending = {
                isa: [pool.submit(self.compile, source, isa, flags) for source in sorted(SOURCES.glob("*.cpp"))]
                for isa, flags in INSTRUCTION_SETS.items()
            }
            try:
                objects = {isa: [job.result() for job in jobs] for isa, jobs in pending.items()}
            except CompileError:
                pool.shutdown(cancel_futures=True)
                raise
        for outdated in set(self.cache.glob("*.o")).difference(*objects.values()):
            outdated.unlink()
        return [self.link(parts, self.cache / f"manual_grad_{isa}.so") for isa, parts in objects.items()]

    def compile(self, source: Path, isa: str, flags: list[str]) -> Path:
        command = [*self.compiler, *FLAGS, *flags, "-c", str(source)]
        digest = hashlib.sha256(shlex.join(command).encode() + self.common + source.read_bytes()).hexdigest()[:16]
        result = self.cache / f"{source.stem}-{isa}-{digest}.o"
        if not result.exists():
            unfinished = result.with_suffix(f".{os.getpid()}")
            run([*command, "-o", str(unfinished)])
            unfinished.replace(result)
        return result

    def link(self, objects: list[Path], library: Path) -> Path:
        command = [*self.compiler, "-shared", *map(str, objects), "-o", str(library)]
        if sys.platform == "darwin":
            run([*command, "-undefined", "dynamic_lookup", "-Wl,-exported_symbol,_manual_grad_register"])
            return library
        # The library must name libtorch_cpu.so as its dependency, so that the loader takes torch's functions from the
        # one that `import torch` has loaded. An empty library of that name serves as well as the real one for linking.
        torch_cpu = self.cache / "libtorch_cpu.so"
        run([*self.compiler, "-shared", "-Wl,-soname,libtorch_cpu.so", "-x", "c++", os.devnull, "-o", str(torch_cpu)])
        exports = self.cache / "exports.map"
        exports.write_text("{ global: manual_grad_register; local: *; };\n")
        resolved_later = ["-Wl,--no-as-needed", str(torch_cpu), "-Wl,--unresolved-symbols=ignore-all"]
        run([*command, f"-Wl,--version-script={exports}", *resolved_later])
        return library


def find_compiler() -> list[str]:
    if sys.platform not in ("linux", "darwin"):
        raise CompileError(f"the kernels are not yet built on {platform.system()}")
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for candidate in map(shlex.split, candidates):
        if shutil.which(candidate[0]):
            return candidate
    raise CompileError(f"no C++ compiler was found (looked for {', '.join(candidates)})")


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    sys.stderr.write(done.stderr)
    if done.returncode != 0:
        lines = done.stderr.splitlines()
        error = next((line for line in lines if "error" in line), lines[-1] if lines else f"status {done.returncode}")
        raise CompileError(f"{command[0]} failed: {error.strip()}")
    return done.stdout


class BuildKernels(Command):
    """A step of ``build``, by the protocol of setuptools.command.build.SubCommand."""

    description = "compile the CPU kernels"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = []

    def initialize_options(self) -> None:
        self.build_base: str | None = None
        self.build_lib: str | None = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_base", "build_base"), ("build_lib", "build_lib"))

    def run(self) -> None:
        folder = SOURCES if self.editable_mode else Path(self.build_lib, SOURCES)
        for outdated in (*folder.glob("manual_grad_*.so"), folder / NOT_BUILT):
            outdated.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.distribution.kernels = Kernels(Path(self.build_base, "kernels")).build()
            for library in self.distribution.kernels:
                shutil.copy(library, folder)
        except CompileError as reason:
            if os.environ.get("MANUAL_GRAD_REQUIRE_KERNELS") == "1":
                raise
            (folder / NOT_BUILT).write_text(f"{reason}\n")
            self.warn(f"manual_grad is built WITHOUT its CPU kernels, losses will be slower: {reason}")

    def get_source_files(self) -> list[str]:
        return [str(path) for path in sorted(SOURCES.iterdir()) if path.suffix in (".cpp", ".h")]

    def get_outputs(self) -> list[str]:
        return [str(Path(self.build_lib, SOURCES, library.name)) for library in self.distribution.kernels]

    def get_output_mapping(self) -> dict[str, str]:
        if not self.editable_mode:
            return {}
        return {output: str(SOURCES / Path(output).name) for output in self.get_outputs()}


class KernelDistribution(Distribution):
    kernels: Sequence[Path] = ()

    def has_ext_modules(self) -> bool:
        return len(self.kernels) > 0


class Wheel(bdist_wheel):
    """``py3-none-<platform>`` with kernels, which know nothing of Python; ``py3-none-any`` without."""

    def run(self) -> None:
        shutil.rmtree(self.get_finalized_command("build").build_lib, ignore_errors=True)  # left by an older tree
        self.run_command("build")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


build.sub_commands = [*build.sub_commands, ("build_kernels", None)]
setup(distclass=KernelDistribution, cmdclass={"build_kernels": BuildKernels, "bdist_wheel": Wheel})
