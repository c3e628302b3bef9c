"""Elementwise losses."""
