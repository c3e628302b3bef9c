"""Run the tests and gradcheck in every environment that this machine can provide.

    python tests/matrix.py                      every row: the whole suite and all of gradcheck (hours)
    python tests/matrix.py --list               list the rows, and why some cannot run here
    python tests/matrix.py threads-5 locale-C   the named rows
    python tests/matrix.py --quick              only the tests that depend most on the machine, and a quick audit

Rows that only set environment variables run in this tree, with this Python and with kernels for every instruction set.
The other rows run the two commands of the README in a fresh clone. The output of each command goes to a file. The exit
status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TORCHES = ("2.10.0", "2.13.0")
# the base Python, not that of an active environment, into which dev.py would install
PYTHON = str(Path(sys.base_prefix) / "bin" / "python{}.{}".format(*sys.version_info[:2]))
QUICK_TESTS = ("tests/test_kernels.py", "tests/test_guides.py", "tests/test_readme.py", "tests/test_engine.py")
QUICK_AUDIT = ("--quick",)
COMPILER = re.compile(r"(.*-)?(c\+\+|g\+\+|gcc|cc|clang|clang\+\+)(-[\d.]+)?")


@dataclass(frozen=True)
class Row:
    """An environment. ``variables`` are set for its commands; if ``clone`` is given, they run in a clone that it makes.

    ``clone`` gets an empty folder, and returns the tree, the command that runs dev.py there, and further variables.
    """

    variables: dict[str, str] = field(default_factory=dict)
    clone: Callable[[Path], tuple[Path, list[str], dict[str, str]]] | None = None
    missing: str = ""  # the reason why the row cannot run here


def rows() -> Iterator[tuple[str, Row]]:
    yield "plain", Row()
    for capability in ("default", "avx2"):
        yield f"capability-{capability}", Row({"ATEN_CPU_CAPABILITY": capability})
    yield "formulas", Row({"MANUAL_GRAD_KERNELS": "0"})
    for threads in ("1", "2", "5"):
        yield f"threads-{threads}", Row({"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads})
    for branch in ("COMPATIBLE", "AVX2", "AVX512"):
        yield f"mkl-{branch}", Row({"MKL_CBWR": branch})
    for isa in ("SSE41", "AVX2", "AVX512_CORE"):
        yield f"onednn-{isa}", Row({"ONEDNN_MAX_CPU_ISA": isa})
    yield "locale-C", Row({"LC_ALL": "C", "LANG": "C"})
    yield "fresh-clone", Row(clone=lambda folder: (clone(folder / "clone"), [PYTHON], {}))
    yield "path-with-a-space", Row(clone=lambda folder: (clone(folder / "a clone, à part"), [PYTHON], {}))
    yield "no-compiler", Row(clone=without_compiler)
    yield "active-environment", Row(clone=in_environment)
    yield "home-not-writable", Row(clone=without_home)
    for version in PYTHONS:
        found = python(version)
        made = Row(missing="is not installed") if found is None else Row(clone=with_torch(TORCHES[-1], found))
        yield f"python-{version}", made
    for version in TORCHES:
        yield f"torch-{version}", Row(clone=with_torch(version))


def python(version: str) -> str | None:
    """The Python of that version, from pyenv or the path."""
    own = [str(p) for p in Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python")]
    for candidate in (*own, f"python{version}"):
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            if subprocess.run(asked, capture_output=True, text=True).stdout.strip() == version:
                return candidate
        except OSError:
            continue
    return None


def clone(to: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(to)], check=True)
    return to


def environment(folder: Path, of: str = PYTHON) -> tuple[str, dict[str, str]]:
    """The Python of a new virtual environment, and the variables that activate it."""
    subprocess.run([of, "-m", "venv", str(folder)], check=True)
    return str(folder / "bin" / "python"), {
        "VIRTUAL_ENV": str(folder),
        "PATH": os.pathsep.join((str(folder / "bin"), os.environ["PATH"])),
    }


def in_environment(folder: Path) -> tuple[Path, list[str], dict[str, str]]:
    executable, active = environment(folder / "environment")
    return clone(folder / "clone"), [executable], active


def with_torch(version: str, of: str = PYTHON) -> Callable[[Path], tuple[Path, list[str], dict[str, str]]]:
    """An active environment with that version of torch, the CPU build if there is one, or else any build."""

    def make(folder: Path) -> tuple[Path, list[str], dict[str, str]]:
        executable, active = environment(folder / "environment", of)
        install = [executable, "-m", "pip", "install", "-qq"]
        if subprocess.run([*install, f"torch=={version}+cpu"], capture_output=True).returncode != 0:
            subprocess.run([*install, f"torch=={version}"], check=True)
        return clone(folder / "clone"), [executable], active

    return make


def without_compiler(folder: Path) -> tuple[Path, list[str], dict[str, str]]:
    programs = folder / "bin"
    programs.mkdir()
    for place in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(place).glob("*") if Path(place).is_dir() else ():
            if not COMPILER.fullmatch(program.name):
                link = programs / program.name
                link.unlink(missing_ok=True)
                link.symlink_to(program)
    return clone(folder / "clone"), [PYTHON], {"PATH": str(programs), "CXX": ""}


def without_home(folder: Path) -> tuple[Path, list[str], dict[str, str]]:
    """A home folder below a file, where not even root can write."""
    home = "/dev/null/home"
    return clone(folder / "clone"), [PYTHON], {"HOME": home, "XDG_CACHE_HOME": f"{home}/.cache"}


def commands(row: Row, folder: Path, quick: bool) -> tuple[Path, dict[str, str], dict[str, list[str]]]:
    """The folder, the commands and the variables of a row."""
    tests = list(QUICK_TESTS) if quick else []
    audit = list(QUICK_AUDIT) if quick else []
    if row.clone is None:
        parallel = ["--numprocesses=auto", "--dist=worksteal"]
        pytest = [sys.executable, "-m", "pytest", "-q", *parallel, *tests]
        return ROOT, row.variables, {"test": pytest, "gradcheck": [sys.executable, "-m", "gradcheck", *audit]}
    tree, executable, variables = row.clone(folder)
    return tree, variables, {"test": [*executable, "dev.py", "test", *tests], "demo": [*executable, "dev.py", "demo"]}


def run(name: str, row: Row, logs: Path, quick: bool) -> bool:
    """Run one row and print a line for each of its commands."""
    passed = True
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        try:
            tree, variables, found = commands(row, folder, quick)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name:20}  cannot be had: {error}", flush=True)
            return True
        kept = {k: v for k, v in os.environ.items() if not (row.clone and k in ("VIRTUAL_ENV", "PYTHONPATH"))}
        for what, command in found.items():
            log, start = logs / f"{name}-{what}.log", time.perf_counter()
            with log.open("w") as output:
                status = subprocess.call(
                    command, cwd=tree, env={**kept, **variables}, stdout=output, stderr=subprocess.STDOUT
                )
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or [""]
            verdict = "passed" if status == 0 else f"FAILED, status {status}: {log}"
            print(f"{name:20}  {what:9}  {time.perf_counter() - start:6.0f} s  {verdict}  {last[0]}", flush=True)
            passed = passed and status == 0
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="all of them by default")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument("--quick", action="store_true", help="a few tests and a quick audit instead of all")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="for what the commands print; a new one by default")
    args = parser.parse_args()
    known = dict(rows())
    for name in args.rows:
        if name not in known:
            parser.error(f"no row named {name!r}; there are: {', '.join(known)}")
    if args.list:
        for name, row in known.items():
            how = "in a fresh clone" if row.clone else " ".join(f"{k}={v}" for k, v in row.variables.items())
            print(f"{name:20}  {f'cannot be had: {row.missing}' if row.missing else how}")
        return 0
    logs = args.logs or Path(tempfile.mkdtemp(prefix="matrix-"))
    logs.mkdir(parents=True, exist_ok=True)
    chosen = args.rows or list(known)
    if any(known[name].clone is None and not known[name].missing for name in chosen):
        everything = {**os.environ, "MANUAL_GRAD_INSTRUCTION_SETS": "all"}
        subprocess.run([sys.executable, "compile_kernels.py"], cwd=ROOT, env=everything, check=True)
    passed = True
    for name in chosen:
        if known[name].missing:
            print(f"{name:20}  cannot be had: {known[name].missing}", flush=True)
        else:
            passed = run(name, known[name], logs, args.quick) and passed
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
