"""Functions on several processes against one: what is right passes, and what is wrong is named, hangs included."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gradcheck
from corpus.sharded import (
    Dies,
    Hangs,
    Raises,
    Sharded,
    TimesTheProcesses,
    WithoutItsAllReduce,
    WithoutItsSum,
    mean_of_squares,
    of_parts,
    once,
    without_its_second_all_reduce,
)
from gradcheck import cli
from gradcheck.spec import Settings

PLACE = Path(__file__).parent / "corpus" / "sharded.py"
INPUTS = {"x": (4, 3), "w": (5, 3)}  # 3 and 2 rows


def audited(fn: Any, seconds: float = 60.0, **options: Any) -> gradcheck.Report:
    shard = options.pop("shard", {"w": 0})
    return gradcheck.check_sharded(fn, mean_of_squares, INPUTS, shard, seconds=seconds, **options)


def test_right() -> None:
    report = audited(Sharded.apply, settings=Settings(dtypes=(torch.float64, torch.float32)))
    assert report and report.losses == ("Sharded",) and "2 processes, float32" in {r.case for r in report.results}


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (WithoutItsSum.apply, "the value is wrong in process 0"),
        (WithoutItsAllReduce.apply, "the gradient of x is wrong in process 0"),
        (
            TimesTheProcesses.apply,
            "the gradient of w is wrong: 2 times what is expected, and there are 2 processes",
        ),
        (Dies.apply, "process 1 fails: ended with status 7, without a traceback"),
        (Raises.apply, "process 1 fails: RuntimeError: no memory is left\nTraceback"),
    ],
)
def test_wrong(fn: Callable[..., Tensor], said: str) -> None:
    report = audited(fn)
    name = fn.__self__.__name__  # type: ignore[attr-defined]
    assert not report

    assert re.match(f"WRONG {name}: {said}", str(report), flags=re.DOTALL), report


def test_right_at_the_second_order() -> None:
    report = audited(of_parts, order=2, settings=Settings(dtypes=(torch.float32, torch.float64)))
    assert report, report
    found = {(r.what, r.dtype) for r in report.results if r.what.startswith("d/d")}
    assert {("d/dx of d/dw in process 1", "float64"), ("d/dw of d/dw", "float64")} <= found
    assert {dtype for _, dtype in found} == {"float64"}


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (without_its_second_all_reduce, "d/dupstream of d/dx is wrong in process 0"),
        (Sharded.apply, "d/dx of d/dx is wrong in process 0"),  # what it adds up in place, autograd does not see
        (once, "d/dx of d/dx is wrong in process 0: at [1, 0]: got 0, expected"),
    ],
)
def test_wrong_at_the_second_order(fn: Callable[..., Tensor], said: str) -> None:
    assert audited(fn)
    report = audited(fn, order=2)
    assert f": the second derivative {said}" in str(report).splitlines()[0], report


def test_a_hang_is_cut_off_and_placed() -> None:
    start = time.monotonic()
    report = audited(Hangs.apply, seconds=2.0)
    assert time.monotonic() - start < 120
    text = str(report)
    assert text.startswith("WRONG Hangs: it hangs: no answer from process 0, 1 within 2 s\nprocess 0:\n"), text
    assert "in backward\n" in text and "process 1:\n  (had finished, and waited for the others)" in text, text


def test_gradients_that_are_to_be_added() -> None:
    assert audited(WithoutItsAllReduce.apply, shard={"w": 0, "x": "sum"})


def test_a_value_that_is_divided(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--like",
        "x: 4 3; w: 3",
        "--definition",
        "scaled",
        "--shard",
        "x: 0; w: sum; return: 0",
        "--order",
        "2",
    ]
    assert cli.main([f"{PLACE}:scaled", *arguments]) == 0
    assert "all passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(shard={"v": 0}), "not among inputs: v"),
        (dict(shard={"w": 2}), "shard: w has 2 dimensions, so that 2 is none"),
        (dict(shard={"w": "mean"}), "shard: w must be a dimension, or sum, got 'mean'"),
        (dict(shard={"return": "sum"}), "shard: return must be a dimension, got 'sum'"),
        (dict(processes=1), "processes: there must be at least 2, got 1"),
        (dict(order=3), "order: it must be 1 or 2, got 3"),
        (dict(fn=lambda x, w: x), "fn: .*cannot be sent to other processes"),
    ],
)
def test_bad_usage(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audited(options.pop("fn", Sharded.apply), **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--shard", "x"], "expected 'name: dimension'"), (["--shard", "x: 0"], "a definition of the whole is needed")],
)
def test_bad_usage_on_the_command_line(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--definition", "scaled"] if options[1] == "x" else []
    with pytest.raises(SystemExit):
        cli.main([f"{PLACE}:scaled", "--like", "x: 4 3; w: 3", *options, *more])
    assert said in capsys.readouterr().err
