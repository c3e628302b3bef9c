r"""SimCLR's loss: which of all other vectors is the other view of a sample?

**Where it comes from.** SimCLR [1] takes two random views of each image of a batch, and trains a model to recognize
them as the same image among all :math:`2 N` views. Sohn [2] had asked for one among many before; the name is short for
the *normalized temperature-scaled cross entropy*.

**Definition.** View :math:`x` of sample :math:`n` should find view :math:`y`, and the other way round, among all
vectors but itself. The loss of the sample is the mean of both:

.. math::
    z_{ij} = \frac{x_i \cdot y_j}{T}, \qquad u_{ij} = \frac{x_i \cdot x_j}{T}, \qquad w_{ij} = \frac{y_i \cdot y_j}{T}
    \tag{1}

.. math::
    \lambda = \log \Big(\sum_j e^{z_{nj}} + \sum_{j \ne n} e^{u_{nj}}\Big), \qquad
    \tilde \lambda = \log \Big(\sum_i e^{z_{in}} + \sum_{i \ne n} e^{w_{in}}\Big), \qquad
    \ell = \frac{\lambda + \tilde \lambda}{2} - z_{nn} \tag{2}

**Gradient.** It is :mod:`~manual_grad.losses.contrastive.info_nce_loss` of all vectors with themselves as keys, where
the score of a vector with itself is ruled out, :math:`-\infty`. As there,

.. math::
    \frac{\partial \lambda}{\partial z_{nj}} = e^{z_{nj} - \lambda}, \qquad
    \frac{\partial \lambda}{\partial u_{nj}} = [j \ne n]\, e^{u_{nj} - \lambda}, \qquad
    \frac{\partial \ell}{\partial z_{nn}} = \frac{e^{z_{nn} - \lambda} + e^{z_{nn} - \tilde \lambda}}{2} - 1 \tag{3}

and with :math:`r` for the derivatives by the scores,

.. math::
    r_{ij} = \frac{\partial \ell}{\partial z_{ij}}, \qquad s_{ij} = \frac{\partial \ell}{\partial u_{ij}}, \qquad
    \frac{\partial \ell}{\partial x_{ih}} = \frac{1}{T} \sum_j \big(r_{ij}\, y_{jh} + (s_{ij} + s_{ji})\, x_{jh}\big)
    \tag{4}

.. math::
    t_{ij} = \frac{\partial \ell}{\partial w_{ij}}, \qquad
    \frac{\partial \ell}{\partial T} = -\frac{1}{T} \sum_i \sum_j \big(r_{ij}\, z_{ij} + s_{ij}\, u_{ij}
    + t_{ij}\, w_{ij}\big) \tag{5}

**Stable form.** Equations (6) and (7) of that chapter, with a key less.

**Second derivative.** (9) and (10) of that chapter, where a score that is ruled out does not change. There are no
kinks.

.. math::
    \frac{\partial^2 \lambda}{\partial z_{nj}\, \partial z_{ni}} = e^{z_{nj} - \lambda}\,
    \big([i = j] - e^{z_{ni} - \lambda}\big) \tag{6}

**Shapes and domain.** Both views are :math:`(N, D)`. Of a single sample the loss is 0: there is nothing to choose.

Sources:

1. Ting Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations" (2020),
   `arXiv:2002.05709 <https://arxiv.org/abs/2002.05709>`_.
2. Kihyuk Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NIPS 2016.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments, contrastive, ring
from manual_grad.engine.contrastive import SoftmaxOfPairs
from manual_grad.losses.rowwise.selected_log_prob import SelectedLogProbFunction


class NTXentLossFunction(SoftmaxOfPairs):
    """See :class:`~manual_grad.engine.contrastive.PairLoss`."""

    rowwise = SelectedLogProbFunction


@arguments.overridable
def nt_xent_loss(
    input1: Tensor,
    input2: Tensor,
    temperature: Tensor | float = 0.5,
    *,
    reduction: str = "mean",
    group: Any = None,
) -> Tensor:
    """SimCLR's loss of two views of each sample, of which the scores of all pairs are never stored whole.

    Args:
        input1: Feature vectors of one view, floating point, of shape (N, D). They are taken as they are: normalize them
            for cosines.
        input2: Those of the other view, of the same shape and dtype.
        temperature: Divides the scores; positive. A tensor without dimensions may require a gradient.
        reduction: 'none', 'mean' or 'sum' over the samples, of which each has the mean of its two views.
        group: A ``torch.distributed.ProcessGroup`` or a ``DeviceMesh`` of one dimension over which the rows are spread:
            each process passes its own, and their numbers may differ. See below.

    With a group, 'mean' and 'sum' are those of the rows of all processes, the same on each, bit by bit; 'none' gives
    the values of the process's own rows. Every process gets the whole gradient of its own rows, and of the temperature.
    DDP and FSDP divide what the processes add up for a parameter by their number R. Make up for it at the features, by
    ``input1.register_hook(lambda g: R * g)`` for both inputs: a factor of the loss would multiply the temperature, too.
    All processes must make the same calls. torch.compile leaves these to eager mode, and refuses ``fullgraph=True``.

    Returns:
        A scalar, or for 'none' a tensor of shape (N); float32 for halves and under autocast, else of the dtype of the
        features. Both inputs and ``temperature`` may require gradients.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or a group in a graph that must be whole.
        ValueError: ``reduction`` is unknown, ``temperature`` is not positive and finite (checked for numbers and on the
            CPU) or has dimensions, or the mesh has more than one.
        TypeError: an argument has another type.
        NotImplementedError: the features are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import nt_xent_loss
        >>> input1, input2 = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.8, 0.6], [0.0, 1.0]])
        >>> nt_xent_loss(input1, input2, reduction="none")
        tensor([0.5948, 0.4604])
    """
    name = "nt_xent_loss"
    reduction = arguments.reduction_of(reduction)
    x = torch.cat(contrastive.features_of(name, "input1", input1, "input2", input2))
    scale = contrastive.number_of(name, "temperature", temperature, x).reciprocal()  # (1)
    spread = ring.spread_of(name, group, len(x), len(x), x.device)
    own = contrastive.places(x, spread)
    positive = torch.cat([own[len(input1) :], own[: len(input1)]])  # the other view, of (2)
    loss = contrastive.loss_of("NTXentLossFunction", x, x, scale, spread, reduction, positive=positive, own=own)
    if reduction == "mean":
        return loss
    return loss / 2 if reduction == "sum" else (loss[: len(input1)] + loss[len(input1) :]) / 2


class NTXentLoss(contrastive.WithTemperature):
    """:func:`nt_xent_loss` as a module; a ``temperature`` that is a parameter is trained with the model."""

    def __init__(self, temperature: Tensor | float = 0.5, *, reduction: str = "mean", group: Any = None) -> None:
        super().__init__(temperature, reduction, group)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return nt_xent_loss(input1, input2, self.temperature, reduction=self.reduction, group=self.group)
