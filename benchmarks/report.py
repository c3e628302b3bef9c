"""Output of results: a table in the terminal, Markdown, JSON and a bar chart."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

import torch

import manual_grad
from benchmarks.check import TOLERANCE
from benchmarks.timing import Result, Timing

ROOT = Path(__file__).parents[1]
OTHERS = ("eager", "compiled")
HEAD = ("loss", "manual_grad", "eager", "compiled", "× eager", "× compiled", "GB/s", "of sweep")
NOTE = (
    "Median times of forward plus backward. × eager and × compiled: how many times faster manual_grad is. GB/s: each "
    "input read once and each gradient written once. The sweep is the yardstick: it makes just these reads and writes, "
    "with torch's own ops and with huge pages requested as the kernels request them. It reads every score, but "
    "nll_loss need not."
)
SUMMARY = ("size", "× eager", "lowest", "× compiled", "lowest")

T = TypeVar("T")


def machine() -> dict[str, str]:
    """A description of what the results depend on."""
    (kernels,) = (line for line in manual_grad.show_config().splitlines() if line.startswith("CPU kernels"))
    return {
        "CPU": _cpu(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "kernels": kernels.removeprefix("CPU kernels").strip(),
        "huge pages": _huge_pages(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "date": date.today().isoformat(),
        "commit": commit(ROOT),
    }


def described(machine: dict[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in machine.items()) + "."


def processor(machine: dict[str, str]) -> str:
    """The name of the processor, without what every processor is called, and the instruction set of the kernels."""
    name = re.sub(r"\((R|TM)\)| (CPU|Processor)\b.*", "", machine["CPU"])
    return f"{name}, {machine['kernels'].split()[0]}"


def commit(folder: Path) -> str:
    """The commit of a checkout and whether its losses were changed since, so that figures of older code can be told."""
    # a folder that is no checkout does not take the commit of a repository around it
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", "-C", folder, *command], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "manual_grad")
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _huge_pages() -> str:
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    return text[text.index("[") + 1 : text.index("]")]


def rows(results: Sequence[Result], quartiles: bool = True) -> list[list[str]]:
    """The rows of one section, for the columns :data:`HEAD`; the last row has the geometric mean speed-ups."""
    table = []
    for r in results:
        if r.red:
            table.append([r.name, f"RED: off by {r.error:.3g} eps, {TOLERANCE:g} allowed", *[""] * (len(HEAD) - 2)])
            continue
        times = [time(r.timings.get(name), quartiles) for name in ("manual_grad", *OTHERS)]
        ratios = [_ratio(r.speedup(other)) for other in OTHERS]
        table.append([r.name, *times, *ratios, f"{r.bandwidth / 1e9:.1f}", f"{r.of_sweep:.0%}"])
    table.append(["geometric mean", "", "", "", *(_ratio(mean_speedup(results, other)) for other in OTHERS), "", ""])
    return table


def mean_speedup(results: Sequence[Result], other: str) -> float | None:
    speedups = [r.speedup(other) for r in results if other in r.timings]
    return statistics.geometric_mean(speedups) if speedups else None


def summary(results: Sequence[Result]) -> list[list[str]]:
    """For each section the geometric means of the speed-ups, and the row where each is lowest: :data:`SUMMARY`."""
    table = []
    for title, some in sections([r for r in results if not r.red]).items():
        cells = [title]
        for other in OTHERS:
            found = {r.name: r.speedup(other) for r in some if other in r.timings}
            lowest = min(found, key=found.__getitem__, default=None)
            cells += [_ratio(mean_speedup(some, other)), f"{lowest} {digits(found[lowest])}" if lowest else ""]
        table.append(cells)
    return table


def _ratio(speedup: float | None) -> str:
    return "" if speedup is None else digits(speedup)


def span(values: Iterable[float]) -> str:
    """The lowest and the highest value; one, if they are the same when rounded."""
    values = sorted(values)
    return "–".join(dict.fromkeys(f"{value:.1f}" for value in (values[0], values[-1])))


def time(timing: Timing | None, quartiles: bool = False) -> str:
    if timing is None:
        return ""
    scale, unit = (1e3, "ms") if timing.median >= 1e-3 else (1e6, "µs")
    spread = f" [{digits(timing.lower * scale)}, {digits(timing.upper * scale)}]" if quartiles else ""
    return f"{digits(timing.median * scale)}{spread} {unit}"


def digits(value: float) -> str:
    """Format with three digits and no exponent."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def sections(results: Sequence[Result]) -> dict[str, list[Result]]:
    return {title: [r for r in results if r.section == title] for title in dict.fromkeys(r.section for r in results)}


