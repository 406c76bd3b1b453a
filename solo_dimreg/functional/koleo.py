"""KoLeo: parts the nearest features of a batch, by an estimate of their entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_features
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.directclr import normalize_rows
from solo_dimreg.functional.neighbours import find_neighbours

_EPS = 1e-8  # added to each distance, as in the released code of DINOv2


@full_precision
def koleo_loss(x: Tensor) -> Tensor:
    """Compute minus the mean log distance from each normalized row to its nearest neighbour [1, eq. 2].

    The loss is ``-mean_i ln(min_{j != i} ||x_i - x_j|| + 1e-8)``. Up to constants it is minus the
    Kozachenko-Leonenko estimate of the differential entropy, so minimizing it raises the entropy. DINOv2 [2]
    uses it at weight 0.1. Rows that coincide up to rounding have no direction in which to part, and their
    gradient is 0.

    References:
        [1] Sablayrolles et al., Spreading vectors for similarity search, ICLR 2019.
        [2] Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024.

    Args:
        x: features, shape (B, D).

    Returns:
        The loss, a scalar; 0 for a single row.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    if len(x) == 1:
        return x[:, :0].sum()
    unit = normalize_rows(x)
    points = unit.detach()
    neighbours = find_neighbours(points, points, 1, torch.arange(len(x), device=x.device))[1][:, 0]
    distances = torch.linalg.vector_norm(unit - unit.index_select(0, neighbours), dim=1)
    coincide = distances <= 2 * torch.finfo(x.dtype).eps
    return -(torch.where(coincide, 0, distances) + _EPS).log().mean()
