"""Every Python block of the README runs, and shows what it says."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import torch

README = Path(__file__).parents[1] / "README.md"


def test_code_blocks(capsys: Any) -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    torch.manual_seed(0)
    for block in blocks:
        if ">>>" not in block:
            exec(block, names)
            continue
        test = doctest.DocTestParser().get_doctest(block, names, "README", str(README), 0)
        assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
        names.update(test.globs)
    printed = capsys.readouterr().out
    assert "FAIL SmoothL1 / definition" in printed
    assert "is the 1/N of a mean missing?" in printed


def test_first_block_is_the_two_commands() -> None:
    first = re.search(r"```sh\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert first is not None
    assert first.group(1).splitlines() == ["python3 dev.py demo", "python3 dev.py test"]
