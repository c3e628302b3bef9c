"""Shared fixtures: both implementations of a loss, and the documentation, built once."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manual_grad import kernels

ROOT = Path(__file__).parents[1]

# The processes of a run share the cores, so a thread that waits must not keep one busy. OpenMP reads this when it is
# loaded: in the processes that xdist starts, and in those of tests.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_built = pytest.mark.skipif(not kernels.loaded(), reason="the kernels are not built here")


@pytest.fixture(params=[pytest.param("kernel", marks=_built), "formulas"])
def route(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test twice, with kernels and without."""
    with kernels.switched(request.param == "kernel"):
        yield request.param


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages. Any Sphinx warning, such as a broken reference, fails the build."""
    for module in ("sphinx", "furo", "myst_nb", "matplotlib", "math_core", "ziamath", "sklearn"):
        pytest.importorskip(module, reason=f"the documentation needs {module}: pip install -e .[docs]")
    own = tmp_path_factory.getbasetemp()
    folder = (
        own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    ) / "site"  # shared by all processes of this run
    with open(f"{folder}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "built").exists():
            shutil.rmtree(folder, ignore_errors=True)
            build_site(folder)
            (folder / "built").touch()
    return folder / "html"


def build_site(folder: Path) -> None:
    ignored = shutil.ignore_patterns("_build", "losses", "guides", "*.svg", "__pycache__")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=ignored)
    command = f"{sys.executable} -m sphinx -E -W --keep-going -n -q -j auto -b html docs html".split()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
