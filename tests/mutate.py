"""Plants mistakes in the rules, the engine and the kernels, one at a time, and counts those that nobody notices.

    python tests/mutate.py                             600 mistakes, of all kinds
    python tests/mutate.py --count 50 --kind rules     some
    python tests/mutate.py huber_loss cross_entropy    in the files of these losses
    python tests/mutate.py --seed 1                    others

A mistake in Python (rules, engine, Triton) changes the syntax tree: an operator, a comparison, a sign, a number, the
order of two arguments. In C++ it changes a token. Each is made in a copy of the tree; then ``python -m gradcheck``
audits the losses that the file belongs to (for Triton, the tests in its interpreter). Survivors are printed with their
place: each is equivalent, or a check is missing.
"""

from __future__ import annotations

import argparse
import ast
import functools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KINDS = {
    "rules": "manual_grad/losses/*/*.py",
    "engine": "manual_grad/engine/*.py",
    "cpu": "manual_grad/kernels/cpu/*.cpp",
    "triton": "manual_grad/kernels/triton/*.py",
}
NOT_RULES = ("__init__", "older_torch", "torch_private", "in_graph", "library")
OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}  # fmt: skip
TOKENS = {
    " + ": " - ", " - ": " + ", " * ": " + ", " / ": " * ", " < ": " <= ", " > ": " >= ", " <= ": " < ", " >= ": " > ",
    " == ": " != ", " != ": " == ", " & ": " | ", " | ": " & ", " && ": " || ", " || ": " && ", "T{1}": "T{0}",
    "is_kept": "one", " += ": " = ", "1.0": "2.0", "true": "false", "false": "true",
}  # fmt: skip
SECONDS = 180


@dataclass(frozen=True)
class Mutant:
    """One mistake in a file: ``make`` gives the text with it, and says what has changed."""

    file: Path
    line: int
    what: str
    make: Callable[[], tuple[str, str]]

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.what}"


def of_python(file: Path) -> Iterator[Mutant]:
    source = file.read_text(encoding="utf-8")
    for i, node in enumerate(_nodes(ast.parse(source))):
        for k, (what, _) in enumerate(changes(node)):
            yield Mutant(file, node.lineno, what, functools.partial(_changed, source, i, k))


def _nodes(tree: ast.Module) -> list[Any]:
    """Those with a line, but no docstrings and no annotations."""
    left_out = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    left_out |= {id(m) for n in ast.walk(tree) for a in _annotations(n) for m in ast.walk(a)}
    return [n for n in ast.walk(tree) if hasattr(n, "lineno") and id(n) not in left_out]


def _changed(source: str, i: int, k: int) -> tuple[str, str]:
    tree = ast.parse(source)
    node = _nodes(tree)[i]
    _, change = list(changes(node))[k]
    before = ast.unparse(node)
    change(node)
    ast.fix_missing_locations(tree)
    return ast.unparse(tree), f"{before[:60]!r} -> {ast.unparse(node)[:60]!r}"


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    for name in ("annotation", "returns"):
        value = getattr(node, name, None)
        if value is not None:
            yield value


def changes(node: Any) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """What can be wrong with a node: names, and functions that spoil it in place."""
    if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in OPERATORS:
        other = OPERATORS[type(node.op)]
        yield "operator", lambda n: setattr(n, "op", other())
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Sub, ast.Div)):
        yield "operands swapped", lambda n: n.__dict__.update(left=n.right, right=n.left)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        other = OPERATORS[type(node.ops[0])]
        yield "comparison", lambda n: n.ops.__setitem__(0, other())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", lambda n: setattr(n, "op", ast.UAdd())
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        yield "number", lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.Call) and len(node.args) == 2:
        yield "arguments swapped", lambda n: n.args.reverse()
    if isinstance(node, ast.IfExp):
        yield "branches swapped", lambda n: n.__dict__.update(body=n.orelse, orelse=n.body)
    if isinstance(node, ast.AugAssign):
        yield "not accumulated", lambda n: setattr(n, "value", ast.Constant(0))


