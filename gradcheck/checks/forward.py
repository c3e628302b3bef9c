"""Does forward mode agree with reverse mode: alone, over reverse mode, below it, and over itself?"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gradcheck.checks.cases import each, in_blocks
from gradcheck.checks.second import derivatives, directions
from gradcheck.compare import Result, compare, expect
from gradcheck.conditioning import judge, scales
from gradcheck.numeric import random_direction
from gradcheck.spec import Case, Named, Settings, Spec

BOUND = 256.0  # the same derivatives, in another order of operations


def check(spec: Spec, settings: Settings) -> Iterator[Result]:
    promised = "forward" in spec.promises
    yield from each(spec.covering(settings), first_order, promised)
    if spec.order >= 2:
        yield from each(spec.covering(settings), over_reverse, promised)
        yield from each(spec.covering(settings), without_tangent, promised=False)
    if spec.order >= 2 and "nested" in spec.promises:
        yield from each(spec.covering(settings), below_reverse)
        yield from in_blocks(spec, lambda: each([spec.case(settings)], below_reverse))
        first = (spec.case(settings, params=params) for params in spec.params)
        yield from each(first, over_itself)


def first_order(case: Case) -> Iterator[Result]:
    """The transpose identity <v, J u> = <J^T v, u>, with u along the signs of J^T v so that nothing cancels."""
    value, gradient = case.differentiate()
    v = case.upstream(value)
    for name, direction in directions(case).items():
        d = gradient[name]
        u = direction[name].abs() * (1 if d is None else d.sign())
        right = torch.zeros(()) if d is None else (d * u).sum()
        with forward_ad.dual_level():
            dual = case.call(**{name: forward_ad.make_dual(case.tensors[name], u)})
            tangent = forward_ad.unpack_dual(dual).tangent
        left = None if tangent is None else (v * tangent).sum()
        # the gradient itself may be a sum in which terms cancel
        size = functools.cache(functools.partial(scale_along, case, v, name, u))
        yield judge(compare(f"tangent along {name}", left, right, BOUND), left, right, case.dtype, size, name)
        # which may raise where the other does not
        tangent = torch.func.jvp(lambda t, name=name: case.call(**{name: t}), (case.tensors[name],), (u,))[1]
        left = (v * tangent).sum()
        yield judge(compare(f"torch.func.jvp along {name}", left, right, BOUND), left, right, case.dtype, size, name)


def scale_along(case: Case, v: Tensor, name: str, u: Tensor) -> Named:
    """The scale of the derivative along ``u``."""
    size = scales(case, v).get(f"gradient of {name}")
    return {} if size is None else {name: (size * u.abs()).sum()}


def without_tangent(case: Case) -> Iterator[Result]:
    """Along an input without a promised gradient, the others have a tangent only if the value has one."""
    for name, t in case.tensors.items():
        if name in case.differentiable or not t.is_floating_point():
            continue
        leaves = case.leaves()
        with forward_ad.dual_level():
            value, tangent = forward_ad.unpack_dual(
                case.call(**leaves, **{name: forward_ad.make_dual(t, random_direction(0, t))})
            )
            if tangent is not None and tangent.any():
                continue
            found = torch.autograd.grad(
                value, list(leaves.values()), case.upstream(value), create_graph=True, allow_unused=True
            )
            for k, d in zip(leaves, found, strict=True):
                bent = None if d is None else forward_ad.unpack_dual(d).tangent
                right = bent is None or not bent.any()
                yield expect(f"d/d{k} of forward along {name}", right, "it has a tangent, and the value has none")


def over_reverse(case: Case) -> Iterator[Result]:
    """Forward mode through the gradient against double backward."""
    for name, direction in directions(case).items():
        expected = derivatives(case, direction, 2)
        tensors = case.leaves()
        with forward_ad.dual_level():
            dual = {k: forward_ad.make_dual(t, direction.get(k, torch.zeros_like(t))) for k, t in tensors.items()}
            value = case.call(**dual)
            g = case.upstream(forward_ad.unpack_dual(value).primal)
            found = torch.autograd.grad(value, list(dual.values()), g, allow_unused=True, create_graph=True)
            for k, d in zip(dual, found, strict=True):
                tangent = None if d is None else forward_ad.unpack_dual(d).tangent
                yield compare(f"d/d{k} of forward along {name}", tangent, expected[f"d/d{k}"], BOUND)


def below_reverse(case: Case) -> Iterator[Result]:
    """The gradient of a directional derivative against double backward."""
    for name, u in directions(case).items():
        expected = derivatives(case, u, 2)
        leaves = case.leaves()
        g = case.upstream(case.call())
        with forward_ad.dual_level():
            dual = case.call(**{**leaves, name: forward_ad.make_dual(leaves[name], u[name])})
            tangent = forward_ad.unpack_dual(dual).tangent
            if tangent is None or not tangent.requires_grad:
                found: tuple[Tensor | None, ...] = (None,) * len(leaves)
            else:
                found = torch.autograd.grad(tangent, list(leaves.values()), g, allow_unused=True)
        for k, d in zip(leaves, found, strict=True):
            yield compare(f"d/d{k} of the tangent along {name}", d, expected[f"d/d{k}"], BOUND)


def over_itself(case: Case) -> Iterator[Result]:
    f, z = flat(case)
    v, expected = curvature(f, z)
    yield compare("jacfwd of jacfwd", torch.func.jacfwd(torch.func.jacfwd(f))(z) @ v, expected, BOUND)
    yield from along_a_curve(f, z, v, expected)


def along_a_curve(f: Callable[[Tensor], Tensor], z: Tensor, v: Tensor, bent: Tensor) -> Iterator[Result]:
    """Where the direction moves with the point, the derivative of the tangent has a second term: v H v + grad f v."""
    start = z.new_zeros(())

    def speed(s: Tensor) -> Tensor:
        return torch.func.jvp(lambda s: f(z + (s + s.square() / 2) * v), (s,), (torch.ones_like(s),))[1]

    terms = torch.cat([v * bent, v * torch.func.grad(f)(z)])
    found = {
        "jvp of jvp": torch.func.jvp(speed, (start,), (torch.ones_like(start),))[1],
        "grad of jvp": torch.func.grad(speed)(start),
    }
    for what, d in found.items():
        yield compare(f"{what} along a curve", d, terms.sum(), BOUND, scale=terms.abs().sum())


def curvature(f: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """A direction v in which every entry takes part, and the Hessian times v, by double backward."""
    v, leaf = random_direction(0, z), z.detach().requires_grad_()
    (d,) = torch.autograd.grad(f(leaf), leaf, create_graph=True)
    if not d.requires_grad:
        return v, torch.zeros_like(z)
    return v, torch.autograd.grad((d * v).sum(), leaf, materialize_grads=True)[0]


def flat(case: Case) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The weighted sum of a case's values as a function of one vector, all differentiable tensors end to end."""
    tensors = case.differentiable
    g = case.upstream(case.call())

    def f(z: Tensor) -> Tensor:
        parts = z.split([t.numel() for t in tensors.values()])
        named = {k: part.reshape(t.shape) for (k, t), part in zip(tensors.items(), parts, strict=True)}
        return (case.call(**named) * g).sum()

    return f, torch.cat([t.detach().flatten() for t in tensors.values()])
