"""Losses of one row of class scores."""
