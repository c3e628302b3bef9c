"""The checks, one question each, in the order in which a reader wants the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gradcheck.checks import (
    claims,
    definition,
    differences,
    equations,
    forward,
    kinks,
    layout,
    modules,
    oracle,
    parity,
    purity,
    second,
    transforms,
)
from gradcheck.compare import Result
from gradcheck.spec import Settings, Spec

Check = Callable[[Spec, Settings], Iterator[Result]]

CHECKS: dict[str, Check] = {
    "purity": purity.check,
    "definition": definition.check,
    "differences": differences.check,
    "oracle": oracle.check,
    "equations": equations.check,
    "kinks": kinks.check,
    "second": second.check,
    "forward": forward.check,
    "claims": claims.check,
    "layout": layout.check,
    "transforms": transforms.check,
    "parity": parity.check,
    "modules": modules.check,
}
