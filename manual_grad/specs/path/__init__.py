"""The specs of the losses of a lattice of alignments."""
