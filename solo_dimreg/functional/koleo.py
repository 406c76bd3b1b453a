"""KoLeo: no two features of a batch are to be close, by an estimate of their entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_features
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.directclr import normalize_rows
from solo_dimreg.functional.neighbours import NeighbourDistances

_EPS = 1e-8  # added to each distance, as in the released code of DINOv2


@full_precision
def koleo_loss(x: Tensor) -> Tensor:
    """Minus the mean logarithm of the distance to the nearest neighbour, between normalized rows [1, eq. 2].

    ``-mean_i ln(min_{j != i} ||x_i - x_j|| + 1e-8)``, up to constants the Kozachenko-Leonenko estimate of the
    differential entropy, with the sign that raises it; [2] has it in DINOv2, at weight 0.1. Rows that
    coincide up to rounding have no direction in which to part: their gradient is 0.

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
    # A view: an autograd function that gets one tensor twice breaks the graph of torch.compile.
    itself = torch.arange(len(x), device=x.device)
    distances, _ = NeighbourDistances.apply(unit, unit.view_as(unit), 1, itself)
    coincide = distances <= 2 * torch.finfo(x.dtype).eps
    loss = -(torch.where(coincide, 0, distances) + _EPS).log().mean()
    return torch.where(x.isfinite().all(), loss, torch.nan)
