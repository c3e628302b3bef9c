"""The two commands of this repository. Each first installs what is missing, so both work in a fresh clone.

    python3 dev.py demo             check every loss (python -m gradcheck), then train on the digits
    python3 dev.py test [ARGS...]   run the tests (python -m pytest ARGS...), by default all, in several processes

They use the active virtual or conda environment, or else create one in ./.venv. A torch that is already installed is
kept if it is new enough. Only Python 3.10 is required; a C++17 compiler makes the losses fast.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import compile_kernels

ROOT = Path(__file__).resolve().parent
TORCH = "2.13.0"  # installed where there is no torch, or one older than TORCH_AT_LEAST
TORCH_AT_LEAST = (2, 10)
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

EXTRAS = {"demo": "gradcheck,examples", "test": "test,examples"}

# Python compiles modules when they are first imported. pip would compile all of torch, which takes longer.
INSTALL = ("install", "-qq", "--no-compile")

PROBE = """
import importlib.metadata, json, sys
try: torch = importlib.metadata.version("torch")
except importlib.metadata.PackageNotFoundError: torch = "0"
print(json.dumps({"prefix": sys.prefix, "python": sys.version, "torch": torch}))
"""


def main(command: str = "", *arguments: str) -> int:
    if sys.version_info < (3, 10):  # noqa: UP036 - an older Python must get this message first
        return fail(f"manual_grad needs Python 3.10 or later, this is {sys.version.split()[0]}")
    if command == "demo" and not arguments:
        programs = [["-m", "gradcheck"], ["examples/digits.py"]]
    elif command == "test":
        # worksteal keeps neighbouring tests in one process, where they share what they have built
        everything = ("--numprocesses=auto", "--dist=worksteal", "--durations=30")
        programs = [["-m", "pytest", *(arguments or everything)]]
    else:
        return fail(__doc__)
    python = set_up(command)
    return max(abs(subprocess.call([python, *program], cwd=ROOT)) for program in programs)  # run all, even if one fails


def set_up(command: str) -> str:
    """Return the Python of an environment with torch, manual_grad and the packages that the command needs."""
    python = environment()
    prefix = Path(probe(python)["prefix"])
    if (
        sys.dont_write_bytecode
    ):  # every process would compile all of torch again; keep the bytecode outside of this tree
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(prefix / "bytecode")}
    stamp = prefix / f"manual_grad-ready-{command}"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == state(python):
        return python
    pip = find_pip(python)
    # Compile the kernels while pip installs packages, because pip hides the progress of a build. pip's own build of the
    # kernels waits for this one, and then finds everything compiled.
    kernels = subprocess.Popen([sys.executable, "compile_kernels.py"], cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        if not has_torch(python):
            install_torch(pip)
        extras = EXTRAS[command]
        with step(f"installing manual_grad[{extras}] and the packages it needs"):
            run(*pip, *INSTALL, "--editable", f"{ROOT}[{extras}]")
    finally:
        kernels.wait()
    run(python, "-c", "import manual_grad; print(manual_grad.show_config())")
    stamp.write_text(state(python))
    return python


def environment() -> str:
    if sys.prefix != sys.base_prefix or Path(sys.prefix, "conda-meta").is_dir():
        return sys.executable
    folder = ROOT / ".venv"
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    if not succeeds(python, "-c", ""):
        on_top = ["--system-site-packages"] if has_torch(sys.executable) else []
        with step("making the environment .venv" + (", on top of the torch that this Python has" if on_top else "")):
            # without pip, because Debian's Python lacks the module that venv would install it from; find_pip adds it
            run(sys.executable, "-m", "venv", "--clear", "--without-pip", *on_top, str(folder))
    return python


def find_pip(python: str) -> list[str]:
    """Return a pip command for that environment: its own pip, if need be from ensurepip, or that of this Python."""
    own, other = [python, "-m", "pip"], [sys.executable, "-m", "pip", "--python", python]
    if succeeds(*own, "--version") or succeeds(python, "-m", "ensurepip"):
        return own
    if succeeds(*other, "--version"):
        return other
    sys.exit(fail("there is no pip; install it (Debian and Ubuntu: apt install python3-venv), then try again"))


def install_torch(pip: list[str]) -> None:
    install = [*pip, *INSTALL]
    if sys.platform != "linux" or shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists():
        with step(f"installing torch {TORCH}"):
            return run(*install, f"torch=={TORCH}")
    # On Linux, the default build installs gigabytes of CUDA libraries, which are useless here. Look for the CPU build
    # where pip is configured to look, then on PyTorch's own index.
    with step(f"installing the CPU build of torch {TORCH}, about 200 MB"):
        install.append(f"torch=={TORCH}+cpu")
        if not succeeds(*install):
            hint = "no CPU build of torch was found: install a torch of at least 2.10 here yourself, then try again"
            run(*install, "--index-url", TORCH_CPU_INDEX, "--timeout", "30", "--retries", "2", hint=hint)


def state(python: str) -> str:
    """A hash of everything that an installation depends on: torch, Python, compiler, package files, kernels."""
    compilers = [shutil.which(name) for name in ("c++", "g++", "clang++", os.environ.get("CXX", ""))]
    wanted = compile_kernels.instruction_sets("native")
    digest = hashlib.sha256(json.dumps([str(ROOT), probe(python), compilers, wanted]).encode())
    build = [ROOT / name for name in ("pyproject.toml", "setup.py", "compile_kernels.py")]
    for path in (*build, *sorted(ROOT.glob("manual_grad/kernels/cpu/*.*"))):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def has_torch(python: str) -> bool:
    return tuple(map(int, probe(python)["torch"].split(".")[:2])) >= TORCH_AT_LEAST


def probe(python: str) -> dict[str, str]:
    return json.loads(subprocess.check_output([python, "-c", PROBE], cwd=ROOT))


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    start = time.perf_counter()
    print(f"dev.py: {what} ...", end=" ", flush=True)
    yield
    print(f"{time.perf_counter() - start:.1f} s", flush=True)


def run(*command: str, hint: str = "") -> None:
    if subprocess.call(command, cwd=ROOT) != 0:
        sys.exit(fail(f"this failed: {' '.join(command)}\n{hint}".rstrip()))


def succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    except OSError:
        return False


def fail(message: str) -> int:
    print(f"dev.py: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
