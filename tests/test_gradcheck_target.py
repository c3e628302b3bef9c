"""``python -m gradcheck`` on a function that is named by its place, and the pytest plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest

from gradcheck import cli, target
from gradcheck.run import Listener

ROOT = Path(__file__).resolve().parents[1]
MINE = """
import torch
from torch.autograd import Function

class Power(Function):
    @staticmethod
    def forward(ctx, x, w, power):
        ctx.save_for_backward(x, w)
        ctx.power = power
        return (w * x**power).sum()

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g * w * ctx.power * x ** (ctx.power - 1), g * x**ctx.power, None

class Wrong(Power):
    @staticmethod
    def backward(ctx, g):
        dx, dw, _ = Power.backward(ctx, g)
        return dx / 10, dw, None

def square(x, w):
    return (w * x**2).sum()

def inputs():
    return torch.randn(3, 4), torch.randn(3, 4), 2

class Saturated(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.nn.functional.softplus(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.where(x > 15, 0, x.sigmoid())

softplus = torch.nn.functional.softplus

def large():
    return 20 + torch.rand(3, 4)

def picked(x, y):
    return x.gather(1, y[:, None]).log().sum()
"""


SATURATED = ["mine_to_check.py:Saturated", "--like", "x: 3 4", "--definition", "softplus", "--check", "parity"]
AT_HIGH = "WRONG Saturated: the gradient of x is wrong in float32, only at high: zero everywhere"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine_to_check.py").write_text(MINE)
    script = "import torch, mine_to_check\nx = torch.randn(5, 2)\nmine_to_check.Wrong.apply(x, torch.ones(5, 2), 3)\n"
    (tmp_path / "script.py").write_text(script)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_to_check", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "first", "status"),
    [
        (["mine_to_check.py:Power", "--like", ":inputs", "--definition", "square"], "function ", 0),
        (["mine_to_check:Wrong", "--like", ":inputs"], "WRONG Wrong: the gradient of x is wrong", 1),
        (["mine_to_check.py:Wrong", "--call", "script.py"], "WRONG Wrong: the gradient of x is wrong", 1),
        (["mine_to_check.py:square", "--like", "x: 3 4; w: 3 4", "--order", "2", "--promise", "vmap"], "function ", 0),
        (["mine_to_check.py:picked", "--like", "x: [0.5,2] 3 4; y: <4 3"], "function ", 0),
        (["torch.nn.functional:softplus", "--like", "x: 3 4", "--check", "differences"], "function ", 0),
        ([*SATURATED, "--regime", "low=x: [-9,-8] 3 4"], "function ", 0),
        ([*SATURATED, "--regime", "low=x: [-9,-8] 3 4", "--regime", "high=x: [20,30] 3 4"], AT_HIGH, 1),
        ([*SATURATED, "--regime", "high=:large"], AT_HIGH, 1),
    ],
)  # fmt: skip
def test_a_function_in_one_line(
    mine: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], first: str, status: int
) -> None:
    sys.path.insert(0, str(mine))
    try:
        assert cli.main(arguments) == status
    finally:
        sys.path.remove(str(mine))
    assert capsys.readouterr().out.startswith(first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine_to_check.py:Power"], '--like "x: 3 4; w: 3 4; power: 3 4"'),
        (["mine_to_check.py:Nothing", "--like", "x: 3"], "autograd Functions there: Power, Wrong"),
        (["elsewhere.py:Power", "--like", "x: 3"], "no such file"),
        (["no_such_package.module:Power", "--like", "x: 3"], "No module named"),
        (["mine_to_check.py:Power", "--like", "x 3"], "expected 'name: sizes'"),
        (["mine_to_check.py:Power", "--like", "x: three"], "must be integers"),
        (["mine_to_check.py:Power", "--like", "x: <many 3"], "expected a number, as in <10, got 'many'"),
        (["mine_to_check.py:Power", "--like", "x: [0,one] 3"], "expected a number, as in [0,1], got 'one'"),
        (["mine_to_check.py"], "which function in it? For example mine_to_check.py:Name"),
        (["mine_to_check.py:Power", "--like", ":inputs", "--definition", "cube"], "there is no cube"),
        ([*SATURATED, "--regime", "x: 3"], "expected NAME=INPUTS"),
        ([*SATURATED, "--regime", "far=:nothing"], "there is no function nothing"),
        ([*SATURATED, "--regime", "far=y: 3 4"], "not among inputs: y"),
        (["huber_loss", "--regime", "far=x: 3"], "--regime describes a function of your own"),
        (["huber_loss", "--like", "x: 3"], "--like describes a function of your own"),
    ],
)
def test_bad_usage(mine: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_no_package_with_specs_is_loaded_for_a_file(mine: Path) -> None:
    code = (
        "import sys\nfrom gradcheck.cli import main\n"
        "assert main(['mine_to_check.py:square', '--like', 'x: 3; w: 3', '--check', 'claims', '--json', 'out']) == 0\n"
        "assert 'manual_grad' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=mine, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def test_help_names_the_functions_of_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "huber_loss" in capsys.readouterr().out


def test_progress_of_ones_own_function(
    mine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    @contextmanager
    def progress(losses: tuple[str, ...], checks: tuple[str, ...]) -> Iterator[Listener]:
        yield lambda loss, check, result: seen.append((loss, check))

    monkeypatch.setattr(cli, "_progress", progress)
    cli.main(["mine_to_check.py:square", "--like", "x: 3; w: 3", "--check", "claims", "definition"])
    assert list(dict.fromkeys(seen)) == [("square", "claims"), ("square", "definition")]


def test_a_call_is_recorded_once(mine: Path) -> None:
    module, value = target.load("mine_to_check.py:Power")
    with target.recording(value, module, "Power") as calls:
        value.apply(*module.inputs())
    value.apply(*module.inputs())
    assert [len(arguments) for arguments in calls] == [3]


PLUGGED = """
import pytest, torch
from gradcheck import Input, Spec
from mine_to_check import Power, Wrong, square

def test_right(gradcheck):
    gradcheck(lambda x, w: Power.apply(x, w, 2), square, {"x": (3, 4), "w": (3, 4)})

def test_wrong(gradcheck):
    gradcheck(lambda x, w: Wrong.apply(x, w, 2), square, {"x": (3, 4), "w": (3, 4)})

def sample(draw):
    return dict(x=draw.normal(3, 4), w=draw.normal(3, 4))

SPEC = Spec(square, (Input("x"), Input("w")), {"plain": sample}, definition=square, promises=("forward", "vmap"))

@pytest.mark.gradcheck(SPEC, checks=("definition", "second"))
def test_spec(gradcheck):
    gradcheck()
"""


def test_plugin(mine: Path) -> None:
    """In two processes, so that the page has what both of them found."""
    (mine / "test_mine.py").write_text(PLUGGED)
    installed = any(entry.value == "gradcheck.pytest_plugin" for entry in metadata.entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "gradcheck.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "-rA", *plugin, "-n", "2", "--gradcheck-html=page.html"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [*command, "--junitxml=junit.xml"], cwd=mine, capture_output=True, text=True, env=environment
    )
    assert found.returncode == 1, found.stdout + found.stderr
    for line in ("PASSED test_mine.py::test_right", "PASSED test_mine.py::test_spec[definition]", "1 failed, 3 passed"):
        assert line in found.stdout, found.stdout
    assert "WRONG test_wrong: the gradient of x is wrong" in found.stdout
    assert "WRONG test_wrong" in (mine / "junit.xml").read_text()
    page = (mine / "page.html").read_text()
    assert "test_right" in page and "test_wrong" in page and "square" in page


# its mask lets one entry too many through
KERNEL = """
import torch, triton
import triton.language as tl

@triton.jit
def doubled(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, 2 * tl.load(x + i, mask=i < n), mask=i < n + 1)

class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        g = g.contiguous()
        out = torch.empty_like(g)
        doubled[(1,)](g, out, g.numel(), BLOCK=16)
        return out
"""


def test_under_the_interpreter_of_triton(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    (tmp_path / "doubled.py").write_text(KERNEL)
    arguments = ["doubled.py:Doubled", "--like", "x: 3 3", "--under=triton-interpreter", "--check", "purity", "parity"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gradcheck", *arguments]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert found.returncode == 1, found.stdout + found.stderr
    assert found.stdout.startswith("WRONG Doubled: memory is written to that belongs to no tensor: byte 1 behind")
    assert "note parity: not run, since the function writes to memory" in found.stdout


def test_under_a_tool_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "triton", None)
    for tool, said in (
        ("compute-sanitizer", "no compute-sanitizer on the PATH"),
        ("triton-interpreter", "not installed"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["l1_loss", "--under", tool])
        assert said in capsys.readouterr().err


def test_what_runs_under_a_tool_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(cli.subprocess, "call", lambda command, env: ran.append((command, env)) or 3)
    monkeypatch.setattr(cli.shutil, "which", lambda name: name)
    monkeypatch.setattr(cli.torch.cuda, "is_available", lambda: True)
    assert cli.main(["l1_loss", "--under", "compute-sanitizer", "--device", "cuda"]) == 3
    ((command, environment),) = ran
    assert command[0] == "compute-sanitizer" and command[-3:] == ["l1_loss", "--device", "cuda"]
    assert environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"
