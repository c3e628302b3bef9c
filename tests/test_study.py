"""The curves along which the losses are plotted, and the plots."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from manual_grad import specs
from manual_grad.study import curves

STEP = 1e-5  # of central differences: accurate to about 1e-9 if the third derivative is moderate


def test_every_loss_has_a_line() -> None:
    assert all(isinstance(curves.curve_of(loss), curves.Curve) for loss in specs.NAMES)


@pytest.mark.parametrize("loss", specs.NAMES)
def test_drawn_slopes_and_curvatures_are_derivatives(loss: str) -> None:
    drawn = curves.trace(loss, points=61)
    for piece in drawn.pieces:
        s = piece.s[1:-1]  # the ends lie next to a kink
        (v0, d0, _), (v1, d1, _) = (curves.along(loss, s + h, drawn.params) for h in (-STEP, STEP))
        for found, difference in ((piece.y[1], v1 - v0), (piece.y[2], d1 - d0)):
            torch.testing.assert_close(found[1:-1], difference / (2 * STEP), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss", specs.NAMES)
def test_pieces_are_smooth_and_meet(loss: str) -> None:
    drawn = curves.trace(loss)
    for left, right in zip(drawn.pieces, drawn.pieces[1:], strict=False):
        assert left.y[0][-1] == pytest.approx(float(right.y[0][0]), abs=1e-6)
    for piece in drawn.pieces:
        if len(piece.s) > 8:
            # by the mean value theorem, the slope in the middle of a step is nearly that of the chord
            value, slope, _ = piece.y
            chord = value.diff() / piece.s.diff()
            assert ((chord - (slope[1:] + slope[:-1]) / 2).abs() <= 1e-3 + 0.1 * chord.abs()).all()


def test_kinks_are_found_where_they_are() -> None:
    drawn = curves.trace("huber_loss", {"delta": 0.75})
    assert [(k.order, k.s) for k in drawn.kinks] == [(2, -0.75), (2, 0.75)]
    assert [k.y for k in drawn.kinks] == [(0.28125, -0.75, 1.0), (0.28125, 0.75, 1.0)]
    assert [len(p.s) > 1 for p in drawn.pieces] == [True] * 3
    assert curves.trace("cross_entropy").kinks == []
    (right_angle,) = curves.trace("cosine_embedding_loss").kinks
    assert right_angle.s == pytest.approx(math.pi / 2)
    assert right_angle.y is None  # pi / 2 is not a floating-point number


def test_a_pole_does_not_flatten_the_picture() -> None:
    drawn = curves.trace("binary_cross_entropy")
    assert max(float(p.y[2].max()) for p in drawn.pieces) > 2000
    assert drawn.limits(2)[1] < 1000
    low, high = curves.trace("l1_loss").limits(2)
    assert low < 0 < high


def test_slider_values_hold_the_default() -> None:
    for loss, curve in ((loss, curves.curve_of(loss)) for loss in specs.NAMES):
        for name, slider in curve.sliders.items():
            assert slider.default in slider.values, (loss, name)
            assert math.isclose(slider.values[-1], slider.high), (loss, name)


@pytest.mark.parametrize("loss", specs.NAMES)
def test_every_end_of_a_slider_can_be_drawn(loss: str) -> None:
    sliders = curves.curve_of(loss).sliders
    for ends in itertools.product(*((slider.low, slider.high) for slider in sliders.values())):
        drawn = curves.trace(loss, dict(zip(sliders, ends, strict=True)), points=9)
        assert all(y.isfinite().all() for piece in drawn.pieces for y in piece.y)


@pytest.mark.parametrize(
    ("loss", "params", "message"),
    [
        ("huber", {}, "no loss named 'huber'.*huber_loss"),
        ("huber_loss", {"beta": 1.0}, "no parameter 'beta' to draw; there are: delta"),
        ("hinge_embedding_loss", {"p": 1.0}, "'p' to draw; there are: target, margin"),
    ],
)
def test_what_is_unknown_is_named(loss: str, params: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curves.trace(loss, params)


def test_plot_draws_what_the_suffix_says(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib")
    from manual_grad.study.plot import plot

    plot("huber_loss", tmp_path / "huber.png", delta=0.5)
    assert (tmp_path / "huber.png").read_bytes().startswith(b"\x89PNG")
    for path in (tmp_path / "a.svg", tmp_path / "b.svg"):
        plot("l1_loss", path)
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == (tmp_path / "b.svg").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="no loss"):
        plot("no_loss", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
