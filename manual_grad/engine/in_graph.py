"""Lets torch.compile put the functionals into its graph unchanged.

This module is imported when Dynamo first traces a functional. Importing it with manual_grad would load Dynamo, which
takes longer than everything else together.
"""

import sys
from typing import Any

import torch

from manual_grad.engine.arguments import FUNCTIONALS

for functional in FUNCTIONALS:
    torch.compiler.allow_in_graph(functional)

# Dynamo has loaded it, if this torch has it. Looking it up while tracing would make Dynamo guard all of sys.modules.
_DTENSOR = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", ())


def has_dtensor(values: tuple[Any, ...]) -> bool:
    return any(isinstance(value, _DTENSOR) for value in values)
