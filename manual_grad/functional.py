# Written by python -m manual_grad.generate from catalogue.py.
"""The losses as functions, with torch's names and signatures: ``import manual_grad.functional as F``."""

from manual_grad.losses.contrastive.clip_loss import clip_loss
from manual_grad.losses.contrastive.info_nce_loss import info_nce_loss
from manual_grad.losses.contrastive.nt_xent_loss import nt_xent_loss
from manual_grad.losses.contrastive.siglip_loss import siglip_loss
from manual_grad.losses.contrastive.supervised_contrastive_loss import supervised_contrastive_loss
from manual_grad.losses.linear.linear_cross_entropy import linear_cross_entropy
from manual_grad.losses.linear.linear_distillation_loss import linear_distillation_loss
from manual_grad.losses.linear.linear_log_prob import linear_log_prob
from manual_grad.losses.pairwise.cosine_embedding_loss import cosine_embedding_loss
from manual_grad.losses.pairwise.triplet_margin_loss import triplet_margin_loss
from manual_grad.losses.pairwise.triplet_margin_with_distance_loss import triplet_margin_with_distance_loss
from manual_grad.losses.path.ctc_loss import ctc_loss
from manual_grad.losses.pointwise.apo_loss import apo_loss
from manual_grad.losses.pointwise.asymmetric_loss import asymmetric_loss
from manual_grad.losses.pointwise.binary_cross_entropy import binary_cross_entropy
from manual_grad.losses.pointwise.binary_cross_entropy_with_logits import binary_cross_entropy_with_logits
from manual_grad.losses.pointwise.charbonnier_loss import charbonnier_loss
from manual_grad.losses.pointwise.cispo_loss import cispo_loss
from manual_grad.losses.pointwise.cpo_loss import cpo_loss
from manual_grad.losses.pointwise.dpo_loss import dpo_loss
from manual_grad.losses.pointwise.exo_loss import exo_loss
from manual_grad.losses.pointwise.gaussian_nll_loss import gaussian_nll_loss
from manual_grad.losses.pointwise.grpo_loss import grpo_loss
from manual_grad.losses.pointwise.hinge_embedding_loss import hinge_embedding_loss
from manual_grad.losses.pointwise.huber_loss import huber_loss
from manual_grad.losses.pointwise.ipo_loss import ipo_loss
from manual_grad.losses.pointwise.kl_div import kl_div
from manual_grad.losses.pointwise.kto_loss import kto_loss
from manual_grad.losses.pointwise.l1_loss import l1_loss
from manual_grad.losses.pointwise.log_cosh_loss import log_cosh_loss
from manual_grad.losses.pointwise.margin_ranking_loss import margin_ranking_loss
from manual_grad.losses.pointwise.mse_loss import mse_loss
from manual_grad.losses.pointwise.nca_loss import nca_loss
from manual_grad.losses.pointwise.negative_binomial_nll_loss import negative_binomial_nll_loss
from manual_grad.losses.pointwise.orpo_loss import orpo_loss
from manual_grad.losses.pointwise.poisson_nll_loss import poisson_nll_loss
from manual_grad.losses.pointwise.ppo_clip_loss import ppo_clip_loss
from manual_grad.losses.pointwise.quantile_loss import quantile_loss
from manual_grad.losses.pointwise.sampled_kl import sampled_kl
from manual_grad.losses.pointwise.sigmoid_focal_loss import sigmoid_focal_loss
from manual_grad.losses.pointwise.simpo_loss import simpo_loss
from manual_grad.losses.pointwise.slic_loss import slic_loss
from manual_grad.losses.pointwise.smooth_l1_loss import smooth_l1_loss
from manual_grad.losses.pointwise.soft_margin_loss import soft_margin_loss
from manual_grad.losses.pointwise.sppo_loss import sppo_loss
from manual_grad.losses.pointwise.student_t_nll_loss import student_t_nll_loss
from manual_grad.losses.pointwise.tweedie_loss import tweedie_loss
from manual_grad.losses.rowwise.cross_entropy import cross_entropy
from manual_grad.losses.rowwise.distillation_loss import distillation_loss
from manual_grad.losses.rowwise.multi_margin_loss import multi_margin_loss
from manual_grad.losses.rowwise.multilabel_margin_loss import multilabel_margin_loss
from manual_grad.losses.rowwise.multilabel_soft_margin_loss import multilabel_soft_margin_loss
from manual_grad.losses.rowwise.nll_loss import nll_loss
from manual_grad.losses.rowwise.selected_log_prob import log_prob_and_entropy, selected_log_prob
from manual_grad.losses.rowwise.topk_distillation_loss import topk_distillation_loss

__all__ = [
    "apo_loss",
    "asymmetric_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "charbonnier_loss",
    "cispo_loss",
    "clip_loss",
    "cosine_embedding_loss",
    "cpo_loss",
    "cross_entropy",
    "ctc_loss",
    "distillation_loss",
    "dpo_loss",
    "exo_loss",
    "gaussian_nll_loss",
    "grpo_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "info_nce_loss",
    "ipo_loss",
    "kl_div",
    "kto_loss",
    "l1_loss",
    "linear_cross_entropy",
    "linear_distillation_loss",
    "linear_log_prob",
    "log_cosh_loss",
    "log_prob_and_entropy",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nca_loss",
    "negative_binomial_nll_loss",
    "nll_loss",
    "nt_xent_loss",
    "orpo_loss",
    "poisson_nll_loss",
    "ppo_clip_loss",
    "quantile_loss",
    "sampled_kl",
    "selected_log_prob",
    "siglip_loss",
    "sigmoid_focal_loss",
    "simpo_loss",
    "slic_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "sppo_loss",
    "student_t_nll_loss",
    "supervised_contrastive_loss",
    "topk_distillation_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
    "tweedie_loss",
]
