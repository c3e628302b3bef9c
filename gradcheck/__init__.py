"""Verify that a hand-written gradient is correct.

``python -m gradcheck`` audits the functions of every installed package that provides specs, such as manual_grad.
:func:`check` audits any other function, such as the ``apply`` of an ``autograd.Function``. A gradient is never compared
with a second hand derivation, only with the function that it belongs to.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradcheck.api import check
    from gradcheck.checks import CHECKS
    from gradcheck.compare import Result
    from gradcheck.run import Report, audit
    from gradcheck.sharded import check_sharded
    from gradcheck.spec import REAL, UNIT, Draw, Error, Input, Kernels, Module, Pin, Settings, Spec, reduce

__all__ = [
    "CHECKS",
    "REAL",
    "UNIT",
    "Draw",
    "Error",
    "Input",
    "Kernels",
    "Module",
    "Pin",
    "Report",
    "Result",
    "Settings",
    "Spec",
    "audit",
    "check",
    "check_sharded",
    "reduce",
]
_PLACES = {"CHECKS": "checks", "Report": "run", "Result": "compare", "audit": "run", "check": "api"}
_PLACES["check_sharded"] = "sharded"


def __getattr__(name: str) -> Any:
    """Import on demand: reading chapters must not require numpy, scipy and mpmath."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_PLACES.get(name, 'spec')}")
    except ModuleNotFoundError as error:
        if error.name not in ("mpmath", "numpy", "scipy"):
            raise
        raise ImportError(
            f"gradcheck needs {error.name}: pip install 'manual_grad[gradcheck]'", name=error.name
        ) from error
    globals()[name] = getattr(module, name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
