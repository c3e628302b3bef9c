"""Lets torch.compile put the functionals into its graph unchanged.

This module is imported when Dynamo first traces a functional. Importing it with manual_grad would load Dynamo, which
takes longer than everything else together.
"""

import sys

import torch

from manual_grad.engine.arguments import FUNCTIONALS

for functional in FUNCTIONALS:
    torch.compiler.allow_in_graph(functional)

# Dynamo has loaded it, if this torch has it. Looking it up while tracing would make Dynamo guard all of sys.modules.
DTENSOR = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", ())
