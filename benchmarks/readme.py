"""``python -m benchmarks.readme``: update the tables in the README from the committed results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any

from benchmarks import contrastive, heads, report, sharded
from benchmarks.timing import Result
from gradcheck.families import FAMILIES
from gradcheck.spec import Spec
from manual_grad import specs
from manual_grad.catalogue import BY_NAME

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ERRORS = ROOT / "benchmarks/results/errors.json"
TIMES = ROOT / "benchmarks/results/cpu"  # of each machine a file, as in the next folders
SCALING = ROOT / "benchmarks/results/scaling"
BOUNDS = ROOT / "benchmarks/results/bounds"
HEADS = ROOT / "benchmarks/results/heads.json"
CONTRASTIVE = ROOT / "benchmarks/results/contrastive.json"
SHARDED = ROOT / "benchmarks/results/sharded.json"

HEAD = ("loss", "family", "kernel", "order", "transforms", "value", "torch's", "gradient", "torch's", "× eager")
NOTE = (
    "Kernel: its name, or yes if it is named after the loss. Order: the highest derivative that is checked. Bold: "
    "torch's own function cannot do this. Value and gradient: the worst float32 error of the loss and of any component "
    "of a gradient, over every regime of its spec, in eps, against exact arithmetic; at 8.4e6 no digit is correct. × "
    "eager: the speed-up of forward plus backward over torch's function, at the large size; the range is that over "
    "variants and machines."
)


def update(text: str) -> str:
    """The text, with every table between its markers regenerated."""
    for name, table in TABLES.items():
        before, after = rf"<!-- {name}: [^\n]* -->\n", f"\n<!-- /{name} -->"
        parts = re.split(f"({before})(.*?)({after})", text, flags=re.DOTALL)
        if len(parts) != 5:
            raise ValueError(f"the README needs one place for the table {name!r}, it has {len(parts) // 4}")
        parts[2] = table()
        text = "".join(parts)
    return text


def times() -> dict[str, tuple[list[Result], dict[str, str]]]:
    return report.of_machines(TIMES, report.read_json)


def losses() -> str:
    """The table of losses: a row for each spec, by family."""
    errors = json.loads(ERRORS.read_text(encoding="utf-8"))["losses"]
    machines = times()
    order = list(FAMILIES)
    lines = [HEAD, ("---", "---", "---", "---:", "---", *["---:"] * 5)]
    for spec in sorted(map(specs.load, specs.NAMES), key=lambda spec: (order.index(spec.family), spec.name)):
        timed = {name: [r for r in results if r.loss == spec.name] for name, (results, _) in machines.items()}
        if spec.name not in errors:
            raise ValueError(f"{ERRORS} lacks {spec.name}: run python -m benchmarks.accuracy")
        for name, results in timed.items():
            if not results and BY_NAME[spec.name].peer:
                file = TIMES / f"{name}.json"
                raise ValueError(f"{file} lacks {spec.name}: run python -m benchmarks --runs 5 --json {file}")
        lines.append(row(spec, errors[spec.name], [r for results in timed.values() for r in results]))
    return f"{report.grid(lines)}\n\n{NOTE}"


def row(spec: Spec, known: dict[str, Any], results: Sequence[Result]) -> tuple[str, ...]:
    def ours(text: str, ability: str) -> str:
        return text if known["torch"] is None or ability in known["torch"] else f"**{text}**"

    speedups = [r.speedup("eager") for r in results if r.section == "large" and not r.red]
    return (
        f"`{spec.name}`",
        spec.family,
        ", ".join("yes" if name == spec.name else f"`{name}`" for name in known["kernels"]) or "no",
        ours(str(spec.order), "second"),
        ", ".join(ours(name, name) for name in ("forward", "vmap", "compile") if name in spec.promises),
        *(eps(known[what][whose]) for what in ("value", "gradient") for whose in ("error", "torch")),
        report.span(speedups) if speedups else "–",
    )


def eps(error: float | str | None) -> str:
    if error is None:
        return "–"
    size = float(error)
    if size < 1000:
        return f"{size:.0f}" if size >= 100 else f"{size:.2g}"
    return "∞" if size == inf else f"{size:.1e}".replace("e+0", "e").replace("e+", "e")


def speed() -> str:
    """A short table for each machine."""
    head = [report.SUMMARY, ("---", *["---:"] * (len(report.SUMMARY) - 1))]
    return "\n\n".join(
        f"{report.described(machine)}\n\n{report.grid([*head, *report.summary(results)])}"
        for results, machine in times().values()
    )


TABLES: dict[str, Callable[[], str]] = {
    "losses": losses,
    "benchmarks": speed,
    "heads": lambda: heads.table(*heads.read_json(HEADS)),
    "contrastive": lambda: contrastive.table(*contrastive.read_json(CONTRASTIVE)),
    "sharded": lambda: sharded.summary(*sharded.read_json(SHARDED)),
}

if __name__ == "__main__":
    README.write_text(update(README.read_text(encoding="utf-8")), encoding="utf-8")
