r"""Supervised contrastive loss: which of all other vectors have the same label?

**Where it comes from.** With labels, a vector has more than one that belongs to it. Khosla et al. [1] take the mean of
the loss of :mod:`~manual_grad.losses.contrastive.nt_xent_loss` over all of them, and train classifiers with it that are
more robust than by cross entropy.

**Definition.** Vector :math:`x_n` has the positives :math:`P`, the others of the same label :math:`y_n`. Every vector
but itself takes part in the softmax, and the mean over the positives is outside of the logarithm (the
"out" form of [1]):

.. math::
    z_{ij} = \frac{x_i \cdot x_j}{T}, \qquad q_j = [j \ne n]\, [y_j = y_n], \qquad Q = \sum_j q_j, \qquad
    \lambda = \log \sum_{j \ne n} e^{z_{nj}} \tag{1}

.. math::
    \ell = \begin{cases} \frac{1}{Q} \sum_j q_j\, (\lambda - z_{nj}) & Q > 0 \\ 0 & Q = 0 \end{cases} \tag{2}

The loss of a batch is the mean over *all* vectors, as in the authors' program: those without a positive count with 0.
(The paper states the sum. The program also multiplies by the temperature over a base temperature of 0.07, which is left
to the caller.)

**Gradient.** By the rules of cross entropy with weights :math:`q` of the classes,

.. math::
    p_j = e^{z_{nj} - \lambda}, \qquad
    r_j = \begin{cases} [j \ne n]\, p_j - q_j / Q & Q > 0 \\ 0 & Q = 0 \end{cases}, \qquad
    \frac{\partial \ell}{\partial z_{nj}} = r_j \tag{3}

.. math::
    \frac{\partial \ell}{\partial x_{ih}} = \frac{1}{T} \Big([i = n] \sum_j r_j\, x_{jh} + r_i\, x_{nh}\Big), \qquad
    \frac{\partial \ell}{\partial T} = -\frac{1}{T} \sum_j r_j\, z_{nj} \tag{4}

**Stable form.** The loss is a cross entropy with the weights :math:`q`, which are 0 or 1 and therefore exact:
equations (12) and (13) of :mod:`~manual_grad.losses.rowwise.selected_log_prob`. Only its result is divided by
:math:`Q`.

**Second derivative.** Along a direction,

.. math::
    \dot z_{ij} = \frac{\dot x_i \cdot x_j + x_i \cdot \dot x_j}{T} - \frac{\dot T}{T}\, z_{ij}, \qquad
    \dot r_j = \begin{cases} [j \ne n]\, p_j\, \big(\dot z_{nj} - \sum_{i \ne n} p_i\, \dot z_{ni}\big) & Q > 0 \\
    0 & Q = 0 \end{cases} \tag{5}

.. math::
    (H v)_{x_{ih}} = \frac{1}{T} \Big([i = n] \sum_j \big(\dot r_j\, x_{jh} + r_j\, \dot x_{jh}\big)
    + \dot r_i\, x_{nh} + r_i\, \dot x_{nh}\Big)
    - \frac{\dot T}{T^2} \Big([i = n] \sum_j r_j\, x_{jh} + r_i\, x_{nh}\Big) \tag{6}

There are no kinks.

**Shapes and domain.** Vectors are :math:`(N, D)`, labels :math:`(N)`. For several views of a sample, as in [1], there
is a row for each of them.

Sources:

1. Prannay Khosla et al., "Supervised Contrastive Learning" (2020),
   `arXiv:2004.11362 <https://arxiv.org/abs/2004.11362>`_; program:
   `HobbitLong/SupContrast <https://github.com/HobbitLong/SupContrast>`_.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import arguments, contrastive, ring
from manual_grad.engine.contrastive import SoftmaxOfPairs
from manual_grad.losses.rowwise.selected_log_prob import SelectedLogProbFunction


class SupervisedContrastiveLossFunction(SoftmaxOfPairs):
    """See :class:`~manual_grad.engine.contrastive.PairLoss`."""

    rowwise = SelectedLogProbFunction


@arguments.overridable
def supervised_contrastive_loss(
    features: Tensor,
    labels: Tensor,
    temperature: Tensor | float = 0.1,
    *,
    reduction: str = "mean",
    group: Any = None,
) -> Tensor:
    """The loss of vectors that share a label with others, of which the scores of all pairs are never stored whole.

    Args:
        features: Feature vectors, floating point, of shape (N, D): for several views of a sample, a row for each. They
            are taken as they are: normalize them for cosines.
        labels: Integers of shape (N).
        temperature: Divides the scores; positive. A tensor without dimensions may require a gradient.
        reduction: 'none', 'mean' or 'sum' over the vectors. The mean divides by N, whether or not a vector has a
            positive.
        group: A ``torch.distributed.ProcessGroup`` or a ``DeviceMesh`` of one dimension over which the rows are spread:
            each process passes its own, and their numbers may differ. See below.

    With a group, 'mean' and 'sum' are those of the rows of all processes, the same on each, bit by bit; 'none' gives
    the values of the process's own rows. Every process gets the whole gradient of its own rows, and of the temperature.
    DDP and FSDP divide what the processes add up for a parameter by their number R. Make up for it at the features, by
    ``features.register_hook(lambda g: R * g)``: a factor of the loss would multiply the temperature, too.
    All processes must make the same calls. torch.compile leaves these to eager mode, and refuses ``fullgraph=True``.

    Returns:
        A scalar, or for 'none' a tensor of shape (N), 0 for a vector whose label no other has; float32 for halves and
        under autocast, else of the dtype of the features. ``features`` and ``temperature`` may require gradients.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or a group in a graph that must be whole.
        ValueError: ``reduction`` is unknown, ``temperature`` is not positive and finite (checked for numbers and on the
            CPU) or has dimensions, or the mesh has more than one.
        TypeError: an argument has another type.
        NotImplementedError: the features are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import supervised_contrastive_loss
        >>> features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> supervised_contrastive_loss(features, torch.tensor([1, 1, 2]), temperature=0.5, reduction="none")
        tensor([0.1839, 0.5130, 0.0000])
    """
    name = "supervised_contrastive_loss"
    reduction = arguments.reduction_of(reduction)
    x, _ = contrastive.features_of(name, "features", features, "features", features)
    if labels.shape != features.shape[:1]:
        raise RuntimeError(f"labels: expected shape {list(features.shape[:1])}, but got {list(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise RuntimeError(f"labels: expected integers, but found {arguments.scalar_type(labels.dtype)}")
    scale = contrastive.number_of(name, "temperature", temperature, x).reciprocal()
    spread = ring.spread_of(name, group, len(x), len(x), x.device)
    own, label = contrastive.places(x, spread), labels.long().contiguous()
    every = label if spread is None else ring.gathered(label, spread, spread.queries)
    in_order = every.sort().values
    positives = torch.searchsorted(in_order, label, right=True) - torch.searchsorted(in_order, label) - 1
    share = torch.where(positives > 0, positives.double().reciprocal(), 0.0)  # 1 / Q of (2)
    return contrastive.loss_of(
        "SupervisedContrastiveLossFunction", x, x, scale, spread, reduction, own=own, label=label, labels=every,
        share=share,
    )  # fmt: skip


class SupervisedContrastiveLoss(contrastive.WithTemperature):
    """:func:`supervised_contrastive_loss` as a module; a ``temperature`` that is a parameter is trained too."""

    def __init__(self, temperature: Tensor | float = 0.1, *, reduction: str = "mean", group: Any = None) -> None:
        super().__init__(temperature, reduction, group)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return supervised_contrastive_loss(
            features, labels, self.temperature, reduction=self.reduction, group=self.group
        )
