"""Cross entropy, with all its options, where each process has some of the classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manual_grad.engine import collectives, linear
from manual_grad.engine.collectives import Groups
from manual_grad.engine.dtypes import compute_dtype
from manual_grad.losses.rowwise.cross_entropy_head import Head, finished, shares, token_of
from manual_grad.sharding import linear as sharded_linear
from manual_grad.sharding import log_prob
from manual_grad.sharding.log_prob import IGNORED, Shards, shards_of

# numbers of the rows from class indices, weights of the classes in 'cross', weights of the rows' classes, and the names
# of the numbers; the weight of each row's class; and the number of all classes
Numbers = Callable[[Tensor, "Tensor | None", "Tensor | None", str], tuple[Tensor, "Tensor | None", "Tensor | int"]]


def of_scores(
    x: Tensor, t: Tensor, w: Tensor | None, score: Tensor, ignore_index: int, label_smoothing: float, reduction: str,
    head: Head, group: Groups | Shards,
) -> Any:  # fmt: skip
    """Cross entropy of the scores of this process's classes, from checked arguments; ``score`` has the loss's dtype."""
    name, shards = "cross_entropy", shards_of(group)
    unbatched = x.dim() == 1
    if unbatched:
        x, t, head = x.unsqueeze(0), t.unsqueeze(0), _of_batch(head)

    def numbers(y: Tensor, q: Tensor | None, weight: Tensor | None, outputs: str) -> Any:
        options = torch.float64, ignore_index, *head.logits, *shards[:3]
        return log_prob.stacked(name, x, y, q, weight, outputs, *options)

    found = evaluate(name, numbers, score.expand(x.shape), t, w, ignore_index, label_smoothing, reduction, head, shards)
    if not unbatched:
        return found
    if isinstance(found, Tensor):
        return found.squeeze(0) if found.dim() else found
    return type(found)(*(u if u is None or not u.dim() else u.squeeze(0) for u in found))


def of_hidden(
    x: Tensor, W: Tensor, b: Tensor | None, t: Tensor, w: Tensor | None, scores: Tensor, ignore_index: int,
    label_smoothing: float, reduction: str, head: Head, group: Groups | Shards,
) -> Any:  # fmt: skip
    """Cross entropy from hidden states and this process's rows of the weight; for shapes see ``with_head``."""
    name, rows, wide = "linear_cross_entropy", (len(x), W.shape[1]), linear.row_dtype(scores.dtype)
    shards = shards_of(group)
    if scores.dim() == 1:
        scores, t, head = scores.unsqueeze(0), t.unsqueeze(0), _of_batch(head)

    def numbers(y: Tensor, q: Tensor | None, weight: Tensor | None, outputs: str) -> Any:
        q = None if q is None else q.reshape(len(x), *W.shape[:2])
        options = outputs, wide, torch.float64, ignore_index, *head.logits, *shards
        found, own_weight, total = sharded_linear.stacked(name, x, W, b, y.reshape(rows), q, weight, *options)
        shape = y.shape
        return found.reshape(len(found), *shape), None if own_weight is None else own_weight.reshape(shape), total

    return evaluate(name, numbers, scores, t, w, ignore_index, label_smoothing, reduction, head, shards)


def evaluate(
    name: str, numbers: Numbers, scores: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int,
    label_smoothing: float, reduction: str, head: Head, shards: Shards,
) -> Any:  # fmt: skip
    """As :func:`~manual_grad.losses.rowwise.cross_entropy_head.evaluate_head`, of ``scores`` (N, C, d1, …) here."""
    rows, classes = scores.shape[:1] + scores.shape[2:], scores.shape[1]
    token = token_of(name, rows, head)
    wide = torch.promote_types(compute_dtype(scores), torch.float32)
    beside = (1,) * (scores.dim() - 2)
    by_class = None if weight is None else weight.to(wide).view(-1, *beside)
    _, lse, accuracy = head.outputs
    by_index = not target.is_floating_point()
    q = None
    if by_index:
        y = target
        if label_smoothing:  # the share of a class needs the number of all, and comes later
            q = torch.ones((1, *beside), dtype=wide, device=scores.device) if by_class is None else by_class
            q = q.expand(scores.shape)
    else:
        q = target.to(torch.promote_types(target.dtype, torch.float32))
        if label_smoothing:
            shards = shards.meet(classes, scores.device)
            q = (1 - label_smoothing) * q.to(wide) + label_smoothing / shards.total
        q = q if by_class is None else by_class * q
        y = _most_probable(target, shards) if accuracy else target.new_zeros(rows, dtype=torch.int64)
    if token is not None and not token.requires_grad:  # if it does, its gradient is the loss of the row
        y = torch.where(token == 0, ignore_index if by_index else IGNORED, y)
    wanted = dict(log_prob=by_index, lse=bool(head.z_loss) or lse, cross=q is not None, correct=accuracy)
    outputs = " ".join(output for output, is_wanted in wanted.items() if is_wanted)
    stacked, own_weight, total = numbers(y, q, weight if by_index else None, outputs)
    found = dict(zip(outputs.split(), stacked.unbind(), strict=True))
    kept = y != (ignore_index if by_index else IGNORED)
    counts, factor = kept.double(), None
    if by_index:
        if own_weight is not None:
            counts = torch.where(kept, own_weight, 0)
        factor = (1 - label_smoothing) * counts
        if q is not None:
            found["cross"] = found["cross"] * (label_smoothing / total)
    omega, of_nothing = shares(token, counts, reduction, head)
    return finished(found, factor, omega, of_nothing, reduction, head, scores.dtype)


def _of_batch(head: Head) -> Head:
    """For a batch of the one sample that it was for."""
    return head._replace(token_weight=None if head.token_weight is None else head.token_weight.unsqueeze(0))


def _most_probable(target: Tensor, shards: Shards) -> Tensor:
    """The index of the first class, of all, with the largest probability in each row."""
    with torch.no_grad():
        classes, p = target.shape[1], target.double()
        if not classes:
            p = torch.full_like(p.sum(1, keepdim=True), -1.0)  # no probability
        most, shards = shards.leaders(p.amax(1), classes)
        hit = p == most.unsqueeze(1)
        first = hit.to(torch.int8).argmax(1) + shards.start
        # the smallest of the indices, as the largest of their negatives
        first = torch.where(hit.any(1), -first.double(), -math.inf)
        return -collectives.maximum(first, shards.groups).long()
