"""Plants mistakes in the rules, the engine and the kernels, one at a time, and counts those that nobody notices.

    python tests/mutate.py                             600 mistakes, of all kinds
    python tests/mutate.py --count 50 --kind rules     some
    python tests/mutate.py huber_loss cross_entropy    in the files of these losses
    python tests/mutate.py --seed 1 --jobs 2           others, two at a time

A mistake in Python (rules, engine, Triton) changes one node of the syntax tree: an operator, a comparison, a sign, a
number, the order of two arguments. In C++ it changes a token. Each is made in a copy of the tree, where gradcheck
audits the losses that the file belongs to (the Triton kernels in Triton's interpreter): quickly, and in full if that
finds nothing; then the file's own tests run. What survives is printed as in a diff. It is equivalent, or a check is
missing. ``tests/equivalent.txt`` lists those that are known to be equivalent, and why.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkProcess as Process
from pathlib import Path
from typing import Any

import torch

from gradcheck.checks import CHECKS
from gradcheck.compare import Result
from gradcheck.run import audit
from gradcheck.spec import Settings

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
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
SECONDS = 120  # of a processor, for a quick audit; a mistake that makes it loop is noticed
SLOW = ("oracle", "equations", "second", "forward", "layout", "transforms")
# tests of what gradcheck does not see, by kind and by file, besides those named like the file or its losses
BESIDES = {"rules": ("api", "sharding"), "engine": ("engine",), "cpu": ("kernels",), "triton": ()}
OF_FILE = {"linear_cross_entropy": ("cross_entropy_head",), "linear": ("linear_cross_entropy", "linear_log_prob"),
           "parts": ("sharding", "contrastive_sharded"), "collectives": ("sharding",)}  # fmt: skip
# what shows a kernel's mistakes; on a GPU, a kernel need not refuse what is outside of the domain
IN_INTERPRETER = ("kinks", "definition", "parity", "oracle")


@dataclass(frozen=True)
class Mutant:
    """One mistake: a part of a file's text, as bytes because ``ast`` counts those, and what takes its place."""

    kind: str
    file: Path
    start: int
    end: int
    wrong: str

    @property
    def name(self) -> str:
        return str(self.file.relative_to(ROOT))

    @property
    def text(self) -> str:
        source = self.file.read_bytes()
        return (source[: self.start] + self.wrong.encode() + source[self.end :]).decode()

    @property
    def lines(self) -> tuple[str, str]:
        """The lines concerned, right and wrong."""
        source = self.file.read_bytes()
        first = source.rfind(b"\n", 0, self.start) + 1
        last = source.find(b"\n", self.end)
        wrong = source[first : self.start] + self.wrong.encode() + source[self.end : last]
        right, wrong = (" ".join(lines.decode().split()) for lines in (source[first:last], wrong))
        return right, wrong

    @property
    def number(self) -> int:
        return self.file.read_bytes().count(b"\n", 0, self.start) + 1


def of_python(kind: str, file: Path) -> Iterator[Mutant]:
    source = file.read_bytes()
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    left_out = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    left_out |= {id(m) for n in ast.walk(tree) for a in _annotations(n) for m in ast.walk(a)}
    nodes: list[Any] = [n for n in ast.walk(tree) if hasattr(n, "lineno") and id(n) not in left_out]
    for node in nodes:
        for change in changes(node):
            wrong = copy.deepcopy(node)
            change(wrong)
            text = ast.unparse(wrong)
            compound = isinstance(wrong, (ast.BinOp, ast.BoolOp, ast.Compare, ast.UnaryOp, ast.IfExp))
            start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
            yield Mutant(kind, file, start, end, f"({text})" if compound else text)


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    for name in ("annotation", "returns"):
        value = getattr(node, name, None)
        if value is not None:
            yield value


def changes(node: Any) -> Iterator[Callable[[Any], None]]:
    """What can be wrong with a node: functions that spoil it in place."""
    if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in OPERATORS:
        yield lambda n: setattr(n, "op", OPERATORS[type(n.op)]())
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Sub, ast.Div)):
        yield lambda n: n.__dict__.update(left=n.right, right=n.left)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        yield lambda n: n.ops.__setitem__(0, OPERATORS[type(n.ops[0])]())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda n: setattr(n, "op", ast.UAdd())
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        yield lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.Call) and len(node.args) == 2:
        yield lambda n: n.args.reverse()
    if isinstance(node, ast.IfExp):
        yield lambda n: n.__dict__.update(body=n.orelse, orelse=n.body)
    if isinstance(node, ast.AugAssign):
        yield lambda n: setattr(n, "value", ast.Constant(0))


