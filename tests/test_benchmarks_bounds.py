"""The bounds of the kernels count what is executed, and follow from the processor's ports."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import manual_grad.functional
from benchmarks.bounds import __main__ as command
from benchmarks.bounds import costs, ports, trace
from benchmarks.bounds.costs import Cost, Costs
from benchmarks.bounds.ports import INTEL_256, INTEL_512, ZEN, Instruction, Ports, least_cycles
from benchmarks.scaling.questions import named
from benchmarks.timing import Result, Timing
from manual_grad import kernels

FMA, ADD, AND = "vfmadd132ps %zmm1,%zmm12,%zmm0", "vaddps %zmm1,%zmm0,%zmm2", "vpandd %zmm1,%zmm0,%zmm2"
PERMUTE, SHIFT = "vpermps %zmm28,%zmm2,%zmm1", "vpsrad $0x13,%zmm0,%zmm2"
DIVIDE = "vdivps %zmm11,%zmm8,%zmm8"
LANES = {"avx512": 16, "avx2": 8, "baseline": 4}


def countable() -> bool:
    if not kernels.loaded("cpu"):
        return False
    try:
        trace.disassemble(trace.library())
        trace.executed(lambda: None, range(0))
    except (trace.Unsupported, OSError):
        return False
    return True


needs_counting = pytest.mark.skipif(not countable(), reason="instructions of the kernels cannot be counted here")


@pytest.mark.parametrize(
    ("text", "calculates", "divides", "is_on_stack"),
    [
        (FMA, True, False, False),
        ("mulps %xmm1,%xmm0", True, False, False),  # without AVX
        ("vmulps (%rdi,%r13,1),%zmm30,%zmm0", True, False, False),
        ("vaddpd -0x70(%rbp),%zmm1,%zmm1", True, False, True),
        (DIVIDE, True, True, False),
        ("vsqrtpd %ymm1,%ymm2", True, True, False),
        ("vcmpleps %zmm9,%zmm5,%k1", True, False, False),
        ("kortestw %k1,%k1", True, False, False),
        ("vpbroadcastd %edx,%zmm17", True, False, False),
        ("vmovd %xmm0,%eax", True, False, False),
        ("vmovaps %zmm1,%zmm2{%k1}", True, False, False),  # selects
        ("vmovaps %zmm1,%zmm2", False, False, False),
        ("vmovups (%rdi,%r12,4),%zmm7", False, False, False),
        ("vmovups %zmm8,(%rdi,%r13,1)", False, False, False),
        ("vbroadcastss 0x17269d(%rip),%zmm12", False, False, False),
        ("vmovaps %zmm30,-0x170(%rbp)", False, False, True),
        ("vmovdqa64 0x40(%rsp),%zmm0", False, False, True),
        ("mov 0x40(%rsp),%rdi", False, False, False),
        ("div %rcx", False, False, False),
        ("add $0x30,%rcx", False, False, False),
    ],
)
def test_kinds_of_instructions(text: str, calculates: bool, divides: bool, is_on_stack: bool) -> None:
    of = Instruction(text)
    assert (of.calculates, of.divides, of.is_on_stack) == (calculates, divides, is_on_stack)


@pytest.mark.parametrize(
    ("texts", "zen", "intel"),
    [
        ({FMA: 4}, 4, 2),  # 512 bits take both multipliers of Zen 4
        ({FMA: 2, ADD: 2}, 2, 2),
        ({AND: 4}, 2, 2),
        ({PERMUTE: 2, SHIFT: 2}, 4, 2),
        ({FMA: 1, PERMUTE: 2, AND: 1}, 2, 2),
        ({FMA: 2, PERMUTE: 2}, 8 / 3, 2),  # three ports of Zen 4
        ({FMA.replace("zmm", "ymm"): 4}, 2, 2),
        ({DIVIDE: 1, FMA: 1}, 6, 10),
        ({DIVIDE.replace("ps", "pd"): 1}, 10, 16),
        ({"vsqrtps %ymm1,%ymm2": 1}, 5, 6),
        ({"vdivsd %xmm1,%xmm2,%xmm3": 1}, 2.5, 4),
        ({"mov %rsi,%rbx": 9, ADD: 3}, 3, 2),
        ({"mov %rsi,%rbx": 12}, 2, 2),
        ({"test %rdi,%rdi": 6, "je 9c7e7": 6, "jmp 9c480": 6}, 2, 2),
        ({"vmovups (%rdi),%zmm7": 6}, 1, 1),
        ({}, 0, 0),
    ],
)
def test_least_cycles(texts: dict[str, float], zen: float, intel: float) -> None:
    instructions = {Instruction(text): count for text, count in texts.items()}
    assert least_cycles(instructions, ZEN) == pytest.approx(zen)
    assert least_cycles(instructions, INTEL_512) == pytest.approx(intel)


def test_least_cycles_of_256_bits_on_intel() -> None:
    fma, mask = (Instruction(text.replace("zmm", "ymm")) for text in (FMA, AND))
    assert least_cycles({fma: 2, mask: 1}, INTEL_256) == 1
    assert least_cycles({mask: 3}, INTEL_256) == 1
    assert least_cycles({fma: 3}, INTEL_256) == 1.5


def test_least_cycles_of_selections_on_zen() -> None:
    floats, integers = (Instruction(f"{name} %ymm3,%ymm2,%ymm1,%ymm0") for name in ("vblendvps", "vpblendvb"))
    assert least_cycles({floats: 3}, ZEN) == least_cycles({integers: 3}, ZEN) == 1.5
    assert least_cycles({floats: 3, integers: 3}, ZEN) == 2


@pytest.mark.parametrize(
    ("processor", "instruction_set", "known"),
    [
        ("AuthenticAMD, family 25, model 17", "avx512", ZEN),
        ("AuthenticAMD, family 25, model 1", "avx2", ZEN),
        ("AuthenticAMD, family 26, model 2", "avx512", None),
        ("GenuineIntel, family 6, model 143", "avx512", INTEL_512),
        ("GenuineIntel, family 6, model 143", "avx2", INTEL_256),
        ("aarch64", "baseline", None),
    ],
)
def test_ports_of_processors(processor: str, instruction_set: str, known: Ports | None) -> None:
    assert ports.of(processor, instruction_set) is known


def test_instructions_per_element() -> None:
    texts = {0: FMA, 8: ADD, 16: FMA, 24: "ret"}
    small, large = Counter({0: 10, 16: 1, 24: 1}), Counter({0: 30, 8: 5, 16: 6, 24: 1})
    assert costs.per_element(small, large, texts, 10) == {
        Instruction(FMA): 2.5,
        Instruction(ADD): 0.5,
        Instruction("ret"): 0,
    }


@needs_counting
def test_what_is_executed_is_counted() -> None:
    case = named("mse_loss")
    counts = costs.instructions(case, torch.float32)
    lanes = LANES[trace.library().instruction_set]
    assert 1 / (4 * lanes) in counts.values()  # the loop computes four vectors at a time
    calculated = sum(count for i, count in counts.items() if i.calculates and i.has_vector)
    assert 3 / lanes < calculated < 15 / lanes  # x - t, its square and its double, and a sum in double
    assert not any(i.divides for i, count in counts.items() if count)
    assert not trace.executed(lambda: None, trace.library().addresses)


@needs_counting
@pytest.mark.parametrize("fails", [lambda: 1 / 0, sys.exit])
def test_a_call_that_fails_is_not_counted(fails: Callable[[], object]) -> None:
    with pytest.raises(trace.Unsupported, match="the call failed"):
        trace.executed(fails, range(0))


@needs_counting
def test_a_call_that_is_interrupted_is_not_counted() -> None:
    with pytest.raises(ChildProcessError, match="SIGUSR1"):
        trace.executed(lambda: os.kill(os.getpid(), signal.SIGUSR1), range(0))


def test_disassembly(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = "\n0000000000000010 <f>:\n      10:\tendbr64\n      14:\tvmulps 0x8(%rip),%zmm0,%zmm1        # 24 <g>\n"
    monkeypatch.setattr(trace.subprocess, "run", lambda *args, **options: Listed(listing))
    monkeypatch.setattr(trace.shutil, "which", lambda name: name)
    assert trace.disassemble(trace.Library(Path("a.so"), "avx512", range(0))) == {
        0x10: "endbr64",
        0x14: "vmulps 0x8(%rip),%zmm0,%zmm1",
    }


class Listed:
    def __init__(self, stdout: str) -> None:
        self.stdout = stdout


def test_the_shortest_times() -> None:
    called: list[int] = []
    fastest = costs.minima({n: partial(called.append, n) for n in (1, 2)}, 0)
    assert set(fastest) == set(called) == {1, 2} and all(0 < taken < 1 for taken in fastest.values())


def cost(loss: str = "a_loss", variant: str = "", dtype: str = "float32", **figures: float | None) -> Cost:
    given: dict[str, Any] = {
        **{"instructions": 7.0, "vector": 4.0, "divisions": 0.25, "stack": 0.5, "ports": 2.0},
        **{"nanoseconds": 1.5, "clock": 2.0, "written": 4.0},
        **figures,
    }
    return Cost(loss, variant, dtype, **given)


def large(sweep: float, ours: float, loss: str = "a_loss", variant: str = "") -> Result:
    timings = {name: Timing(s, s, s, 5, 1) for name, s in {"manual_grad": ours, "sweep": sweep}.items()}
    return Result(loss, variant, "large", (10**9,), 1.0, 12 * 10**9, 0.5, timings)


@pytest.mark.parametrize(
    ("sweep", "threads", "faults", "arithmetic", "least"),
    [(2.0, 1, 0.1, 1.5, 2.0), (1.0, 1, 0.1, 1.5, 1.9), (0.8, 2, 0.1, 0.75, 0.95), (1.0, 2, 0.1, 0.75, 1.0)],
)
def test_bounds(sweep: float, threads: int, faults: float, arithmetic: float, least: float) -> None:
    bound = costs.bound(cost(), faults, large(sweep, 3.0), threads)
    assert (bound.arithmetic, bound.least) == pytest.approx((arithmetic, least))


def test_table() -> None:
    found = Costs({"CPU": "some"}, 0.3, [cost(), cost("b_loss", "variant", "bfloat16", ports=None)])
    text = command.markdown(found)
    assert text.startswith("CPU: some.\n\n| loss | instructions |") and "new memory costs 0.30 ns" in text
    assert "| a_loss | 7.00 | 4.00 | 0.25 | 0.50 | 2.00 | 3.00 | 1.50 |" in text.splitlines()
    assert "| b_loss, variant, bfloat16 | 7.00 | 4.00 | 0.25 | 0.50 | – | 3.00 | 1.50 |" in text.splitlines()


def test_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside each other are what is timed at the large size and what arithmetic costs; the slowest come first."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "docs"))
    from extension import measured, speed

    machine = {"CPU": "some", "threads": "2"}
    results = [large(1.0, 1.25), large(1.0, 2.0, "b_loss", "variant"), large(2.0, 2.0, "c_loss")]
    found = [
        cost(),
        cost(dtype="bfloat16", ports=None),
        cost("c_loss"),
        cost("b_loss", "variant", nanoseconds=3.0),
    ]
    monkeypatch.setattr(speed, "known", lambda: {"a": (results, machine)})
    monkeypatch.setattr(speed, "bounds", lambda: {"a": Costs(machine, 0.1, found), "b": Costs(machine, 0.2, found[:1])})
    _, first, second = measured.costs().split("<p>")
    assert first.startswith("CPU: some; threads: 2. Threads at the large size: 2. Page faults: 0.10 ns")
    rows = [re.findall("<t[dh].*?>(.*?)</t[dh]>", row) for row in first.split("<tr>")[3:]]
    counts = ["7.00", "4.00", "0.25", "0.50"]
    assert rows == [
        ["b_loss, variant", *counts, "2.00", "6.00", "1.50", "0.20", "1.00", "1.70", "2.00", "50%"],
        ["a_loss", *counts, "2.00", "3.00", "0.75", "0.20", "1.00", "1.00", "1.25", "80%"],
        ["c_loss", *counts, "2.00", "3.00", "0.75", "0.20", "2.00", "2.00", "2.00", "100%"],
        ["a_loss, bfloat16", *counts, "–", "3.00", *[""] * 6],
    ]
    assert "0.20 ns" in second and second.count("<td></td>") == 6  # not timed at the large size

    monkeypatch.setattr(speed, "bounds", dict)
    assert measured.costs() == "<p>Not measured yet.</p>"


def test_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    counts = {Instruction(FMA): 0.5, Instruction(DIVIDE): 0.25, Instruction("ret"): 0.0}
    monkeypatch.setattr(costs, "instructions", lambda case, dtype: counts)
    monkeypatch.setattr(trace, "library", lambda: trace.Library(Path("a.so"), "avx512", range(0)))
    monkeypatch.setattr(costs, "processor", lambda: "AuthenticAMD, family 25, model 17")
    monkeypatch.setattr(costs, "NEW", 1 << 10)
    before, written = torch.get_num_threads(), tmp_path / "bounds.json"
    assert command.main(["mse_loss", "multi_margin_loss", "--seconds", "0", "--json", str(written)]) == 0
    assert torch.get_num_threads() == before
    found = costs.read_json(written)
    assert capsys.readouterr().out.strip() == command.markdown(found)
    assert [c.name for c in found.costs] == ["mse_loss", "multi_margin_loss", "mse_loss, bfloat16"]
    assert [c.written for c in found.costs] == [4, 4, 2]
    for c in found.costs:
        assert (c.instructions, c.vector, c.divisions, c.stack, c.ports) == (0.75, 0.75, 0.25, 0, 1.5)
        assert 0 < c.clock < 10  # GHz; more if the multiplications do not wait for each other


def test_a_wrong_loss_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = manual_grad.functional.mse_loss
    monkeypatch.setattr(manual_grad.functional, "mse_loss", lambda x, t, **options: 1.00001 * right(x, t))
    assert command.main(["mse_loss"]) == 1
    captured = capsys.readouterr()
    assert "mse_loss in torch.float32 is off by" in captured.err and not captured.out


@pytest.mark.skipif(not kernels.loaded("cpu"), reason="no kernels are loaded, whose library is sought")
def test_without_objdump(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(trace.shutil, "which", lambda name: None)
    monkeypatch.setattr(costs, "_disassembled", trace.disassemble)
    monkeypatch.setattr(trace, "executed", lambda run, addresses: Counter())
    assert command.main(["mse_loss"]) == 1
    assert "binutils" in capsys.readouterr().err


@pytest.mark.parametrize("bad", ["linear_cross_entropy", "--json no/such/folder.json"])
def test_bad_usage(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(bad.split())
    assert stop.value.code == 2
    assert bad.split()[-1].split("/")[0] in capsys.readouterr().err