def plain(results: Sequence[Result]) -> str:
    """The table of one section."""
    table = [list(HEAD), *rows(results)]
    # in a red row, the sentence in the second cell may extend over the empty cells
    widths = [max(len(row[i]) for row in table if not row[1].startswith("RED")) for i in range(len(HEAD))]
    widths[0] = max(len(row[0]) for row in table)
    lines = (
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in table
    )
    return "\n".join([results[0].section, *(line.rstrip() for line in lines)])


def markdown(results: Sequence[Result], machine: dict[str, str]) -> str:
    """The table of every section."""
    parts = [described(machine)]
    for title, some in sections(results).items():
        parts.append(f"**{title}**")
        lines = [HEAD, ("---", *["---:"] * (len(HEAD) - 1)), *rows(some, quartiles=False)]
        parts.append(grid(lines))
    return "\n\n".join([*parts, NOTE])


def grid(lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_json(results: Sequence[Result], machine: dict[str, str], path: Path) -> None:
    text = json.dumps({"machine": machine, "results": [dataclasses.asdict(r) for r in results]}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> tuple[list[Result], dict[str, str]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    results = []
    for entry in content["results"]:
        entry["shape"] = tuple(entry["shape"])
        entry["timings"] = {
            name: Timing(**{**timing, "runs": tuple(timing.get("runs", ()))})
            for name, timing in entry["timings"].items()
        }
        results.append(Result(**entry))
    return results, content["machine"]


def of_machines(folder: Path, read: Callable[[Path], T]) -> dict[str, T]:
    """What was measured on each machine, by the name of its file."""
    if not (files := sorted(folder.glob("*.json"))):
        raise ValueError(f"{folder} has no results")
    return {file.stem: read(file) for file in files}


def plot(results: Sequence[Result], machine: dict[str, str], path: Path) -> None:
    """Plot the speed-ups as bars, one panel per section; bars to the right of 1 mean that manual_grad is faster."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    shown = sections([r for r in results if not r.red])
    counts = [len(some) for some in shown.values()]
    figure = Figure(figsize=(9, 0.36 * sum(counts) + 0.8 * len(counts) + 0.8), layout="constrained")
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False, height_ratios=counts)[:, 0]
    for ax, (title, some) in zip(panels, shown.items(), strict=True):
        for offset, other, color in zip((-0.2, 0.2), OTHERS, ("#7b3fa0", "#9aa5b1"), strict=True):
            for place, r in enumerate(some):
                if speedup := r.speedup(other):
                    ax.barh(place + offset, speedup - 1, left=1, height=0.36, color=color)
                    ax.text(max(speedup, 1) * 1.03, place + offset, digits(speedup), va="center", fontsize="small")
            ax.barh(0, 0, left=1, color=color, label=f"times faster than torch {other}")
        ax.axvline(1, color="black", linewidth=0.8)
        ax.set(title=title, xscale="log", ylim=(len(some) - 0.4, -0.6))
        ax.set_yticks(range(len(some)), [r.name for r in some])
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
        ax.grid(axis="x", alpha=0.25)
        ax.set_axisbelow(True)
        ax.spines[["left", "top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    figure.suptitle(f"{machine['CPU']}, {machine['threads']} threads, torch {machine['torch']}", fontsize="medium")
    figure.savefig(path, dpi=120)
