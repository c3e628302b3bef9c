"""The errors of a loss and of torch's own, by regime, from the committed results of benchmarks.accuracy."""

from __future__ import annotations

import functools
import json
from html import escape
from math import isfinite, log10
from typing import Any

import torch

from benchmarks import readme

NO_DIGIT = 0.99 / torch.finfo(torch.float32).eps  # in eps: an error as large as the result; the files are rounded
LOW, HIGH = -2.0, 8.0  # the range of the scale, in decades of eps


@functools.cache
def known() -> dict[str, Any]:
    return json.loads(readme.ERRORS.read_text(encoding="utf-8"))["losses"]


def worst(loss: str) -> float:
    """The largest error of the value and of the gradients, in any regime."""
    return max(float(known()[loss][what]["error"]) for what in ("value", "gradient"))


def html(loss: str) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(regime)}</th>{_cells(errors["value"])}{_cells(errors["gradient"])}</tr>'
        for regime, errors in known()[loss]["regimes"].items()
    )
    return (
        "<p>The worst float32 error against exact arithmetic, of the value and of any component of any gradient, in "
        "eps (1.2e-7 times the result). At 8.4e6 no digit is correct. A dash means that torch has no such result. "
        "On the logarithmic scale, ● is manual_grad and ○ is torch; the line marks 1 eps.</p>"
        '<div class="scroll" tabindex="0"><table class="results"><thead><tr><th rowspan="2" scope="col">regime</th>'
        '<th colspan="3" scope="colgroup">value</th><th colspan="3" scope="colgroup">gradient</th></tr><tr>'
        + 2
        * '<th scope="col">here</th><th scope="col">torch</th><th scope="col" class="scale">0.01 to 10⁸ eps</th>'
        + f"</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<p>Measured by <code>python -m gradcheck {loss} --check oracle</code>.</p>"
    )


def _cells(errors: dict[str, Any]) -> str:
    ours, torchs = errors["error"], errors["torch"]
    lost = ' class="lost"' if is_lost(torchs) else ""
    return f"<td>{readme.eps(ours)}</td><td{lost}>{readme.eps(torchs)}</td><td>{_scale(ours, torchs)}</td>"


def is_lost(error: float | str | None) -> bool:
    """Whether no digit is correct."""
    return error is not None and float(error) >= NO_DIGIT


def _scale(ours: float | str, torchs: float | str | None) -> str:
    dots = f'<circle class="ours" cx="{_x(ours)}" cy="7" r="4"/>'
    if torchs is not None:
        dots = f'<circle class="torchs" cx="{_x(torchs)}" cy="7" r="4"/>' + dots
    one = _x(1.0)
    return f'<svg width="110" height="14" aria-hidden="true"><line x1="{one}" x2="{one}" y1="0" y2="14"/>{dots}</svg>'


def _x(error: float | str) -> float:
    error = float(error)
    decade = HIGH if not isfinite(error) else LOW if error <= 0 else min(max(log10(error), LOW), HIGH)
    return round(5 + 100 * (decade - LOW) / (HIGH - LOW), 1)