def of_tokens(file: Path) -> Iterator[Mutant]:
    lines = file.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines):
        code = line.partition("//")[0]
        if not code.startswith("  ") or '"' in code or "throw" in code or "#" in code or "template" in code:
            continue
        for token, other in TOKENS.items():
            for found in re.finditer(re.escape(token), code):
                spoilt = code[: found.start()] + other + code[found.end() :]
                text = "\n".join([*lines[:number], spoilt, *lines[number + 1 :]])
                made = text, f"{code.strip()!r} -> {spoilt.strip()!r}"
                yield Mutant(file, number + 1, "token", functools.partial(lambda made: made, made))


def losses_of(file: Path) -> list[str]:
    """The losses that a mistake in the file should show in."""
    sys.path.insert(0, str(ROOT))
    from manual_grad.catalogue import FAMILIES, LOSSES, of_family

    names = {loss.name for loss in LOSSES}
    if file.stem in names:
        return [file.stem]
    if file.stem in FAMILIES:
        return [loss.name for loss in of_family(file.stem)][:6]
    special = {
        "class_margin": ["multi_margin_loss", "multilabel_margin_loss"], "cosine": ["cosine_embedding_loss"],
        "triplet": ["triplet_margin_loss"], "softmax": ["cross_entropy", "linear_cross_entropy"],
        "elementary": ["sigmoid_focal_loss", "tweedie_loss", "asymmetric_loss"],
    }  # fmt: skip
    few = ["huber_loss", "cross_entropy", "gaussian_nll_loss", "cosine_embedding_loss", "ctc_loss", "nll_loss"]
    return special.get(file.stem, few)


def caught(mutant: Mutant, text: str, tree: Path, kind: str) -> bool:
    """Whether gradcheck fails on the copy with the mistake, or the copy does not even build or start."""
    place = tree / mutant.file.relative_to(ROOT)
    original = place.read_text(encoding="utf-8")
    place.write_text(text, encoding="utf-8")
    try:
        variables = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        if (
            kind == "cpu"
            and subprocess.run(
                [sys.executable, "compile_kernels.py"], cwd=tree, env=variables, capture_output=True
            ).returncode
        ):
            return True
        if kind == "triton":
            variables |= {"MANUAL_GRAD_KERNELS": "triton", "TRITON_INTERPRET": "1"}
            loss = losses_of(mutant.file)[0]
            command = [sys.executable, "-m", "pytest", "-q", "-x", "tests/in_interpreter.py", "-k", loss]
        else:
            command = [sys.executable, "-m", "gradcheck", "--jobs", "1", *losses_of(mutant.file)]
        try:
            done = subprocess.run(command, cwd=tree, env=variables, capture_output=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return True
        return done.returncode != 0
    finally:
        place.write_text(original, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("losses", nargs="*")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    made: list[tuple[str, Mutant]] = []
    for kind in args.kind:
        of = of_tokens if kind == "cpu" else of_python
        files = [f for f in sorted(ROOT.glob(KINDS[kind])) if f.stem not in NOT_RULES]
        files = [f for f in files if not args.losses or f.stem in args.losses]
        made += [(kind, mutant) for file in files for mutant in of(file)]
    chosen = random.Random(args.seed).sample(made, min(args.count, len(made)))
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "docs", "*.egg-info")
        shutil.copytree(ROOT, tree, ignore=ignored)
        for n, (kind, mutant) in enumerate(chosen, 1):
            text, how = mutant.make()
            if not caught(mutant, text, tree, kind):
                survivors += 1
                print(f"survives: {mutant}: {how}", flush=True)
            elif n % 20 == 0:
                print(f"{n} of {len(chosen)}, {survivors} survive", flush=True)
    print(f"{len(chosen)} mistakes of {len(made)}, {survivors} survive")
    return 0


if __name__ == "__main__":
    sys.exit(main())
