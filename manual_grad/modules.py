# Written by python -m manual_grad.generate from catalogue.py.
"""The losses as Modules, grouped by what the loss is a function of.

===========  =========================================  ==========================================================
pointwise    one element of each input                  L1, MSE, SmoothL1, Huber, GaussianNLL, PoissonNLL, BCE,
                                                        BCEWithLogits, KLDiv, SoftMargin, MarginRanking,
                                                        HingeEmbedding, Quantile, LogCosh, Charbonnier,
                                                        StudentTNLL, NegativeBinomialNLL, Tweedie, SigmoidFocal,
                                                        Asymmetric, DPO, SLiC, IPO, EXO, NCA, SPPO, APO, CPO,
                                                        SimPO, ORPO, KTO, PPOClip, GRPO, CISPO, SampledKL
rowwise      one row of class scores                    CrossEntropy, NLL, MultiMargin, MultiLabelMargin,
                                                        MultiLabelSoftMargin, Distillation, TopkDistillation
pairwise     two or three feature vectors               CosineEmbedding, TripletMargin, TripletMarginWithDistance
path         a lattice of alignments                    CTC
linear       features, and the weights that score them  LinearCrossEntropy, LinearDistillation,
                                                        AdaptiveLogSoftmaxWithLoss
contrastive  all pairs of two sets of feature vectors   InfoNCE, CLIP, NTXent, SupervisedContrastive, SigLIP
===========  =========================================  ==========================================================
"""

from manual_grad.losses.contrastive.clip_loss import CLIPLoss
from manual_grad.losses.contrastive.info_nce_loss import InfoNCELoss
from manual_grad.losses.contrastive.nt_xent_loss import NTXentLoss
from manual_grad.losses.contrastive.siglip_loss import SigLIPLoss
from manual_grad.losses.contrastive.supervised_contrastive_loss import SupervisedContrastiveLoss
from manual_grad.losses.linear.adaptive_log_softmax_with_loss import AdaptiveLogSoftmaxWithLoss
from manual_grad.losses.linear.linear_cross_entropy import LinearCrossEntropyLoss
from manual_grad.losses.linear.linear_distillation_loss import LinearDistillationLoss
from manual_grad.losses.pairwise.cosine_embedding_loss import CosineEmbeddingLoss
from manual_grad.losses.pairwise.triplet_margin_loss import TripletMarginLoss
from manual_grad.losses.pairwise.triplet_margin_with_distance_loss import TripletMarginWithDistanceLoss
from manual_grad.losses.path.ctc_loss import CTCLoss
from manual_grad.losses.pointwise.apo_loss import APOLoss
from manual_grad.losses.pointwise.asymmetric_loss import AsymmetricLoss
from manual_grad.losses.pointwise.binary_cross_entropy import BCELoss
from manual_grad.losses.pointwise.binary_cross_entropy_with_logits import BCEWithLogitsLoss
from manual_grad.losses.pointwise.charbonnier_loss import CharbonnierLoss
from manual_grad.losses.pointwise.cispo_loss import CISPOLoss
from manual_grad.losses.pointwise.cpo_loss import CPOLoss
from manual_grad.losses.pointwise.dpo_loss import DPOLoss
from manual_grad.losses.pointwise.exo_loss import EXOLoss
from manual_grad.losses.pointwise.gaussian_nll_loss import GaussianNLLLoss
from manual_grad.losses.pointwise.grpo_loss import GRPOLoss
from manual_grad.losses.pointwise.hinge_embedding_loss import HingeEmbeddingLoss
from manual_grad.losses.pointwise.huber_loss import HuberLoss
from manual_grad.losses.pointwise.ipo_loss import IPOLoss
from manual_grad.losses.pointwise.kl_div import KLDivLoss
from manual_grad.losses.pointwise.kto_loss import KTOLoss
from manual_grad.losses.pointwise.l1_loss import L1Loss
from manual_grad.losses.pointwise.log_cosh_loss import LogCoshLoss
from manual_grad.losses.pointwise.margin_ranking_loss import MarginRankingLoss
from manual_grad.losses.pointwise.mse_loss import MSELoss
from manual_grad.losses.pointwise.nca_loss import NCALoss
from manual_grad.losses.pointwise.negative_binomial_nll_loss import NegativeBinomialNLLLoss
from manual_grad.losses.pointwise.orpo_loss import ORPOLoss
from manual_grad.losses.pointwise.poisson_nll_loss import PoissonNLLLoss
from manual_grad.losses.pointwise.ppo_clip_loss import PPOClipLoss
from manual_grad.losses.pointwise.quantile_loss import QuantileLoss
from manual_grad.losses.pointwise.sampled_kl import SampledKL
from manual_grad.losses.pointwise.sigmoid_focal_loss import SigmoidFocalLoss
from manual_grad.losses.pointwise.simpo_loss import SimPOLoss
from manual_grad.losses.pointwise.slic_loss import SLiCLoss
from manual_grad.losses.pointwise.smooth_l1_loss import SmoothL1Loss
from manual_grad.losses.pointwise.soft_margin_loss import SoftMarginLoss
from manual_grad.losses.pointwise.sppo_loss import SPPOLoss
from manual_grad.losses.pointwise.student_t_nll_loss import StudentTNLLLoss
from manual_grad.losses.pointwise.tweedie_loss import TweedieLoss
from manual_grad.losses.rowwise.cross_entropy import CrossEntropyLoss
from manual_grad.losses.rowwise.distillation_loss import DistillationLoss
from manual_grad.losses.rowwise.multi_margin_loss import MultiMarginLoss
from manual_grad.losses.rowwise.multilabel_margin_loss import MultiLabelMarginLoss
from manual_grad.losses.rowwise.multilabel_soft_margin_loss import MultiLabelSoftMarginLoss
from manual_grad.losses.rowwise.nll_loss import NLLLoss, NLLLoss2d
from manual_grad.losses.rowwise.topk_distillation_loss import TopkDistillationLoss

__all__ = [
    "APOLoss",
    "AdaptiveLogSoftmaxWithLoss",
    "AsymmetricLoss",
    "BCELoss",
    "BCEWithLogitsLoss",
    "CISPOLoss",
    "CLIPLoss",
    "CPOLoss",
    "CTCLoss",
    "CharbonnierLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "DPOLoss",
    "DistillationLoss",
    "EXOLoss",
    "GRPOLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "IPOLoss",
    "InfoNCELoss",
    "KLDivLoss",
    "KTOLoss",
    "L1Loss",
    "LinearCrossEntropyLoss",
    "LinearDistillationLoss",
    "LogCoshLoss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NCALoss",
    "NLLLoss",
    "NLLLoss2d",
    "NTXentLoss",
    "NegativeBinomialNLLLoss",
    "ORPOLoss",
    "PPOClipLoss",
    "PoissonNLLLoss",
    "QuantileLoss",
    "SLiCLoss",
    "SPPOLoss",
    "SampledKL",
    "SigLIPLoss",
    "SigmoidFocalLoss",
    "SimPOLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "StudentTNLLLoss",
    "SupervisedContrastiveLoss",
    "TopkDistillationLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
    "TweedieLoss",
]
