"""Every code block of the guides runs and prints what the guide shows."""

from __future__ import annotations

from pathlib import Path

import pytest

import snippets

GUIDES = sorted((Path(__file__).parents[1] / "docs" / "guides").glob("*.md"))
OF_PROGRAMS = "transformers-and-trl"


@pytest.mark.parametrize("path", [path for path in GUIDES if path.stem != OF_PROGRAMS], ids=lambda path: path.stem)
def test_every_block_shows_what_it_says(path: Path) -> None:
    assert snippets.run(path) >= 6


@pytest.mark.filterwarnings("ignore")  # the programs' own
def test_every_block_on_programs_shows_what_it_says() -> None:
    for program in ("transformers", "trl"):
        pytest.importorskip(program, reason=f"{program} is not installed: pip install transformers trl")
    (path,) = (path for path in GUIDES if path.stem == OF_PROGRAMS)
    assert snippets.run(path) >= 6


REPORT = """\
loss  definition  kinks  layout
mine  FAIL 2      0.66   ok
<BLANKLINE>
FAIL mine / definition at random: value: 4.5e+15 eps, allowed 256; at [1, 1]: got 0.5, expected 2; it is 0.25 times the
...
1 functions, 3 checks, 98 comparisons in 1.9 s: 6 failed (errors in eps)
"""
ELSEWHERE = """\
loss  definition  kinks  layout
mine  FAIL 11     ok     1.2e-05

FAIL mine / definition at random: value: 4.1e+15 eps, allowed 256; at [0, 2]: got -1, expected -4; it is 0.25 times the
FAIL mine / definition at random: gradient of x
note oracle: none is given
1 functions, 3 checks, 108 comparisons in 0.4 s: 16 failed (errors in eps)
"""


@pytest.mark.parametrize(
    ("was", "becomes", "same"),
    [
        ("", "", True),
        ("FAIL 11 ", "1.3     ", False),
        ("ok     1", "FAIL 1 1", False),
        ("1.2e-05\n", "FAIL 2\n", False),
        ("0.25 times", "transposed", False),
        ("16 failed", "all passed", False),
        ("mine / definition", "mine / kinks", False),
    ],
)
def test_how_reports_are_compared(was: str, becomes: str, same: bool) -> None:
    assert was in ELSEWHERE
    assert snippets.Checker().check_output(REPORT, ELSEWHERE.replace(was, becomes), 0) is same


def test_a_wrong_output_is_caught(tmp_path: Path) -> None:
    path = tmp_path / "guide.md"
    path.write_text("```python\nx = 1\n```\n\n```python\n>>> x + 1\n3\n```\n")
    with pytest.raises(AssertionError, match=r"Expected:\n    3\nGot:\n    2"):
        snippets.run(path)
