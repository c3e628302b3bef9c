"""Compile the CPU kernels with compile_kernels.py. Everything else about the package is in pyproject.toml.

An editable install compiles for this processor, any other install for all; ``MANUAL_GRAD_INSTRUCTION_SETS`` overrides
this. If the kernels cannot be built, the package is installed without them: every loss is computed from its formulas,
and ``manual_grad.show_config()`` says why. ``MANUAL_GRAD_REQUIRE_KERNELS=1`` turns that into an error.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.errors import CompileError

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # a build back end does not put this folder on the path

import compile_kernels
from compile_kernels import NOT_BUILT, SOURCES


class BuildKernels(Command):
    """A step of ``build``; implements the protocol setuptools.command.build.SubCommand."""

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
        names = compile_kernels.instruction_sets("native" if self.editable_mode else "all")
        try:
            self.distribution.kernels = compile_kernels.build(folder, names, Path(self.build_base, "kernels"))
        except compile_kernels.NotBuilt as reason:
            if os.environ.get("MANUAL_GRAD_REQUIRE_KERNELS") == "1":
                raise CompileError(str(reason)) from reason
            (folder / NOT_BUILT).write_text(f"{reason}\n", encoding="utf-8")
            self.warn(f"manual_grad is built WITHOUT its CPU kernels, losses will be slower: {reason}")

    def get_source_files(self) -> list[str]:
        return [str(path) for path in sorted(SOURCES.rglob("*")) if path.suffix in (".cpp", ".h")]

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
    """Tagged ``py3-none-<platform>`` with kernels, which do not depend on Python's version, else ``py3-none-any``."""

    def run(self) -> None:
        shutil.rmtree(
            self.get_finalized_command("build").build_lib, ignore_errors=True
        )  # may contain files of an older tree
        self.run_command("build")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


build.sub_commands = [*build.sub_commands, ("build_kernels", None)]
setup(distclass=KernelDistribution, cmdclass={"build_kernels": BuildKernels, "bdist_wheel": Wheel})
