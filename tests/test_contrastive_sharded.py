"""Contrastive losses whose rows are spread over processes, which are connected by gloo, against one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import gradcheck
import manual_grad.functional as M
from corpus import contrastive as corpus

D = 3
SHARD = dict(x=0, y=0, negatives=0, labels=0)
DOMAIN = dict(temperature=(0.5, 2.0))


def audited(
    fn: Callable[..., Tensor], definition: Callable[..., Tensor], rows: int, processes: int, shard: Mapping[str, int]
) -> gradcheck.Report:
    labels = torch.arange(rows) % 3
    inputs = dict(x=(rows, D), y=(rows, D), negatives=(rows - 2, D), labels=labels, temperature=(), bias=())
    return gradcheck.check_sharded(
        fn, definition, inputs, shard, processes=processes, domain=DOMAIN, order=2, seconds=60.0
    )


# 2 processes with 4 and 3 rows, 3 with 3, 2 and 2, 4 of which one has none
@pytest.mark.parametrize(("processes", "rows"), [(2, 7), (3, 7), (4, 3)])
def test_values_of_rows(processes: int, rows: int) -> None:
    report = audited(corpus.rows_here, corpus.rows, rows, processes, SHARD | {"return": 0})
    assert report, str(report)


@pytest.mark.parametrize(("processes", "rows"), [(3, 7), (4, 5)])
def test_reduced(processes: int, rows: int) -> None:
    report = audited(corpus.reduced_here, corpus.reduced, rows, processes, SHARD)
    assert report, str(report)


@pytest.mark.parametrize("fn", [corpus.with_ddp, corpus.with_fsdp, corpus.without_the_factor])
def test_the_gradients_of_a_model(fn: Callable[..., Tensor]) -> None:
    """DDP and FSDP average what is to be added up: the features make up for it, and the scale must not."""
    inputs = dict(image=(5, 4), text=(5, 4), images=(D, 4), texts=(D, 4))
    shard = dict(image=0, text=0)
    report = gradcheck.check_sharded(fn, corpus.alone, inputs, shard, differentiable=(), seconds=60.0)
    assert report, str(report)


def test_compile() -> None:
    inputs, shard = dict(x=(4, D), y=(4, D), t=()), dict(x=0, y=0)

    def definition(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return 2 * M.clip_loss(2 * x, y, t)

    options: dict[str, Any] = dict(domain=dict(t=(0.5, 2.0)), seconds=100.0)
    report = gradcheck.check_sharded(corpus.compiled, definition, inputs, shard, **options)
    assert report, str(report)
    report = gradcheck.check_sharded(corpus.compiled_whole, definition, inputs, shard, **options)
    assert not report and "torch.compile cannot trace" in str(report)
