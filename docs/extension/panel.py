"""The data of a loss's interactive panel: its curves for every slider position, which panel.js draws.

Values, slopes and curvatures come from the loss itself. The browser only interpolates between them.
"""

from __future__ import annotations

import itertools
import json
from html import escape
from typing import Any

import torch

from manual_grad.study.curves import Trace, curve_of, trace

POINTS = 49  # per curve; panel.js interpolates between them by a cubic through values and slopes
STEPS = 200  # of the slider that moves along the curve


def html(loss: str) -> str:
    curve = curve_of(loss)
    controls = [
        _control(
            f"{loss}-{name}",
            slider.label,
            f'data-slider="{name}"',
            len(slider.values) - 1,
            slider.values.index(slider.default),
        )
        for name, slider in curve.sliders.items()
    ]
    controls.append(_control(f"{loss}-position", curve.axis, "data-position", STEPS, round(0.4 * STEPS)))
    curves = json.dumps(data(loss), separators=(",", ":"), ensure_ascii=False)
    return (
        f'<div class="panel" data-loss="{loss}"><div class="controls">{"".join(controls)}</div>'
        '<div class="plots" role="img"></div><p class="readout" aria-live="polite"></p>'
        "<noscript><p>The panel needs JavaScript; the figure above shows the same curves.</p></noscript>"
        f'<script type="application/json">{curves}</script></div>'
    )


def _control(id: str, label: str, kind: str, last: int, position: int) -> str:
    return (
        f'<div><label for="{id}">{escape(label)}</label><output for="{id}"></output>'
        f'<input id="{id}" type="range" min="0" max="{last}" value="{position}" {kind}></div>'
    )


def data(loss: str) -> dict[str, Any]:
    curve = curve_of(loss)
    names = tuple(curve.sliders)
    settings = itertools.product(*(slider.values for slider in curve.sliders.values()))
    traces = [trace(loss, dict(zip(names, values, strict=True)), POINTS) for values in settings]
    limits = [zip(*(drawn.limits(order) for drawn in traces), strict=True) for order in range(3)]
    return {
        "axis": curve.axis,
        "span": curve.span,
        "sliders": {name: slider.values for name, slider in curve.sliders.items()},
        "limits": [[_short(min(low)), _short(max(high))] for low, high in limits],
        "traces": [_rounded(drawn) for drawn in traces],  # the last slider varies fastest
    }


def _rounded(drawn: Trace) -> dict[str, Any]:
    return {
        "pieces": [[_short(p.s[0].item()), _short(p.s[-1].item()), *map(_numbers, p.y)] for p in drawn.pieces],
        "kinks": [[k.order, _short(k.s), *map(_short, k.y or ())] for k in drawn.kinks],
    }


def _numbers(y: torch.Tensor) -> list[float]:
    return [_short(v) for v in y.tolist()]


def _short(x: float) -> float:
    """Round to four digits, more than a screen can show."""
    x = float(f"{x:.4g}")
    return int(x) if x == int(x) else x
