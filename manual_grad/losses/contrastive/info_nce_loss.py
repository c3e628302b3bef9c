r"""InfoNCE: which of all keys belongs to a query?

**Where it comes from.** A model that should learn what two things have in common, without labels, can be asked to find
the one that belongs to the other among many that do not. Van den Oord, Li and Vinyals [1] train representations of
speech, images and text by the cross entropy of this choice, and show that it bounds their mutual information. CLIP [2]
asks in both directions.

**Definition.** Query :math:`x_n` should find its own key :math:`y_n` by the scores of all keys, divided by a
temperature :math:`T`:

.. math::
    z_{ij} = \frac{x_i \cdot y_j}{T} \tag{1}

.. math::
    \ell = \log \sum_j e^{z_{nj}} - z_{nn} \quad\text{or}\quad
    \ell = \frac{1}{2} \Big(\log \sum_j e^{z_{nj}} + \log \sum_i e^{z_{in}}\Big) - z_{nn} \tag{2}

The second is the symmetric form, the mean of the losses of query :math:`n` and of key :math:`n`, which should find its
query. In the first, there may be more keys than queries: the others are negatives for all.

**Gradient.** With the softmax over the keys of a query, and that over the queries of a key,

.. math::
    p_{ij} = \frac{e^{z_{ij}}}{\sum_c e^{z_{ic}}}, \qquad \tilde p_{ij} = \frac{e^{z_{ij}}}{\sum_l e^{z_{lj}}} \tag{3}

the derivative by the scores is that of cross entropy:

.. math::
    r_{ij} = [i = n]\, \big(p_{ij} - [j = n]\big) \quad\text{or}\quad
    r_{ij} = \frac{1}{2} \Big([i = n]\, \big(p_{ij} - [j = n]\big) + [j = n]\, \big(\tilde p_{ij} - [i = n]\big)\Big)
    \tag{4}

.. math::
    \frac{\partial \ell}{\partial z_{ij}} = r_{ij}, \qquad
    \frac{\partial \ell}{\partial x_{ih}} = \frac{1}{T} \sum_j r_{ij}\, y_{jh}, \qquad
    \frac{\partial \ell}{\partial y_{jh}} = \frac{1}{T} \sum_i r_{ij}\, x_{ih}, \qquad
    \frac{\partial \ell}{\partial T} = -\frac{1}{T} \sum_i \sum_j r_{ij}\, z_{ij} \tag{5}

**Stable form.** A model that has learned puts its own key far ahead, and there the usual computation loses everything:
the loss is the difference of two equal numbers, and so is :math:`1 - p_{nn}`. Let :math:`k` be the leader, the key with
the largest score. As in :mod:`~manual_grad.engine.softmax`, two sums leave it out:

.. math::
    d_j = z_{nk} - z_{nj}, \qquad \rho = \sum_{j \ne k} e^{-d_j}, \qquad
    \bar\tau = \frac{1}{1 + \rho} \sum_{j \ne k} d_j\, e^{-d_j} \tag{6}

.. math::
    \log \sum_j e^{z_{nj}} - z_{nn} = d_n + \log(1 + \rho), \qquad p_{nj} = \frac{e^{-d_j}}{1 + \rho}, \qquad
    1 - p_{nk} = \frac{\rho}{1 + \rho}, \qquad \sum_j p_{nj}\, z_{nj} - z_{nn} = d_n - \bar\tau \tag{7}

The last is the row's part of the derivative by the temperature: it is known from the same sums, as soon as the loss is.

>>> import torch
>>> from manual_grad.functional import info_nce_loss
>>> x, y = 5.0 * torch.eye(3), 4.0 * torch.eye(3)
>>> usual = torch.nn.functional.cross_entropy(x @ y.T, torch.arange(3))
>>> f"{usual:.4e}", f"{info_nce_loss(x, y, temperature=1.0):.4e}"
('0.0000e+00', '4.1223e-09')

**Tiles.** The scores of 65,536 pairs are 17 GB. Here they are computed in tiles and forgotten, twice: see
:mod:`~manual_grad.engine.contrastive`.

**Second derivative.** Along a direction the scores change by

.. math::
    \dot z_{ij} = \frac{\dot x_i \cdot y_j + x_i \cdot \dot y_j}{T} - \frac{\dot T}{T}\, z_{ij} \tag{8}

and the softmax, and with it :math:`r`, by

.. math::
    \dot p_{ij} = p_{ij}\, \Big(\dot z_{ij} - \sum_c p_{ic}\, \dot z_{ic}\Big), \qquad
    \dot{\tilde p}_{ij} = \tilde p_{ij}\, \Big(\dot z_{ij} - \sum_l \tilde p_{lj}\, \dot z_{lj}\Big) \tag{9}

.. math::
    (H v)_{x_{ih}} = \frac{1}{T} \sum_j \big(\dot r_{ij}\, y_{jh} + r_{ij}\, \dot y_{jh}\big)
    - \frac{\dot T}{T^2} \sum_j r_{ij}\, y_{jh} \tag{10}

and likewise for the keys. There are no kinks.

**Shapes and domain.** Queries are :math:`(N, D)`, keys :math:`(M, D)` with :math:`M \ge N`, or :math:`M = N` in the
symmetric form.

Sources:

1. Aaron van den Oord, Yazhe Li and Oriol Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018),
   `arXiv:1807.03748 <https://arxiv.org/abs/1807.03748>`_.
2. Alec Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021),
   `arXiv:2103.00020 <https://arxiv.org/abs/2103.00020>`_.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from manual_grad.engine import arguments, contrastive, ring
from manual_grad.engine.contrastive import SoftmaxOfPairs
from manual_grad.losses.rowwise.selected_log_prob import SelectedLogProbFunction


class InfoNCELossFunction(SoftmaxOfPairs):
    """See :class:`~manual_grad.engine.contrastive.PairLoss`."""

    rowwise = SelectedLogProbFunction


@arguments.overridable
def info_nce_loss(
    query: Tensor,
    key: Tensor,
    temperature: Tensor | float = 0.1,
    *,
    symmetric: bool = False,
    reduction: str = "mean",
    group: Any = None,
) -> Tensor:
    """Cross entropy of finding each query's own key among all keys, whose scores are never stored whole.

    Args:
        query: Feature vectors, floating point, of shape (N, D). They are taken as they are: normalize them for cosines.
        key: Feature vectors of shape (M, D) in the same dtype. Key i belongs to query i; the others are its negatives,
            also those from N on.
        temperature: Divides the scores; positive. A tensor without dimensions may require a gradient.
        symmetric: Whether to return the mean of this loss and the one with queries and keys exchanged, for M = N.
        reduction: 'none', 'mean' or 'sum' over the queries.
        group: A ``torch.distributed.ProcessGroup`` or a ``DeviceMesh`` of one dimension over which the rows are spread:
            each process passes its own, and their numbers may differ. See below.

    With a group, 'mean' and 'sum' are those of the rows of all processes, the same on each, bit by bit; 'none' gives
    the values of the process's own rows. Every process gets the whole gradient of its own rows, and of the temperature.
    DDP and FSDP divide what the processes add up for a parameter by their number R. Make up for it at the features, by
    ``query.register_hook(lambda g: R * g)`` for ``query`` and ``key``: a factor of the loss would multiply the
    temperature, too.
    All processes must make the same calls. torch.compile leaves these to eager mode, and refuses ``fullgraph=True``.

    Returns:
        A scalar, or for 'none' a tensor of shape (N); float32 for halves and under autocast, else of the dtype of the
        features. ``query``, ``key`` and ``temperature`` may require gradients.

    Raises:
        RuntimeError: shapes or dtypes that do not fit, or a group in a graph that must be whole.
        ValueError: ``reduction`` is unknown, ``temperature`` is not positive and finite (checked for numbers and on the
            CPU) or has dimensions, or the mesh has more than one.
        TypeError: an argument has another type.
        NotImplementedError: the features are not real floating point.

    Examples:
        >>> import torch
        >>> from manual_grad.functional import info_nce_loss
        >>> query, key = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]])
        >>> info_nce_loss(query, key, temperature=0.5, reduction="none")
        tensor([0.4604, 0.2064])
    """
    name = "info_nce_loss"
    reduction = arguments.reduction_of(reduction)
    symmetric = arguments.boolean(name, "symmetric", symmetric)
    x, y = contrastive.features_of(name, "query", query, "key", key, more=not symmetric)
    scale = contrastive.number_of(name, "temperature", temperature, x).reciprocal()  # (1)
    spread = ring.spread_of(name, group, len(x), len(y), x.device)
    positive = contrastive.places(x, spread)
    return contrastive.loss_of(
        "InfoNCELossFunction", x, y, scale, spread, reduction, positive=positive, symmetric=symmetric
    )


class InfoNCELoss(contrastive.WithTemperature):
    """:func:`info_nce_loss` as a module; a ``temperature`` that is a parameter is trained with the model."""

    def __init__(
        self, temperature: Tensor | float = 0.1, *, symmetric: bool = False, reduction: str = "mean", group: Any = None
    ) -> None:
        super().__init__(temperature, reduction, group)
        self.symmetric = symmetric

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return info_nce_loss(
            query, key, self.temperature, symmetric=self.symmetric, reduction=self.reduction, group=self.group
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, symmetric={self.symmetric}"
