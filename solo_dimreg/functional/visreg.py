"""VISReg: regularizes the scale, the shape and the centre of the embeddings by a term each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_between, check_features, check_positive, check_slices
from solo_dimreg.functional._precision import full_precision, matmul
from solo_dimreg.functional.spectrum import subtract_mean


@full_precision
def visreg_loss(
    x: Tensor,
    slices: Tensor,
    scale_weight: float = 1.0,
    shape_weight: float = 1.0,
    center_weight: float = 1.0,
    eps: float = 1e-4,
) -> Tensor:
    """Compute VISReg's variance and sketching terms, without its invariance [1, eq. 1, 2, 5 and 6].

    With the mean and the standard deviation of each axis (divided by B), the terms are:

    - the scale, ``mean_j (1 - std_j)^2``;
    - the centre, ``mean_j mean_j^2``;
    - the shape, the squared 2-Wasserstein distance of each slice of the standardized embeddings to a standard
      Gaussian, ``mean (sorted projection_i - Gaussian quantile of i / (B + 1))^2``.

    The standard deviations that standardize are constants to the gradient. So the gradient does not vanish as
    the embeddings collapse, unlike that of :func:`sigreg_loss`: for the scale it tends to a constant, and for
    the shape it grows. Axes that are constant up to rounding have no gradient.

    References:
        [1] Wu et al., VISReg: Variance-Invariance-Sketching Regularization for JEPA training, arXiv
            2606.02572, 2026.

    Args:
        x: embeddings, shape (B, D).
        slices: unit vectors as columns, shape (D, K).
        scale_weight: weight of the standard deviations, at least 0; 1 in [1].
        shape_weight: weight of the slices, at least 0; 1 in [1].
        center_weight: weight of the mean, at least 0; 1 in [1].
        eps: added to the standard deviations that divide, above 0.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: an option is out of range, or the shapes do not fit.
    """
    check_features("x", x)
    check_slices(slices, x)
    check_visreg_options(scale_weight, shape_weight, center_weight, eps)
    centred = subtract_mean(x)
    std = torch.linalg.vector_norm(centred, dim=0) / math.sqrt(len(x))
    # Slices are rows, so that the numbers to sort lie side by side.
    projections = matmul(slices.T, (centred / (std.detach() + eps)).T)
    places = torch.arange(1, len(x) + 1, dtype=x.dtype, device=x.device) / (len(x) + 1)
    shape = ((projections.sort(dim=1).values - torch.special.ndtri(places)) ** 2).mean()
    center = (x.mean(dim=0) ** 2).mean()
    return scale_weight * ((1 - std) ** 2).mean() + shape_weight * shape + center_weight * center


def check_visreg_options(scale_weight: float, shape_weight: float, center_weight: float, eps: float) -> None:
    """Raise if :func:`visreg_loss` cannot use an option, before there is any data."""
    check_between("scale_weight", scale_weight, 0)
    check_between("shape_weight", shape_weight, 0)
    check_between("center_weight", center_weight, 0)
    check_positive("eps", eps)
