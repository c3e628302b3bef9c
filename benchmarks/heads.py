"""``python -m benchmarks.heads``: the heads of language models beside what people use for them today.

Every program runs forward and backward in float32 and is timed in turns with the others of its task. × eager: how many
times as long the same takes in torch ops. The four products are those that a head with recomputed scores cannot avoid.
Memory is the peak beyond inputs and gradients. ``--json FILE`` also writes the results; ``--table FILE`` prints those
of a file.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import manual_grad.functional as M
from benchmarks import report
from benchmarks.scaling.memory import measurable, reset_peak, resident_peak
from benchmarks.timing import take_turns

SCALE = {"large": (512, 1024, 32768), "small": (8, 16, 64)}  # rows, features, vocabulary
SOFTCAP, Z_LOSS = 30.0, 1e-4
OURS, EAGER, COMPILED, PRODUCTS = "manual_grad", "eager", "compiled", "the four products"
HEAD = ("task", "time", "× eager", "× compiled", "× others", "memory", "eager's")

Inputs = dict[str, Tensor]


def logits(rows: int, features: int, classes: int) -> Inputs:
    return {"logits": torch.randn(rows, classes).requires_grad_(), "index": torch.randint(classes, (rows,))}


def hidden(rows: int, features: int, classes: int) -> Inputs:
    weight = torch.randn(classes, features) / features**0.5
    states = torch.randn(rows, features).requires_grad_()
    return {"hidden": states, "weight": weight.requires_grad_(), "index": torch.randint(classes, (rows,))}


def student_and_teacher(rows: int, features: int, classes: int) -> Inputs:
    x = torch.randn(rows, classes)
    return {"student": x.requires_grad_(), "teacher": x.detach() + 0.5 * torch.randn(rows, classes)}


def with_top_classes(rows: int, features: int, classes: int) -> Inputs:
    made = student_and_teacher(rows, features, classes)
    top = made["teacher"].log_softmax(-1).topk(32)
    return {"student": made["student"], "log_probs": top.values, "indices": top.indices}


def hidden_of_both(rows: int, features: int, classes: int) -> Inputs:
    made = hidden(rows, features, classes)
    teacher = torch.randn(rows, 2 * features), torch.randn(classes, 2 * features) / features**0.5
    return dict(
        zip(("hidden", "weight", "teacher", "teacher_weight"), (made["hidden"], made["weight"], *teacher), strict=True)
    )


# -- what people write


def log_prob_and_entropy(logits: Tensor, index: Tensor) -> Tensor:
    log_p = logits.log_softmax(-1)
    return log_p.gather(-1, index[:, None]).sum() + 0.01 * -(log_p.exp() * log_p).sum()


def from_hidden(hidden: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    return log_prob_and_entropy(hidden @ weight.mT, index)


def capped(logits: Tensor, index: Tensor) -> Tensor:
    z = SOFTCAP * (logits / SOFTCAP).tanh()
    return F.cross_entropy(z, index) + Z_LOSS * z.logsumexp(-1).square().mean()


def capped_from_hidden(hidden: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    return capped(hidden @ weight.mT, index)


def plain_from_hidden(hidden: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    return F.cross_entropy(hidden @ weight.mT, index)


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)


def jsd(student: Tensor, teacher: Tensor) -> Tensor:
    q, p = student.log_softmax(-1), teacher.log_softmax(-1)
    mixture = torch.logaddexp(q, p) - math.log(2)
    return 0.5 * sum(F.kl_div(mixture, x, reduction="batchmean", log_target=True) for x in (q, p))


def top_of_teacher(student: Tensor, log_probs: Tensor, indices: Tensor) -> Tensor:
    of_student = student.log_softmax(-1).gather(-1, indices)
    tails = (torch.log1p(-x.exp().sum(-1, keepdim=True)) for x in (of_student, log_probs))
    q, p = (torch.cat([x, tail], -1) for x, tail in zip((of_student, log_probs), tails, strict=True))
    return F.kl_div(q, p, reduction="batchmean", log_target=True)


def forward_kl_from_hidden(hidden: Tensor, weight: Tensor, teacher: Tensor, teacher_weight: Tensor) -> Tensor:
    return forward_kl(hidden @ weight.mT, teacher @ teacher_weight.mT)


# -- ours


def our_log_prob_and_entropy(logits: Tensor, index: Tensor) -> Tensor:
    found = M.log_prob_and_entropy(logits, index)
    return found.log_prob.sum() + 0.01 * found.entropy.sum()


def our_linear_log_prob(hidden: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    found = M.linear_log_prob(hidden, weight, index, entropy=True)
    return found.log_prob.sum() + 0.01 * found.entropy.sum()


def our_capped(logits: Tensor, index: Tensor) -> Tensor:
    return M.cross_entropy(logits, index, softcap=SOFTCAP, z_loss=Z_LOSS)


def our_capped_from_hidden(hidden: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    return M.linear_cross_entropy(hidden, weight, index, softcap=SOFTCAP, z_loss=Z_LOSS)


def our_plain_from_hidden(hidden: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    return M.linear_cross_entropy(hidden, weight, index)


def our_forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return M.distillation_loss(student, teacher)


def our_jsd(student: Tensor, teacher: Tensor) -> Tensor:
    return M.distillation_loss(student, teacher, "jsd")


def our_top_of_teacher(student: Tensor, log_probs: Tensor, indices: Tensor) -> Tensor:
    return M.topk_distillation_loss(student, log_probs, indices)


def our_forward_kl_from_hidden(hidden: Tensor, weight: Tensor, teacher: Tensor, teacher_weight: Tensor) -> Tensor:
    return M.linear_distillation_loss(hidden, weight, teacher, teacher_weight)


# -- others


def torchs_chunks(hidden: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    return F.linear_cross_entropy(hidden, weight, index, options=torch.nn.LinearCrossEntropyOptions())


def trls_entropy(logits: Tensor, index: Tensor) -> Tensor:
    from trl.trainer import utils

    log_prob, entropy = utils.selective_log_softmax_and_entropy(logits, index)
    return log_prob.sum() + 0.01 * entropy.sum()


def trls_chunks(hidden: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    how = 1.0, 8192, None, 1.0, ("entropy",)  # temperature, classes of a chunk, softcap, scale, what else
    log_prob, entropy, *_ = ChunkedLogProbFunction.apply(hidden, weight, None, index, *how)
    return log_prob.sum() + 0.01 * entropy.sum()


def products(hidden: Tensor, weight: Tensor, index: Tensor) -> None:
    """Only the products: the scores, the gradients of hidden states and weight, and the scores again."""
    with torch.no_grad():
        for _ in range(2):
            z = hidden @ weight.mT
        torch.mm(z, weight), torch.mm(z.mT, hidden)


@dataclass(frozen=True)
class Task:
    name: str
    loss: str  # in manual_grad.functional
    make: Callable[..., Inputs]
    ours: Callable[..., Tensor]
    eager: Callable[..., Tensor]
    others: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def programs(self, compiled: bool = True) -> dict[str, Callable[..., Any]]:
        """By name; those of libraries that are not installed are left out."""
        missing = {
            "TRL": not find_spec("trl"),
            "torch, in chunks": not hasattr(F, "linear_cross_entropy"),
        }
        others = {name: program for name, program in self.others.items() if not missing.get(name, False)}
        compiles = {COMPILED: torch.compile(self.eager)} if compiled else {}
        return {OURS: self.ours, EAGER: self.eager, **compiles, **others}

    def inputs(self, scale: str) -> Inputs:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            return self.make(*SCALE[scale])


TASKS = (
    Task(
        "log-probability and entropy", "log_prob_and_entropy", logits, our_log_prob_and_entropy, log_prob_and_entropy,
        {"TRL": trls_entropy},
    ),
    Task("cross entropy, softcap, z-loss", "cross_entropy", logits, our_capped, capped),
    Task(
        "from hidden states: log-probability and entropy", "linear_log_prob", hidden, our_linear_log_prob, from_hidden,
        {"TRL": trls_chunks, PRODUCTS: products},
    ),
    Task(
        "from hidden states: cross entropy", "linear_cross_entropy", hidden, our_plain_from_hidden, plain_from_hidden,
        {"torch, in chunks": torchs_chunks},
    ),
    Task(
        "from hidden states: cross entropy, softcap, z-loss", "linear_cross_entropy", hidden, our_capped_from_hidden,
        capped_from_hidden,
    ),
    Task("distillation, forward KL", "distillation_loss", student_and_teacher, our_forward_kl, forward_kl),
    Task("distillation, JSD", "distillation_loss", student_and_teacher, our_jsd, jsd),
    Task(
        "distillation from the top 32", "topk_distillation_loss", with_top_classes, our_top_of_teacher, top_of_teacher
    ),
    Task(
        "from hidden states: distillation, forward KL", "linear_distillation_loss", hidden_of_both,
        our_forward_kl_from_hidden, forward_kl_from_hidden,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    task: str
    program: str
    seconds: float
    bytes: int | None  # the peak beyond inputs and gradients; None where it cannot be measured


def step(program: Callable[..., Any], inputs: Inputs) -> Callable[[], None]:
    """Forward, backward, and setting the gradients to None, as an optimizer does."""

    def run() -> None:
        loss = program(**inputs)
        if loss is not None:
            loss.backward()
        for x in inputs.values():
            x.grad = None

    return run


def measure(task: Task, seconds: float, quick: bool = False) -> list[Row]:
    scale = "small" if quick else "large"
    inputs, programs = task.inputs(scale), task.programs(compiled=not quick)
    expected = task.eager(**{k: v.double() if v.is_floating_point() else v for k, v in inputs.items()})
    torch.testing.assert_close(task.ours(**inputs).double(), expected, rtol=1e-5, atol=0)
    timings = take_turns({name: step(program, inputs) for name, program in programs.items()}, seconds)
    measured = measurable() and not quick
    peaks = peaks_of(task, scale, list(programs)) if measured else dict.fromkeys(programs)
    return [Row(task.name, name, timings[name].median, peaks[name]) for name in programs]


def peaks_of(task: Task, scale: str, names: Sequence[str]) -> dict[str, int | None]:
    """Each in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    with context.Pool(1, maxtasksperchild=1) as pool:
        found = pool.starmap(peak, [(TASKS.index(task), scale, name, torch.get_num_threads()) for name in names], 1)
    return dict(zip(names, found, strict=True))


