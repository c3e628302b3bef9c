"""Proof that a hand-written gradient is the gradient.

``python -m gradcheck`` audits every loss of manual_grad; :func:`check` audits any other function, such as the
``apply`` of an ``autograd.Function``. A rule is never compared with a second hand derivation: only with the function it
belongs to.
"""

from __future__ import annotations

import sys

try:
    from gradcheck.api import check
    from gradcheck.checks import CHECKS
    from gradcheck.compare import Result
    from gradcheck.run import Report, audit
    from gradcheck.spec import REAL, UNIT, Draw, Error, Input, Pin, Settings, Spec, reduce
except ModuleNotFoundError as error:
    if error.name not in ("mpmath", "numpy", "scipy"):
        raise
    message = f"gradcheck needs {error.name}: pip install 'manual_grad[gradcheck]'"
    if sys.argv[0] == "-m":  # python -m gradcheck has come this far and no farther
        sys.exit(message)
    raise ImportError(message, name=error.name) from error

__all__ = [
    "CHECKS",
    "REAL",
    "UNIT",
    "Draw",
    "Error",
    "Input",
    "Pin",
    "Report",
    "Result",
    "Settings",
    "Spec",
    "audit",
    "check",
    "reduce",
]
