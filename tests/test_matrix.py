"""The cheap parts of tests/matrix.py: its rows, and the check most sensitive to the machine, in several of them."""

from __future__ import annotations

import os
import subprocess
import sys

import matrix

AT_ONCE = ("capability-default", "threads-5", "mkl-COMPATIBLE", "onednn-SSE41", "locale-C")


def test_every_row_is_listed_with_what_it_is_or_why_it_is_missing() -> None:
    command = [sys.executable, "tests/matrix.py", "--list"]
    lines = subprocess.run(command, cwd=matrix.ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [name for name, _ in matrix.rows()]
    assert all(len(line.split()) > 1 for line in lines[1:])  # the first row sets no variables


def test_parity_under_many_variables() -> None:
    rows = dict(matrix.rows())
    variables = {k: v for name in AT_ONCE for k, v in rows[name].variables.items()}
    command = [sys.executable, "-m", "gradcheck", *matrix.QUICK_AUDIT, "--jobs", "1", "--check", "parity"]
    done = subprocess.run(command, cwd=matrix.ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
