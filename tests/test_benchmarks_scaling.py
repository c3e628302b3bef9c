"""The scaling benchmarks detect slow code and memory use."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import manual_grad.functional
from benchmarks.scaling import __main__ as command
from benchmarks.scaling import memory, questions, tables
from benchmarks.scaling.questions import QUESTIONS, Row, Scope, named
from benchmarks.timing import Timing
from manual_grad import kernels

TINY = Scope(
    seconds=0.0,
    elements=(1 << 6, 1 << 8),
    scores=640,
    classes=(10, 40),
    size="small",
    projections=((64, 16, 10), (64, 16, 20)),
)
RESULTS = Path(__file__).parents[1] / "benchmarks/results/scaling"
PAUSE = 0.05  # seconds, a hundred times the time of the calls here


def slow(when: Callable[[Tensor], bool]) -> Callable[[Tensor, Tensor], Tensor]:
    right = manual_grad.functional.mse_loss

    def mse_loss(x: Tensor, target: Tensor, **options: Any) -> Tensor:
        if when(x):
            time.sleep(PAUSE)
        return right(x, target)

    return mse_loss


class SlowProduct(torch.autograd.Function):
    """The identity, whose backward is slow for an upstream gradient other than 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        if g.item() != 1:
            time.sleep(PAUSE)
        return g


def test_every_loss_is_measured_beside_torchs() -> None:
    assert len(questions.CASES) > 20
    assert all(questions.loss_of(case, "eager") is not None for case in questions.CASES)


def test_all_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked_of = {
        *questions.POINTWISE,
        *questions.SWEPT,
        *questions.OVERHEAD,
        *questions.FRESH,
        "ctc_loss",
        "linear_cross_entropy",
    }
    some = [case for case in questions.CASES if case.name in asked_of]
    monkeypatch.setattr(questions, "CASES", some)
    monkeypatch.setattr(questions, "COMPUTE_BOUND", {"mse_loss": (640,)})
    monkeypatch.setattr(command, "QUICK", TINY)
    monkeypatch.setattr(memory, "measurable", lambda: True)
    monkeypatch.setattr(memory, "peaks", lambda tasks: [5000 for _ in tasks])  # measured below
    written = tmp_path / "scaling.json"
    assert command.main(["--quick", "--json", str(written)]) == 0
    printed = capsys.readouterr().out
    answers, machine = tables.read_json(written)
    assert tables.markdown(answers, machine) == printed.strip()
    assert machine["size"] == "small"
    assert list(answers) == list(QUESTIONS)
    missing = [] if kernels.loaded("cpu") else ["sweeps"]
    assert [question for question, rows in answers.items() if not rows] == missing
    for asked, title, _ in tables.TABLES:
        assert title in printed or asked[0] in missing

    for question in ("dtype", "upstream", "memory"):
        assert [row.name for row in answers[question] if row.by == "manual_grad"] == [case.name for case in some]
    halves = {row.by: set(row.timings) for row in answers["dtype"] if row.name == "ctc_loss"}
    assert halves == {"manual_grad": {"float32", "bfloat16", "float16"}, "eager": {"float32"}}


def slowed(question: str, is_slow: Callable[[Tensor], bool], monkeypatch: pytest.MonkeyPatch) -> dict[str, Timing]:
    monkeypatch.setattr(questions, "CASES", [named("mse_loss")])
    monkeypatch.setattr(questions, "POINTWISE", ("mse_loss",))
    monkeypatch.setattr(questions, "COMPUTE_BOUND", {"mse_loss": (640,)})
    monkeypatch.setattr(manual_grad.functional, "mse_loss", slow(is_slow))
    (row,) = (row for row in QUESTIONS[question](TINY) if row.by == "manual_grad")
    return row.timings


