"""The files that are written by a program: ``python -m manual_grad.generate`` writes them anew.

They are committed, so that nobody needs this to install the package; a test compares them with what it writes.
"""
