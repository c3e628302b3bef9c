"""``python -m manual_grad.generate``: write the generated files anew; with ``--check`` only say which differ."""

from __future__ import annotations

import sys
from pathlib import Path

from manual_grad.generate import exports

ROOT = Path(__file__).parents[1]


def files() -> dict[Path, str]:
    """What each generated file is to hold."""
    return {ROOT / "functional.py": _marked(exports.functional()), ROOT / "modules.py": _marked(exports.modules())}


def _marked(text: str) -> str:
    return f"# Written by python -m manual_grad.generate from catalogue.py.\n{text}"


def main(*arguments: str) -> int:
    if arguments not in ((), ("--check",)):
        print(__doc__, file=sys.stderr)
        return 2
    different = [path for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in different:
        print(path.relative_to(ROOT.parent))
        if not arguments:
            path.parent.mkdir(exist_ok=True)
            path.write_text(files()[path], encoding="utf-8")
    return int(bool(arguments and different))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
