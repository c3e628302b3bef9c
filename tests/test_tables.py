"""The README's tables match the committed results, and have a row for every loss."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import manual_grad.functional as M
from benchmarks import accuracy, readme, report
from gradcheck.families import FAMILIES
from manual_grad import kernels, specs
from manual_grad.catalogue import BY_NAME, LOSSES

README = readme.README.read_text(encoding="utf-8")


def test_readme_has_the_committed_results() -> None:
    assert readme.update(README) == README


@pytest.mark.parametrize("name", sorted({*M.__all__, *specs.NAMES}.difference(*(loss.also for loss in LOSSES))))
def test_every_loss_has_a_row(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", README, flags=re.MULTILINE)
    family, kernel, order, transforms, *errors, speedup = row.split(" | ")
    spec = specs.load(name)
    assert family == spec.family
    assert order.strip("*") == str(spec.order)
    assert re.fullmatch(r"no|(yes|`\w+`)(, (yes|`\w+`))*", kernel)
    assert len(errors) == 4
    assert re.fullmatch(r"[\d.]+(–[\d.]+)?", speedup) or not BY_NAME[name].peer


def test_every_family_is_explained() -> None:
    for family in FAMILIES:
        assert f"({family})" in README


@pytest.mark.parametrize("file", sorted(readme.TIMES.iterdir()), ids=lambda file: file.stem)
def test_no_speed_is_reported_of_a_wrong_loss(file: Path) -> None:
    assert not any(r.red for r in report.read_json(file)[0])


def without(path: Path, names: str, folder: Path) -> Path:
    """A copy of the file in the folder that lacks what it should list."""
    content, empty = json.loads(path.read_text(encoding="utf-8")), folder / path.name
    empty.write_text(json.dumps({**content, names: type(content[names])()}))
    return empty


def test_a_loss_without_results_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, *_ = sorted(readme.TIMES.iterdir())
    (tmp_path / "others.json").write_text(first.read_text(encoding="utf-8"))  # has all
    lacking = without(first, "results", tmp_path)
    monkeypatch.setattr(readme, "TIMES", tmp_path)
    with pytest.raises(ValueError, match=rf"{lacking} lacks .* run python -m benchmarks --runs 5 --json {lacking}"):
        readme.losses()
    monkeypatch.setattr(readme, "ERRORS", without(readme.ERRORS, "losses", tmp_path))
    monkeypatch.setattr(readme, "TIMES", first.parent)
    with pytest.raises(ValueError, match=r"errors\.json lacks .* run python -m benchmarks\.accuracy"):
        readme.losses()


def test_every_machine_is_in_the_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a second machine everything is slower; what one tells of the time of both are ranges."""
    results, machine = report.read_json(min(readme.TIMES.iterdir()))
    slower = [replace(r, timings={**r.timings, "manual_grad": r.timings["eager"]}) for r in results]
    report.write_json(results, machine, tmp_path / "a.json")
    report.write_json(slower, {**machine, "CPU": "Another"}, tmp_path / "b.json")
    monkeypatch.setattr(readme, "TIMES", tmp_path)
    (row,) = (row for row in readme.losses().splitlines() if row.startswith("| `mse_loss` |"))
    (mse,) = (r for r in results if (r.loss, r.section) == ("mse_loss", "large"))
    assert row.endswith(f"| 1.0–{mse.speedup('eager'):.1f} |")
    first, second = readme.speed().split("CPU: Another")
    assert f"| large | {report.digits(report.mean_speedup(report.sections(results)['large'], 'eager'))} |" in first
    assert "| large | 1.00 |" in second


def test_a_table_without_a_place() -> None:
    with pytest.raises(ValueError, match="one place for the table 'losses', it has 0"):
        readme.update(README.replace("<!-- /losses -->", ""))


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (0.4637, "0.46"),
        (12.34, "12"),
        (117.6, "118"),
        (8388608.0, "8.4e6"),
        (5.1e13, "5.1e13"),
        ("inf", "∞"),
        (None, "–"),
    ],
)
def test_errors_are_short(error: float | str | None, shown: str) -> None:
    assert readme.eps(error) == shown


@pytest.mark.skipif(not kernels.loaded(), reason="no kernels are loaded, which the table is to name")
def test_summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(specs, "NAMES", ("mse_loss",))
    assert accuracy.main(str(tmp_path / "errors.json")) == 0
    (loss,) = json.loads((tmp_path / "errors.json").read_text(encoding="utf-8"))["losses"].values()
    committed = json.loads(readme.ERRORS.read_text(encoding="utf-8"))["losses"]["mse_loss"]
    assert loss["kernels"] == ["mse_loss"]
    assert loss["torch"] == committed["torch"] == list(accuracy.ABILITIES)
    for what in ("value", "gradient"):
        assert 0 < loss[what]["error"] <= 8
        assert (
            0 < loss[what]["torch"] <= 8
        )  # not the committed figure, because torch's rounding depends on the processor
        assert max(known[what]["error"] for known in loss["regimes"].values()) == loss[what]["error"]
    spec = specs.load("mse_loss")
    assert list(loss["regimes"]) == list(committed["regimes"]) == [*spec.samples, *spec.regimes]


def test_abilities() -> None:
    spec = specs.load("ctc_loss")
    assert accuracy.abilities(M.ctc_loss, spec) == list(accuracy.ABILITIES)
    assert not {"second", "forward"} & set(accuracy.abilities(torch.nn.functional.ctc_loss, spec))
    assert accuracy.abilities(None, spec) is None
