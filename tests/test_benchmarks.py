"""The benchmarks take turns, count bytes as documented, and do not time a loss that is wrong."""

from __future__ import annotations

import dataclasses
import math
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from torch import Tensor

import manual_grad.functional
from benchmarks import cases, contrastive, heads, report, sharded
from benchmarks.__main__ import main
from benchmarks.cases import CASES, least_bytes
from benchmarks.check import TOLERANCE, error
from benchmarks.scaling import memory
from benchmarks.timing import Result, Timing, fits_into_memory, merge, take_turns
from manual_grad.engine import torch_private
from processes import ProcessError, on_processes

needs_gloo = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="torch is built without gloo, which connects processes on a CPU",
)


def test_every_loss_is_timed() -> None:
    timed = {case.loss for case in CASES} | {task.loss for task in heads.TASKS} | set(contrastive.TASKS)
    assert timed == set(manual_grad.functional.__all__) - {"selected_log_prob"}  # log_prob_and_entropy has both


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_least_bytes(case: cases.Case) -> None:
    rows, classes = cases.SCORES["small"]
    tags = math.prod(cases.TAGS["small"])
    pairs, dimensions = cases.VECTORS["small"]
    steps, samples, labels = cases.FRAMES["small"]
    examples, features, outputs = cases.FEATURES["small"]
    (elements,) = cases.ELEMENTS["small"]
    stated = {
        "class indices": 8 * rows * classes + 8 * rows,
        "label_smoothing=0.1": 8 * rows * classes + 8 * rows,
        "class probabilities": 12 * rows * classes,
        "nll_loss": 8 * rows * classes + 8 * rows,
        "multi_margin_loss": 8 * rows * classes + 8 * rows,
        "multilabel_margin_loss": 16 * tags,
        "multilabel_soft_margin_loss": 12 * tags,
        "cosine_embedding_loss": 16 * pairs * dimensions + 4 * pairs,
        "triplet_margin_loss": 24 * pairs * dimensions,
        "triplet_margin_with_distance_loss": 24 * pairs * dimensions,
        "ctc_loss": 8 * steps * samples * labels + 8 * samples * (steps // 4) + 16 * samples,
        "linear_cross_entropy": 8 * (examples + outputs) * features + 8 * examples,
    }
    inputs = case.inputs("small")
    written = sum(t.requires_grad for t in inputs)  # by backward
    flags = sum(t.nbytes for t in inputs if not t.is_floating_point())  # masks, signs
    pointwise = 4 * elements * (sum(t.is_floating_point() for t in inputs) + written) + flags
    assert least_bytes(inputs) == stated.get(case.variant or case.loss, pointwise)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_inputs(case: cases.Case) -> None:
    """The inputs are the same every time, and torch's own loss is finite for them."""
    for a, b in zip(case.inputs("small"), case.inputs("small"), strict=True):
        assert torch.equal(a, b)
    for size in ("small", "medium"):
        assert error(case, case.inputs(size), case.theirs) < float("inf")


def test_the_sweep_reads_and_writes_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, written = [], []

    def count(*tensors: Tensor | int, out: Tensor) -> None:
        counted.append([t for t in tensors if isinstance(t, Tensor)])
        written.append(out)

    for name in ("add", "mul"):
        monkeypatch.setattr(torch, name, count)
    x1, x2, t = (torch.zeros(3) for _ in range(3))
    cases.sweep((x1.requires_grad_(), x2.requires_grad_(), t))()
    assert [len(tensors) for tensors in counted] == [2, 1]
    assert {tensor.data_ptr() for tensors in counted for tensor in tensors} == {x.data_ptr() for x in (x1, x2, t)}
    assert [out.shape for out in written] == [x1.shape, x2.shape]
    assert len({tensor.data_ptr() for tensor in (*written, x1, x2, t)}) == 5


@pytest.mark.skipif(cases.MADV_HUGEPAGE is None, reason="this system knows no huge pages by request")
def test_the_sweep_asks_for_huge_pages_as_the_kernels_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Huge pages are requested for the whole pages of a large result before it is written, but not for a small one."""
    events: list[Any] = []
    monkeypatch.setattr(cases, "madvise", lambda begin, length, advice: events.append((begin, length, advice)))
    monkeypatch.setattr(torch, "mul", lambda x, factor, out: events.append(out))
    small, large = (torch.zeros(n << 20, dtype=torch.uint8) for n in (3, 9))
    for x in (small, large):
        x = x.view(torch.float32)
        cases.sweep((x.requires_grad_(),))()
    written_small, (begin, length, advice), written = events
    assert written_small.nbytes == 3 << 20 and advice == cases.MADV_HUGEPAGE
    before, after = begin - written.data_ptr(), written.data_ptr() + written.nbytes - (begin + length)
    assert begin % cases.HUGE == length % cases.HUGE == 0
    assert 0 <= before < cases.HUGE and 0 <= after < cases.HUGE


def test_runs_take_turns() -> None:
    order: list[str] = []

    def run(name: str) -> None:
        order.append(name)
        time.sleep(2e-3)  # longer than a turn, so that each turn is one call

    timings = take_turns({name: partial(run, name) for name in ("a", "b")}, seconds=0.05)
    turns = timings["a"].turns
    rounds = [order[i : i + 2] for i in range(len(order) - 2 * turns, len(order), 2)]
    assert all(sorted(round) == ["a", "b"] for round in rounds)
    assert ["a", "b"] in rounds and ["b", "a"] in rounds  # neither always runs second
    for timing in timings.values():
        assert timing.calls == 1 and timing.turns == turns
        assert 2e-3 <= timing.lower <= timing.median <= timing.upper


def test_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written, drawn = tmp_path / "results.json", tmp_path / "bars.png"
    assert main(["--quick", "--size", "small", "--json", str(written), "--plot", str(drawn)]) == 0
    printed = capsys.readouterr().out
    for case in CASES:
        assert case.name in printed
    assert "geometric mean" in printed and "RED" not in printed

    results, machine = report.read_json(written)
    assert machine == report.machine()
    for r in results:
        assert r.error <= TOLERANCE
        assert set(r.timings) == {"manual_grad", "eager", "sweep"}
        assert r.speedup("eager") == r.timings["eager"].median / r.timings["manual_grad"].median
    assert matplotlib.image.imread(drawn)[..., :3].std() > 0.05

    assert main(["--table", str(written)]) == 0
    assert capsys.readouterr().out.strip() == report.markdown(results, machine)


def test_a_program_that_does_not_fit_into_memory_is_not_timed() -> None:
    def fails(message: str) -> Callable[[], None]:
        def run() -> None:
            raise RuntimeError(message)

        return run

    assert fits_into_memory(lambda: None)
    assert not fits_into_memory(fails("DefaultCPUAllocator: can't allocate memory: you tried"))
    with pytest.raises(RuntimeError, match="another"):
        fits_into_memory(fails("another reason"))


def test_compiled_and_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cases.ELEMENTS, "large", (1000,))
    written = tmp_path / "results.json"
    assert main(["mse_loss", "--size", "large", "--grad-output", "--seconds", "0.01", "--json", str(written)]) == 0
    results, _ = report.read_json(written)
    assert [(r.name, r.section) for r in results] == [("mse_loss", "large"), ("mse_loss", "large, upstream 0.5")]
    for r in results:
        assert set(r.timings) == {"manual_grad", "eager", "compiled", "sweep"}
        assert r.shape == (1000,) and r.bytes == 12_000


class Planted(torch.autograd.Function):
    """The identity, with its value and its gradient multiplied by given factors."""

    @staticmethod
    def forward(loss: Tensor, value: float, gradient: float) -> Tensor:
        return loss * value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.gradient = inputs[2]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return g * ctx.gradient, None, None


@pytest.mark.parametrize(
    ("value", "gradient"),
    [(1.00001, 1.0), (1.0, 1.00001), (1.0, 0.0), (float("nan"), 1.0), (1.0, float("inf"))],
)
def test_a_wrong_loss_is_refused(
    value: float, gradient: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, written = manual_grad.functional.huber_loss, tmp_path / "results.json"

    def wrong(*inputs: Tensor, **options: Any) -> Tensor:
        return Planted.apply(right(*inputs, **options), value, gradient)

    monkeypatch.setattr(manual_grad.functional, "huber_loss", wrong)
    assert main(["huber_loss", "mse_loss", "--quick", "--size", "small", "--json", str(written)]) == 1

    lines = capsys.readouterr().out.splitlines()
    (red,) = (line for line in lines if line.startswith("huber_loss"))
    assert "RED" in red and "µs" not in red
    (green,) = (line for line in lines if line.startswith("mse_loss"))
    assert "RED" not in green and "µs" in green
    assert [r.red for r in report.read_json(written)[0]] == [False, True]


def test_one_wrong_number_is_found() -> None:
    (case,) = (case for case in CASES if case.loss == "huber_loss")
    inputs = case.inputs("large")

    def one_off(x: Tensor, target: Tensor, **options: Any) -> Tensor:
        return manual_grad.functional.huber_loss(torch.cat([x[:1].detach(), x[1:]]), target, **options)

    assert error(case, inputs, manual_grad.functional.huber_loss) <= TOLERANCE
    assert error(case, inputs, one_off) > TOLERANCE


def test_runs_in_fresh_processes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "times.json"
    assert main(["mse_loss", "--quick", "--size", "small", "--runs", "2", "--json", str(written)]) == 0
    assert "run 2 of 2" in capfd.readouterr().out
    (result,), machine = report.read_json(written)
    assert machine["runs"] == "2"
    assert {len(timing.runs) for timing in result.timings.values()} == {2}


def test_medians_over_runs() -> None:
    def run(ours: float, eager: float, red: bool = False) -> list[Result]:
        times = {"manual_grad": Timing(0, ours, 0, 5, 1), "eager": Timing(0, eager, 0, 7, 1)}
        return [Result("mse_loss", "", "small", (8,), 1.0, 96, 0.5, {} if red else times)]

    (merged,) = merge([run(1.0, 2.0), run(2.0, 8.0), run(4.0, 4.0)])  # 2, 4 and once as fast
    assert merged.timings["manual_grad"] == Timing(1.5, 2.0, 3.0, 15, 1, (1.0, 2.0, 4.0))
    assert merged.speedups("eager") == [2.0, 4.0, 1.0]
    assert merged.speedup("eager") == 2.0  # not 4 / 2
    assert merged.speedup("compiled") is None
    assert merge([run(1.0, 2.0), run(1.0, 2.0, red=True)])[0].red


def test_table() -> None:
    def timing(median: float) -> Timing:
        return Timing(lower=0.9 * median, median=median, upper=1.1 * median, turns=5, calls=1)

    timings = {"manual_grad": timing(2e-3), "eager": timing(8e-3), "compiled": timing(5e-4), "sweep": timing(1e-3)}
    fast = Result("a_loss", "", "large", (100,), 1.0, 4_000_000, 0.5, timings)
    wrong = Result("b_loss", "variant", "large", (100,), 1.0, 4_000_000, 1e6, {})
    machine = {"CPU": "some", "cores": "2"}

    table = report.markdown([fast, wrong], machine)
    assert table.startswith("CPU: some; cores: 2.\n\n**large**\n\n| loss | manual_grad |")
    assert "| a_loss | 2.00 ms | 8.00 ms | 500 µs | 4.00 | 0.25 | 2.0 | 50% |" in table
    assert "| b_loss, variant | RED: off by 1e+06 eps, 8 allowed |" in table
    assert "| geometric mean |  |  |  | 4.00 | 0.25 |  |  |" in table
    assert "2.00 [1.80, 2.20] ms" in report.plain([fast, wrong])


def test_summary() -> None:
    def row(loss: str, variant: str, size: str, **others: float) -> Result:
        timings = {name: Timing(0, seconds, 0, 5, 1) for name, seconds in {"manual_grad": 1.0, **others}.items()}
        return Result(loss, variant, size, (8,), 1.0, 96, 0.5, timings)

    rows = [row("a", "", "large", eager=2.0), row("a", "b", "large", eager=8.0, compiled=3.0), row("c", "", "small")]
    wrong = Result("a", "", "large", (8,), 1.0, 96, 1e6, {})
    assert report.summary([*rows, wrong]) == [
        ["large", "4.00", "a 2.00", "3.00", "a, b 3.00"],
        ["small", "", "", "", ""],
    ]
    assert report.span([2.04, 1.0, 3.5]) == "1.0–3.5" and report.span([2.04, 2.0]) == "2.0"
    assert rows[0].elements == 8 and rows[0].nanoseconds("eager") == 0.25e9


@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        ("Intel(R) Xeon(R) Processor", "Intel Xeon, avx2"),
        ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", "Intel Core i7-8700, avx2"),
        ("AMD EPYC", "AMD EPYC, avx2"),
    ],
)
def test_names_of_processors(cpu: str, name: str) -> None:
    assert report.processor({"CPU": cpu, "kernels": "avx2 (built: avx2)"}) == name


def test_results_of_machines(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no results"):
        report.of_machines(tmp_path, report.read_json)
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").write_text(name)
    assert list(report.of_machines(tmp_path, Path.read_text).items()) == [("a", "a"), ("b", "b")]


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_commit_of_the_code(tmp_path: Path) -> None:
    def git(*command: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(["git", "-C", tmp_path, *who, *command], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    code, results = tmp_path / "manual_grad/loss.py", tmp_path / "results.json"
    code.parent.mkdir()
    for file in (code, results):
        file.write_text("1")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    results.write_text("2")  # does not change what is measured
    assert report.commit(tmp_path) == git("rev-parse", "--short", "HEAD")
    code.write_text("2")
    assert report.commit(tmp_path) == git("rev-parse", "--short", "HEAD") + " with changes"
    assert report.commit(code.parent) == "unknown"  # not a checkout, but in one


@pytest.mark.parametrize("bad", ["no_such_loss", "--size huge", "--json no/such/folder.json"])
def test_bad_usage(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(bad.split())
    assert stop.value.code == 2
    assert bad.split()[-1].split("/")[0] in capsys.readouterr().err


def test_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "heads.json"
    assert heads.main(["--quick", "--json", str(written)]) == 0
    printed = capsys.readouterr().out
    for task in heads.TASKS:
        (line,) = (line for line in printed.splitlines() if line.startswith(f"| {task.name} |"))
        assert all(name in line for name in set(task.programs(compiled=False)) - {heads.OURS, heads.EAGER})
    assert heads.main(["--table", str(written)]) == 0
    assert capsys.readouterr().out == printed


def test_a_head_that_is_wrong_is_not_timed() -> None:
    (task, *_) = heads.TASKS
    wrong = dataclasses.replace(task, ours=lambda logits, index: 1.01 * task.ours(logits, index))
    with pytest.raises(AssertionError, match="not close"):
        heads.measure(wrong, 0.0, quick=True)


@pytest.mark.skipif(not memory.measurable(), reason="the peak of the resident memory cannot be reset here")
def test_memory_of_heads() -> None:
    """No gradient is counted; what the eager program allocates beside, a row of probabilities for each, is."""
    (task, *_) = heads.TASKS
    peaks = heads.peaks_of(task, "large", ["manual_grad", "eager"])
    scores = task.inputs("large")["logits"].nbytes
    assert peaks["manual_grad"] < 0.5 * scores < scores < peaks["eager"]


def test_contrastive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "contrastive.json"
    assert contrastive.main(["--quick", "--json", str(written)]) == 0
    shown = capsys.readouterr().out
    for task, programs in contrastive.TASKS.items():
        assert all(f"| {task} | 64 | {program} |" in shown for program in programs)
    assert all(f"| ring of {processes} |" in shown for processes in contrastive.PROCESSES)
    assert contrastive.main(["--table", str(written)]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("task", contrastive.TASKS)
def test_the_programs_of_contrastive_losses_agree(task: str) -> None:
    x, y, t = contrastive.inputs(48, 6)
    losses = contrastive.TASKS[task]
    torch.testing.assert_close(*(losses[name](x, y, t) for name in (contrastive.OURS, contrastive.DENSE)))


@needs_gloo
def test_sharded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "sharded.json"
    assert sharded.main(["--quick", "--json", str(written)]) == 0
    printed = capsys.readouterr().out
    for task in sharded.TASKS:
        lines = [line for line in printed.splitlines() if line.startswith(f"| {task} |")]
        assert [line.split(" | ")[1] for line in lines] == [sharded.OURS, sharded.TORCHS, sharded.ALONE]
    rows, digits, _ = sharded.read_json(written)
    assert {row.processes for row in rows} == {1, 2} and all(row.seconds > 0 for row in rows)
    ours, *others = digits
    assert ours.program == sharded.OURS and max(ours.value, ours.gradient) <= 2
    assert all(min(other.value, other.gradient) > 8e6 for other in others) and len(others) == 2  # no digit is right
    assert sharded.main(["--table", str(written)]) == 0
    assert capsys.readouterr().out == printed


def sent(rank: int) -> dict[tuple[bool, bool], list[tuple[str, int]]]:
    """The kind and the bytes of each message, by whether labels are smoothed and whether classes have weights."""
    rows, classes = 10, 7
    x, index, weight = torch.randn(rows, classes), torch.randint(classes, (rows,)), torch.rand(classes)
    found: dict[tuple[bool, bool], list[tuple[str, int]]] = {}
    all_reduce = torch_private.all_reduce
    for per_class, weighted in ((False, False), (True, False), (False, True), (True, True)):
        messages = found[per_class, weighted] = []

        def recorded(x: Tensor, op: str, name: str, messages: list[tuple[str, int]] = messages) -> Tensor:
            messages.append((op, x.nbytes))
            return all_reduce(x, op, name)

        torch_private.all_reduce = recorded
        options = dict(weight=weight if weighted else None, label_smoothing=0.1 if per_class else 0.0)
        manual_grad.functional.cross_entropy(x, index, group=torch.distributed.group.WORLD, **options)
    return found


@needs_gloo
def test_bytes_of_messages() -> None:
    size, rows = 2, 10
    for found in on_processes(sent, size):
        for (per_class, weighted), messages in found.items():
            own, counts = sharded.bytes_per_row(per_class=per_class, weight=weighted), 8 * size
            assert [op for op, _ in messages] == ["max", "sum"]
            assert sum(size for _, size in messages) == rows * own + counts


def test_messages_of_many_gpus() -> None:
    """The limits of the model: bytes alone for one long message, steps alone for an empty one."""
    assert sharded.all_reduce_seconds(8, 0) == pytest.approx(sharded.CALL + 14 * sharded.NVLINK_STEP)
    assert sharded.all_reduce_seconds(8, 1 << 40) == pytest.approx(1.75 * (1 << 40) / sharded.NVLINK, rel=1e-4)
    nodes = sharded.all_reduce_seconds(1024, 0) - sharded.all_reduce_seconds(8, 0)
    assert nodes == pytest.approx(2 * 7 * sharded.NETWORK_STEP)
    *_, sweep, products = sharded.computed(8)
    assert sweep == pytest.approx(2 * 8192 * 16032 / 4.8e12) and products > sweep
    text = sharded.of_gpus()
    assert text.startswith("Computed, not measured") and "| 1024 |" in text


@needs_gloo
def test_a_sharded_loss_that_is_wrong_is_not_timed() -> None:
    with pytest.raises(ProcessError, match="not close"):
        on_processes(timed_with_a_wrong_loss, 1)


def timed_with_a_wrong_loss(rank: int) -> None:
    right = manual_grad.functional.cross_entropy
    manual_grad.functional.cross_entropy = lambda *inputs, **options: 1.01 * right(*inputs, **options)
    sharded.timed(rank, "small", 0.0)
