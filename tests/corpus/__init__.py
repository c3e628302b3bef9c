"""Functions that the auditor must pass, and functions that it must not."""
