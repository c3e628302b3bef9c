"""What the specs of the losses of all pairs share.

A float32 product has rounding errors that no rule can avoid. To test only the rule against the oracle, the samples are
such that no product is rounded, and no sum over the vectors cancels in the gradient of a feature: to every score
belongs a feature of its own, which only its query and its key have, the key as a power of two.
"""

from __future__ import annotations

import functools
import math
from unittest import mock

import torch
from mpmath import exp, log

from gradcheck.formulas import Each
from gradcheck.spec import Error, Input
from manual_grad.engine import tiles
from manual_grad.study import curves

GAPS = (5, 10, 20, 40, 80)
INF, NAN, LOG2 = float("inf"), float("nan"), math.log(2)
POSITIVE = (0.0, INF)


def scored(draw, scores):
    """Queries and keys of which each has the score that is asked for."""
    N, M = scores.shape
    queries, keys = torch.zeros(N, N, M, dtype=torch.float64), torch.zeros(M, N, M, dtype=torch.float64)
    size = 2.0 ** draw.integers(N, M, low=-1, high=2).cpu().double()
    for i in range(N):
        for j in range(M):
            queries[i, i, j], keys[j, i, j] = scores[i, j] / size[i, j], size[i, j]
    return draw.tensor(queries.flatten(1)), draw.tensor(keys.flatten(1))


def scored_alike(draw, scores):
    """Vectors of which each two have the score above the diagonal that is asked for."""
    N = len(scores)
    pairs = [(i, j) for i in range(N) for j in range(i + 1, N)]
    found = torch.zeros(N, max(1, len(pairs)), dtype=torch.float64)
    for d, (i, j) in enumerate(pairs):
        size = 2.0 ** draw.integers(low=-1, high=2).item()
        found[i, d], found[j, d] = scores[i, j] / size, size
    return draw.tensor(found)


def eighths(draw, *shape):
    return draw.integers(*shape, low=-15, high=16).cpu().double() / 8


def leading(draw, N, M, gap, right=True):
    """Scores of which those of the pairs, or of each query and the next key, lead by a gap."""
    return eighths(draw, N, M) + gap * torch.eye(N, M, dtype=torch.float64).roll(0 if right else 1, 1)


def learned(draw):
    """A scale or a temperature that has a gradient."""
    return draw.uniform(low=0.5, high=2.0)


def captioned(sample):
    """Queries and keys as the features of images and texts."""

    def made(draw):
        image_features, text_features, *rest = sample(draw)
        return dict(image_features=image_features, text_features=text_features, **dict(*rest))

    return made


def captioned_at_random(N, scale=1.0):
    return captioned(lambda draw: scored(draw, scale * eighths(draw, N, N)))


def turning_image(s, others, **numbers):
    """An image turns away from its text, which is at 0; the other pair has a text at a given angle."""
    images = torch.stack([curves.rows(s, s.cos(), s.sin()), curves.rows(s, -1, 0)], 1)
    angles = curves.rows(s, 0, others)
    texts = torch.stack([angles.cos(), angles.sin()], -1)
    return dict(image_features=images, text_features=texts, **numbers)


def in_tiles(scores, rows):
    sizes = dict(TILE=scores, TILE_ON_DEVICE=scores, MOST_ROWS=rows, MOST_ROWS_ON_DEVICE=rows)
    return functools.partial(mock.patch.multiple, tiles, **sizes)


BLOCKS = {"tiles of one score": in_tiles(1, 1), "tiles of two rows and a column": in_tiles(2, 2)}


def features(first, second=None, **more):
    """The inputs of a loss, none of which is a batch of samples: every vector meets all others."""
    names = (first,) if second is None else (first, second)
    numbers = (Input(name, domain=domain, batch=None) for name, domain in more.items())
    return *(Input(name, batch=None) for name in names), *numbers


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def lse(scores):
    return log(sum(map(exp, scores)))


def letters(draw, vectors, numbers):
    """Symbols of a chapter about vector n, here the first of all, and a direction in which everything moves."""
    sizes = [len(rows) for rows in vectors.values()]
    moved = {rf"\dot {name}": draw.normal(len(rows), len(rows[0])).tolist() for name, rows in vectors.items()}
    rates = {rf"\dot {name}": draw.normal().item() for name in numbers}
    indices = {"i": sizes[0], "l": sizes[0], "j": sizes[-1], "c": sizes[-1], "h": len(next(iter(vectors.values()))[0])}
    return {**vectors, **numbers, **moved, **rates, "n": 0, **{k: Each(range(n)) for k, n in indices.items()}}


def at_each(fn):
    """The function at every position of a curve, where features have one more dimension."""

    def every(reduction, **arguments):
        vectors = {name: t for name, t in arguments.items() if isinstance(t, torch.Tensor) and t.is_floating_point()}
        rest = {name: t for name, t in arguments.items() if name not in vectors}
        return torch.func.vmap(lambda given: fn(**given, **rest, reduction="mean"))(vectors)

    return every


def errors(first, second, scale="temperature"):
    def of(name, change):
        return lambda **given: change(given[name])

    found = (
        Error({first: of(first, lambda x: x.long())}, NotImplementedError, "floating point"),
        Error({first: of(first, lambda x: x[0])}, RuntimeError, f"{second or first}: expected shape"),
        Error({scale: "hot"}, TypeError, scale),
        Error({scale: of(first, lambda x: x[0])}, ValueError, f"{scale}.*without dimensions"),
        Error(dict(reduction="average"), ValueError, "average is not a valid value for reduction"),
        Error(dict(group="all"), TypeError, "group"),
    )
    if second is None:
        return found
    return (
        *found,
        Error({second: of(second, lambda y: y[:, :2])}, RuntimeError, f"{second}: expected shape"),
        Error({second: of(second, lambda y: y[:1])}, RuntimeError, f"{second}: expected shape"),
        Error({second: of(second, lambda y: y.float())}, RuntimeError, f"{second}: expected scalar type"),
    )


def not_positive(scale, first):
    return (
        Error({scale: 0.0}, ValueError, scale),
        Error({scale: lambda **given: given[first].new_tensor(-1.0)}, ValueError, scale),
    )
