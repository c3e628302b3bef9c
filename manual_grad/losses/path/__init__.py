"""Losses of a lattice of alignments."""
