"""``python -m manual_grad``: what each command prints in a terminal, in a pipe, and on bad usage."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import manual_grad
from gradcheck.__main__ import main as audit
from gradcheck.chapter import Chapter, read
from manual_grad import __main__ as cli
from manual_grad import catalogue, kernels, specs
from manual_grad.study import box, explain, texts
from manual_grad.study.chapters import chapter

ROOT = Path(__file__).parents[1]
LEFTOVERS = re.compile(r"\\|`|\$|:math:|:mod:|\*\*|(?<!\w)_\w+_(?!\w)|[_^]\{")


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The message on bad usage."""
    with pytest.raises(SystemExit) as exit:
        cli.main(argv)
    assert exit.value.code == 2
    return capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    family, found = "", {}
    for line in lines[:-1]:
        first = line.split(" ")[0]
        if first in catalogue.BY_NAME:
            found[first] = family, *line.split()[1:3]
        elif first:
            family = first
    assert {name: entry[0] for name, entry in found.items()} == {n: specs.load(n).family for n in specs.NAMES}
    assert head.split()[:3] == ["loss", "CPU", "CUDA"]
    loaded = "yes" if kernels.available("huber_loss") else "no"
    assert found.pop("siglip_loss")[1] == "no"  # its tiles are torch ops
    assert {cpu for _, cpu, _ in found.values()} == {loaded}
    assert max(map(len, lines)) <= 80
    assert any(line.endswith("Huber loss") for line in lines)


def test_list_without_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    with kernels.switched(False):
        cli.main(["list"])
    assert not re.search(r"\byes\b", capsys.readouterr().out)


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "huber_loss"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Huber loss\n==========\n")
    assert "∂e/∂x = max(−δ, min(r, δ)),    ∂e/∂t = −∂e/∂x" in text
    assert "              ⎧ ½r²            |r| ≤ δ\n    e(x, t) = ⎨" in text
    assert "https://doi.org/10.1214/aoms/1177703732" in text


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("name", catalogue.BY_NAME)
def test_every_chapter_can_be_read(name: str, width: int) -> None:
    source = chapter(name)
    code = [block for block in source.blocks if isinstance(block, str) and block.startswith(">>>")]
    assert {"    " + line for block in code for line in block.splitlines()} <= {*explain.plain(source, 80).splitlines()}
    source = Chapter(source.title, tuple(block for block in source.blocks if block not in code))
    text = explain.plain(source, width)
    assert not LEFTOVERS.findall(text)
    assert text.count("{") == braces(name)
    for line in text.splitlines():
        formula = line.startswith("    ")
        assert box.width(line) <= (80 if formula else width) or "http" in line, line
    ends = re.findall(r" \((\w+)\)$", "\n".join(line for line in text.splitlines() if box.width(line) == width), re.M)
    assert {equation.label for equation in source.equations} <= {*ends}


def braces(name: str) -> int:
    """The braces that the chapter shows on purpose."""
    return len(re.findall(r"\\\{", str(catalogue.BY_NAME[name].module.__doc__)))


@pytest.mark.parametrize("left", [r":math:`\unheard`", "`one`"])
def test_what_is_left_over_is_seen(left: str) -> None:
    assert LEFTOVERS.search(explain.plain(read(f"Title\n\nA formula {left}.\n"), 80))


def test_blocks_that_are_not_prose() -> None:
    source = "Title.\n\nCode::\n\n    >>> 1 + 1\n    2\n\n* one ``item``\n  in two lines\n* :func:`torch.erf` \\|a\\|"
    assert explain.plain(read(source), 12).splitlines() == [
        *("Title", "=====", "", "Code:", "", "    >>> 1 + 1", "    2", ""),
        *("* one item", "  in two", "  lines", "", "* torch.erf", "  |a|"),
    ]


def test_an_equation_that_is_not_executed() -> None:
    source = "Title\n\n.. math::\n    e \\to 0 \\tag{3} \\unexecuted{a limit has no h}\n\nMore."
    shown = ["    e → 0       (3)", "", "Not executed: a", "limit has no h.", "", "More."]
    assert explain.plain(read(source), 19).splitlines()[3:] == shown
    console = pytest.importorskip("rich.console")
    file = io.StringIO()
    explain.show(read(source), console.Console(file=file, width=80, force_terminal=True, _environ={}))
    assert "Not executed: a limit has no h." in re.sub(r"\x1b\[\d+m", "", file.getvalue())


def test_links() -> None:
    source = "Title\n\n`doi:10.1 <https://doi.org/10.1>`_ and `this <https://that>`_"
    assert explain.plain(read(source), 80).endswith("\n\nhttps://doi.org/10.1 and this <https://that>")


