"""Compile the CPU kernels. setup.py uses this module; ``python3 compile_kernels.py`` compiles into this source tree.

The kernels use neither Python's nor torch's headers, only LibTorch's stable C ABI. So one library works with every
Python and with every torch from 2.10 on. The build needs a C++17 compiler and Python, but no torch or other package.

There is one library for each instruction set that torch distinguishes. An editable install is built for that of this
processor, a wheel for all. Environment variables:

``CXX``                           the compiler
``MANUAL_GRAD_INSTRUCTION_SETS``  what to build for: ``native``, ``all``, or names such as ``"baseline avx2"``
``XDG_CACHE_HOME``                the cache folder, by default the user's; objects are in ``manual_grad/kernels`` there
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

SOURCES = Path("manual_grad", "kernels", "cpu")
NOT_BUILT = "not_built.txt"  # read by manual_grad/kernels/__init__.py
FLAGS = "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math -Wall -Wextra".split()
# GCC interleaves the computations of several vectors only if asked. A compiler may reject these.
IF_KNOWN = "-fschedule-insns -fsched-pressure -Wno-ignored-optimization-argument".split()

# One library per instruction set. In a single one, the linker would keep only one copy of an inline function that was
# compiled for several sets, perhaps the AVX-512 copy, which would then run on a machine without AVX-512.
INSTRUCTION_SETS: dict[str, list[str]] = {"baseline": []}
if platform.machine() == "x86_64":
    INSTRUCTION_SETS["avx2"] = "-mavx2 -mfma -mf16c".split()  # as torch compiles its own
    INSTRUCTION_SETS["avx512"] = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma".split()

SLOWEST = (
    "distillation_loss",
    "log_prob",
    "asymmetric_loss",
    "tweedie_loss",
    "sigmoid_focal_loss",
    "negative_binomial_nll_loss",
)  # compiled first, so that no core idles at the end
KEPT = 64 << 20  # maximal size of the cache of objects, in bytes


class NotBuilt(Exception):
    """Raised with the reason why the kernels cannot be built."""


def instruction_sets(default: str) -> list[str]:
    """The instruction sets in MANUAL_GRAD_INSTRUCTION_SETS, or the default."""
    asked = (os.environ.get("MANUAL_GRAD_INSTRUCTION_SETS") or default).replace(",", " ").split()
    chosen: set[str] = set()
    for name in asked:
        if name not in ("native", "all", *INSTRUCTION_SETS):
            known = ", ".join(INSTRUCTION_SETS)
            sys.exit(f"MANUAL_GRAD_INSTRUCTION_SETS: no {name!r} here; there are native, all, {known}")
        chosen.update(native() if name == "native" else INSTRUCTION_SETS if name == "all" else [name])
    return [name for name in INSTRUCTION_SETS if name in chosen]


def native() -> list[str]:
    """The instruction set that torch will choose on this processor, or all of them if that is unknown."""
    forced = os.environ.get("ATEN_CPU_CAPABILITY", "").lower()  # overrides torch's detection
    if forced in ("default", *INSTRUCTION_SETS):
        return ["baseline" if forced == "default" else forced]
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"), re.M)
    except OSError:
        found = None
    if len(INSTRUCTION_SETS) == 1 or found is None:
        return list(INSTRUCTION_SETS)
    has = {f"-m{flag}" for flag in found[1].split()}
    return [[name for name, flags in INSTRUCTION_SETS.items() if has.issuperset(flags)][-1]]


def build(folder: Path, names: Sequence[str], fallback: Path) -> list[Path]:
    """Build the libraries for these instruction sets in a folder. Objects are cached, in ``fallback`` if need be."""
    start = time.perf_counter()
    for outdated in (*folder.glob("manual_grad_*.so"), folder / NOT_BUILT):
        outdated.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    compiler = find_compiler()
    with cache(fallback) as kept, tempfile.TemporaryDirectory() as scratch:
        objects = compile_all(compiler, names, kept, Path(scratch))
        libraries = [
            link(compiler, parts, folder, f"manual_grad_{name}.so", scratch) for name, parts in objects.items()
        ]
        evict(kept, KEPT)
    tell(f"built for {', '.join(names)} in {time.perf_counter() - start:.1f} s")
    return libraries


def compile_all(compiler: list[str], names: Sequence[str], kept: Path, scratch: Path) -> dict[str, list[Path]]:
    sources = sorted(SOURCES.rglob("*.cpp"), key=lambda path: (path.stem not in SLOWEST, path.name))
    headers = includes(sources)
    identity = identify(compiler, headers)
    objects: dict[str, list[Path]] = {name: [] for name in names}
    commands = {name: [*compiler, *FLAGS, *INSTRUCTION_SETS[name]] for name in names}
    missing = []
    for source in sources:
        for name in names:
            command = shlex.join([*commands[name], *IF_KNOWN, "-c", str(source)])
            digest = hashlib.sha256(identity + command.encode() + contents(source)).hexdigest()[:32]
            path = kept / f"{source.stem}-{name}-{digest}.o"
            objects[name].append(path)
            if path.exists():
                path.touch()  # mark as recently used
            else:
                missing.append((path, source, name))
    if len(missing) < len(names) * len(sources):
        tell(f"{len(names) * len(sources) - len(missing)} of {len(names) * len(sources)} files are compiled, in {kept}")
    if not missing:
        return objects
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    tell(f"compiling {len(missing)} files with {shlex.join(compiler)} on {cores} core{'s' * (cores > 1)}")
    with ThreadPoolExecutor(cores) as pool:
        try:
            prepared = {
                name: pool.submit(prepare, commands[name], headers, scratch / f"{name}.h")
                for name in {name for _, _, name in missing}
            }
            jobs = {}
            for path, source, name in missing:
                command = [*prepared[name].result(), "-c", str(source)]
                jobs[pool.submit(compile_one, path, command)] = f"{source.stem} for {name}"
            for done, job in enumerate(as_completed(jobs), 1):
                tell(f"{done:{len(str(len(jobs)))}}/{len(jobs)} {jobs[job]}, {job.result():.1f} s")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return objects


def prepare(command: list[str], headers: str, header: Path) -> list[str]:
    """The command with those of IF_KNOWN that the compiler knows, and with the system's headers precompiled.

    Parsing these, above all immintrin.h, takes longer than compiling a short loss.
    """
    with contextlib.suppress(NotBuilt):
        run([*command, *IF_KNOWN, "-E", "-x", "c++", os.devnull], may_fail=True)
        command = [*command, *IF_KNOWN]
    with contextlib.suppress(NotBuilt):
        header.write_text(headers, encoding="utf-8")
        run([*command, "-x", "c++-header", str(header), "-o", f"{header}.gch"], may_fail=True)
        command = [*command, "-include", str(header)]
    return command


def compile_one(path: Path, command: list[str]) -> float:
    start = time.perf_counter()
    unfinished = path.with_suffix(f".{os.getpid()}")
    run([*command, "-o", str(unfinished)])
    unfinished.replace(path)
    return time.perf_counter() - start


def link(compiler: list[str], objects: list[Path], folder: Path, name: str, scratch: str) -> Path:
    linked, library = Path(scratch, name), folder / name
    command = [*compiler, "-shared", *map(str, objects), "-o", str(linked)]
    if sys.platform == "darwin":
        run([*command, "-undefined", "dynamic_lookup", "-Wl,-exported_symbol,_manual_grad_register"])
    else:
        # The library must name libtorch_cpu.so as a dependency, so that the loader resolves torch's functions in
        # the one that `import torch` has loaded. For linking, an empty library of that name is sufficient.
        torch_cpu = Path(scratch, "libtorch_cpu.so")
        soname = "-Wl,-soname,libtorch_cpu.so"
        run([*compiler, "-shared", soname, "-x", "c++", os.devnull, "-o", str(torch_cpu)])
        exports = Path(scratch, "exports.map")
        exports.write_text("{ global: manual_grad_register; local: *; };\n", encoding="utf-8")
        resolved_later = ["-Wl,--no-as-needed", str(torch_cpu), "-Wl,--unresolved-symbols=ignore-all"]
        run([*command, f"-Wl,--version-script={exports}", *resolved_later])
    unfinished = library.with_suffix(f".{os.getpid()}")
    shutil.copy(linked, unfinished)
    unfinished.replace(library)  # a program that has loaded the old library keeps using it
    return library


def identify(compiler: list[str], headers: str) -> bytes:
    """What an object depends on apart from its command and sources: the compiler and the system's headers."""
    # run elsewhere, because clang prints the current folder
    return run([*compiler, *FLAGS, "-v", "-E", "-x", "c++", "-"], headers, cwd=tempfile.gettempdir()).encode()


