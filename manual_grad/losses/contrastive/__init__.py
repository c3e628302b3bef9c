"""Losses of all pairs of two sets of feature vectors."""
