r"""SigLIP: does this text belong to this image?

**Where it comes from.** A softmax over a batch needs the scores of all its pairs at once. Zhai et al. [1] ask instead,
of each pair on its own, whether it belongs together. They find this as good, and better in small batches.

**Definition.** With features :math:`x` of the images and :math:`y` of the texts, a scale :math:`a` and a bias
:math:`b`, image :math:`n` has the sum over all texts :math:`j` of the logistic loss

.. math::
    z_j = a\, x_n \cdot y_j + b, \qquad t_j = \begin{cases} 1 & j = n \\ -1 & \text{otherwise} \end{cases} \tag{1}

.. math::
    \ell = -\sum_j \log \sigma(t_j\, z_j), \qquad \sigma(u) = \frac{1}{1 + e^{-u}} \tag{2}

The loss of a batch divides the sum over all pairs by the number of images.

**Stable form.** With :math:`u = -t_j z_j`, a logarithm of a small number becomes one of :math:`1 + e^u`, which
:math:`\mathrm{log1p}` computes to the last digit:

.. math::
    -\log \sigma(t_j\, z_j) = \log(1 + e^{-t_j z_j}) \tag{3}

**Gradient.** Since :math:`\sigma' = \sigma\, (1 - \sigma)`, and :math:`1 - \sigma(u) = \sigma(-u)` needs no
subtraction,

.. math::
    r_j = -t_j\, \sigma(-t_j\, z_j), \qquad \frac{\partial \ell}{\partial z_j} = r_j \tag{4}

.. math::
    \frac{\partial \ell}{\partial x_{ih}} = a\, [i = n] \sum_j r_j\, y_{jh}, \qquad
    \frac{\partial \ell}{\partial y_{jh}} = a\, r_j\, x_{nh}, \qquad
    \frac{\partial \ell}{\partial a} = \sum_j r_j\, x_n \cdot y_j, \qquad
    \frac{\partial \ell}{\partial b} = \sum_j r_j \tag{5}

**Second derivative.** The sign disappears:

.. math::
    \frac{\partial r_j}{\partial z_j} = \sigma(z_j)\, \sigma(-z_j), \qquad
    \dot z_j = a\, (\dot x_n \cdot y_j + x_n \cdot \dot y_j) + \dot a\, x_n \cdot y_j + \dot b, \qquad
    (H v)_b = \sum_j \sigma(z_j)\, \sigma(-z_j)\, \dot z_j \tag{6}

What follows for the features is (5) of :mod:`~manual_grad.engine.contrastive`. There are no kinks.

**Shapes and domain.** Both features are :math:`(N, D)`; scale and bias are any numbers. The authors start with
:math:`a = 10` and :math:`b = -10`.

Sources:

1. Xiaohua Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (2023),
   `arXiv:2303.15343 <https://arxiv.org/abs/2303.15343>`_.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad import kernels
from manual_grad.engine import arguments, contrastive, ring
from manual_grad.engine.contrastive import PairLoss
from manual_grad.engine.function import Tensors
from manual_grad.engine.tiles import Pairs, Sweep


class SigLIPLossFunction(PairLoss):
    """See :class:`~manual_grad.engine.contrastive.PairLoss`; the state of a row is its loss."""

    balanced = False

    @classmethod
    def of_logits(cls, z: Tensor, P: Pairs) -> Tensor:
        return _softplus(-_signs(z, P) * z).sum(1)  # (3)

    @classmethod
    def slope(cls, g: Tensor, z: Tensor, P: Pairs) -> Tensor:
        signs = _signs(z, P)
        return -g.unsqueeze(1) * signs * (-signs * z).sigmoid()  # (4)

    @classmethod
    def bent(cls, g: Tensor, z: Tensor, dz: Tensor, P: Pairs) -> Tensor:
        return g.unsqueeze(1) * z.sigmoid() * (-z).sigmoid() * dz  # (6)

    @classmethod
    def tiled(cls, x: Tensor) -> bool:
        return kernels.on()

    @classmethod
    def summarize(cls, sweep: Sweep, symmetric: bool, entropy: bool) -> tuple[Tensor, None]:
        rows = sweep.x.new_zeros(len(sweep.x), dtype=torch.float64)
        for first, keys, _ in sweep.visits():
            for tile in sweep.tiles(first, keys):
                z = _exchanged(tile.s.mul_(sweep.unit).add_(sweep.P.bias), tile.diagonal)
                rows[tile.rows] += _softplus(z, out=z).sum(1)
        return rows, None

    @classmethod
    def finish(cls, P: Pairs, symmetric: bool) -> Tensor:
        return P.rows

    @classmethod
    def sweep_gradients(cls, sweep: Sweep, g: Tensor, symmetric: bool) -> Tensors:
        da, db = g.new_zeros(()), g.new_zeros(())
        for first, keys, guests in sweep.visits(*(() if sweep.dy is None else (sweep.dy,))):
            for tile in sweep.tiles(first, keys):
                r, own = torch.mul(tile.s, sweep.unit, out=sweep.buffer(tile)).add_(sweep.P.bias), tile.diagonal
                r = _exchanged(r, own).sigmoid_().mul_(g[tile.rows].unsqueeze(1))
                r = _exchanged(r, own)  # (4)
                db += r.sum(1).double().sum()
                da += tile.s.mul_(r).sum(1).double().sum()
                sweep.add(tile, r.mul_(sweep.unit), keys, guests[0] if guests else None)
        return da if sweep.known else da / sweep.scale, db


def _softplus(z: Tensor, out: Tensor | None = None) -> Tensor:
    """log(1 + e^z) = log(e^z + e^0), without overflow."""
    return torch.logaddexp(z, z.new_zeros(()), out=out)


def _exchanged(z: Tensor, own: Tensor | None) -> Tensor:
    """With the sign of the pairs that belong together."""
    return z if own is None else z.copy_(torch.where(own, -z, z))


def _signs(z: Tensor, P: Pairs) -> Tensor:
    """1 for the pairs that belong together, else -1."""
    together = P.positive.unsqueeze(1) == torch.arange(z.shape[1], device=z.device)
    return torch.where(together, 1.0, -1.0).to(z.dtype)


@arguments.overridable
def siglip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    *,
    reduction: str = "mean",
    group: Any = None,
) -> Tensor:
    """The sigmoid loss of images and their texts, of which the scores of all pairs are never stored whole.

    Args:
        image_features: Feature vectors, floating point, of shape (N, D). They are taken as they are: normalize them
            before.
        text_features: Those of the texts, of the same shape and dtype; text i belongs to image i, and to no other.
        logit_scale: Multiplies the scores. It is the scale itself, not its logarithm, which models often learn. A
            tensor without dimensions may require a gradient.
        logit_bias: Is added to them, likewise.
        reduction: 'none', 'mean' or 'sum' over the images, of which each has the sum over all texts.
        group: A ``torch.distributed.ProcessGroup`` or a ``DeviceMesh`` of one dimension over which the rows are spread:
            each process passes its own, and their numbers may differ. See below.

    With a group, 'mean' and 'sum' are those of the rows of all processes, the same on each, bit by bit; 'none' gives
    the values of the process's own rows. Every process gets the whole gradient of its own rows, and of scale and bias.
    DDP and FSDP divide what the processes add up for a parameter by their number R. Make up for it at the features, by
    ``image_features.register_hook(lambda g: R * g)`` for both features: a factor of the loss would multiply scale and
    bias, too.
    All processes must make the same calls. torch.compile leaves these to eager mode, and refuses ``fullgraph=True``.

    Returns:
        A scalar, or for 'none' a tensor of shape (N); float32 for halves and under autocast, else of the dtype of the
        features. Both features, ``logit_scale`` and ``logit_bias`` may require gradients.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or a group in a graph that must be whole.
        ValueError: ``reduction`` is unknown, ``logit_scale`` or ``logit_bias`` has dimensions, or the mesh has more
            than one.
        TypeError: an argument has another type.
        NotImplementedError: the features are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import siglip_loss
        >>> images, texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.8, 0.6], [0.0, 1.0]])
        >>> siglip_loss(images, texts, 10.0, -5.0)
        tensor(0.6876)
    """
    name = "siglip_loss"
    reduction = arguments.reduction_of(reduction)
    x, y = contrastive.features_of(name, "image_features", image_features, "text_features", text_features)
    scale = contrastive.number_of(name, "logit_scale", logit_scale, x, positive=False)
    bias = contrastive.number_of(name, "logit_bias", logit_bias, x, positive=False)
    spread = ring.spread_of(name, group, len(x), len(y), x.device)
    positive = contrastive.places(x, spread)
    return contrastive.loss_of("SigLIPLossFunction", x, y, scale, spread, reduction, bias=bias, positive=positive)


class SigLIPLoss(torch.nn.Module):
    """:func:`siglip_loss` as a module."""

    def __init__(self, *, reduction: str = "mean", group: Any = None) -> None:
        super().__init__()
        self.reduction, self.group = reduction, group

    def forward(
        self, image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float, logit_bias: Tensor | float
    ) -> Tensor:
        return siglip_loss(
            image_features, text_features, logit_scale, logit_bias, reduction=self.reduction, group=self.group
        )

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
