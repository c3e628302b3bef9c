"""Instructions by what they need of a processor, and the least cycles in which its ports can issue them.

An instruction may be issued by some of the ports. Whatever the order, those that can go nowhere else than to a set of
ports take at least their cycles divided by the number of these ports; the bound is the largest over all sets (Hall's
theorem). Latencies, loads, stores and mispredicted branches are left out, so a kernel may need more cycles than that.

Ports and cycles are those of LLVM's models of the processors, which follow the makers' manuals and measurements:

==========================  ===================================================================================
AMD Zen 3, Zen 4            X86ScheduleZnver3.td and X86ScheduleZnver4.td: four pipes of 256 bits, so that 512 bits
                            take two cycles of one; FP0 and FP1 multiply and compare, FP2 and FP3 add and convert, FP1
                            and FP2 permute and shift, FP0 and FP1 (floats) or FP3 (integers) select by a vector
Intel with AVX-512          X86SchedIceLake.td: ports 0 and 5 for 512 bits; 5 permutes and 0 shifts
Intel, 256 bits             the same: ports 0, 1 and 5; arithmetic with floats and shifts on 0 and 1
division, square root       a unit of its own in each, which is busy for several cycles
all                         at most six instructions of any kind are issued in a cycle; a comparison and the jump
                            behind it are one
==========================  ===================================================================================

A guest may not know its processor's exact model. So any Intel is taken as Ice Lake, and AMD's family 25 as Zen 3 or
Zen 4, whose ports are the same; the results say which family and model are reported.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

ISSUED = 6  # instructions per cycle
DIVIDER = "/"

MOVES = re.compile("mov(a|u|dq)")  # loads, stores, and copies between registers, which take no port
DIVISIONS = re.compile("(div|sqrt)[ps](s|d)")
MULTIPLY = "mul|fn?m(add|sub)|cmp|max|min|fixupimm"
ADD = "add|sub|cvt|scalef|k"
PERMUTE = "perm|p?shuf|p?unpck|p?align|pack"
SHIFT = "ps[rl][al]"


@dataclass(frozen=True)
class Ports:
    every: str  # a letter for each port
    only: Mapping[str, str]  # pattern of names -> the ports that issue them
    wide: int  # the cycles that 512 bits take of a port
    divisions: Mapping[str, int]  # by operation and precision, the cycles for 256 bits


ZEN = Ports(
    "0123",
    {f"{MULTIPLY}|blendv": "01", "pblendv": "03", ADD: "23", f"{PERMUTE}|{SHIFT}": "12"},
    wide=2,
    divisions={"divs": 3, "divd": 5, "sqrts": 5, "sqrtd": 9},
)
INTEL_DIVISIONS = {"divs": 5, "divd": 8, "sqrts": 6, "sqrtd": 12}
INTEL_512 = Ports("05", {PERMUTE: "5", SHIFT: "0"}, wide=1, divisions=INTEL_DIVISIONS)
INTEL_256 = Ports("015", {f"{MULTIPLY}|{ADD}|{SHIFT}": "01", PERMUTE: "15"}, wide=1, divisions=INTEL_DIVISIONS)


def of(processor: str, instruction_set: str) -> Ports | None:
    """The ports of a processor, named as by :func:`benchmarks.bounds.costs.processor`; None if they are not known."""
    if processor.startswith("AuthenticAMD, family 25,"):
        return ZEN
    if processor.startswith("GenuineIntel, family 6,"):
        return INTEL_512 if instruction_set == "avx512" else INTEL_256
    return None


@dataclass(frozen=True)
class Instruction:
    text: str  # as disassembled, in AT&T's syntax

    @property
    def name(self) -> str:
        """The mnemonic without the v that AVX adds."""
        return self.text.split(maxsplit=1)[0].removeprefix("v")

    @property
    def has_vector(self) -> bool:
        return bool(re.search("%[xyz]mm", self.text))

    @property
    def calculates(self) -> bool:
        """Whether it takes a port for vectors, and not only one for loads or stores."""
        if not self.has_vector:
            return self.name.startswith("k")  # works on masks
        if self.name.startswith(("mov", "broadcast")):
            # a mask selects between two registers; without one, vectors are moved, unless from a general register
            masked, memory = "{%k" in self.text, "(" in self.text
            return masked or not (memory or MOVES.match(self.name))
        return True

    @property
    def divides(self) -> bool:
        return bool(DIVISIONS.match(self.name))

    @property
    def is_on_stack(self) -> bool:
        """Whether it reads or writes a vector in the frame of the function."""
        return self.has_vector and bool(re.search(r"\(%rsp|-0x[0-9a-f]+\(%rbp\)", self.text))

    @property
    def is_fused(self) -> bool:
        """Whether it is a conditional jump, which processors fuse with the comparison before it."""
        return self.name.startswith("j") and not self.name.startswith("jmp")

    @property
    def bits(self) -> int:
        return 512 if "%zmm" in self.text else 256 if "%ymm" in self.text else 128


def least_cycles(instructions: Mapping[Instruction, float], ports: Ports) -> float:
    """The least cycles in which the ports issue so many of these instructions."""
    busy: defaultdict[str, float] = defaultdict(float)  # cycles, by the ports that may take them
    for instruction, count in instructions.items():
        if instruction.divides:
            operation = DIVISIONS.sub(r"\1\2", instruction.name)
            busy[DIVIDER] += count * ports.divisions[operation] * instruction.bits / 256
        elif instruction.calculates:
            may = next((on for name, on in ports.only.items() if re.match(name, instruction.name)), ports.every)
            busy[may] += count * (ports.wide if instruction.bits == 512 else 1)
    least = max(sum(n for may, n in busy.items() if set(may) <= set(some)) / len(some) for some in _sets(ports.every))
    issued = sum(count for instruction, count in instructions.items() if not instruction.is_fused)
    return max(least, busy[DIVIDER], issued / ISSUED)


def _sets(ports: str) -> Iterable[tuple[str, ...]]:
    return (some for size in range(1, len(ports) + 1) for some in combinations(ports, size))
