"""Losses of a lattice of alignments: frame scores are (T, N, C), with one value per sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine.function import LossFunction, Tensors


class PathLoss(LossFunction):
    """A loss whose first tensor holds frame scores."""

    @classmethod
    def shape(cls, X: Tensors, *options: Any) -> torch.Size:
        return X[0].shape[1:2]

    @staticmethod
    def contract(terms: Tensor, *options: Any) -> Tensor:
        return terms.sum((0, 2))
