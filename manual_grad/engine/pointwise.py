r"""Losses of one element of each input: :math:`\ell_n = w_n\, e(x_n, t_n, \dots)`.

A loss states ``elementwise``, ``first`` and ``second``; the optional weight ``w`` and its derivatives are added here:

.. math::
    \partial_i \ell = w\, e_i, \qquad \partial_w \ell = e, \qquad
    (H v)_i = g \Big( w \sum_j e_{ij} v_j + e_i v_w \Big), \qquad (H v)_w = g \sum_i e_i v_i .
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine.dtypes import compute_dtype, widen
from manual_grad.engine.function import LossFunction, Options, Tensors, evaluate


class PointwiseLoss(LossFunction):
    """``apply(x, t, *auxiliary, weight, *options, reduction)``, all tensors of one shape, ``weight`` possibly None.

    Subclasses state, on equally shaped tensors: ``elementwise(x, t, …)``; ``first(x, t, …)``, the derivative by each
    input; ``second(x, t, …)``, the matrix of second derivatives, with a plain 0 for one that vanishes everywhere.
    """

    @staticmethod
    def elementwise(*inputs: Any) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def first(*inputs: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    @staticmethod
    def second(*inputs: Any) -> tuple[tuple[Any, ...], ...]:
        raise NotImplementedError

    @classmethod
    def shape(cls, X: Tensors, *options: Any) -> torch.Size:
        return X[0].shape

    @classmethod
    def value(cls, X: Tensors, *options: Any) -> Tensor:
        *inputs, weight = X
        e = cls.elementwise(*inputs, *options)
        return e if weight is None else weight * e

    @classmethod
    def gradient(cls, g: Tensor, X: Tensors, *options: Any) -> Tensors:
        *inputs, weight = X
        slope = g if weight is None else g * weight
        dw = None if weight is None else g * cls.elementwise(*inputs, *options)
        return *(slope * d for d in cls.first(*inputs, *options)), dw

    @classmethod
    def curvature(cls, g: Tensor, X: Tensors, v: Tensors, *options: Any) -> Tensors:
        *inputs, weight = X
        *v, v_weight = v
        slope = g if weight is None else g * weight
        first = cls.first(*inputs, *options)
        bent = []
        for d, row in zip(first, cls.second(*inputs, *options), strict=True):
            terms = [slope * (h * u) for h, u in zip(row, v, strict=True) if u is not None and isinstance(h, Tensor)]
            if v_weight is not None:
                terms.append(g * (d * v_weight))
            bent.append(sum(terms[1:], terms[0]) if terms else None)
        if weight is None:
            return *bent, None
        terms = [g * (d * u) for d, u in zip(first, v, strict=True) if u is not None]
        return *bent, (sum(terms[1:], terms[0]) if terms else None)

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: str, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        op = kernels.op(cls.kernel, *X)
        if op is None:
            return None
        x, t, *auxiliary, w = X
        a, da, p, q, r, scale = None, False, 0.0, 0.0, 0.0, 1.0
        if auxiliary:
            (a,), da = auxiliary, needs[2]
        if options:
            p, q, r = (*options, 0.0, 0.0)[:3]
        if reduction == "mean":
            divisor = cls.denominator(X, x, *options)
            scale = 1 / divisor if divisor else float("nan")
        loss, *gradients = op(
            x, t, a, w, g, p, q, r, scale, reduction != "none", value, needs[0], needs[1], da, needs[-1]
        )
        if not auxiliary:
            del gradients[2]
        return loss, gradients


def weighted_mean(loss: type[PointwiseLoss], *args: Any) -> Tensor:
    r""":math:`\sum w e / \sum w`, for a loss whose mean is taken by weight.

    The weight has a share in the gradient through the denominator too, :math:`\partial_w = (e - \ell) / \sum w`, where
    digits cancel: the quotient is taken in the wider dtype.
    """
    X, options = args[: loss.tensors], args[loss.tensors :]
    wide = widen(X, compute_dtype(X[0]))
    return (evaluate(loss, *wide, *options, "sum") / wide[-1].sum()).to(X[0].dtype)