@pytest.mark.parametrize(
    ("question", "is_slow", "setting", "than"),
    [
        ("size", lambda x: x.numel() == 256, "256", "64"),
        ("dtype", lambda x: x.dtype is torch.bfloat16, "bfloat16", "float32"),
        ("dtype", lambda x: x.dtype is torch.float16, "float16", "float32"),
        ("threads", lambda x: torch.get_num_threads() == 1, "1", "2"),
    ],
)
def test_what_is_slow_shows(
    question: str, is_slow: Callable[[Tensor], bool], setting: str, than: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        timings = slowed(question, is_slow, monkeypatch)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert timings[setting].median >= PAUSE > 2 * timings[than].median


def test_a_slow_upstream_gradient_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    right = manual_grad.functional.mse_loss
    monkeypatch.setattr(questions, "CASES", [named("mse_loss")])
    monkeypatch.setattr(manual_grad.functional, "mse_loss", lambda x, t, **options: SlowProduct.apply(right(x, t)))
    answers = {"upstream": list(questions.upstream(TINY))}
    _, _, row, _ = tables.by_loss(answers)
    assert row[:4] == ["mse_loss", "–", "–", "–"] and float(row[4]) > 2


@pytest.mark.skipif(not kernels.loaded("cpu"), reason="no kernels are loaded, which do the sweeping")
@pytest.mark.parametrize("name", questions.SWEPT)
def test_either_way_of_sweeping_gives_the_gradient(name: str) -> None:
    case = named(name)
    inputs = case.inputs("small")
    loss = questions.loss_of(case)(*inputs, **case.options)
    swept = questions.Swept(loss)
    loss.backward()
    expected = [x.grad for x in inputs if x.requires_grad]
    value, *together = swept.together()
    assert torch.equal(value, loss) and torch.equal(swept.value(), loss)
    for gradients in (together, swept.gradient()):
        for d, right in zip([d for d in gradients if d is not None], expected, strict=True):
            assert torch.equal(d, right)


@pytest.mark.skipif(not kernels.loaded("cpu"), reason="no kernels are loaded, which do the sweeping")
def test_a_slow_second_sweep_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    right = questions.Swept.gradient
    monkeypatch.setattr(questions, "SWEPT", ("mse_loss",))
    monkeypatch.setattr(questions.Swept, "gradient", lambda swept: time.sleep(PAUSE) or right(swept))
    (row,) = questions.sweeps(TINY)
    assert row.timings["two"].median >= PAUSE > 2 * row.timings["one"].median
    assert row.bytes == {"one": 640 * 4 + 4, "two": 4}


def wasteful(x: Tensor, target: Tensor, **options: Any) -> Tensor:
    unused = torch.ones_like(x)
    loss = manual_grad.functional.mse_loss(x, target)
    return loss + 0 * unused[0]


BLOCKS, BLOCK, KEPT = 200, 1 << 14, []


def hoarding(x: Tensor, target: Tensor, **options: Any) -> Tensor:
    """The warm-up leaves free blocks in the heap, below a used one, as large as those that the measured call needs."""
    blocks = [torch.ones(BLOCK) for _ in range(BLOCKS)]
    KEPT.append(torch.ones(BLOCK))
    return manual_grad.functional.mse_loss(x, target) + 0 * blocks[0][0]


@pytest.mark.skipif(not memory.measurable(), reason="this system does not let the peak of the resident set be reset")
def test_memory_that_is_taken_shows() -> None:
    case, loss, n = named("mse_loss"), manual_grad.functional.mse_loss, 1 << 23  # a huge page is 2 MB
    once, twice, again = memory.peaks([(case, loss, (n,)), (case, wasteful, (n,)), (case, hoarding, (n,))])
    gradient = 4 * n
    # pages are counted in batches, for each core
    assert 0.9 * gradient < once < 1.2 * gradient and 0.9 * gradient < twice - once < 1.1 * gradient
    assert again > once + 0.9 * 4 * BLOCKS * BLOCK


def test_an_empty_function() -> None:
    x, gradient = torch.zeros(3, requires_grad=True), torch.arange(3.0)
    questions.Empty.apply(x, gradient).backward()
    assert torch.equal(x.grad, gradient)


@pytest.mark.skipif(not hasattr(questions._C, "mallopt"), reason="this system's malloc is not glibc's")
def test_malloc_keeps_the_memory_or_returns_it() -> None:
    """Whether a large array takes memory of the system again when it is allocated again.

    Bytes, because a fault is 4 kB on one system and 2 MB where transparent huge pages are on.
    """
    size = 1 << 24

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE

    def taken(setting: str) -> int:  # the least, since the first time even malloc that keeps memory has none
        found = []

        def allocate() -> None:
            before = resident()
            array = torch.ones(size // 4)
            found.append(resident() - before)
            assert array[-1] == 1

        run = questions._with_malloc(setting, allocate)
        for _ in range(5):
            run()
        return min(found)

    try:
        assert taken("kept") < size // 4 and size * 3 // 4 < taken("returned")
    finally:
        questions._set_malloc("returned")


def test_a_wrong_loss_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = manual_grad.functional.mse_loss
    monkeypatch.setattr(manual_grad.functional, "mse_loss", lambda x, t, **options: 1.00001 * right(x, t))
    for question in ("size", "dtype", "upstream", "sweeps", "overhead"):
        if question == "sweeps" and not kernels.loaded("cpu"):
            continue
        monkeypatch.setattr(questions, "CASES", [named(name) for name in questions.OVERHEAD])
        monkeypatch.setattr(command, "QUICK", replace(TINY, elements=(1,)))
        assert command.main([question, "--quick"]) == 1
        captured = capsys.readouterr()
        assert "mse_loss in torch.float32 is off by" in captured.err and not captured.out


def test_tables() -> None:
    def timings(**seconds: float) -> dict[str, Timing]:
        return {name.strip("_"): Timing(s, s, s, 5, 1) for name, s in seconds.items()}

    answers = {
        "size": [Row("a_loss", "manual_grad", timings(_1024=2.048e-6, _4096=4.096e-6))],
        "classes": [Row("b_loss", "eager", {"100×10": Timing(0, 1e-6, 0, 5, 1), "1×1000": Timing(0, 3e-6, 0, 5, 1)})],
        "threads": [Row("a_loss", "manual_grad", timings(_1=3e-3, _2=2e-3))],
        "dtype": [
            Row("a_loss", "manual_grad", timings(float32=4e-3, bfloat16=2e-3, float16=8e-3)),
            Row("a_loss", "eager", timings(float32=4e-3)),
        ],
        "memory": [Row("a_loss", "eager", bytes={"gradients": 100, "peak": 400})],
        "sweeps": [Row("a_loss", "manual_grad", timings(one=1e-3, two=3e-3), {"one": 2_000_000, "two": 4})],
        "allocator": [
            Row("a_loss", "manual_grad", timings(returned=3e-3, kept=2e-3)),
            Row("a_loss", "eager", timings(returned=8e-3, kept=2e-3)),
        ],
        "projection": [
            Row("1000×2×500", "manual_grad", bytes={"gradients": 100, "peak": 300_100}),
            Row("1000×2×500", "eager", bytes={"gradients": 100, "peak": 5_000_100}),
        ],
        "overhead": [
            Row(name, by, timings(kernel=1e-5, Function=2e-5, backward=4e-5) if by == "manual_grad"
                else timings(forward=5e-5, backward=6e-5))
            for name in (questions.NOTHING, *questions.OVERHEAD) for by in questions.IMPLEMENTATIONS
        ],
    }  # fmt: skip
    text = tables.markdown(answers, {"CPU": "some"})
    assert text.startswith("CPU: some.\n\n**Nanoseconds per element")
    for line in (
        "| loss |  | 2¹⁰ | 2¹² | max / min |",
        "| a_loss | manual_grad | 2.00 | 1.00 | 2.00 |",
        "| loss |  | 10 | 1,000 | max / min |",
        "| b_loss | eager | 1.00 | 3.00 | 3.00 |",
        "| loss | 1 thread | 2 threads | speed-up |",
        "| a_loss | 3.00 ms | 2.00 ms | 1.50 |",
        "| a_loss | 0.50 | – | 2.00 | – | – | 4.00 |",
        "| geometric mean | 0.50 | – | 2.00 | – | – | 4.00 |",
        "| a_loss | 1.00 ms | 3.00 ms | 3.00 | 2.00 MB | 4 B |",
        "| a_loss | 3.00 ms | 2.00 ms | 1.50 | 8.00 ms | 2.00 ms | 4.00 |",
        "| 1000×2×500 | 2.00 MB | 0.30 MB | 5.00 MB |",
        "| nll_loss | 10.0 µs | 20.0 µs | – | 40.0 µs | 50.0 µs | 60.0 µs |",
    ):
        assert line in text.splitlines()
    assert "speed-up" not in tables.markdown({"size": answers["size"]}, {})


@pytest.mark.parametrize("path", [*RESULTS.glob("*.json")], ids=lambda path: path.stem)
def test_committed_results_have_the_form_of_the_tables(path: Path) -> None:
    answers, machine = tables.read_json(path)
    text = tables.markdown(answers, machine)
    assert all(title in text for asked, title, _ in tables.TABLES if any(answers.get(question) for question in asked))


@pytest.mark.parametrize("bad", ["no_such_question", "--json no/such/folder.json"])
def test_bad_usage(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(bad.split())
    assert stop.value.code == 2
    assert bad.split()[-1].split("/")[0] in capsys.readouterr().err
