"""The generator of source files: ``python -m manual_grad.generate`` rewrites them.

The generated files are committed, so that installing the package does not need this. A test checks that they are up to
date.
"""
