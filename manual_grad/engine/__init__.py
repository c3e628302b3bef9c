"""Code shared by all losses: automatic differentiation, dtypes, reductions, argument checks, the families."""