def of_tokens(kind: str, file: Path) -> Iterator[Mutant]:
    start = 0
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        code = line.partition("//")[0]
        if code.startswith("  ") and not any(word in code for word in ('"', "throw", "#", "template")):
            for token, other in TOKENS.items():
                for found in re.finditer(re.escape(token), code):
                    at = start + len(code[: found.start()].encode())
                    yield Mutant(kind, file, at, at + len(token), other)
        start += len(line.encode())


def equivalent() -> dict[tuple[str, str, str], str]:
    """(file, right, wrong) -> why the wrong line does the same."""
    found: dict[tuple[str, str, str], str] = {}
    for block in EQUIVALENT.read_text(encoding="utf-8").split("\n\n"):
        head, _, rest = block.partition("\n- ")
        right, _, rest = rest.partition("\n+ ")
        wrong, _, reason = rest.partition("\n")
        if reason:
            found[head.strip(), right.strip(), wrong.strip()] = " ".join(reason.split())
    return found


def losses_of(file: Path) -> list[str]:
    """The losses that a mistake in the file should show in."""
    from manual_grad.catalogue import FAMILIES, LOSSES, of_family

    special = {
        "class_margin": ["multi_margin_loss", "multilabel_margin_loss"], "cosine": ["cosine_embedding_loss"],
        "triplet": ["triplet_margin_loss"], "reduction": ["mse_loss", "l1_loss"],
        "softmax": ["cross_entropy", "linear_cross_entropy"], "log_prob": ["selected_log_prob", "cross_entropy_head"],
        "divergence": ["distillation_loss", "topk_distillation_loss"],
        # of what others build on, their losses too
        "selected_log_prob": ["selected_log_prob", "cross_entropy_head"],
        "linear_log_prob": ["linear_log_prob", "linear_cross_entropy_head"],
        "elementary": ["sigmoid_focal_loss", "tweedie_loss", "asymmetric_loss"],
    }  # fmt: skip
    if file.stem in special:
        return special[file.stem]
    if file.stem in {loss.name for loss in LOSSES}:
        return [file.stem]
    if file.stem in FAMILIES:
        return [loss.name for loss in of_family(file.stem)][:6]
    return ["huber_loss", "cross_entropy", "gaussian_nll_loss", "cosine_embedding_loss", "ctc_loss", "nll_loss"]


def _audit(mutant: Mutant, tree: Path) -> None:
    """In a process of its own, a fork of one that has imported torch and gradcheck, and nothing of the losses."""
    sys.stdout = sys.stderr = _log(tree).open("w", encoding="utf-8")
    sys.dont_write_bytecode = True  # of two mistakes within a second, the second would run the first's
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    if mutant.kind == "cpu":
        _build(tree)
    if mutant.kind == "triton":
        sys.path.insert(1, str(ROOT / "tests"))
        import interpreter  # noqa: F401 - selects the Triton kernels, on CPU tensors

    def listen(loss: str, check: str, result: Result | None) -> None:
        if result is not None and not result.ok:
            print(f"{time.perf_counter() - start:.1f} s: {loss}, {check}: {result}")
            sys.exit(1)

    from manual_grad import specs
    from manual_grad.catalogue import BY_NAME

    start = time.perf_counter()
    interpreted = mutant.kind == "triton"
    checks = sorted(IN_INTERPRETER if interpreted else CHECKS, key=lambda check: check in SLOW)
    functions = [specs.load(name) for name in losses_of(mutant.file)]
    for quick in (True,) if interpreted else (True, False):
        seconds = SECONDS * (1 if quick and not interpreted else 8)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, 16 * SECONDS))
        audit(functions, checks, Settings(quick=quick), listen)
        print(f"{time.perf_counter() - start:.1f} s: nothing", flush=True)
    stem = mutant.file.stem
    names = dict.fromkeys((stem, *losses_of(mutant.file), *OF_FILE.get(stem, ()), *BESIDES[mutant.kind]))
    found = [test for test in (f"tests/test_{name}.py" for name in names) if (tree / test).exists()]
    if found:
        import pytest

        loss = BY_NAME.get(stem)
        own = ["-k", " or ".join((loss.name, *loss.modules, *OF_FILE.get(stem, ())))] if loss else []
        rewritten = "ignore::pytest.PytestAssertRewriteWarning"  # not what this process has imported
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", rewritten, *found, *own])
        sys.exit(0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code)


