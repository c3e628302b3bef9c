"""TRL: log-probabilities and entropies of tokens, from logits and from hidden states."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from manual_grad.functional import linear_log_prob, log_prob_and_entropy, selected_log_prob
from manual_grad.integrations import Program, is_plain, result_in_float32
from manual_grad.losses.linear.linear_log_prob import LinearLogProb

IGNORED = torch.iinfo(torch.int64).min  # only rows that a mask excludes have this index


def selective_log_softmax(
    theirs: Callable[..., Tensor],
    logits: Tensor,
    index: Tensor,
    temperature: float = 1.0,
    row_mask: Tensor | None = None,
) -> Tensor:
    """The log-probability of a class; theirs also gathers several classes of a row."""
    if not _one_class_of_a_row(logits, index, temperature):
        return theirs(logits, index, temperature, row_mask)
    with _in_their_dtype(logits):
        return selected_log_prob(logits, _masked(index, row_mask), temperature, ignore_index=IGNORED)


def entropy_from_logits(theirs: Callable[..., Tensor], logits: Tensor, chunk_size: int = 128) -> Tensor:
    """The entropy of each row, whose chunks are of our own choice."""
    if not is_plain(logits) or logits.dim() < 2:
        return theirs(logits, chunk_size)
    index = torch.zeros(logits.shape[:-1], dtype=torch.int64, device=logits.device)
    with _in_their_dtype(logits):
        return log_prob_and_entropy(logits, index).entropy


def selective_log_softmax_and_entropy(
    theirs: Callable[..., tuple[Tensor, Tensor]],
    logits: Tensor,
    index: Tensor,
    entropy_requires_grad: bool = True,
    temperature: float = 1.0,
    row_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Both of them."""
    if not _one_class_of_a_row(logits, index, temperature):
        return theirs(logits, index, entropy_requires_grad, temperature, row_mask)
    with _in_their_dtype(logits):
        log_prob, entropy = log_prob_and_entropy(logits, _masked(index, row_mask), temperature, ignore_index=IGNORED)
    return log_prob, entropy if entropy_requires_grad else entropy.detach()


def chunked_log_prob(
    theirs: Callable[..., tuple[Tensor | None, ...]],
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    temperature: float,
    chunk_size: int,
    final_logit_softcapping: float | None = None,
    logit_scale: float = 1.0,
    outputs: tuple[str, ...] = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1"),
) -> tuple[Tensor | None, ...]:
    """The log-probability of a class of ``hidden @ weight.T + bias``, and the ``outputs``, None for the others."""
    same_dtype = all(u is None or u.dtype is hidden.dtype for u in (weight, bias))
    factors = [temperature, logit_scale] + [final_logit_softcapping] * (final_logit_softcapping is not None)
    if (
        "log_sum_sq_probs" in outputs
        or ("mean_logits" in outputs and final_logit_softcapping is not None)
        or not (is_plain(hidden) and is_plain(weight))
        or hasattr(weight, "ds_id")  # DeepSpeed holds only a part of it; theirs gathers it, in backward once more
        or not (same_dtype or torch.is_autocast_enabled(hidden.device.type))  # theirs converts it chunk by chunk
        or targets.dtype is not torch.int64
        or min(factors) <= 0
    ):
        options = temperature, chunk_size, final_logit_softcapping, logit_scale, outputs
        return theirs(hidden, weight, bias, targets, *options)
    found = linear_log_prob(
        hidden, weight, targets, bias, temperature, final_logit_softcapping, logit_scale,
        entropy="entropy" in outputs, accuracy="is_top1" in outputs, ignore_index=IGNORED,
    )  # fmt: skip
    found = found if isinstance(found, LinearLogProb) else LinearLogProb(found)
    mean = None
    if "mean_logits" in outputs:
        with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
            # The mean over classes is linear, so it is a product with the mean of the weight.
            mean = hidden.float() @ weight.mean(0, dtype=torch.float32)
            mean = (mean if bias is None else mean + bias.mean(dtype=torch.float32)) * (logit_scale / temperature)
    log_prob, entropy = (None if u is None else u.float() for u in (found.log_prob, found.entropy))
    return log_prob, entropy, None, mean, found.correct


def _one_class_of_a_row(logits: Tensor, index: Tensor, temperature: float) -> bool:
    return (
        is_plain(logits)
        and logits.dim() > 1
        and index.shape == logits.shape[:-1]
        and index.dtype is torch.int64
        and temperature > 0
    )


def _masked(index: Tensor, row_mask: Tensor | None) -> Tensor:
    return index if row_mask is None else index.masked_fill(row_mask == 0, IGNORED)


def _in_their_dtype(logits: Tensor) -> AbstractContextManager[object]:
    """Theirs are float32 where its Triton kernels compute them; elsewhere they have the dtype of the logits."""
    return result_in_float32(logits, logits.device.type in ("cuda", "xpu"))


PROGRAM = Program(
    name="trl",
    versions=("1.15", "2"),
    losses={
        "trl.trainer.utils.selective_log_softmax": selective_log_softmax,
        "trl.trainer.utils.entropy_from_logits": entropy_from_logits,
        "trl.trainer.utils.selective_log_softmax_and_entropy": selective_log_softmax_and_entropy,
        "trl.kernels.chunked_logprob.ChunkedLogProbFunction": chunked_log_prob,
    },
)
