"""transformers: the losses that a model computes from logits and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manual_grad.functional import selected_log_prob
from manual_grad.integrations import Program, is_plain, result_in_float32


def causal_lm_loss(
    theirs: Callable[..., Tensor],
    logits: Tensor,
    labels: Tensor | None,
    vocab_size: int,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = -100,
    shift_labels: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """The negative log-likelihood of each next token; its mean, or its sum divided by ``num_items_in_batch``."""
    if not is_plain(logits):
        return theirs(logits, labels, vocab_size, num_items_in_batch, ignore_index, shift_labels, **kwargs)
    if shift_labels is None:
        shift_labels = torch.nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    return _mean_nll(logits, shift_labels, vocab_size, num_items_in_batch, ignore_index)


def masked_lm_loss(
    theirs: Callable[..., Tensor],
    logits: Tensor,
    labels: Tensor,
    vocab_size: int,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = -100,
    **kwargs: Any,
) -> Tensor:
    """The same of each token itself."""
    if not is_plain(logits):
        return theirs(logits, labels, vocab_size, num_items_in_batch, ignore_index, **kwargs)
    return _mean_nll(logits, labels, vocab_size, num_items_in_batch, ignore_index)


def _mean_nll(
    logits: Tensor, labels: Tensor, vocab_size: int, num_items_in_batch: Tensor | int | None, ignore_index: int
) -> Tensor:
    labels = labels.reshape(-1).to(logits.device)
    with result_in_float32(logits):
        # Not cross_entropy: that would hold the gradient of a sum as well, until backward knows what it is divided by.
        log_prob = selected_log_prob(logits.view(-1, vocab_size), labels, ignore_index=ignore_index)
    if num_items_in_batch is None:
        num_items_in_batch = (labels != ignore_index).sum()
    elif isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(logits.device)
    return -log_prob.float().sum() / num_items_in_batch


PROGRAM = Program(
    name="transformers",
    versions=("4.57", "6"),
    losses={
        "transformers.loss.loss_utils.ForCausalLMLoss": causal_lm_loss,
        "transformers.loss.loss_utils.ForMaskedLMLoss": masked_lm_loss,
    },
)
