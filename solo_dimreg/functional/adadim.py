"""AdaDim's losses: one spreads the samples, one fills the dimensions, and one combines the two."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from solo_dimreg.functional._checks import check_between, check_pair, check_positive
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.decorrelation import covariance_penalty, variance_hinge
from solo_dimreg.functional.directclr import normalize_rows
from solo_dimreg.functional.spectrum import gram_matrix


@full_precision
def adadim_loss(
    sample_loss: Tensor,
    dimension_loss: Tensor,
    information: Tensor,
    alpha: Tensor | float,
    beta: Tensor | float = 0.0,
) -> Tensor:
    """Return ``alpha * sample_loss + (1 - alpha) * dimension_loss + beta * information`` [1].

    This is a reconstruction from the abstract, the findings and the reviews of [1]; neither its code nor its
    equations were at hand. :class:`solo_dimreg.AdaDim` chooses alpha and beta during training.

    References:
        [1] Kokilepersaud et al., AdaDim: Dimensionality Adaptation for SSL Representational Dynamics,
            arXiv 2505.12576, 2025.

    Args:
        sample_loss: loss that spreads the samples, a scalar, such as :func:`ntxent_loss`.
        dimension_loss: loss that decorrelates the axes, a scalar, such as :func:`vicreg_loss`.
        information: I(R;Z) between representations and embeddings, a scalar, see
            :func:`solo_dimreg.functional.matrix_mutual_information`.
        alpha: weight of the sample loss, from 0 to 1.
        beta: weight of the information.

    Returns:
        The loss, a scalar.
    """
    return alpha * sample_loss + (1 - alpha) * dimension_loss + beta * information


@full_precision
def ntxent_loss(z1: Tensor, z2: Tensor, temperature: float = 0.1) -> Tensor:
    """Compute NT-Xent, the loss of SimCLR, in which all other rows of both views are negatives [1, eq. 1].

    References:
        [1] Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020.

    Args:
        z1: embeddings of the first view, shape (B, d).
        z2: embeddings of the second view, shape (B, d).
        temperature: temperature of the softmax, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the temperature is not above 0, or the shapes do not fit.
    """
    check_pair("z1", z1, "z2", z2)
    check_positive("temperature", temperature)
    z = normalize_rows(torch.cat([z1, z2]))
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (gram_matrix(z.mT) / temperature).masked_fill(itself, -torch.inf)
    positives = torch.arange(len(z), device=z.device).roll(len(z1))
    return F.cross_entropy(logits, positives)


@full_precision
def vicreg_loss(z1: Tensor, z2: Tensor, sim: float = 25.0, var: float = 25.0, cov: float = 1.0) -> Tensor:
    """Compute the loss of VICReg from invariance, variance and covariance [1, eq. 6].

    The variance terms of the two views are added, as in [1] and in solo-learn. The authors' released code
    averages them instead, so ``var=12.5`` here equals their 25. The covariance terms are added as well.

    References:
        [1] Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, ICLR 2022.

    Args:
        z1: embeddings of the first view, shape (B, d).
        z2: embeddings of the second view, shape (B, d).
        sim: weight of the mean squared difference of the views, at least 0.
        var: weight of :func:`solo_dimreg.functional.variance_hinge`, at least 0.
        cov: weight of :func:`solo_dimreg.functional.covariance_penalty`, at least 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: a weight is negative, or the shapes do not fit.
    """
    check_pair("z1", z1, "z2", z2)
    check_vicreg_weights(sim, var, cov)
    variance = variance_hinge(z1) + variance_hinge(z2)
    covariance = covariance_penalty(z1) + covariance_penalty(z2)
    return sim * F.mse_loss(z1, z2) + var * variance + cov * covariance


def check_vicreg_weights(sim: float, var: float, cov: float) -> None:
    """Raise if :func:`vicreg_loss` cannot use a weight, before there is any data."""
    for name, value in (("sim", sim), ("var", var), ("cov", cov)):
        check_between(name, value, 0)
