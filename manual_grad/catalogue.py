"""The catalogue of losses, the single source for lists of them, their families and their peers."""

from __future__ import annotations

import difflib
import functools
import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from manual_grad.engine import older_torch

FAMILIES = {  # by what a loss is a function of
    "pointwise": "one element of each input",
    "rowwise": "one row of class scores",
    "pairwise": "two or three feature vectors",
    "path": "a lattice of alignments",
    "linear": "features, and the weights that score them",
    "contrastive": "all pairs of two sets of feature vectors",
}


@dataclass(frozen=True)
class Loss:
    """A loss, defined in ``losses/<family>/<name>.py``.

    Args:
        name: The name of its files and, with ``functional``, of its function in :mod:`manual_grad.functional`.
        family: One of :data:`FAMILIES`.
        modules: The names of its Modules.
        torch: Whether torch, in a recent enough version, has it under these names.
        functional: Whether there is a function besides the Modules.
        also: The names of further functions in its file.
    """

    name: str
    family: str
    modules: tuple[str, ...]
    torch: bool = True
    functional: bool = True
    also: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The dotted name of its file."""
        return f"manual_grad.losses.{self.family}.{self.name}"

    @property
    def file(self) -> Path:
        return Path(__file__).with_name("losses") / self.family / f"{self.name}.py"

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(self.path)

    @property
    def peer(self) -> Callable[..., Any] | None:
        """torch's function, or a stand-in if the installed torch is too old to have it; None if torch has none."""
        return older_torch.loss(self.name) if self.torch and self.functional else None

    def kernels(self) -> set[str]:
        """The kernels used by its Functions, including those of the losses that it builds on."""
        found: set[str] = set()
        for value in vars(self.module).values():
            kernel = getattr(value, "kernel", None)
            if isinstance(value, type) and isinstance(kernel, str):
                found.add(kernel)
            origin = getattr(value, "__module__", None) or ""
            if origin.startswith("manual_grad.losses.") and origin != self.path:
                found |= BY_NAME[origin.rpartition(".")[2]].kernels()
        return found


