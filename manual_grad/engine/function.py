r"""Automatic differentiation, implemented once for all losses.

A loss is a map :math:`\ell(X)` from a tuple of tensors ``X`` to one value per element, row or sample, followed by a
reduction. A family (:mod:`~manual_grad.engine.pointwise`, …) and its losses define four formulas in torch ops:

=============================  =====================================================================================
``value(X)``                   :math:`\ell`, unreduced
``gradient(g, X)``             :math:`J^\top g`, one tensor for each of ``X``; ``g`` has one upstream gradient per value
``curvature(g, X, v)``         :math:`H v` with :math:`H = \nabla^2 \langle g, \ell(X) \rangle`, symmetric
``contract(terms)``            sums a tensor of the inputs' shape down to the shape of :math:`\ell`
=============================  =====================================================================================

The rest follows from these. With :math:`\dot\ell = J v = \mathrm{contract}(\mathrm{gradient}(1, X) \cdot v)` the three
Functions below are closed under differentiation:

* :class:`LossFunction`  :math:`X \mapsto \mathrm{reduce}(\ell)`; backward is ``Gradient``, jvp is ``Tangent``;
* :class:`Gradient`      :math:`(g, X) \mapsto J^\top g`; backward of :math:`v` is :math:`(J v,\; H v)`;
* :class:`Tangent`       :math:`(X, v) \mapsto J v`; backward of :math:`g` is :math:`(H v,\; J^\top g)`.

``curvature`` is written in differentiable torch ops, so autograd supplies the third and all higher orders.
A kernel (``fused``) never replaces a formula: it is tried first and may decline.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function

from manual_grad import kernels
from manual_grad.engine import collectives, torch_private
from manual_grad.engine.dtypes import HALF, compute_dtype, widen

Tensors = tuple["Tensor | None", ...]
Options = tuple[Any, ...]
Reduction = str | float


class LossFunction(Function):
    """Base of every loss: ``apply(*tensors, *options, reduction)``.

    ``tensors`` is the number of leading arguments that are tensors (an absent optional one is None). The options are
    plain Python values. ``reduction`` is 'none', 'mean' or 'sum', or a factor of the sum. Subclasses define ``value``,
    ``gradient``, ``curvature`` and ``contract`` (each takes ``(…, *options)``) and may override ``denominator``.

    ``kernel`` names an op that computes the same, ``(*X, g, *options, scale, reduce, loss, *gradients)``. It writes
    the outputs that are not None: ``loss``, one value per row or, with ``reduce``, the sum of all rows times
    ``scale``; and ``gradients``, for the upstream gradient ``g`` times ``scale``. The denominator of the mean is
    computed here and passed in ``scale``, with one exception: if the mean is weighted by something that the kernel
    reads anyway (``weighs``), one more option asks the op to divide by it.
    """

    generate_vmap_rule = True
    tensors: ClassVar[int]
    kernel: ClassVar[str | None] = None
    weighs: ClassVar[bool] = False
    swept: ClassVar[int] = 1  # how many leading tensors a kernel computes gradients for
    most: ClassVar[int] = sys.maxsize  # elements up to which the gradient is computed along with the value
    curved: ClassVar[bool] = True  # False where the second derivative is zero everywhere
    stacked: ClassVar[bool] = False  # whether each row has several values, stacked along a new first dimension
    eager: ClassVar[Callable[..., Tensor]]  # apply of the subclass of Eager that is named after this loss

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.eager = Eager.of(cls)

    # -- the mathematics, defined by a family and its losses

    @staticmethod
    def value(X: Tensors, *options: Any) -> Tensor:
        raise NotImplementedError

    @staticmethod
    def gradient(g: Tensor, X: Tensors, *options: Any) -> Tensors:
        raise NotImplementedError

    @staticmethod
    def curvature(g: Tensor, X: Tensors, v: Tensors, *options: Any) -> Tensors:
        raise NotImplementedError

    @staticmethod
    def contract(terms: Tensor, *options: Any) -> Tensor:
        return terms

    @staticmethod
    def across(contracted: Tensor, *options: Any) -> Tensor:
        """The sum over processes of what :meth:`contract` left, for a loss whose inputs they have parts of."""
        return contracted

    @classmethod
    def denominator(cls, X: Tensors, loss: Tensor, *options: Any) -> Tensor | float:
        """The divisor of the mean."""
        return loss.numel()

    @classmethod
    def shape(cls, X: Tensors, *options: Any) -> torch.Size:
        """The shape of the unreduced loss."""
        raise NotImplementedError

    @classmethod
    def dtype(cls, X: Tensors, *options: Any) -> torch.dtype:
        """The dtype of the loss."""
        return X[0].dtype

    # -- kernels

    # A method (X, options) that returns the kernel, or None if none supports the call; needed only if that depends on
    # more than the tensors' dtypes, devices and layouts.
    op: ClassVar[Any] = None

    @classmethod
    def scale(cls, X: Tensors, options: Options) -> float:
        """The factor by which the mean multiplies the sum, apart from any weights that the kernel sums itself."""
        divisor = cls.shape(X, *options).numel()
        return 1 / divisor if divisor else float("nan")

    @classmethod
    def fused(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        """Compute the loss (if ``value``) and the gradients selected by ``needs`` in one kernel pass; None without one.

        Without ``g`` the gradients are those of the reduced loss itself (an upstream gradient of 1).
        """
        # plain statements instead of helpers: for a small tensor this is much of the time of a call
        x, n, reduce = X[0], cls.swept, reduction != "none"
        size = x.numel()
        if not size:
            return None
        op = kernels.op(cls.kernel, *X) if cls.op is None else cls.op(X, options)
        if op is None:
            return None
        loss = None
        if value:
            loss = x.new_empty(()) if reduce else x.new_empty(cls.shape(X, *options))
        waits = value and size > cls.most
        gradients: list[Tensor | None] = [None] * len(X)
        if not waits:
            if needs[0]:
                gradients[0] = torch.empty_like(x)
            for i in range(1, n):
                if needs[i]:
                    gradients[i] = torch.empty_like(X[i])
        mean = reduction == "mean"
        scale = cls.scale(X, options) if mean else reduction if isinstance(reduction, float) else 1.0
        if cls.weighs:
            op(*X, g, *options, mean, scale, reduce, loss, *gradients[:n])
        else:
            op(*X, g, *options, scale, reduce, loss, *gradients[:n])
        return loss, [] if waits else gradients

    # -- reductions

    @classmethod
    def reduce(cls, loss: Tensor, X: Tensors, options: Options, reduction: Reduction) -> Tensor:
        if reduction == "none":
            return loss
        total = loss.sum()
        if isinstance(reduction, float):
            return total * reduction
        return total if reduction == "sum" else total / cls.denominator(X, loss, *options)

    @classmethod
    def spread(cls, g: Tensor, X: Tensors, options: Options, reduction: Reduction) -> Tensor:
        """The upstream gradient of each unreduced value, by the transpose of :meth:`reduce`."""
        if reduction == "none":
            return g
        shape = cls.shape(X, *options)
        if reduction == "mean":
            g = g / cls.denominator(X, g.expand(shape), *options)
        elif isinstance(reduction, float):
            g = g * reduction
        return g.expand(shape)

    # -- torch.autograd.Function

    @classmethod
    def split(cls, args: tuple[Any, ...]) -> tuple[Tensors, Options, Reduction]:
        return args[: cls.tensors], args[cls.tensors : -1], args[-1]

    @classmethod
    def compute(cls, X: Tensors, options: Options, reduction: Reduction) -> Tensor:
        """The reduced loss by the formulas."""
        wide = widen(X, compute_dtype(X[0]))
        return cls.reduce(cls.value(wide, *options), wide, options, reduction).to(cls.dtype(X, *options))

    @classmethod
    def forward(cls, *args: Any) -> Tensor:
        X, options, reduction = cls.split(args)
        result = cls.sweep(X, options, reduction, (False,) * len(X), None, True)
        return cls.compute(X, options, reduction) if result is None else result[0]

    @classmethod
    def setup_context(cls, ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        X, ctx.options, ctx.reduction = cls.split(inputs)
        _save(ctx, X)

    @classmethod
    def backward(cls, ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        X, needs = ctx.saved_tensors, ctx.needs_input_grad
        rest = (None,) * (len(needs) - cls.tensors)
        if g is None:
            return (None,) * len(needs)
        return *cls.differentiable_gradient(g, X, ctx.options, ctx.reduction, needs[: cls.tensors]), *rest

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Any) -> Tensor:
        with torch_private.forward_differentiation(True):
            X, v = _primals(ctx), tangents[: cls.tensors]
            if not cls.curved:  # the first derivative is constant and needs no graph
                X = tuple(None if x is None else x.detach() for x in X)
            return cls.reduce(Tangent.apply(Call(cls, ctx.options), *X, *v), X, ctx.options, ctx.reduction)

    @classmethod
    def differentiable_gradient(
        cls, g: Tensor, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...]
    ) -> Tensors:
        """The gradients of the inputs in ``needs``; their backward is the hand-derived second derivative."""
        rows = cls.spread(g, X, options, reduction)
        return _scatter(Gradient.apply(Call(cls, options, tuple(needs)), rows, *X), needs)

    @classmethod
    def sweep(
        cls, X: Tensors, options: Options, reduction: Reduction, needs: tuple[bool, ...], g: Tensor | None, value: bool
    ) -> tuple[Tensor | None, list[Tensor | None]] | None:
        """:meth:`fused`, except under torch.func transforms: a kernel cannot read the tensors that they wrap."""
        if torch_private.transforms_are_active():
            return None
        return cls.fused(X, options, reduction, needs, g, value)

    @classmethod
    def share(cls, *args: Any) -> Tensor:
        """The share, of these rows, of the mean over the batch of all processes."""
        X, options, _ = cls.split(args)
        dtype, shape = cls.dtype(X, *options), cls.shape(X, *options)
        wide = compute_dtype(X[0])
        # a half could not hold the sum
        whole = evaluate(cls, *args[:-1], "none" if dtype in HALF else "sum").to(wide).sum()
        like = X[0].new_empty((), dtype=wide).expand(shape)
        divisor = cls.denominator(X, like, *options) if shape.numel() else 0.0
        return (whole / collectives.of_batch(divisor, like)).to(dtype)


def per_row(cls: type[LossFunction], X: Tensors, options: Options) -> float:
    """:meth:`LossFunction.scale` of a loss with one value per row, by the shortest way for a matrix."""
    shape = X[0].shape
    rows = shape[0] if len(shape) == 2 else cls.shape(X, *options).numel()
    return 1 / rows if rows else float("nan")


def evaluate(loss: type[LossFunction], *args: Any) -> Tensor:
    """``loss.apply(*args)`` with the least overhead; the functionals call this.

    torch.jit.trace and torch.export get the formulas: they record no autograd Function, and without one a kernel has
    no gradient. (This concerns losses that torch lacks; for the others the functional has called torch's own.)
    """
    if collectives.batch_groups() and args[-1] == "mean":
        return loss.share(*args)
    if torch_private.is_intercepted():
        if torch_private.tracing_state() or torch_private.is_exporting():
            return loss.compute(args[: loss.tensors], args[loss.tensors : -1], args[-1])
        return loss.apply(*args)
    # Without a graph, no gradient must be computed. Inside Eager.forward grad mode is always off, so check it here.
    if not torch.is_grad_enabled():
        return loss.forward(*args)
    n = loss.tensors
    return loss.eager((loss, args[n:-1], args[-1], kernels.on()), *args[:n])


@dataclass(frozen=True)
class Call:
    """All that Gradient and Tangent need to know about a loss, as one opaque argument: torch.func flattens tuples."""

    loss: type[LossFunction]
    options: Options
    needs: tuple[bool, ...] = ()
    kernels: bool = field(default_factory=kernels.on)

    def value_shape(self, X: Tensors) -> torch.Size:
        return self.loss.shape(X, *self.options)

    def gradient(self, g: Tensor, X: Tensors) -> Tensors:
        wide = widen((g, *X), compute_dtype(X[0]))
        return _narrow(self.loss.gradient(wide[0], wide[1:], *self.options), X)

    def curvature(self, g: Tensor, X: Tensors, v: Tensors) -> Tensors:
        dtype = compute_dtype(X[0])
        return _narrow(self.loss.curvature(g.to(dtype), widen(X, dtype), widen(v, dtype), *self.options), X)

    def along(self, X: Tensors, v: Tensors, bent: Tensors | None = None) -> Tensor:
        """J v, or with ``bent`` = u, the second derivative of each value along u and v."""
        dtype, shape = compute_dtype(X[0]), self.value_shape(X)
        wide, v, bent = widen(X, dtype), widen(v, dtype), None if bent is None else widen(bent, dtype)

        def of(g: Tensor) -> Tensor:
            """The directional derivative of the values selected by g, which is 0 for the others of their row."""
            if bent is None:
                d = self.loss.gradient(g, wide, *self.options)
            else:
                d = self.loss.curvature(g, wide, bent, *self.options)
            terms = [a * b for a, b in zip(d, v, strict=True) if a is not None and b is not None]
            return self.loss.contract(sum(terms[1:], terms[0]), *self.options) if terms else g.new_zeros(rows)

        result = self.loss.dtype(X, *self.options)
        if not self.loss.stacked:
            rows = shape
            found = of(torch.ones((), dtype=dtype, device=X[0].device).expand(shape))
            return self.loss.across(found, *self.options).to(result)
        count, *rows = shape
        units = torch.eye(count, dtype=dtype, device=X[0].device).view(count, count, *(1,) * len(rows))
        found = torch.stack([of(unit.expand(shape)) for unit in units])
        return self.loss.across(found, *self.options).to(result)


class Gradient(Function):
    """``apply(call, g, *X)``: the entries of ``loss.gradient`` selected by ``call.needs``, as a tuple."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: Call, g: Tensor, *X: Tensor | None) -> tuple[Tensor, ...]:
        with kernels.switched(call.kernels):
            result = call.loss.sweep(X, call.options, "none", call.needs, g, False)
        gradients = call.gradient(g, X) if result is None else result[1]
        return tuple(d for d, needed in zip(gradients, call.needs, strict=True) if needed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.call, *tensors = inputs
        _save(ctx, tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(v is None for v in cotangents):
            return (None,) * len(ctx.needs_input_grad)
        call, (g, *X), v = ctx.call, ctx.saved_tensors, _scatter(cotangents, ctx.call.needs)
        _, wants_g, *wants_X = ctx.needs_input_grad
        dg = Tangent.apply(call, *X, *v) if wants_g else None
        dX = call.curvature(g, tuple(X), v) if any(wants_X) else (None,) * len(X)
        return None, dg, *dX

    @staticmethod
    def jvp(ctx: Any, _: None, dg: Tensor | None, *v: Tensor | None) -> tuple[Tensor, ...]:
        with torch_private.forward_differentiation(True):
            call, (g, *X) = ctx.call, _primals(ctx)
            bent = call.curvature(g, tuple(X), v)
            moved = (None,) * len(X) if dg is None else _scatter(Gradient.apply(call, dg, *X), call.needs)
            rows = zip(bent, moved, X, call.needs, strict=True)
            return tuple(_add(a, b, x) for a, b, x, needed in rows if needed)


class Tangent(Function):
    """``apply(call, *X, *v)``: the directional derivative of the unreduced loss."""

    generate_vmap_rule = True

    @staticmethod
    def forward(call: Call, *tensors: Tensor | None) -> Tensor:
        return call.along(*_halves(tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.call, *tensors = inputs
        _save(ctx, tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        if g is None:
            return (None,) * len(ctx.needs_input_grad)
        (X, v), (wants_X, wants_v) = _halves(ctx.saved_tensors), _halves(ctx.needs_input_grad[1:])
        dX = ctx.call.curvature(g, X, v) if any(wants_X) else (None,) * len(X)
        dv = (None,) * len(X)
        if any(wants_v):
            dv = _scatter(Gradient.apply(replace(ctx.call, needs=wants_v), g, *X), wants_v)
        return None, *dX, *dv

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        with torch_private.forward_differentiation(True):
            (X, v), (dX, dv) = _halves(_primals(ctx)), _halves(tangents)
            result = ctx.call.along(X, dX, bent=v)
            return result if all(t is None for t in dv) else result + Tangent.apply(ctx.call, *X, *dv)


class Eager(Function):
    """The fast path for eager mode: ``apply((loss, options, reduction, whether with kernels), *tensors)``.

    All that is not a tensor is one argument, because torch looks at each one.

    If a kernel supports the call, one pass over the inputs computes the reduced loss and its gradient, and backward
    only multiplies that gradient by the upstream gradient. The precomputed gradient is returned once, because the
    caller then owns it; a second backward (``retain_graph``) computes it again.
    """

    @classmethod
    def of(cls, loss: type[LossFunction]) -> Callable[..., Tensor]:
        """``apply`` of a subclass named after the loss: HuberLossFunction appears in graphs as HuberLossBackward."""
        name = loss.__name__.removesuffix("Function")
        metaclass: Any = type(cls)
        function = metaclass(name, (cls,), {"__module__": loss.__module__})
        # The autograd engine calls apply, which would look up backward on every call.
        function._backward_cls.apply = function.backward
        # Function.apply binds default arguments through inspect.signature on every call, which costs more than a small
        # loss. This is the apply of its base class.
        above: Any = super(Function, function)
        return above.apply

    @staticmethod
    def forward(ctx: Any, call: tuple[type[LossFunction], Options, str, bool], *X: Tensor | None) -> Tensor:
        ctx.call = call
        loss, options, reduction, _ = call
        ctx.save_for_backward(*_savable(X))
        # The gradient is left to backward if
        # - the reduction is 'none': it depends on the upstream gradient;
        # - the dtype is float16 on a device: the gradient may underflow unless the upstream gradient (a loss scale) is
        #   applied first, and backward cannot inspect that without synchronizing;
        # - there are hooks on saved tensors (checkpointing, offloading): a gradient kept here would escape them.
        waits = (
            reduction == "none"
            or (X[0].dtype is torch.float16 and not X[0].is_cpu)
            or torch_private.saved_tensors_hooks(True) is not None
        )
        needs = (False,) * len(X) if waits else ctx.needs_input_grad[1:]
        result = loss.fused(X, options, reduction, needs, None, True)
        if result is None:
            return loss.compute(X, options, reduction)
        value, gradients = result
        if not waits and gradients:  # fused may leave the gradients to backward
            ctx.swept = gradients
        return value

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        swept = ctx.__dict__.pop("swept", None)
        create_graph = torch.is_grad_enabled() or torch_private.is_transforming()
        if swept is not None and not create_graph:
            # neither a tracer's tensor nor a batched one has a value that can be read
            if type(g) is not Tensor or torch_private.is_legacy_batched(g):
                return None, *(None if d is None else d * g for d in swept)
            if not g.is_cpu:  # reading the value would synchronize with the device
                scale_ = kernels.op("scale_", g)
                if scale_ is None:
                    return None, *(None if d is None else d * g for d in swept)
                for d in swept:
                    if d is not None:
                        scale_(d, g)
                return None, *swept
            if g.item() == 1:
                return None, *swept
            if g.dtype not in HALF:  # in half precision, what underflowed for want of the upstream gradient is lost
                return None, *(None if d is None else d.mul_(g) for d in swept)
        loss, options, reduction, with_kernels = ctx.call
        X, needs = ctx.saved_tensors, ctx.needs_input_grad[1:]
        with kernels.switched(with_kernels):  # backward may run on another thread, or after the context was exited
            if create_graph:
                gradients = loss.differentiable_gradient(g, X, options, reduction, needs)
            else:
                batched = torch_private.is_legacy_batched(g)
                result = None if batched else loss.fused(X, options, reduction, needs, g, False)
                if result is None:
                    rows = loss.spread(g.to(compute_dtype(X[0])), X, options, reduction)
                    gradients = Call(loss, options).gradient(rows, X)
                else:
                    gradients = result[1]
        return None, *(d if needed else None for d, needed in zip(gradients, needs, strict=True))


def _savable(tensors: Any) -> Any:
    """The tensors, with inference tensors cloned, since autograd refuses to save those."""
    for t in tensors:
        if t is not None and t.is_inference():
            return tuple(t if t is None or not t.is_inference() else t.clone() for t in tensors)
    return tensors


def _save(ctx: Any, tensors: Any) -> None:
    tensors = _savable(tensors)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.set_materialize_grads(False)


def _primals(ctx: Any) -> tuple[Tensor | None, ...]:
    """The saved tensors without the tangents of the level being differentiated; those of outer levels are kept.

    torch calls jvp with forward differentiation off, which silently drops the tangents of outer levels (jacfwd of
    jacfwd gave zero). With it on, the tangents of the current level must be removed.
    """
    return tuple(None if t is None else torch_private.primal(t) for t in ctx.saved_tensors)


def _scatter(some: tuple[Tensor | None, ...], needs: Any) -> tuple[Tensor | None, ...]:
    it = iter(some)
    return tuple(next(it) if needed else None for needed in needs)


def _narrow(wide: Tensors, like: Tensors) -> tuple[Tensor | None, ...]:
    pairs = zip(wide, like, strict=True)
    return tuple(None if d is None or x is None else d.to(x.dtype) for d, x in pairs)


def _add(a: Tensor | None, b: Tensor | None, like: Tensor) -> Tensor:
    if a is None or b is None:
        only = b if a is None else a
        return torch.zeros_like(like) if only is None else only
    return a + b


def _halves(values: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return tuple(values[: len(values) // 2]), tuple(values[len(values) // 2 :])