def peak(task: int, scale: str, name: str, threads: int) -> int:
    torch.set_num_threads(threads)
    program = TASKS[task].programs()[name]
    step(program, TASKS[task].inputs("small"))()  # loads code and starts threads
    inputs = TASKS[task].inputs(scale)
    run = step(program, inputs)
    if name == COMPILED:
        run()  # compiles
    ctypes.CDLL(None).malloc_trim(0)
    before = reset_peak()
    run()
    gradients = sum(x.nbytes for x in inputs.values() if x.requires_grad and name != PRODUCTS)
    return max(0, resident_peak() - before - gradients)


def table(rows: Sequence[Row], machine: dict[str, str]) -> str:
    """A line for each task: our time, how many times as long the others take, and the memory."""
    by_task: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_task.setdefault(row.task, {})[row.program] = row
    lines = [HEAD, ("---", *("---:" for _ in HEAD[1:]))]
    for task, found in by_task.items():
        ours = found.pop(OURS)

        def times(row: Row | None, ours: Row = ours) -> str:
            return "–" if row is None else f"{row.seconds / ours.seconds:.2f}"

        eager, compiled = found.pop(EAGER), found.pop(COMPILED, None)
        others = ", ".join(f"{name} {times(row)}" for name, row in found.items())
        lines.append((task, f"{ours.seconds * 1e3:.0f} ms", times(eager), times(compiled), others or "–",
                      memory(ours), memory(eager)))  # fmt: skip
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", report.described(machine)])


def memory(row: Row) -> str:
    return "–" if row.bytes is None else f"{row.bytes / 1e6:.0f} MB"


def read_json(file: Path) -> tuple[list[Row], dict[str, str]]:
    saved = json.loads(file.read_text(encoding="utf-8"))
    return [Row(**row) for row in saved["rows"]], saved["machine"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heads", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small inputs, no torch.compile, no memory")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each task")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to a file")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the results of a file instead of measuring")
    args = parser.parse_args(arguments)
    if args.table:
        print(table(*read_json(args.table)))
        return 0
    if args.threads:
        torch.set_num_threads(args.threads)
    rows: list[Row] = []
    for task in TASKS:
        print(task.name, file=sys.stderr, flush=True)
        rows += measure(task, 0.0 if args.quick else args.seconds, args.quick)
    machine = report.machine()
    if args.json:
        saved = {"machine": machine, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    print(table(rows, machine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
