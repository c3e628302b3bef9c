"""Every Python block of the README runs and prints what the README shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import snippets

README = Path(__file__).parents[1] / "README.md"


def test_code_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    assert snippets.run(README) == 7
    printed = capsys.readouterr().out
    assert "FAIL SmoothL1 / definition" in printed
    assert "is the 1/N of a mean missing?" in printed


def test_first_block_is_the_two_commands() -> None:
    first = re.search(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert first is not None
    assert first.group(1).splitlines() == ["python3 dev.py demo", "python3 dev.py test"]
