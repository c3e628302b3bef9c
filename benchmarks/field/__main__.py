"""``python -m benchmarks.field FILE``: audit losses of other libraries, those that are installed.

Two questions are asked of each function. At an ordinary call in float64: is it the function of its formula, are value,
gradient and second derivative consistent, does it leave its inputs alone (:func:`gradcheck.check`)? At some points in
float32: are value and gradient right to three digits, against the formula in mpmath with 120 digits?
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import gradcheck
from benchmarks.field import entries, judging
from benchmarks.field.arithmetic import TORCH, scalar
from benchmarks.field.table import UPSTREAM, Entry, Point, load, version
from gradcheck import causes

CHECKS = ("definition", "differences", "second", "forward", "transforms", "layout", "purity", "claims", "parity")


TINY = 1e-60  # what mpmath leaves of a zero


def main(file: str, only: str = "") -> int:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a library defines its kernels; there is no device
    functions, missing = {}, {}
    for name, entry in entries.ENTRIES.items():
        if only not in name:
            continue
        print(name, file=sys.stderr, flush=True)
        try:
            load(entry.path)
        except ImportError as error:
            print(f"  skipped: {error}", file=sys.stderr)
            missing[entry.library] = str(error)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            functions[name] = {"library": entry.library, **audited(name, entry)}
    libraries = {f["library"]: version(f["library"]) for f in functions.values()}
    found = {
        "environment": {"torch": torch.__version__, "Python": sys.version.split()[0], "device": "CPU"},
        "libraries": dict(sorted(libraries.items())),
        "skipped": missing,
        "functions": functions,
    }
    Path(file).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def audited(name: str, entry: Entry) -> dict[str, Any]:
    checks: dict[str, str] = {}
    cause = None
    if not entry.single:
        report = checked(name, entry)
        for check in CHECKS:
            results = report.of(name, check)
            asked = [r for r in results if not r.note]
            checks[check] = "failed" if any(not r.ok for r in asked) else "passed" if asked else "not asked"
        if report.failures:
            said, shown = causes.first(report.failures)
            cause = ": ".join([said, "; ".join(filter(None, (shown.relation, shown.message)))])
            print(f"  {cause}", file=sys.stderr)
    return {
        "checks": checks,
        "cause": cause,
        "points": {label: compared(entry, label) for label in entry.points},
        "why": entries.WHY.get(name, ""),
        "constant": dict(entry.guard),
    }


def checked(name: str, entry: Entry) -> gradcheck.Report:
    """Everything in float64."""
    settings = gradcheck.Settings(dtypes=(torch.float64, torch.float32))
    options = {"differentiable": set(entry.differentiated), "checks": CHECKS, **entry.options}

    def definition(*tensors: Tensor, **params: Any) -> Tensor:
        return entry.formula(TORCH, **dict(zip(entry.inputs, tensors, strict=True)), **entry.guard, **params)

    with wide() if entry.casts else contextlib.nullcontext():
        return gradcheck.check(entry.function(), definition, entry.inputs, settings=settings, name=name, **options)


@contextlib.contextmanager
def wide() -> Iterator[None]:
    """Casts to float32 leave float64 as it is."""
    narrow = Tensor.float

    def cast(t: Tensor) -> Tensor:
        return t if t.dtype is torch.float64 else narrow(t)

    with mock.patch.object(Tensor, "float", cast):
        yield


def compared(entry: Entry, label: str) -> dict[str, Any]:
    """What the function returns in float32, beside what it should."""
    point = entry.points[label]
    got = called(entry, point, curved=label == entry.curved)
    expected = entry.exact(label)
    guarded = entry.exact(label, guarded=True) if entry.guard else {}
    results = {}
    for what, exact in expected.items():
        found = got if isinstance(got, str) else got[what]
        kind, said = judging.judge(found, exact, guarded.get(what))
        results[what] = {
            "got": found if isinstance(found, str) else [_number(v) for v in found],
            "exact": None if exact is None else [_number(float(v)) for v in exact],
            "kind": kind,
            "said": said,
        }
        if kind:
            print(f"  {label}: {what}: {kind}: {said}", file=sys.stderr)
    if any(r["kind"] for r in results.values()):
        return {"inputs": dict(point.inputs), "params": dict(point.params), "compared": results}
    return {"compared": {what: {"kind": ""} for what in results}}


def called(entry: Entry, point: Point, curved: bool) -> dict[str, list[float]] | str:
    tensors = point.tensors(entry.inputs)
    leaves = {k: tensors[k].requires_grad_() for k in entry.differentiated}
    given = {k: leaves[k] * 1 if k in leaves else t for k, t in tensors.items()}
    try:
        value = entry.function()(*given.values(), **point.params)
        total = scalar(value)
        found: dict[str, Any] = {"value": value.detach().clone()}
        if entry.single:
            found |= {f"{k} after the call": given[k].detach().clone() for k in leaves}
        for what, upstream in UPSTREAM.items() if entry.single else [("gradient", 1.0)]:
            how = dict(allow_unused=True, retain_graph=entry.single or curved, create_graph=curved)
            g = torch.full_like(total, upstream).requires_grad_(curved)  # as if it depended on something, too
            slopes = torch.autograd.grad(total, list(leaves.values()), g, **how)
            found |= {
                f"{what} of {k}": torch.zeros_like(t) if d is None else d.clone()
                for (k, t), d in zip(leaves.items(), slopes, strict=True)
            }
        if curved:
            for k, t in leaves.items():
                d = found[f"gradient of {k}"]
                found[f"curvature by {k}"] = torch.zeros_like(t)
                if d.requires_grad:
                    total = scalar(d)
                    bent = torch.autograd.grad(total, t, retain_graph=True, allow_unused=True, materialize_grads=True)
                    found[f"curvature by {k}"] = bent[0]
    except Exception as error:  # of the library
        return f"raised {type(error).__name__}: {str(error).splitlines()[0]}"
    return {k: t.detach().flatten().tolist() for k, t in found.items()}


def _number(value: float) -> float | str:
    if not isfinite(value):
        return str(value)  # JSON has no NaN; float() parses these
    return 0.0 if abs(value) < TINY else value


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m benchmarks.field FILE [PART OF A NAME]")
    sys.exit(main(*sys.argv[1:]))
