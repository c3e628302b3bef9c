"""The notebook matches its generator and the chapter, and its outputs are what its code computes."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
STORED = json.loads((FOLDER / "softmax_cross_entropy.ipynb").read_text(encoding="utf-8"))


@pytest.fixture
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", FOLDER / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(cell: Any) -> list[str]:
    """What a cell prints, joined, and the other outputs except pictures."""
    printed = "".join("".join(out["text"]) for out in cell["outputs"] if "text" in out)
    return [printed, *("".join(out["data"]["text/plain"]) for out in cell["outputs"] if "data" in out)]


def test_sources_are_those_of_the_chapter(generate: ModuleType) -> None:
    stored = [(cell["cell_type"], "".join(cell["source"])) for cell in STORED["cells"]]
    assert stored == [(kind, source.strip()) for kind, source in generate.cells()]


def test_code_belongs_to_one_equation(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for fragment, count in ((r"\ell", "in [2-9]"), ("no equation has this", "in 0")):
        monkeypatch.setitem(generate.CODE, fragment, "1 + 1")
        with pytest.raises(ValueError, match=count):
            list(generate.cells())
        monkeypatch.delitem(generate.CODE, fragment)


def test_markdown(generate: ModuleType) -> None:
    text = "**A** :math:`x_1` of ``b``, :func:`~c.d`; `e <https://f>`_"
    assert generate.markdown(text) == "**A** $x_1$ of `b`, `c.d`; [e](https://f)"


def test_every_cell_was_run_and_nothing_is_told_of_the_machine() -> None:
    code = [cell for cell in STORED["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    assert {out["output_type"] for cell in code for out in cell["outputs"]} == {
        "stream", "execute_result", "display_data",
    }  # fmt: skip
    assert all(cell["metadata"] == {} for cell in STORED["cells"])
    assert {*STORED["metadata"]} == {"kernelspec", "language_info"}
    told = "\n".join(["".join(cell["source"]) for cell in STORED["cells"]] + [t for cell in code for t in texts(cell)])
    assert not re.search(r"(?<![\w:])/(home|root|tmp|usr|opt|Users|work)/|site-packages|\d+\.\d+\.\d+\.\d+", told)
    assert (FOLDER / "softmax_cross_entropy.ipynb").stat().st_size < 200_000


def test_outputs_are_what_the_code_computes(generate: ModuleType) -> None:
    pytest.importorskip("nbclient", reason="running the notebook needs nbclient")
    pytest.importorskip("ipykernel", reason="running the notebook needs ipykernel")
    pytest.importorskip("matplotlib", reason="the notebook's plot needs matplotlib")
    made = generate.execute(generate.build())
    for new, stored in zip(made.cells, STORED["cells"], strict=True):
        if new.cell_type == "code":
            assert texts(new) == texts(stored)