def copies(folder: Path, count: int, built: bool) -> Iterator[Path]:
    """Copies of the tree, with the kernels built, so that a mistake in one takes the compilation of one file."""
    first = folder / "tree-0"
    shutil.copytree(ROOT, first, ignore=shutil.ignore_patterns(".git", ".venv", "docs", "*.egg-info"))
    if built:
        flags = first / "compile_kernels.py"
        # takes half as long, and the audits are small
        flags.write_text(flags.read_text(encoding="utf-8").replace("-O3", "-O0"), encoding="utf-8")
        _build(first)
    yield first
    for number in range(1, count):
        tree = folder / f"tree-{number}"
        shutil.copytree(first, tree)
        if built:
            shutil.copytree(_cache(first), _cache(tree))
        yield tree


def _build(tree: Path) -> None:
    variables = {**os.environ, "XDG_CACHE_HOME": str(_cache(tree))}
    command = [sys.executable, "compile_kernels.py"]
    subprocess.run(command, cwd=tree, env=variables, stdout=sys.stdout, stderr=subprocess.STDOUT, check=True)


def _cache(tree: Path) -> Path:
    return tree.with_suffix(".cache")


def mutants(kinds: Sequence[str], stems: Sequence[str]) -> Iterator[Mutant]:
    for kind in kinds:
        for file in sorted(ROOT.glob(KINDS[kind])):
            if file.stem not in NOT_RULES and (not stems or file.stem in stems):
                yield from (of_tokens if kind == "cpu" else of_python)(kind, file)


def verdicts(chosen: Sequence[Mutant], free: list[Path]) -> Iterator[tuple[Mutant, str]]:
    """What becomes of each, in as many processes as there are free copies of the tree."""
    known = equivalent()
    waiting = list(reversed(chosen))
    running: dict[Any, tuple[Process, Mutant, Path]] = {}  # by what ends with the process
    while waiting or running:
        while waiting and free:
            mutant = waiting.pop()
            reason = known.get((mutant.name, *mutant.lines))
            if reason:
                yield mutant, f"equivalent: {reason}"
                continue
            tree = free.pop()
            (tree / mutant.name).write_text(mutant.text, encoding="utf-8")
            process = multiprocessing.get_context("fork").Process(target=_audit, args=(mutant, tree))
            process.start()
            running[process.sentinel] = process, mutant, tree
        for sentinel in connection.wait(list(running)):
            process, mutant, tree = running.pop(sentinel)
            process.join()
            (tree / mutant.name).write_bytes(mutant.file.read_bytes())
            free.append(tree)
            yield mutant, "survives" if process.exitcode == 0 else f"noticed: {_how(process, tree)}"


def _how(process: Process, tree: Path) -> str:
    if process.exitcode == -signal.SIGXCPU:
        return "takes too long"
    return "".join(_log(tree).read_text(encoding="utf-8").strip().splitlines()[-1:])[:150]


def _log(tree: Path) -> Path:
    return tree.with_suffix(".log")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("losses", nargs="*")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TRITON_INTERPRET"] = "1"  # is read when the next line imports Triton
    importlib.import_module("torch._dynamo")  # takes seconds, and gradcheck needs it in every process
    made = list(mutants(args.kind, args.losses))
    chosen = random.Random(args.seed).sample(made, min(args.count, len(made)))
    first = {m.kind: m.file for m in reversed(made)}  # named losses may have no mistakes of a kind
    controls = [Mutant(kind, file, 0, 0, "") for kind, file in first.items()]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        free = list(copies(Path(folder), args.jobs, "cpu" in args.kind))
        for control, verdict in verdicts(controls, free):
            if verdict != "survives":
                sys.exit(f"{control.name} fails as it is: {verdict}")
        for mutant, verdict in verdicts(chosen, free):
            counts[f"{mutant.kind}, {verdict.partition(':')[0]}"] += 1
            right, wrong = mutant.lines
            print(f"{mutant.name}:{mutant.number}: {verdict}\n- {right}\n+ {wrong}\n", flush=True)
    for what, count in sorted(counts.items()):
        print(f"{what}: {count}")
    print(f"{len(chosen)} mistakes of {len(made)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
