# Written by python -m manual_grad.generate from catalogue.py.
"""The generated kernels of the pointwise losses."""

from manual_grad.kernels.triton.generated import (
    asymmetric_loss,
    charbonnier_loss,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    log_cosh_loss,
    margin_ranking_loss,
    mse_loss,
    negative_binomial_nll_loss,
    poisson_nll_loss,
    quantile_loss,
    sigmoid_focal_loss,
    smooth_l1_loss,
    student_t_nll_loss,
    triplet_margin_with_distance_loss,
    tweedie_loss,
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
    "quantile_loss": quantile_loss.LOSS,
    "log_cosh_loss": log_cosh_loss.LOSS,
    "charbonnier_loss": charbonnier_loss.LOSS,
    "student_t_nll_loss": student_t_nll_loss.LOSS,
    "negative_binomial_nll_loss": negative_binomial_nll_loss.LOSS,
    "tweedie_loss": tweedie_loss.LOSS,
    "sigmoid_focal_loss": sigmoid_focal_loss.LOSS,
    "asymmetric_loss": asymmetric_loss.LOSS,
    "triplet_margin_with_distance_loss": triplet_margin_with_distance_loss.LOSS,
}
