"""Lets torch.compile put the functionals into its graph unchanged.

This module is imported when Dynamo first traces a functional. Importing it with manual_grad would load Dynamo, which
takes longer than everything else together.
"""

import torch

from manual_grad.engine.arguments import FUNCTIONALS

for functional in FUNCTIONALS:
    torch.compiler.allow_in_graph(functional)
