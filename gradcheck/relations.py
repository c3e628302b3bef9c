"""What a wrong tensor is to the right one, in words: the transpose of it, a quarter of it, right but for a column.

The first recogniser that applies is told: what explains every entry comes before what says which entries are wrong.
Each takes a :class:`Difference` and answers None where it sees nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
import torch

from gradcheck.compare import Compared, Numbers, numbers

FEW = 4  # entries, rows or columns that are named one by one
BLOCK = 4  # the smallest block that a kernel is likely to work in
MOST_CELLS = 32, 48  # of a map
ALIKE = 1e-9  # of the largest entry: what is closer is explained,
CLOSER = 16  # if it is so much closer than what was expected
DECADES = 16.0  # above the bound, where a map ends


@dataclass(frozen=True)
class Difference:
    """``got`` and ``expected``; ``excess`` is each entry's error over the error ``allowed``, infinite for a NaN.

    ``name`` is the input that this is the gradient of, if it is one. ``tensors`` are the inputs of the call, ``others``
    what it may have been mistaken for.
    """

    got: Numbers
    expected: Numbers
    excess: Numbers
    allowed: Numbers
    name: str = ""
    tensors: Mapping[str, Numbers] = field(default_factory=dict)
    others: Mapping[str, Numbers] = field(default_factory=dict)

    @property
    def wrong(self) -> np.ndarray:
        return self.excess > 1

    def explained_by(self, other: Numbers) -> bool:
        """Whether ``got`` is nothing but ``other``: to what is allowed, or close to it where it is wrong."""
        close = np.minimum(ALIKE * np.abs(self.expected).max(), np.abs(self.got - self.expected) / CLOSER)
        slack = np.maximum(4 * self.allowed, close)
        return bool((np.abs(self.got - other) <= slack).all())


def relation(compared: Compared, what: str = "") -> str:
    """What the recognisers say of the comparison ``what``; empty where they say nothing."""
    name = next((k for k in compared.tensors if f"gradient of {k}" == what.split(",")[0]), "")
    tensors, others = ({k: numbers(t) for k, t in named.items()} for named in (compared.tensors, compared.others))
    difference = Difference(*compared[:4], name, tensors, others)
    if difference.wrong.size == 0 or not difference.wrong.any():
        return ""
    finite = np.isfinite(difference.got).all() and np.isfinite(difference.expected).all()
    with np.errstate(all="ignore"):
        said = (recogniser(difference) for recogniser in (EVERYWHERE if finite else NOT_FINITE))
        return next(filter(None, said), "")


def not_a_number(d: Difference) -> str | None:
    bad = ~np.isfinite(d.got) & d.wrong
    if not bad.any():
        return None
    kind, bad = ("NaN", bad & np.isnan(d.got)) if np.isnan(d.got[bad]).any() else ("infinite", bad)
    if bad.all():
        return f"{kind} everywhere" if bad.size > 1 else None
    where = place(d, bad) if bad.sum() > 1 else None
    return f"{kind} in {bad.sum()} of {bad.size} entries" + (f": {where}" if where else "")


def zero(d: Difference) -> str | None:
    return "zero everywhere" if not d.got.any() and d.got.size > 1 else None


def multiple(d: Difference) -> str | None:
    """A constant factor; where it is N or 1/N of a size at hand, that is asked about."""
    b = d.expected
    if not b.any():
        return None
    ratio = float((d.got * b).sum() / (b * b).sum())
    if not d.explained_by(ratio * b):
        return None
    if abs(ratio - 1) < ALIKE:
        return None
    rounded = float(f"{ratio:.6g}")
    near = rounded != 1 and d.explained_by(rounded * b)
    if b.size == 1 and not near:
        return None  # one number is some multiple of any other
    said = f"{rounded if near else ratio:.9g} times what is expected"
    if ratio < 0 and abs(ratio + 1) < ALIKE:
        return f"{said}: the opposite sign"
    size = abs(ratio) if abs(ratio) > 1 else 1 / max(abs(ratio), 1e-300)
    count = round(size)
    known = sizes(d, count) if count > 1 and abs(size / count - 1) < 1e-6 else ""
    if known:
        question = "a factor 1/N" if abs(ratio) < 1 else "is the 1/N of a mean missing"
        said += f": {question}? {known}"
    return said


def sizes(d: Difference, count: int) -> str:
    """What there is ``count`` of, in the first tensor that has it."""
    shapes = {f"of {k}" if k else "": t.shape for k, t in _own_first(d)}
    for of, shape in shapes.items():
        names = [axis for axis, n in zip(_plurals(len(shape)), shape, strict=True) if n == count]
        for some in range(2, len(shape)):
            for at in combinations(range(len(shape)), some):
                if np.prod([shape[i] for i in at]) == count:
                    names.append(f"entries along dimensions {' and '.join(map(str, at))}")
        if len(shape) != 1 and np.prod(shape) == count:
            names.append("entries")
        if names:
            return f"There are {count} {' and '.join(names[:2])} {of}".rstrip()
    return ""


def _own_first(d: Difference) -> list[tuple[str, Numbers]]:
    tensors = d.tensors or {"": d.expected}
    return sorted(tensors.items(), key=lambda item: item[0] != d.name)


def offset(d: Difference) -> str | None:
    more = float((d.got - d.expected).mean())
    if d.got.size < 3 or not d.explained_by(d.expected + more):
        return None
    return f"{abs(more):.6g} {'more' if more > 0 else 'less'} than expected everywhere"


def signs(d: Difference) -> str | None:
    if d.got.size < 2 or not d.explained_by(np.where(d.got * d.expected < 0, -1, 1) * d.expected):
        return None
    where = place(d)
    return f"right but for the sign of {d.wrong.sum()} of {d.wrong.size} entries" + (f": {where}" if where else "")


def another(d: Difference) -> str | None:
    return next((k for k, t in d.others.items() if t.shape == d.got.shape and t.any() and d.explained_by(t)), None)


def rearranged(d: Difference) -> str | None:
    """Transposed, mirrored or shifted."""
    b = d.expected
    for i, j in combinations(range(b.ndim), 2):
        if b.shape[i] == b.shape[j] and d.explained_by(b.swapaxes(i, j)):
            swapped = f"what is expected, with dimensions {i} and {j} swapped"
            return "the transpose of what is expected" if b.ndim == 2 else swapped
    for i, names in enumerate(_plurals(b.ndim)):
        if b.shape[i] < 3:
            continue
        if d.explained_by(np.flip(b, i)):
            return f"what is expected, with its {names} in reverse order"
        for by in (1, -1):
            if d.explained_by(np.roll(b, by, i)):
                return f"what is expected, with its {names} shifted by one"
    return None


def rounded(d: Difference) -> str | None:
    """Every entry is a number of a narrower dtype, or as close to the expected one as such numbers get."""
    if d.got.size < 3:
        return None
    got, expected = (torch.from_numpy(np.ascontiguousarray(a)) for a in (d.got, d.expected))
    varied = len(got.unique()) > 16  # so many numbers are not of a narrower dtype by accident
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        eps = torch.finfo(dtype).eps
        if (np.abs(d.got - d.expected) > 4 * eps * np.abs(d.expected).max()).any():
            continue
        fits, ought = (t.to(dtype).double() == t for t in (got, expected))
        if fits.all() and (not d.explained_by(d.got * (1 + eps / 64)) or (varied and 2 * ought.sum() < ought.numel())):
            return f"rounded to {str(dtype).removeprefix('torch.')}"
    return None


def in_places(d: Difference) -> str | None:
    where = place(d)
    return f"right but for {where}" if where else None


def multiple_of_each(d: Difference) -> str | None:
    """Each row (column, ...) by a factor of its own."""
    b = d.expected
    for i, name in enumerate(_singulars(b.ndim)):
        others = tuple(k for k in range(b.ndim) if k != i)
        if b.ndim < 2 or b.shape[i] < 2 or b.size // b.shape[i] < 3:
            continue
        ratio = (d.got * b).sum(others, keepdims=True) / (b * b).sum(others, keepdims=True)
        if np.isfinite(ratio).all() and d.explained_by(ratio * b):
            low, high = ratio.min(), ratio.max()
            return f"each {name} is a multiple of what is expected, by a factor from {low:.4g} to {high:.4g}"
    return None


def counted(d: Difference) -> str | None:
    count = int(d.wrong.sum())
    return f"{count} of {d.wrong.size} entries differ" if d.wrong.size > 1 else None


EVERYWHERE: tuple[Callable[[Difference], str | None], ...] = (
    zero,
    multiple,
    another,
    rearranged,
    offset,
    signs,
    in_places,
    multiple_of_each,
    rounded,
    counted,
)
NOT_FINITE = (not_a_number, in_places, counted)


def place(d: Difference, wrong: np.ndarray | None = None) -> str | None:
    """Which entries are wrong, if that can be said in a few words."""
    wrong = d.wrong if wrong is None else wrong
    if wrong.all() or not wrong.any():
        return None
    found = np.argwhere(wrong)
    if len(found) == 1:
        return f"one entry{_at_an_edge(int(found[0][-1]))}"
    ways = (
        lambda: _along_a_dimension(wrong, 1.0),
        lambda: _behind_each_other(wrong),
        lambda: _by_an_input(d, wrong),
        lambda: _along_a_dimension(wrong, 0.5),
        lambda: " and ".join((", ".join(map(_index, found[:-1])), _index(found[-1]))) if len(found) <= FEW else None,
    )
    return next(filter(None, (way() for way in ways)), None)


def _along_a_dimension(wrong: np.ndarray, share: float) -> str | None:
    """Rows, or columns, of which at least a share is wrong, while in the others nothing is."""
    for i, (singular, plural) in enumerate(zip(_singulars(wrong.ndim), _plurals(wrong.ndim), strict=True)):
        apart = np.moveaxis(wrong, i, 0).reshape(wrong.shape[i], -1)
        at = np.flatnonzero(apart.any(1)).tolist()
        if len(at) < wrong.shape[i] and apart[at].mean() >= share:
            where = _indices(at, wrong.shape[i], singular, plural)
            if where:
                return where
    return None


def _indices(at: list[int], size: int, singular: str, plural: str) -> str | None:
    first, last = at[0], at[-1]
    if len(at) == 1:
        if first == size - 1 and size > 2:
            return f"the last {singular}"
        return f"{singular} {first}{_at_an_edge(first)}"
    steps = {b - a for a, b in pairwise(at)}
    if steps == {1}:
        block = first & -first
        if last == size - 1 and block >= BLOCK:
            return f"{plural} {first} to {last}: wrong where a block of {block} ends"
        if last == size - 1:
            return f"the last {len(at)} {plural}"
        return f"{plural} {first} to {last}"
    (step, *more) = steps
    if not more and len(at) > 2 and step & (step - 1) == 0 and len(at) >= size // step:
        return f"every {step}{ {2: 'nd', 3: 'rd'}.get(step % 10, 'th') } {singular}, from {first} on"
    if len(at) <= FEW:
        return f"{plural} {', '.join(map(str, at[:-1]))} and {last}"
    return None


def _at_an_edge(index: int) -> str:
    """For the first index behind a block of at least eight."""
    block = index & -index
    return f", where a block of {block} ends" if block >= 2 * BLOCK else ""


def _behind_each_other(wrong: np.ndarray) -> str | None:
    """Everything from some entry on, in the order in which they lie in memory."""
    first, size = int(wrong.ravel().argmax()), wrong.size
    block = first & -first
    if wrong.ndim < 2 or not wrong.ravel()[first:].all():
        return None
    if block >= BLOCK:
        return f"entries {first} to {size - 1}, counted row by row: wrong where a block of {block} ends"
    return f"the last {size - first} entries, counted row by row"


def _by_an_input(d: Difference, wrong: np.ndarray) -> str | None:
    """Where an input is on one side of a threshold. By chance that happens once in many ways to choose the entries."""
    count = int(wrong.sum())
    if count < 3 or wrong.size - count < 3:
        return None
    for name, t in _own_first(d):
        if t.shape != wrong.shape:
            continue
        for sign, word, words in ((1, "above", "positive"), (-1, "below", "negative")):
            inside, outside = (sign * t[wrong]).min(), (sign * t[~wrong]).max()
            if outside < inside:
                if outside <= 0 <= inside:
                    return f"where {name} is {words}"
                return f"where {name} is {word} {_shortest(*sorted((sign * inside, sign * outside)))} or so"
    return None


def _shortest(low: float, high: float) -> str:
    """The middle, in as few digits as keep it between the two: a threshold is likely to be a round number."""
    texts = [f"{(low + high) / 2:.{digits}g}" for digits in (1, 2, 3)]
    return next((text for text in texts if low <= float(text) <= high), texts[-1])


def _index(at: np.ndarray) -> str:
    return str([int(i) for i in at])


def _singulars(dimensions: int) -> list[str]:
    if dimensions == 1:
        return ["entry"]
    return ["row", "column"] if dimensions == 2 else [f"slice of dimension {i} at" for i in range(dimensions)]


def _plurals(dimensions: int) -> list[str]:
    if dimensions == 1:
        return ["entries"]
    return ["rows", "columns"] if dimensions == 2 else [f"slices of dimension {i}" for i in range(dimensions)]


def heat(compared: Compared) -> dict[str, object] | None:
    """Where the error is, for a drawing: the worst of each cell, in decades above what is allowed; 0 is within it."""
    excess = compared.excess
    if excess.size < 2 or not (excess > 1).any():
        return None
    flat = excess.reshape(-1, excess.shape[-1])
    steps = [-(-n // most) for n, most in zip(flat.shape, MOST_CELLS, strict=True)]
    decades = np.clip(np.log10(np.maximum(flat, 1.0)), 0.0, DECADES)
    padded = np.pad(decades, [(0, -n % step) for n, step in zip(flat.shape, steps, strict=True)])
    rows, columns = (n // step for n, step in zip(padded.shape, steps, strict=True))
    cells = padded.reshape(rows, steps[0], columns, steps[1]).max((1, 3))
    return {"shape": list(excess.shape), "steps": steps, "cells": [[round(float(c), 1) for c in row] for row in cells]}
