"""Loss functions whose forward, backward and second derivative were derived by hand.

The Modules below and the functions of :mod:`manual_grad.functional` have the names and signatures of torch's. By
family, that is, by what the loss is a function of:

=========  ===================================  ================================================================
pointwise  one element of each input            L1, MSE, SmoothL1, Huber, GaussianNLL, PoissonNLL, BCE,
                                                BCEWithLogits, KLDiv, SoftMargin, MarginRanking, HingeEmbedding
rowwise    one row of class scores              CrossEntropy, NLL, MultiMargin, MultiLabelMargin,
                                                MultiLabelSoftMargin
pairwise   two or three feature vectors         CosineEmbedding, TripletMargin, TripletMarginWithDistance
path       a lattice of alignments              CTC
linear     a projection, then rows              LinearCrossEntropy, AdaptiveLogSoftmaxWithLoss
=========  ===================================  ================================================================
"""

from manual_grad import functional
from manual_grad.kernels import show_config
from manual_grad.losses.adaptive_log_softmax_with_loss import AdaptiveLogSoftmaxWithLoss
from manual_grad.losses.binary_cross_entropy import BCELoss
from manual_grad.losses.binary_cross_entropy_with_logits import BCEWithLogitsLoss
from manual_grad.losses.cosine_embedding_loss import CosineEmbeddingLoss
from manual_grad.losses.cross_entropy import CrossEntropyLoss
from manual_grad.losses.ctc_loss import CTCLoss
from manual_grad.losses.gaussian_nll_loss import GaussianNLLLoss
from manual_grad.losses.hinge_embedding_loss import HingeEmbeddingLoss
from manual_grad.losses.huber_loss import HuberLoss
from manual_grad.losses.kl_div import KLDivLoss
from manual_grad.losses.l1_loss import L1Loss
from manual_grad.losses.linear_cross_entropy import LinearCrossEntropyLoss
from manual_grad.losses.margin_ranking_loss import MarginRankingLoss
from manual_grad.losses.mse_loss import MSELoss
from manual_grad.losses.multi_margin_loss import MultiMarginLoss
from manual_grad.losses.multilabel_margin_loss import MultiLabelMarginLoss
from manual_grad.losses.multilabel_soft_margin_loss import MultiLabelSoftMarginLoss
from manual_grad.losses.nll_loss import NLLLoss, NLLLoss2d
from manual_grad.losses.poisson_nll_loss import PoissonNLLLoss
from manual_grad.losses.smooth_l1_loss import SmoothL1Loss
from manual_grad.losses.soft_margin_loss import SoftMarginLoss
from manual_grad.losses.triplet_margin_loss import TripletMarginLoss
from manual_grad.losses.triplet_margin_with_distance_loss import TripletMarginWithDistanceLoss
from manual_grad.patching import patch

__version__ = "0.1.0"

__all__ = [
    "AdaptiveLogSoftmaxWithLoss",
    "BCELoss",
    "BCEWithLogitsLoss",
    "CTCLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "LinearCrossEntropyLoss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "NLLLoss2d",
    "PoissonNLLLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
    "functional",
    "patch",
    "show_config",
]
