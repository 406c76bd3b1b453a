"""What the singular values of a feature matrix say about the dimensions that it fills."""

from __future__ import annotations

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_features
from solo_dimreg.functional._precision import full_precision


@full_precision
def effective_rank(x: Tensor, center: bool = False) -> Tensor:
    """Effective rank: the exponential of the entropy of the normalized singular values [1, def. 1].

    Between 1 and min(B, D), where it equals the rank if all nonzero singular values are equal.
    Differentiable, with a finite gradient also at singular values that are repeated or 0. A matrix of zeros
    has effective rank 1.

    References:
        [1] Roy & Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.

    Args:
        x: features, shape (B, D).
        center: subtract the mean of the batch first.

    Returns:
        The effective rank, a scalar.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    return entropy(singular_values(x - x.mean(dim=0) if center else x)).exp()


@full_precision
def singular_spectrum(x: Tensor) -> Tensor:
    """Singular values of the covariance matrix of ``x``, in descending order [1, sec. 3].

    The covariance is that of the columns over the rows, centred and divided by B - 1. Its logarithm is the
    spectrum that [1] plots. Computed from the singular values of the centred features, which keeps the small
    ones accurate; the D - min(B, D) that a small batch leaves undetermined are 0.

    References:
        [1] Jing et al., Understanding Dimensional Collapse in Contrastive Self-Supervised Learning, ICLR
            2022.

    Args:
        x: features, shape (B, D).

    Returns:
        The singular values, shape (D,).

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    values = singular_values(x - x.mean(dim=0)) ** 2 / max(len(x) - 1, 1)
    return torch.cat([values, values.new_zeros(x.shape[1] - len(values))])


def entropy(weights: Tensor) -> Tensor:
    """Shannon entropy of non-negative ``weights`` once scaled to sum 1; 0 if all are 0.

    Its slope at a weight of 0 is infinite; below the machine epsilon the logarithm is held, so that it stays
    finite.
    """
    total = weights.sum()
    p = weights / torch.where(total > 0, total, 1)
    return -(p * p.clamp_min(torch.finfo(p.dtype).eps).log()).sum()


def singular_values(x: Tensor) -> Tensor:
    """``torch.linalg.svdvals``, but NaN for a matrix that is not finite instead of an error.

    A step whose features overflowed is one that the gradient scaler of mixed precision skips: it must get
    that far.
    """
    if torch.isfinite(x).all():
        return torch.linalg.svdvals(x)
    return (x.sum() * torch.nan).expand(min(x.shape))