def includes(sources: Sequence[Path]) -> str:
    """A header of the system's headers that the kernels include."""
    texts = [path.read_text(encoding="utf-8") for path in (*sources, *sorted(SOURCES.glob("*.h")))]
    system = sorted({header for text in texts for header in re.findall(r"^#include <(.+)>", text, re.M)})
    return "".join(f"#if __has_include(<{header}>)\n#include <{header}>\n#endif\n" for header in system)


def contents(path: Path) -> bytes:
    """The contents of a source file and of the headers of ours that it includes."""
    seen: dict[Path, bytes] = {}
    waiting = [path]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen[path] = path.read_bytes()
            waiting += [path.parent / name.decode() for name in re.findall(rb'^#include "(.+)"', seen[path], re.M)]
    return b"".join(seen[path] for path in sorted(seen))


@contextlib.contextmanager
def cache(fallback: Path) -> Iterator[Path]:
    """Lock and yield the folder of objects, so that a concurrent build waits and then finds everything compiled."""
    folder = cache_folder(fallback)
    import fcntl  # missing on Windows, where find_compiler has already raised

    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waiting for another build, in {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: two builds may do the same work, but no object is ever incomplete
        yield folder


def cache_folder(fallback: Path) -> Path:
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not base.is_absolute():
            home = Path.home()
            if not (home.is_absolute() and home.is_dir()):
                raise FileNotFoundError(home)
            base = home / ("Library/Caches" if sys.platform == "darwin" else ".cache")
        folder = base / "manual_grad" / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # there is no home folder, or it is not writable
        fallback.mkdir(parents=True, exist_ok=True)
        return fallback


def evict(folder: Path, limit: int) -> None:
    """Remove the least recently used files until the total size is within the limit."""
    newest_first = sorted(((path.stat(), path) for path in folder.iterdir()), key=lambda file: -file[0].st_mtime_ns)
    total = 0
    for status, path in newest_first:
        total += status.st_size
        if total > limit:
            path.unlink(missing_ok=True)


def find_compiler() -> list[str]:
    if sys.platform not in ("linux", "darwin"):
        raise NotBuilt(f"the kernels are not yet built on {platform.system()}")
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for candidate in map(shlex.split, candidates):
        found = shutil.which(candidate[0])
        if found:
            return [os.path.abspath(found) if os.sep in candidate[0] else candidate[0], *candidate[1:]]
    raise NotBuilt(f"no C++ compiler was found (looked for {', '.join(candidates)})")


def run(command: list[str], stdin: str = "", cwd: str | None = None, may_fail: bool = False) -> str:
    """Run a compiler command and return its output. Warnings are shown, and errors unless it may fail."""
    environment = {**os.environ, "LC_ALL": "C"}  # output independent of the locale
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run(command, input=stdin, cwd=cwd, env=environment, text=True, errors="replace", **pipes)
    if done.returncode != 0:
        sys.stderr.write("" if may_fail else done.stderr)
        lines = done.stderr.splitlines()
        error = next((line for line in lines if "error" in line), lines[-1] if lines else f"status {done.returncode}")
        raise NotBuilt(f"{command[0]} failed: {error.strip()}")
    if "-v" not in command:
        sys.stderr.write(done.stderr)
    return done.stdout + done.stderr


def tell(progress: str) -> None:
    print(f"kernels: {progress}", file=sys.stderr, flush=True)


def main() -> int:
    os.chdir(Path(__file__).resolve().parent)
    try:
        build(SOURCES, instruction_sets("native"), Path("build", "kernels"))
    except NotBuilt as reason:
        (SOURCES / NOT_BUILT).write_text(f"{reason}\n", encoding="utf-8")
        tell(f"none, losses will run from their formulas: {reason}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
