"""Losses of two or three feature vectors."""
