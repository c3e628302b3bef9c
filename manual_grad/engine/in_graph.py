"""Lets torch.compile put the functionals into its graph as they are.

Dynamo imports this module when it traces a functional for the first time: at the import of manual_grad it would load
Dynamo itself, which takes longer than everything else together.
"""

import torch

from manual_grad.engine.arguments import FUNCTIONALS

for functional in FUNCTIONALS:
    torch.compiler.allow_in_graph(functional)
