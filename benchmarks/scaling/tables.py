"""The answers as Markdown tables and as JSON. Some tables combine several questions that cover every loss."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import digits
from benchmarks.scaling.questions import NOTHING, OVERHEAD, Row, numel
from benchmarks.timing import Timing

Answers = dict[str, list[Row]]  # by question
NONE = "–"


def markdown(answers: Answers, machine: dict[str, str]) -> str:
    parts = [report.described(machine)]
    for questions, title, table in TABLES:
        if any(answers.get(question) for question in questions):
            parts += [f"**{title}**", report.grid(table(answers))]
    return "\n\n".join(parts)


def by_elements(answers: Answers) -> list[list[str]]:
    settings = list(answers["size"][0].timings)
    return _per_element(answers["size"], [power_of_two(int(n)) for n in settings])


def by_classes(answers: Answers) -> list[list[str]]:
    settings = list(answers["classes"][0].timings)
    return _per_element(answers["classes"], [f"{int(shape.split('×')[1]):,}" for shape in settings])


def _per_element(rows: Sequence[Row], settings: Sequence[str]) -> list[list[str]]:
    body = []
    for row in rows:
        times = [timing.median / numel(shape) * 1e9 for shape, timing in row.timings.items()]
        body.append([row.name, row.by, *map(digits, times), digits(max(times) / min(times))])
    return _with_head(("loss", "", *settings, "max / min"), body, left=2)


def by_threads(answers: Answers) -> list[list[str]]:
    body = []
    for row in answers["threads"]:
        one, *more = row.timings.values()
        body.append([row.name, *(report.time(t) for t in (one, *more)), *(digits(one.median / t.median) for t in more)])
    _, *more = answers["threads"][0].timings
    return _with_head(("loss", "1 thread", *(f"{n} threads" for n in more), *("speed-up" for _ in more)), body)


def by_loss(answers: Answers) -> list[list[str]]:
    """The ratios for dtype, upstream gradient and memory of every loss, beside torch's."""
    columns = [
        _ratios(answers.get("dtype", []), "manual_grad", "bfloat16", "float32"),
        _ratios(answers.get("dtype", []), "eager", "bfloat16", "float32"),
        _ratios(answers.get("dtype", []), "manual_grad", "float16", "float32"),
        _ratios(answers.get("upstream", []), "manual_grad", "0.5", "1"),
        _ratios(answers.get("memory", []), "manual_grad", "peak", "gradients"),
        _ratios(answers.get("memory", []), "eager", "peak", "gradients"),
    ]
    names = dict.fromkeys(name for column in columns for name in column)
    body = [[name, *(digits(column[name]) if name in column else NONE for column in columns)] for name in names]
    means = [digits(statistics.geometric_mean(column.values())) if column else NONE for column in columns]
    head = ("loss", "bfloat16", "torch's", "float16", "upstream 0.5", "memory", "torch's")
    return _with_head(head, [*body, ["geometric mean", *means]])


def _ratios(rows: Sequence[Row], by: str, one: str, other: str) -> dict[str, float]:
    found = {}
    for row in rows:
        figures: dict[str, float] = {**row.bytes, **{setting: timing.median for setting, timing in row.timings.items()}}
        if row.by == by and one in figures and other in figures:
            found[row.name] = figures[one] / figures[other]
    return found


def by_sweeps(answers: Answers) -> list[list[str]]:
    body = []
    for row in answers["sweeps"]:
        one, two = row.timings["one"], row.timings["two"]
        held = [megabytes(row.bytes[n]) for n in ("one", "two")]
        body.append([row.name, report.time(one), report.time(two), digits(two.median / one.median), *held])
    return _with_head(("loss", "one sweep", "two", "two / one", "one holds", "two hold"), body)


def by_allocator(answers: Answers) -> list[list[str]]:
    body: dict[str, list[str]] = {}
    for row in answers["allocator"]:
        fresh, kept = row.timings["returned"], row.timings["kept"]
        cells = (report.time(fresh), report.time(kept), digits(fresh.median / kept.median))
        body.setdefault(row.name, [row.name]).extend(cells)
    return _with_head(
        ("loss", "fresh", "kept", "fresh / kept", "torch's fresh", "kept", "fresh / kept"), [*body.values()]
    )


def by_projection(answers: Answers) -> list[list[str]]:
    beyond: dict[str, dict[str, int]] = {}
    for row in answers["projection"]:
        beyond.setdefault(row.name, {})[row.by] = row.bytes["peak"] - row.bytes["gradients"]
    body = []
    for shape, by in beyond.items():
        rows, _, classes = map(int, shape.split("×"))
        body.append([shape, *map(megabytes, (rows * classes * 4, by["manual_grad"], by["eager"]))])
    return _with_head(("rows×features×classes", "scores", "manual_grad", "eager"), body)


def by_overhead(answers: Answers) -> list[list[str]]:
    times = {(row.name, row.by): row.timings for row in answers["overhead"]}
    parts = [("manual_grad", part) for part in ("kernel", "Function", "forward", "backward")]
    parts += [("eager", part) for part in ("forward", "backward")]
    body = [[name, *(report.time(times[name, by].get(part)) or NONE for by, part in parts)]
            for name in (NOTHING, *OVERHEAD)]  # fmt: skip
    return _with_head(("", "kernel", "Function", "forward", "and backward", "torch's forward", "and backward"), body)


TABLES: tuple[tuple[tuple[str, ...], str, Callable[[Answers], list[list[str]]]], ...] = (
    (("size",), "Nanoseconds per element, by number of elements", by_elements),
    (("classes",), "Nanoseconds per score, by number of classes", by_classes),
    (
        ("threads",),
        "Threads, at a million elements: all data fits into the cache, so arithmetic is the limit",
        by_threads,
    ),
    (
        ("dtype", "upstream", "memory"),
        "Time in a half dtype relative to float32; time with an upstream gradient of 0.5 relative to 1; peak memory "
        "beyond the inputs, in multiples of the gradients' size",
        by_loss,
    ),
    (
        ("sweeps",),
        "Gradient computed in the same sweep as the loss, or in a second one; memory held from forward to backward",
        by_sweeps,
    ),
    (("allocator",), "Memory that malloc returns to the system at once, or keeps for the next call", by_allocator),
    (("projection",), "linear_cross_entropy: peak memory beyond inputs and gradients", by_projection),
    (
        ("overhead",),
        "A small call by its parts, each with those before; nothing is an empty Function, and of torch a view",
        by_overhead,
    ),
)


def _with_head(head: Sequence[str], body: list[list[str]], left: int = 1) -> list[list[str]]:
    return [list(head), [*["---"] * left, *["---:"] * (len(head) - left)], *body]


def power_of_two(n: int) -> str:
    return "2" + str(n.bit_length() - 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def megabytes(size: int) -> str:
    return f"{digits(size / 1e6)} MB" if size >= 1e4 else f"{size} B"


def write_json(answers: Answers, machine: dict[str, str], path: Path) -> None:
    content = {question: [dataclasses.asdict(row) for row in rows] for question, rows in answers.items()}
    path.write_text(json.dumps({"machine": machine, "answers": content}, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> tuple[Answers, dict[str, str]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return {question: [_row(**row) for row in rows] for question, rows in content["answers"].items()}, content[
        "machine"
    ]


def _row(name: str, by: str, timings: dict[str, dict[str, Any]], bytes: dict[str, int]) -> Row:
    return Row(name, by, {setting: Timing(**timing) for setting, timing in timings.items()}, bytes)