@pytest.mark.parametrize("topic", texts.topics())
def test_explain_a_guide(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", topic]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"# {texts.title(topic)}\n")
    prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", shown, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"\\|\$|\{\w+\}|\.md\b", prose)


def test_formulas_and_figures_of_a_guide() -> None:
    source = """\
Let $r = x - t$ be `$5` of [Huber](huber.md), [1](https://a.org):

$$
e = \\frac12 r^2 \\tag{3}
$$

```{figure} /figures/a.svg
---
alt: >-
  A parabola
  in red.
---

What grows.
```

````{answer}
It is $r$.

```python
>>> price = "$5 and $6"
```
````
"""
    expected = """\
Let r = x − t be `$5` of Huber, [1](https://a.org):

```text
    e = ½r²                          (3)
```

[Figure: A parabola in red.] What grows.

**Answer.** It is r.

```python
>>> price = "$5 and $6"
```

"""
    assert explain.markdown(source, 40) == expected
    console = pytest.importorskip("rich.console")
    file = io.StringIO()
    explain.show_guide(source, console.Console(file=file, width=80, force_terminal=True, _environ={}))
    assert "\x1b[1mAnswer.\x1b[0m" in file.getvalue()


def test_explain_with_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    console = pytest.importorskip("rich.console")

    def shown(**environment: str) -> str:
        file = io.StringIO()
        how: dict[str, Any] = dict(force_terminal=True, color_system="truecolor", _environ=environment)
        explain.show(chapter("cross_entropy"), console.Console(file=file, width=80, highlight=False, **how))
        return file.getvalue()

    styled = shown()
    assert "\x1b[1mGradient.\x1b[0m" in styled
    assert "https://arxiv.org/abs/1512.00567\x1b\\arXiv:1512.00567\x1b" in styled
    assert "\x1b[36mignore_index\x1b[0m" in styled
    assert "\x1b[36m" not in shown(NO_COLOR="1")
    equations = [line for line in explain.plain(chapter("cross_entropy"), 80).splitlines() if line[:4] == "    "]
    assert set(equations) <= {line.rstrip() for line in re.sub(r"\x1b\[\d+m", "", styled).splitlines()}


def run(*argv: str, encoding: str = "utf-8", **how: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "manual_grad", *argv]
    return subprocess.run(command, env=environment, text=True, encoding="utf-8", stderr=subprocess.PIPE, **how)


def test_in_a_pipe() -> None:
    done = run("explain", "cross_entropy", stdout=subprocess.PIPE)
    assert done.returncode == 0 and done.stderr == ""
    assert "\x1b" not in done.stdout
    assert done.stdout == explain.plain(chapter("cross_entropy"), 80) + "\n"


def test_where_there_are_no_such_signs() -> None:
    done = run("explain", "mse_loss", encoding="ascii", stdout=subprocess.PIPE)
    assert done.returncode == 0 and "?e/?x = 2r" in done.stdout


def test_into_a_pipe_that_nobody_reads() -> None:
    end, start = os.pipe()
    os.close(end)
    with open(start, "w", encoding="utf-8") as closed:
        assert run("explain", "cross_entropy", stdout=closed).stderr == ""


def test_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config"]) == 0
    assert capsys.readouterr().out == manual_grad.show_config() + "\n"


def test_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no loss named 'zzz'; there are: adaptive_log" in fails(capsys, "plot", "zzz")
    assert "unrecognized arguments: --delta 1" in fails(capsys, "explain", "huber_loss", "--delta", "1")
    assert "required: COMMAND" in fails(capsys)
    for words in (["--delta"], ["--delta", "wide"], ["delta=x"]):
        assert f"--NAME NUMBER, but got {words[0].split('=')[0]}" in fails(capsys, "plot", "huber_loss", *words)


@pytest.mark.parametrize(
    ("given", "loss"),
    [
        ("huber_loss", "huber_loss"),
        ("HuberLoss", "huber_loss"),
        ("Huber", "huber_loss"),
        ("hub", "huber_loss"),
        ("CrossEntropyLoss", "cross_entropy"),
        ("cross-entropy", "cross_entropy"),
        ("cross", "cross_entropy"),
        ("bce", "binary_cross_entropy"),
        ("BCEWithLogits", "binary_cross_entropy_with_logits"),
        ("binary_cross_entropy", "binary_cross_entropy"),
        ("L1", "l1_loss"),
        ("kldivloss", "kl_div"),
        ("AdaptiveLogSoftmaxWithLoss", "adaptive_log_softmax_with_loss"),
    ],
)
def test_names(given: str, loss: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert catalogue.find(given).name == loss
    cli.main(["explain", given])
    assert capsys.readouterr().out == explain.plain(chapter(loss), 80) + "\n"


@pytest.mark.parametrize("name", catalogue.BY_NAME)
def test_every_loss_and_every_module_is_found(name: str) -> None:
    assert catalogue.find(name).name == name
    loss = catalogue.BY_NAME[name]
    assert {catalogue.find(other).name for other in (name, *loss.also, *loss.modules)} == {name}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hubr", "no loss named 'hubr'; did you mean huber_loss?"),
        ("CrosEntropy", "no loss named 'CrosEntropy'; did you mean "),
        ("triplet", "'triplet' may be triplet_margin_loss or triplet_margin_with_distance_loss"),
        ("multi_", "'multi_' may be multi_margin_loss, multilabel_margin_loss or multilabel_soft_margin_loss"),
        ("zzz", "no loss named 'zzz'; there are: adaptive_log_softmax_with_loss, "),
        ("", "no loss named ''; there are: "),
        ("_", "no loss named '_'; there are: "),
    ],
)
def test_names_that_mean_no_loss(given: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in fails(capsys, "explain", given)
    with pytest.raises(SystemExit) as exit:
        audit([given, "--check", "definition"])
    assert exit.value.code == 2 and message in capsys.readouterr().err


def test_names_for_gradcheck(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(["MSELoss", "huber", "mse_loss", "--check", "claims", "--quick", "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^\w+_loss", printed, re.MULTILINE) == ["mse_loss", "huber_loss"]


def test_plot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "huber.png"
    assert cli.main(["plot", "huber_loss", "-o", str(path), "--delta", "0.5"]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"{path}\n"
    assert "'gamma'" in fails(capsys, "plot", "huber_loss", "-o", str(path), "--gamma=1")
    assert "delta=-1.0" in fails(capsys, "plot", "huber_loss", "-o", str(path), "--delta", "-1")
    assert "No such file" in fails(capsys, "plot", "huber_loss", "-o", str(tmp_path / "none" / "huber.png"))


def test_plot_without_matplotlib(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["plot", "huber_loss"]) == 1
    assert capsys.readouterr().err == "plot needs matplotlib: pip install 'manual_grad[study]'\n"
