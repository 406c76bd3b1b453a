"""Intrinsic dimension of a cloud of points: TwoNN, and the growth of the minimum spanning tree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_features, check_int
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.neighbours import nearest

# Of the ratios of TwoNN the largest tenth is left out, as in the paper.
KEPT = 0.9
EQUAL = 16  # times the rounding of their length: rows that are no further apart
# The trees: of so many sizes from a sixteenth of the points up, in equal ratios, each of so many draws.
SIZES, SMALLEST, DRAWS = 8, 16, 3


@full_precision
@torch.no_grad()
def two_nn(x: Tensor) -> Tensor:
    """TwoNN: the intrinsic dimension from the distances to the two nearest neighbours [1].

    Where the density hardly changes over two neighbours, their ratio ``mu = r_2 / r_1`` has the distribution
    ``F(mu) = 1 - mu^-d``: d is the slope of the line through the origin and the points ``(ln mu_i, -ln(1 -
    i / N))``, mu sorted, without the largest tenth. Rows that are equal, up to rounding, count once:
    they would have ``r_1 = 0``, and their neighbours ``mu = 1``. Biased downwards where d is large for the
    number of points.

    References:
        [1] Facco et al., Estimating the intrinsic dimension of datasets by a minimal neighborhood
            information, Scientific Reports 2017.

    Args:
        x: features, shape (B, D).

    Returns:
        The dimension, a scalar; NaN for fewer than three distinct rows, where one is not finite, or where all
        ratios are 1.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    points = torch.unique(x, dim=0)
    later = torch.ones(1, dtype=torch.bool)
    while later.any():
        if len(points) < 3 or not points.isfinite().all():
            return x.new_full((), math.nan)
        itself = torch.arange(len(points), device=x.device)
        distances, neighbours = nearest(points, points, 2, itself)
        # Of rows that rounding alone tells apart, one stays.
        lengths = torch.linalg.vector_norm(points, dim=1, dtype=torch.float64)
        near = distances[:, 0] <= EQUAL * torch.finfo(x.dtype).eps * lengths
        later = near & (neighbours[:, 0] < itself)
        points = points[~later]
    logs = (distances[:, 1] / distances[:, 0]).log()
    logs = logs[logs.isfinite()].sort().values  # rows may differ by less than a distance resolves
    kept = logs[: int(KEPT * len(logs))]
    ranks = torch.arange(1, len(kept) + 1, device=x.device, dtype=x.dtype)
    heights = -torch.log1p(-ranks / max(len(logs), 1))
    squares = (kept**2).sum()
    return torch.where(squares > 0, (kept * heights).sum() / squares, math.nan)


@full_precision
@torch.no_grad()
def mst_dimension(x: Tensor, max_points: int = 1024) -> Tensor:
    """The intrinsic dimension from the growth of the minimum spanning tree with the number of points [1].

    The length of the tree of n points grows as ``n^((d - 1) / d)``: with the slope a of ``ln length`` over
    ``ln n``, ``d = 1 / (1 - a)``. Eight sizes from a sixteenth of the points to all of them, of each three
    random subsets, always the same. [2] ranks representations by it; there the lower is the better. Rows
    that are equal count once. Seconds for some thousand points: memory and time grow with their square.

    References:
        [1] Costa & Hero, Geodesic Entropic Graphs for Dimension and Entropy Estimation in Manifold Learning,
            IEEE Transactions on Signal Processing 2004.
        [2] Mordacq et al., IdEst: Assessing Self-Supervised Learning Representations via Intrinsic Dimension,
            ICML 2026.

    Args:
        x: features, shape (B, D).
        max_points: of more distinct rows, so many are drawn, always the same.

    Returns:
        The dimension, a scalar; NaN for fewer than 32 distinct rows, or a slope of 1 and more.

    Raises:
        ValueError: ``x`` is not of shape (B, D), or ``max_points`` is below 32.
    """
    check_features("x", x)
    check_int("max_points", max_points, minimum=2 * SMALLEST)
    generator = torch.Generator().manual_seed(0)
    points = torch.unique(x, dim=0).cpu()
    points = points[torch.randperm(len(points), generator=generator)[:max_points]].double()
    if len(points) < 2 * SMALLEST or not points.isfinite().all():
        return x.new_full((), math.nan)
    points = points - points.mean(dim=0)
    points = points / points.abs().max()
    distances = torch.cdist(points, points)
    counts = torch.logspace(math.log10(len(points) / SMALLEST), math.log10(len(points)), SIZES).round().long()
    means = []
    for n in counts.tolist():
        draws = DRAWS if n < len(points) else 1  # of all points there is one choice
        means.append(sum(_tree_length(distances, n, generator) for _ in range(draws)) / draws)
    logs, lengths = counts.double().log(), torch.tensor(means, dtype=torch.float64).log()
    slope = ((logs - logs.mean()) * lengths).sum() / ((logs - logs.mean()) ** 2).sum()
    return torch.where(slope < 1, 1 / (1 - slope), math.nan).to(x)


def _tree_length(distances: Tensor, count: int, generator: torch.Generator) -> float:
    """The length of the minimum spanning tree of a random choice of the points."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    chosen = torch.randperm(len(distances), generator=generator)[:count]
    row, column = torch.triu_indices(count, count, offset=1)
    # SciPy takes a distance of 0 for no edge at all, in a dense matrix one below 1e-8 too.
    lengths = distances[chosen[row], chosen[column]].clamp_min(torch.finfo(distances.dtype).tiny)
    pairs = lengths.numpy(), (row.numpy(), column.numpy())
    return float(minimum_spanning_tree(coo_matrix(pairs, shape=(count, count))).sum())
