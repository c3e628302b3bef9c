"""Losses of one element of each input."""
