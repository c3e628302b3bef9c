"""One spec for each loss, in a file of the loss' name."""

from __future__ import annotations

import importlib
from pathlib import Path

from gradcheck.spec import Spec

NAMES = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__"))


def load(name: str) -> Spec:
    return importlib.import_module(f"{__name__}.{name}").SPEC
