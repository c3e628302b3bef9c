"""What every loss shares: automatic differentiation, dtypes, reductions, argument checks, the families."""
