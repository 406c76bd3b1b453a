"""The intrinsic dimension of a set of points, by TwoNN and by the growth of the minimum spanning tree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_features, check_int
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.neighbours import nearest_neighbours

# TwoNN leaves out the largest tenth of the ratios, as in the paper.
KEPT = 0.9
EQUAL = 16  # rows count as equal up to this many times the rounding of their length
# The number of tree sizes, the part of the points (1 / 16) that the smallest has, and the draws of each size.
SIZES, SMALLEST, DRAWS = 8, 16, 3


@full_precision
@torch.no_grad()
def two_nn(x: Tensor) -> Tensor:
    """Estimate the intrinsic dimension from the distances to the two nearest neighbours (TwoNN) [1].

    Where the density hardly changes over two neighbours, the ratio ``mu = r_2 / r_1`` of their distances has
    the distribution ``F(mu) = 1 - mu^-d``. The estimate of d is the slope of the line through the origin and
    the points ``(ln mu_i, -ln(1 - i / N))``, with mu sorted and without the largest tenth. Rows that are
    equal up to rounding count once, since they would have ``r_1 = 0``, and their neighbours ``mu = 1``. The
    estimate is too low where d is large for the number of points.

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
    return slope_of_ratios(nearest_ratios(x))


def nearest_ratios(x: Tensor) -> Tensor:
    """Return the sorted logarithms of TwoNN's ratios of the distinct rows of ``x``, none if undefined."""
    points = torch.unique(x, dim=0)
    later = torch.ones(1, dtype=torch.bool)
    while later.any():
        if len(points) < 3 or not points.isfinite().all():
            return x.new_empty(0)
        itself = torch.arange(len(points), device=x.device)
        distances, neighbours = nearest_neighbours(points, points, 2, itself)
        # One of several rows that differ only by rounding stays.
        lengths = torch.linalg.vector_norm(points, dim=1, dtype=torch.float64)
        near = distances[:, 0] <= EQUAL * torch.finfo(x.dtype).eps * lengths
        later = near & (neighbours[:, 0] < itself)
        points = points[~later]
    logs = (distances[:, 1] / distances[:, 0]).log()
    return logs[logs.isfinite()].sort().values  # rows may differ by less than a distance resolves


def slope_of_ratios(logs: Tensor) -> Tensor:
    """Return TwoNN's dimension from the sorted logarithms of the ratios, (..., N)."""
    count = logs.shape[-1]
    kept = logs[..., : int(KEPT * count)]
    ranks = torch.arange(1, kept.shape[-1] + 1, device=logs.device, dtype=logs.dtype)
    heights = -torch.log1p(-ranks / max(count, 1))
    squares = (kept**2).sum(dim=-1)
    return torch.where(squares > 0, (kept * heights).sum(dim=-1) / squares, math.nan)


@full_precision
@torch.no_grad()
def mst_dimension(x: Tensor, max_points: int = 1024) -> Tensor:
    """Estimate the intrinsic dimension from the growth of the minimum spanning tree with the points [1].

    The length of the tree of n points grows as ``n^((d - 1) / d)``, so ``d = 1 / (1 - a)`` with the slope a
    of ``ln length`` over ``ln n``. The slope is fitted to eight sizes, from a sixteenth of the points to all
    of them, with three random subsets of each size, which are always the same. Equal rows count once. [2]
    ranks representations by this dimension, where lower is better. Some thousand points take seconds; memory
    and time grow with the square of their number.

    References:
        [1] Costa & Hero, Geodesic Entropic Graphs for Dimension and Entropy Estimation in Manifold Learning,
            IEEE Transactions on Signal Processing 2004.
        [2] Mordacq et al., IdEst: Assessing Self-Supervised Learning Representations via Intrinsic Dimension,
            ICML 2026.

    Args:
        x: features, shape (B, D).
        max_points: the most distinct rows that are used. If there are more, the same ones are always drawn.

    Returns:
        The dimension, a scalar; NaN for fewer than 32 distinct rows, or a slope of 1 and more.

    Raises:
        ValueError: ``x`` is not of shape (B, D), or ``max_points`` is below 32.
    """
    check_features("x", x)
    check_int("max_points", max_points, minimum=2 * SMALLEST)
    generator = torch.Generator().manual_seed(0)
    return growth_of_tree(distances_of_tree(x, max_points, generator), generator).to(x)


def distances_of_tree(x: Tensor, max_points: int, generator: torch.Generator) -> Tensor:
    """Return the distances of all pairs of at most ``max_points`` distinct rows, (n, n), in float64."""
    points = torch.unique(x, dim=0).cpu()
    points = points[torch.randperm(len(points), generator=generator)[:max_points]].double()
    points = points - points.mean(dim=0)
    points = points / points.abs().max()
    return torch.cdist(points, points)


def growth_of_tree(distances: Tensor, generator: torch.Generator) -> Tensor:
    """Return the dimension by the spanning trees of random subsets of points, from the distances (n, n)."""
    most = len(distances)
    if most < 2 * SMALLEST or not distances.isfinite().all():
        return distances.new_full((), math.nan)
    counts = torch.logspace(math.log10(most / SMALLEST), math.log10(most), SIZES).round().long()
    means = []
    for n in counts.tolist():
        draws = DRAWS if n < most else 1  # all points can be chosen in one way only
        means.append(sum(_tree_length(distances, n, generator) for _ in range(draws)) / draws)
    logs, lengths = counts.double().log(), torch.tensor(means, dtype=torch.float64).log()
    slope = ((logs - logs.mean()) * lengths).sum() / ((logs - logs.mean()) ** 2).sum()
    return torch.where(slope < 1, 1 / (1 - slope), math.nan)


def _tree_length(distances: Tensor, count: int, generator: torch.Generator) -> float:
    """Return the length of the minimum spanning tree of ``count`` randomly chosen points."""
    from scipy.cluster.hierarchy import linkage

    chosen = torch.randperm(len(distances), generator=generator)[:count]
    row, column = torch.triu_indices(count, count, offset=1)
    # The edges of the tree are where single linkage merges; SciPy finds them without a sparse graph.
    return float(linkage(distances[chosen[row], chosen[column]].numpy(), "single")[:, 2].sum())
