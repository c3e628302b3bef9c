r"""Elementwise losses: :math:`\ell_n = w_n\, e(x_n, t_n, \dots)`.

A loss defines its rule once, as ``elementwise``, ``first`` and ``second``. These run on tensors, and
``manual_grad.generate`` generates the kernels from the first two. This module adds the optional weight ``w`` and its
derivatives:

.. math::
    \partial_i \ell = w\, e_i, \qquad \partial_w \ell = e, \qquad
    (H v)_i = g \Big( w \sum_j e_{ij} v_j + e_i v_w \Big), \qquad (H v)_w = g \sum_i e_i v_i .
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import collectives
from manual_grad.engine.arguments import readable
from manual_grad.engine.dtypes import compute_dtype, widen
from manual_grad.engine.function import LossFunction, Options, Reduction, Tensors, evaluate

INPUTS = ("Tensor", "Tensor | None")
OPTIONS = ("float", "bool")  # option types that are passed to a kernel


class PointwiseLoss(LossFunction):
    """``apply(*inputs, weight, *options, reduction)``, all tensors of one shape, ``weight`` possibly None.

    Subclasses define, on tensors of equal shape: ``elementwise(x, t, …)``; ``first(x, t, …)``, the derivative with
    respect to each input; ``second(x, t, …)``, the matrix of second derivatives, where a plain 0 stands for one that
    vanishes everywhere. The annotations of ``elementwise`` give the kind of each argument: a ``Tensor`` is an input,
    ``Tensor | None`` an optional input, anything else an option. A kernel receives the options that are ``float`` or
    ``bool``.

    If the inputs have a restricted domain, ``outside(x, t, …)`` returns one mask per way to violate it, and
    ``messages`` the message for each; the exception type is ``refusal``.
    """

    inputs: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]]
    options: ClassVar[dict[str, str]]  # name -> annotation
    without: ClassVar[tuple[int, ...]]  # the positions of options that a kernel does not receive
    special: ClassVar[dict[str, tuple[float, ...]]] = {}  # option values that a kernel specializes for, tested by ==
    factor: ClassVar[int] = 1  # of all slopes; applied last, so that 1 / N can first prevent an overflow
    plain: ClassVar[bool] = False  # no cancellation beyond what float32 inputs imply: kernels need no wider dtype
    paired: ClassVar[bool] = False  # cancels, but the C++ kernel computes float32 in pairs of floats instead of double
    by_hand: ClassVar[bool] = False  # the kernels are written and tuned by hand instead of generated
    messages: ClassVar[tuple[str, ...]] = ()
    refusal: ClassVar[type[Exception]] = RuntimeError

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        kinds = {p.name: _kind(p) for p in inspect.signature(cls.elementwise).parameters.values()}
        cls.inputs = tuple(name for name, kind in kinds.items() if kind in INPUTS)
        cls.optional = tuple(name for name, kind in kinds.items() if kind == "Tensor | None")
        cls.options = {name: kind for name, kind in kinds.items() if kind not in INPUTS}
        cls.without = tuple(i for i, kind in enumerate(cls.options.values()) if kind not in OPTIONS)
        cls.tensors = len(cls.inputs) + 1

    @staticmethod
    def elementwise(*inputs: Any) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def first(*inputs: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    @staticmethod
    def second(*inputs: Any) -> tuple[tuple[Any, ...], ...]:
        raise NotImplementedError

    @staticmethod
    def outside(*inputs: Any) -> tuple[Tensor, ...]:
        return ()

    @classmethod
    def shape(cls, X: Tensors, *options: Any) -> torch.Size:
        return X[0].shape

    @classmethod
    def value(cls, X: Tensors, *options: Any) -> Tensor:
        *inputs, weight = X
        cls._check(inputs)
        e = cls.elementwise(*inputs, *options)
        return e if weight is None else weight * e

    @classmethod
    def gradient(cls, g: Tensor, X: Tensors, *options: Any) -> Tensors:
        *inputs, weight = X
        slope = g if weight is None else g * weight
        dw = None if weight is None else g * cls.elementwise(*inputs, *options)
        return *(slope * d for d in cls._slopes(*inputs, *options)), dw

    @classmethod
    def curvature(cls, g: Tensor, X: Tensors, v: Tensors, *options: Any) -> Tensors:
        *inputs, weight = X
        *v, v_weight = v
        slope = g if weight is None else g * weight
        first = cls._slopes(*inputs, *options)
        bent = []
        for d, row in zip(first, cls.second(*inputs, *options), strict=True):
            terms = [
                slope * (h * u) for h, u in zip(row, v, strict=True) if u is not None and (isinstance(h, Tensor) or h)
            ]
            if v_weight is not None:
                terms.append(g * (d * v_weight))
            bent.append(sum(terms[1:], terms[0]) if terms else None)
        if weight is None:
            return *bent, None
        terms = [g * (d * u) for d, u in zip(first, v, strict=True) if u is not None]
        return *bent, (sum(terms[1:], terms[0]) if terms else None)

    @classmethod
    def _slopes(cls, *arguments: Any) -> tuple[Tensor, ...]:
        slopes = cls.first(*arguments)
        return slopes if cls.factor == 1 else tuple(cls.factor * d for d in slopes)

    @classmethod
    def _check(cls, inputs: list[Tensor]) -> None:
        """Check the domain, as a kernel does in its loop. Skipped where reading values would need synchronization."""
        if cls.messages and all(readable(t) for t in inputs if t is not None):
            for mask, message in zip(cls.outside(*inputs), cls.messages, strict=True):
                if mask.any():
                    raise cls.refusal(message)

    @classmethod
    def scale(cls, X: Tensors, options: Options) -> float:
        divisor = X[0].numel()
        return 1 / divisor if divisor else float("nan")

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        """As :meth:`LossFunction.fused`, but the kernel allocates its results, laid out like the inputs."""
        op = kernels.op(cls.kernel, *X)
        if op is None:
            return None
        scale = cls.scale(X, options) if reduction == "mean" else reduction if isinstance(reduction, float) else 1.0
        if cls.without:
            options = tuple(option for i, option in enumerate(options) if i not in cls.without)
        loss, *gradients = op(*X, g, *options, scale, reduction != "none", value, *needs)
        return loss, gradients


def _kind(parameter: inspect.Parameter) -> str:
    """The annotation of a parameter as a string; "Tensor" without one."""
    if parameter.annotation is parameter.empty:
        return "Tensor"
    return inspect.formatannotation(parameter.annotation).strip("'").replace("torch.", "")


def weighted_mean(loss: type[PointwiseLoss], *args: Any) -> Tensor:
    r""":math:`\sum w e / \sum w`, for a loss whose mean is weighted.

    The denominator contributes to the gradient of the weight, :math:`\partial_w = (e - \ell) / \sum w`, where digits
    cancel. The quotient is therefore computed in the wider dtype.
    """
    X, options = args[: loss.tensors], args[loss.tensors :]
    wide = widen(X, compute_dtype(X[0]))
    return (evaluate(loss, *wide, *options, "sum") / collectives.of_batch(wide[-1].sum(), wide[-1])).to(X[0].dtype)
