"""Losses of a projection, then rows of class scores."""
