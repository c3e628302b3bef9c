"""Every code block of the guides runs and prints what the guide shows."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import manual_grad
import manual_grad.functional
import snippets
from manual_grad.catalogue import LOSSES
from manual_grad.study import texts

GUIDES = sorted(texts.GUIDES.glob("*.md"))
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


SHARED = {"input", "target", "reduction", "size_average", "reduce", "device", "dtype"}
PARAMETERS = {  # of each of torch's losses, by its heading in the guide
    found.__name__: [name for name in inspect.signature(found).parameters if name not in SHARED]
    for found in (
        getattr(manual_grad.functional, loss.name) if loss.functional else getattr(manual_grad, loss.modules[0])
        for loss in LOSSES
        if loss.torch
    )
}


def _undocumented(guide: str) -> list[str]:
    """The parameters that the section of their loss names neither in backticks nor in a call."""
    _, *sections = re.split(r"^#{2,3} (.+)\n", guide, flags=re.MULTILINE)
    section = dict(zip(sections[::2], sections[1::2], strict=True))
    return [
        f"{loss}: {name}"
        for loss, names in PARAMETERS.items()
        for name in names
        if not re.search(rf"`{name}`|[(, ]{name}=(?!=)", section.get(loss, ""))
    ]


def test_every_parameter_of_torchs_losses_is_documented() -> None:
    assert len(PARAMETERS) == 23
    assert _undocumented((texts.GUIDES / "torch-losses.md").read_text(encoding="utf-8")) == []


def test_a_parameter_without_documentation_is_found() -> None:
    guide = (texts.GUIDES / "torch-losses.md").read_text(encoding="utf-8")
    for loss, names in PARAMETERS.items():
        before, heading, rest = guide.partition(f"### {loss}\n")
        section, *after = re.split(r"^(?=#)", rest, maxsplit=1, flags=re.MULTILINE)
        for name in names:
            without = re.sub(rf"\b{name}\b", "another", section)
            assert _undocumented("".join((before, heading, without, *after))) == [f"{loss}: {name}"]
