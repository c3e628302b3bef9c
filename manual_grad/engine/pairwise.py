"""Losses of two or three vectors, the rows of tensors (D) or (N, D), with one value a row; or of their distances."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine.function import LossFunction, Tensors
from manual_grad.engine.pointwise import PointwiseLoss


class PairwiseLoss(LossFunction):
    """A loss whose first tensor holds vectors."""

    @classmethod
    def shape(cls, X: Tensors, *options: Any) -> torch.Size:
        return X[0].shape[:-1]

    @staticmethod
    def contract(terms: Tensor, *options: Any) -> Tensor:
        return terms.sum(-1)


class DistanceLoss(PointwiseLoss):
    """A loss of distances that somebody else has measured: of one element of each."""
