"""All entries of the table, and what the findings come from."""

from __future__ import annotations

from benchmarks.field import classification, embedding, regression, segmentation, survival  # noqa: F401
from benchmarks.field.table import ENTRIES

__all__ = ["ENTRIES", "WHY"]

POWER = (
    "1 − p rounds to 0, where its power with an exponent below 1 has an infinite slope, which is multiplied by 0. The "
    "default exponent is 2."
)
LOST = (
    "The backward pass returns a saved tensor that has no graph, so that a second one finds nothing to differentiate."
)
SCALED = (
    "A backward pass with an upstream gradient other than 1 scales the stored gradient in place, and each time anew."
)
OVERFLOW = "exp(1 / temperature) overflows in float32 below a temperature of 0.0113."
WHY = {
    "segmentation_models_pytorch.losses.FocalLoss": POWER,
    "monai.losses.focal_loss.softmax_focal_loss": POWER,
    "timm.loss.PolyBinaryCrossEntropy": POWER.replace("2.", "0, without a power."),
    "catalyst.contrib.losses.FocalLossBinary": POWER + " Logits that are not contiguous meet a view(-1).",
    "balanced_loss.Loss": (
        "log(1 + exp(−x)) overflows in float32 for a logit x below −88: the factor before the loss becomes 0, and a "
        "class that is missed by that much adds nothing to the value."
    ),
    "entmax.sparsemax_loss": LOST,
    "entmax.sparsemax_bisect_loss": LOST,
    "entmax.entmax15_loss": LOST,
    "entmax.entmax_bisect_loss": LOST,
    "liger_kernel.transformers.functional.liger_cross_entropy": (
        f"The kernel stores the gradient over the logits that it is given. {SCALED}"
    ),
    "liger_kernel.transformers.functional.liger_fused_linear_cross_entropy": SCALED,
    "liger_kernel.transformers.functional.liger_fused_linear_jsd": SCALED,
    "torchmetrics.functional.log_cosh_error": "exp of the difference overflows in float32 beyond 88.",
    "monai.losses.ContrastiveLoss": f"{OVERFLOW} The default temperature is 0.5.",
    "catalyst.contrib.losses.NTXentLoss": f"{OVERFLOW} At 0.05 it cancels in a difference.",
    "catalyst.contrib.losses.supervised_contrastive.SupervisedContrastiveLoss": (
        f"{OVERFLOW} At 0.05 the sum over the positives, less exp(1 / temperature), rounds to 0."
    ),
    "catalyst.contrib.losses.ContrastiveEmbeddingLoss": "The slope of the square root at a distance of 0 is infinite.",
    "pytorch_metric_learning.losses.ArcFaceLoss": (
        "The slope of acos at a cosine of 1 is infinite; a zero of the normalisation is multiplied by it."
    ),
    "pytorch_metric_learning.losses.NTXentLoss": (
        "The ratio of the exponentials underflows in float32, and the smallest normal number is added to it before the "
        "log. This needs a difference of cosines above 87 temperatures; the default temperature is 0.07."
    ),
    "geomloss.SamplesLoss": (
        "The gradients of the terms between a sample and itself are doubled in the backward pass, with one side "
        "detached: right for a first derivative, not for a second."
    ),
    "piq.tv.total_variation": "The slope of the square root at a sum of squares of 0 is infinite. 'l2' is the default.",
    "segmentation_models_pytorch.losses.LovaszLoss": (
        "The labels are cast to float32, whatever the logits are, and a dot product refuses the mixture."
    ),
    "torchsurv.loss.weibull.neg_log_likelihood_weibull": (
        "The time is clamped to 1e-100, which is 0 in float32, and 0 is multiplied by the log of it."
    ),
}
