"""``python -m manual_grad.generate``: rewrite the generated files; with ``--check``, only list those that differ."""

from __future__ import annotations

import sys
from pathlib import Path

from manual_grad.catalogue import LOSSES, Loss
from manual_grad.engine.pointwise import PointwiseLoss
from manual_grad.generate import cpp, exports, triton

ROOT = Path(__file__).parents[1]
IN_CPP, IN_TRITON = ROOT / "kernels/cpu/generated", ROOT / "kernels/triton/generated"


def files() -> dict[Path, str]:
    """The contents of each generated file."""
    catalogue = ROOT / "catalogue.py"
    found = {
        ROOT / "functional.py": _marked("#", exports.functional(), catalogue),
        ROOT / "modules.py": _marked("#", exports.modules(), catalogue),
    }
    names = []
    for loss in LOSSES:
        rule = rule_of(loss)
        if rule is not None:
            names.append(loss.name)
            found[IN_CPP / f"{loss.name}.cpp"] = _marked("//", cpp.source(loss.name, rule), loss.file)
            found[IN_TRITON / f"{loss.name}.py"] = _marked("#", triton.source(loss.name, rule), loss.file)
    found[IN_TRITON / "__init__.py"] = _marked("#", triton.table(names), catalogue)
    return found


def rule_of(loss: Loss) -> type[PointwiseLoss] | None:
    """The pointwise Function of the loss, if its kernels are generated."""
    for value in vars(loss.module).values():
        if isinstance(value, type) and issubclass(value, PointwiseLoss) and value.kernel == loss.name:
            return None if value.by_hand else value
    return None


def _marked(mark: str, text: str, origin: Path) -> str:
    return f"{mark} Written by python -m manual_grad.generate from {origin.relative_to(ROOT)}.\n{text}"


def main(*arguments: str) -> int:
    if arguments not in ((), ("--check",)):
        print(__doc__, file=sys.stderr)
        return 2
    wanted = files()
    left = [path for folder in (IN_CPP, IN_TRITON) for path in folder.glob("*.*") if path not in wanted]
    different = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in (*different, *left):
        print(path.relative_to(ROOT.parent))
        if arguments:
            continue
        if path in wanted:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
    return int(bool(arguments and (different or left)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
