"""Every block of the guides runs, and shows what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

import snippets

GUIDES = sorted((Path(__file__).parents[1] / "docs" / "guides").glob("*.md"))


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_every_block_shows_what_it_says(path: Path) -> None:
    assert snippets.run(path) >= 8


REPORT = "FAIL 2  0.66\n<BLANKLINE>\n...\n98 comparisons in 1.9 s: 6 failed (errors in eps)\n"


@pytest.mark.parametrize(
    ("shown", "same"),
    [
        ("FAIL 2    0.41\n\nnote: none\n108 comparisons in 0.4 s: 6 failed (errors in eps)\n", True),
        ("FAIL 2  6.7\n\nnote: none\n98 comparisons in 1.9 s: 6 failed (errors in eps)\n", False),
        ("FAIL 2  ok\n\nnote: none\n98 comparisons in 1.9 s: 6 failed (errors in eps)\n", False),
        ("FAIL 2  0.66\n\n98 comparisons in 1.9 s: all passed (errors in eps)\n", False),
    ],
)
def test_how_reports_are_compared(shown: str, same: bool) -> None:
    assert snippets.Checker().check_output(REPORT, shown, 0) is same


def test_a_wrong_output_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "guide.md"
    path.write_text("```python\nx = 1\n```\n\n```python\n>>> x + 1\n3\n```\n")
    with pytest.raises(AssertionError, match=r"Expected:\n    3\nGot:\n    2"):
        snippets.run(path)