LOSSES = (
    Loss("l1_loss", "pointwise", ("L1Loss",)),
    Loss("mse_loss", "pointwise", ("MSELoss",)),
    Loss("smooth_l1_loss", "pointwise", ("SmoothL1Loss",)),
    Loss("huber_loss", "pointwise", ("HuberLoss",)),
    Loss("gaussian_nll_loss", "pointwise", ("GaussianNLLLoss",)),
    Loss("poisson_nll_loss", "pointwise", ("PoissonNLLLoss",)),
    Loss("binary_cross_entropy", "pointwise", ("BCELoss",)),
    Loss("binary_cross_entropy_with_logits", "pointwise", ("BCEWithLogitsLoss",)),
    Loss("kl_div", "pointwise", ("KLDivLoss",)),
    Loss("soft_margin_loss", "pointwise", ("SoftMarginLoss",)),
    Loss("margin_ranking_loss", "pointwise", ("MarginRankingLoss",)),
    Loss("hinge_embedding_loss", "pointwise", ("HingeEmbeddingLoss",)),
    Loss("quantile_loss", "pointwise", ("QuantileLoss",), torch=False),
    Loss("log_cosh_loss", "pointwise", ("LogCoshLoss",), torch=False),
    Loss("charbonnier_loss", "pointwise", ("CharbonnierLoss",), torch=False),
    Loss("student_t_nll_loss", "pointwise", ("StudentTNLLLoss",), torch=False),
    Loss("negative_binomial_nll_loss", "pointwise", ("NegativeBinomialNLLLoss",), torch=False),
    Loss("tweedie_loss", "pointwise", ("TweedieLoss",), torch=False),
    Loss("sigmoid_focal_loss", "pointwise", ("SigmoidFocalLoss",), torch=False),
    Loss("asymmetric_loss", "pointwise", ("AsymmetricLoss",), torch=False),
    Loss("dpo_loss", "pointwise", ("DPOLoss",), torch=False),
    Loss("slic_loss", "pointwise", ("SLiCLoss",), torch=False),
    Loss("ipo_loss", "pointwise", ("IPOLoss",), torch=False),
    Loss("exo_loss", "pointwise", ("EXOLoss",), torch=False),
    Loss("nca_loss", "pointwise", ("NCALoss",), torch=False),
    Loss("sppo_loss", "pointwise", ("SPPOLoss",), torch=False),
    Loss("apo_loss", "pointwise", ("APOLoss",), torch=False),
    Loss("cpo_loss", "pointwise", ("CPOLoss",), torch=False),
    Loss("simpo_loss", "pointwise", ("SimPOLoss",), torch=False),
    Loss("orpo_loss", "pointwise", ("ORPOLoss",), torch=False),
    Loss("kto_loss", "pointwise", ("KTOLoss",), torch=False),
    Loss("ppo_clip_loss", "pointwise", ("PPOClipLoss",), torch=False),
    Loss("grpo_loss", "pointwise", ("GRPOLoss",), torch=False),
    Loss("cispo_loss", "pointwise", ("CISPOLoss",), torch=False),
    Loss("sampled_kl", "pointwise", ("SampledKL",), torch=False),
    Loss("cross_entropy", "rowwise", ("CrossEntropyLoss",)),
    Loss("cross_entropy_head", "rowwise", (), torch=False, functional=False),
    Loss("nll_loss", "rowwise", ("NLLLoss", "NLLLoss2d")),
    Loss("multi_margin_loss", "rowwise", ("MultiMarginLoss",)),
    Loss("multilabel_margin_loss", "rowwise", ("MultiLabelMarginLoss",)),
    Loss("multilabel_soft_margin_loss", "rowwise", ("MultiLabelSoftMarginLoss",)),
    Loss("selected_log_prob", "rowwise", (), torch=False, also=("log_prob_and_entropy",)),
    Loss("distillation_loss", "rowwise", ("DistillationLoss",), torch=False),
    Loss("topk_distillation_loss", "rowwise", ("TopkDistillationLoss",), torch=False),
    Loss("cosine_embedding_loss", "pairwise", ("CosineEmbeddingLoss",)),
    Loss("triplet_margin_loss", "pairwise", ("TripletMarginLoss",)),
    Loss("triplet_margin_with_distance_loss", "pairwise", ("TripletMarginWithDistanceLoss",)),
    Loss("ctc_loss", "path", ("CTCLoss",)),
    Loss("linear_cross_entropy", "linear", ("LinearCrossEntropyLoss",)),
    Loss("linear_cross_entropy_head", "linear", (), torch=False, functional=False),
    Loss("linear_log_prob", "linear", (), torch=False),
    Loss("linear_distillation_loss", "linear", ("LinearDistillationLoss",), torch=False),
    Loss("adaptive_log_softmax_with_loss", "linear", ("AdaptiveLogSoftmaxWithLoss",), functional=False),
    Loss("info_nce_loss", "contrastive", ("InfoNCELoss",), torch=False),
    Loss("clip_loss", "contrastive", ("CLIPLoss",), torch=False),
    Loss("nt_xent_loss", "contrastive", ("NTXentLoss",), torch=False),
    Loss("supervised_contrastive_loss", "contrastive", ("SupervisedContrastiveLoss",), torch=False),
    Loss("siglip_loss", "contrastive", ("SigLIPLoss",), torch=False),
)
BY_NAME = {loss.name: loss for loss in LOSSES}


def of_family(family: str) -> list[Loss]:
    return [loss for loss in LOSSES if loss.family == family]


def find(name: str) -> Loss:
    """The loss that ``name`` refers to: its name or a Module's, with or without "Loss", or a prefix of one.

    Case and underscores do not matter. Raises ValueError for an unknown name or an ambiguous prefix.
    """
    known, wanted = _spellings(), _plain(name)
    found = {known[wanted]} if wanted in known else {loss for key, loss in known.items() if key.startswith(wanted)}
    shortest = min(found, key=len, default="")
    if wanted and found and all(loss.startswith(shortest) for loss in found):  # cross_entropy, not cross_entropy_head
        return BY_NAME[shortest]
    if wanted and found:
        raise ValueError(f"{name!r} may be {_listed(found)}")
    close = {known[key] for key in difflib.get_close_matches(wanted, known)}
    hint = f"did you mean {_listed(close)}?" if close else f"there are: {', '.join(sorted(BY_NAME))}"
    raise ValueError(f"no loss named {name!r}; {hint}")


@functools.cache
def _spellings() -> dict[str, str]:
    """Plain spelling -> loss. BCE is BCELoss, not a prefix of BCEWithLogitsLoss."""
    plain = [(_plain(name), loss.name) for loss in LOSSES for name in (loss.name, *loss.also, *loss.modules)]
    return dict([*((key.removesuffix("loss"), loss) for key, loss in plain), *plain])


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _listed(names: Iterable[str]) -> str:
    *others, last = sorted(names)
    return f"{', '.join(others)} or {last}" if others else last
