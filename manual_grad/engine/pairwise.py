"""Losses of two or three vectors, given as tensors (D) or (N, D), with one value per row; or of their distances."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine.function import LossFunction, Tensors, per_row
from manual_grad.engine.pointwise import PointwiseLoss


class PairwiseLoss(LossFunction):
    """A loss whose first tensor holds one vector per row."""

    @classmethod
    def shape(cls, X: Tensors, *options: Any) -> torch.Size:
        return X[0].shape[:-1]

    scale = classmethod(per_row)

    @staticmethod
    def contract(terms: Tensor, *options: Any) -> Tensor:
        return terms.sum(-1)


class DistanceLoss(PointwiseLoss):
    """A loss of distances that the caller has computed: elementwise in each of them."""
