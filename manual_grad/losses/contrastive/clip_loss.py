r"""The symmetric contrastive loss of images and texts.

**Where it comes from.** CLIP [1] learns images and their texts together: of all texts of a batch, each image should
find its own, and each text its image. It is the symmetric form of :mod:`~manual_grad.losses.contrastive.info_nce_loss`,
whose chapter derives it, with a scale that the model learns in place of a temperature.

**Definition.** With features :math:`x` of the images, :math:`y` of the texts, and the scale :math:`a`, the loss of pair
:math:`n` is the mean of that of the image and that of the text:

.. math::
    z_{ij} = a\, x_i \cdot y_j, \qquad
    \ell = \frac{1}{2} \Big(\log \sum_j e^{z_{nj}} + \log \sum_i e^{z_{in}}\Big) - z_{nn} \tag{1}

**Gradient.** With the softmax over the texts and that over the images,

.. math::
    p_{ij} = \frac{e^{z_{ij}}}{\sum_c e^{z_{ic}}}, \qquad \tilde p_{ij} = \frac{e^{z_{ij}}}{\sum_l e^{z_{lj}}},
    \qquad
    r_{ij} = \frac{1}{2} \Big([i = n]\, \big(p_{ij} - [j = n]\big) + [j = n]\, \big(\tilde p_{ij} - [i = n]\big)\Big)
    \tag{2}

.. math::
    \frac{\partial \ell}{\partial x_{ih}} = a \sum_j r_{ij}\, y_{jh}, \qquad
    \frac{\partial \ell}{\partial y_{jh}} = a \sum_i r_{ij}\, x_{ih}, \qquad
    \frac{\partial \ell}{\partial a} = \sum_i \sum_j r_{ij}\, x_i \cdot y_j \tag{3}

**Stable form.** Equations (6) and (7) of that chapter, once for the rows and once for the columns of :math:`z`. One
product gives a tile of scores for both.

**Second derivative.** Along a direction, by (9) and (10) of that chapter,

.. math::
    \dot z_{ij} = a\, \big(\dot x_i \cdot y_j + x_i \cdot \dot y_j\big) + \dot a\, x_i \cdot y_j, \qquad
    (H v)_a = \sum_i \sum_j \big(\dot r_{ij}\, x_i \cdot y_j
    + r_{ij}\, (\dot x_i \cdot y_j + x_i \cdot \dot y_j)\big) \tag{4}

There are no kinks.

**Shapes and domain.** Both features are :math:`(N, D)`; the scale is positive.

Sources:

1. Alec Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021),
   `arXiv:2103.00020 <https://arxiv.org/abs/2103.00020>`_.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments, contrastive, ring
from manual_grad.engine.contrastive import SoftmaxOfPairs
from manual_grad.losses.rowwise.selected_log_prob import SelectedLogProbFunction


class CLIPLossFunction(SoftmaxOfPairs):
    """See :class:`~manual_grad.engine.contrastive.PairLoss`."""

    rowwise = SelectedLogProbFunction


@arguments.overridable
def clip_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    *,
    reduction: str = "mean",
    group: Any = None,
) -> Tensor:
    """The symmetric contrastive loss of images and their texts, whose scores are never stored whole.

    ``info_nce_loss(image_features, text_features, 1 / logit_scale, symmetric=True)``, with the arguments of open_clip.

    Args:
        image_features: Feature vectors, floating point, of shape (N, D). They are taken as they are: normalize them
            before.
        text_features: Those of the texts, of the same shape and dtype; text i belongs to image i.
        logit_scale: Multiplies the scores; positive. It is the scale itself, not its logarithm, which models often
            learn. A tensor without dimensions may require a gradient.
        reduction: 'none', 'mean' or 'sum' over the pairs.
        group: A ``torch.distributed.ProcessGroup`` or a ``DeviceMesh`` of one dimension over which the rows are spread:
            each process passes its own, and their numbers may differ. See below.

    With a group, 'mean' and 'sum' are those of the rows of all processes, the same on each, bit by bit; 'none' gives
    the values of the process's own rows. Every process gets the whole gradient of its own rows, and of the scale.
    DDP and FSDP divide what the processes add up for a parameter by their number R. Make up for it at the features, by
    ``image_features.register_hook(lambda g: R * g)`` for both features: a factor of the loss would multiply the scale,
    too.
    All processes must make the same calls. torch.compile leaves these to eager mode, and refuses ``fullgraph=True``.

    Returns:
        A scalar, or for 'none' a tensor of shape (N), the mean of the losses of image and text; float32 for halves and
        under autocast, else of the dtype of the features. Both features and ``logit_scale`` may require gradients.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or a group in a graph that must be whole.
        ValueError: ``reduction`` is unknown, ``logit_scale`` is not positive and finite (checked for numbers and on the
            CPU) or has dimensions, or the mesh has more than one.
        TypeError: an argument has another type.
        NotImplementedError: the features are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import clip_loss
        >>> images, texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.8, 0.6], [0.0, 1.0]])
        >>> clip_loss(images, texts, 10.0)
        tensor(0.0364)
    """
    name = "clip_loss"
    reduction = arguments.reduction_of(reduction)
    x, y = contrastive.features_of(name, "image_features", image_features, "text_features", text_features)
    scale = contrastive.number_of(name, "logit_scale", logit_scale, x)  # a of (1)
    spread = ring.spread_of(name, group, len(x), len(y), x.device)
    positive = contrastive.places(x, spread)
    return contrastive.loss_of("CLIPLossFunction", x, y, scale, spread, reduction, positive=positive, symmetric=True)


class CLIPLoss(torch.nn.Module):
    """:func:`clip_loss` as a module."""

    def __init__(self, *, reduction: str = "mean", group: Any = None) -> None:
        super().__init__()
        self.reduction, self.group = reduction, group

    def forward(self, image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float) -> Tensor:
        return clip_loss(image_features, text_features, logit_scale, reduction=self.reduction, group=self.group)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
