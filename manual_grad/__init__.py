"""Loss functions whose forward, backward and second derivative were derived by hand.

The Modules below and the functions of :mod:`manual_grad.functional` have the names and signatures of torch's. By
family, that is, by what the loss is a function of:

=========  ======================================  ==========================================
pointwise  one element of each input               L1, MSE, Huber, BCE, BCEWithLogits, KLDiv,
                                                   SoftMargin
rowwise    one row of class scores                 CrossEntropy, MultiLabelSoftMargin
pairwise   two feature vectors                     CosineEmbedding
path       a lattice of alignments                 CTC
=========  ======================================  ==========================================
"""

from manual_grad import functional
from manual_grad.kernels import show_config
from manual_grad.losses.binary_cross_entropy import BCELoss
from manual_grad.losses.binary_cross_entropy_with_logits import BCEWithLogitsLoss
from manual_grad.losses.cosine_embedding_loss import CosineEmbeddingLoss
from manual_grad.losses.cross_entropy import CrossEntropyLoss
from manual_grad.losses.ctc_loss import CTCLoss
from manual_grad.losses.huber_loss import HuberLoss
from manual_grad.losses.kl_div import KLDivLoss
from manual_grad.losses.l1_loss import L1Loss
from manual_grad.losses.mse_loss import MSELoss
from manual_grad.losses.multilabel_soft_margin_loss import MultiLabelSoftMarginLoss
from manual_grad.losses.soft_margin_loss import SoftMarginLoss
from manual_grad.patching import patch

__version__ = "0.1.0"

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CTCLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "MultiLabelSoftMarginLoss",
    "SoftMarginLoss",
    "functional",
    "patch",
    "show_config",
]
