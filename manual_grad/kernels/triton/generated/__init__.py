# Written by python -m manual_grad.generate from catalogue.py.
"""The kernels of the pointwise losses whose rules are printed."""

from manual_grad.kernels.triton.generated import (
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    mse_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    triplet_margin_with_distance_loss,
)

LOSSES = {
    "l1_loss": l1_loss.LOSS,
    "mse_loss": mse_loss.LOSS,
    "smooth_l1_loss": smooth_l1_loss.LOSS,
    "huber_loss": huber_loss.LOSS,
    "gaussian_nll_loss": gaussian_nll_loss.LOSS,
    "poisson_nll_loss": poisson_nll_loss.LOSS,
    "kl_div": kl_div.LOSS,
    "margin_ranking_loss": margin_ranking_loss.LOSS,
    "hinge_embedding_loss": hinge_embedding_loss.LOSS,
    "triplet_margin_with_distance_loss": triplet_margin_with_distance_loss.LOSS,
}
