"""The specs of the losses of all pairs of two sets of feature vectors."""
