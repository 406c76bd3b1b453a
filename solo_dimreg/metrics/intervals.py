"""Intervals of the metrics over images: where 95 % of other samples of as many images would fall.

Each metric has *deviations*, which tell how far it moves if the images count with random weights of mean 1:
the Bayesian bootstrap [1]. A row has the same weight for all metrics, and in all inputs with as many rows, so
a difference between two inputs deviates by the difference of their deviations.

A metric of the moments is computed from the variances that weighted rows have along the eigenvectors of all
rows, which is exact to first order. One decomposition serves all replicates. New decompositions of each
would take hours, and fail where the rows are not many times the dimensions [2]. Metrics of pairs and of
neighbours move by the influence of each row, their derivative in its weight [3].

A metric above 0 that has no upper limit, or a rank, has its interval on a logarithmic scale; all intervals
end at the limits of their metric. There is none where the replicates explode.

The interval is that of the metric at this number of images. It does not contain the bias of small samples:
the effective rank of 500 rows is below that of all images.

References:
    [1] Rubin, The Bayesian Bootstrap, Annals of Statistics 1981.
    [2] Lopes, Blandino & Aue, Bootstrapping spectral statistics in high dimensions, Biometrika 2019.
    [3] Jaeckel, The infinitesimal jackknife, Bell Laboratories 1972.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from solo_dimreg.functional._rows import few_indices, of_few
from solo_dimreg.functional.dimension import (
    distances_of_tree,
    growth_of_tree,
    nearest_ratios,
    slope_of_ratios,
)
from solo_dimreg.functional.directclr import normalize_rows
from solo_dimreg.functional.signal import squares_of_groups
from solo_dimreg.metrics.moments import CORRELATION_AXES, Moments

REPLICATES = 200
# The spanning tree is drawn anew so many times, from nine tenths of the points.
TREES, PART_OF_TREE = 12, 0.9
GROUPS = 16  # of rows, each left out once, for metrics whose influence is not known
NORMAL = 1.96  # 95 % of a normal distribution are within so many standard deviations
EXPLODED = 3  # half a width of more than so many times a positive metric says that it was not measured
SKEW = 0.2  # the middle of an interval may be off its metric by this part of half the width, to write ±
UNBOUNDED = (-math.inf, math.inf)

Interval = tuple[float, float]


def weights(count: int) -> Tensor:
    """Return random weights of mean 1 for each of ``count`` rows, (R, count); always the same ones."""
    drawn = torch.empty(REPLICATES, count).exponential_(generator=torch.Generator().manual_seed(0))
    return drawn / drawn.mean(dim=1, keepdim=True)


def interval(
    value: float | None, deviations: Tensor, bounds: tuple[float, float] = UNBOUNDED
) -> Interval | None:
    """Return the 95 % interval of a metric, of whole numbers for a count; None if it is undefined.

    The deviations tell how far it moves in replicates of the sample.
    """
    deviations = deviations[deviations.isfinite()].double()
    if value is None or len(deviations) < 2:
        return None
    if isinstance(value, int):
        low, high = torch.quantile(deviations, torch.tensor([0.025, 0.975]).double()).tolist()
        return value + min(0, math.floor(low)), value + max(0, math.ceil(high))
    half, (lowest, highest) = NORMAL * float(deviations.std()), bounds
    if lowest < 0 or highest <= 1:
        low, high = value - half, value + half
    elif half > EXPLODED * value:
        return None
    else:
        factor = math.exp(half / value) if value else 1
        low, high = value / factor, value * factor
    return max(low, min(lowest, value)), min(high, max(highest, value))


def with_interval(value: float | None, interval: Interval | None, decimals: int) -> str:
    """Return a number with half the width of its interval, or with the ends of a skew one or of counts.

    An interval that is narrower than the digits is left out.
    """
    if value is None:
        return "–"
    low, high = interval or (value, value)
    half = (high - low) / 2
    # Half the width shows a digit, if that takes at most two more.
    shown = next((n for n in range(decimals, decimals + 3) if half >= 0.5 * 10**-n), None)
    if shown is None:
        return f"{value:.{decimals}f}"
    if isinstance(value, int):
        return f"{value} ({low:.0f} to {high:.0f})"
    if abs(high + low - 2 * value) > SKEW * half:
        return f"{value:.{shown}f} ({low:.{shown}f} to {high:.{shown}f})"
    return f"{value:.{shown}f} ± {half:.{shown}f}"


def of_influence(influence: Tensor) -> Tensor:
    """Return the deviations, (R,), from the influence of each row on a metric, (N,)."""
    influence = influence.double() - influence.double().mean()
    return weights(len(influence)).to(influence) @ influence / len(influence)


def of_groups(metric: Callable[[Tensor], Any], count: int) -> Tensor:
    """Return deviations of a metric, (G,), from 16 groups of ``count`` rows that are left out in turn.

    The metric takes the numbers of the rows that stay, ascending, (n,).
    """
    group = torch.randperm(count, generator=torch.Generator().manual_seed(0)) % GROUPS
    values = torch.tensor([float(metric((group != i).nonzero()[:, 0])) for i in range(min(GROUPS, count))])
    return (values - values[values.isfinite()].mean()) * (GROUPS - 1) / math.sqrt(GROUPS)


def replicas(moments: Moments, sample: Tensor) -> Iterator[Moments]:
    """Yield the moments under each draw of weights, from up to 2,048 rows of a sample (n, D)."""
    few, extra, scale = _draws(moments, sample)
    rows, mean = sample[few].double() / scale, moments.mean / scale
    values = moments.eigenvalues * _ratios(moments, moments.mean, rows - mean, few, extra)
    uncentred = _ratios(moments, torch.zeros_like(mean), rows, few, extra)
    singular = moments.singular_values * uncentred[:, : len(moments.singular_values)].sqrt()
    means = moments.mean + scale * (extra @ (rows - rows.mean(dim=0))) / len(few)
    correlation = moments.correlations[1] + extra @ _correlation(moments, sample[few]) / len(few)
    for i, of_axes in enumerate(correlation.tolist()):
        replica = Moments(moments.count, means[i], moments.resolution, rounding=moments.rounding)
        vars(replica).update(
            eigenvalues=values[i].sort(descending=True).values,
            singular_values=singular[i].sort(descending=True).values,
            floor=moments.floor,
            mean_square=values[i].sum() * max(moments.count - 1, 1) / moments.count + means[i] @ means[i],
            correlations=(None, of_axes),
        )
        yield replica


def rank_deviations(moments: Moments, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the deviations of the effective rank of all rows (N, D), and those of the variance over it."""
    few, extra, scale = _draws(moments, rows)
    ratios = _ratios(moments, moments.mean, (rows[few].double() - moments.mean) / scale, few, extra)
    ratios = ratios[:, : min(rows.shape)]
    values = moments.eigenvalues[: ratios.shape[1]] * ratios
    total = moments.variances.sum()
    roots = torch.cat([moments.eigenvalues[None, : ratios.shape[1]], values]).sqrt()
    parts = roots / roots.sum(dim=1, keepdim=True).clamp_min(1e-300)
    ranks = torch.special.entr(parts).sum(dim=1).exp()
    return ranks[1:] - ranks[0], values.sum(dim=1) / torch.where(total > 0, total, 1) - 1


def mean_share_deviations(moments: Moments, rows: Tensor) -> Tensor:
    """Return the deviations of the mean's share of all rows, (N, D)."""
    rows, square = rows.double(), moments.mean_square.clamp_min(1e-300)
    moved = 2 * rows @ moments.mean - moments.mean_share * (rows**2).sum(dim=1)
    return of_influence(moved / square)


def correlation_deviations(moments: Moments, rows: Tensor) -> Tensor:
    """Return the deviations of the mean absolute correlation of the axes of all rows, (N, D)."""
    return of_influence(_correlation(moments, rows))


def of_few_groups(influence: Tensor) -> Tensor:
    """Return the deviations, (R,), from the influence of each of a few groups of rows, (G,).

    Student's distribution is wider than the normal one, by about ``1 + 2 / (G - 1)`` for 4 groups or more.
    """
    return of_influence(influence) * (1 + 2 / (len(influence) - 1) if len(influence) > 3 else math.nan)


def _draws(moments: Moments, sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the numbers of some rows, their extra weights (R, m), and the root mean square length."""
    few = few_indices(len(sample)).to(sample.device)
    # Few rows of many vary more than all.
    extra = (weights(len(few)) - 1).to(moments.mean) * math.sqrt(len(few) / moments.count)
    scale = moments.mean_square.sqrt()
    return few, extra, torch.where(scale > 0, scale, 1)


def _ratios(moments: Moments, centre: Tensor, rows: Tensor, few: Tensor, extra: Tensor) -> Tensor:
    """Return the weighted over the plain variance of the rows along each eigenvector, (R, D)."""
    matrix = moments.products(centre)
    vectors = torch.linalg.eigh((matrix / matrix.trace().clamp_min(1e-300)).float()).eigenvectors.flip(1)
    squares = (vectors[few] if moments.few_rows else rows.float() @ vectors) ** 2
    total = squares.sum(dim=0)
    found = torch.where(total > 0, (1 + extra).float() @ squares / total, 1).double()
    missing = len(moments.mean) - found.shape[1]
    return torch.cat([found, found.new_ones(len(found), max(0, missing))], dim=1)


def _correlation(moments: Moments, rows: Tensor) -> Tensor:
    """Return the influence of some rows, (m, D), on the mean absolute correlation of two axes, (m,).

    The correlation r of two axes a and b in units of their deviation moves by ``a b - r (a^2 + b^2) / 2``.
    Of more than 4,096 axes, it looks at so many.
    """
    d = len(moments.mean)
    axes = torch.arange(0, d, math.ceil(d / CORRELATION_AXES), device=rows.device)
    some = moments.of_axes(axes)
    matrix = some.correlation(moments.floor)[0]
    variances = some.variances
    z = (rows[:, axes].double() - some.mean) * torch.where(
        variances > moments.floor, variances, torch.inf
    ).rsqrt()
    # The derivative of the mean of |r| over samples, whose r have the standard error 1 / sqrt(N) about 0.
    signs = (matrix * math.sqrt(moments.count / 2)).erf().fill_diagonal_(0)
    moved = (z.float() @ signs.float() * z).sum(dim=1) - z**2 @ (signs * matrix).sum(dim=1)
    return moved / max(len(axes) * (len(axes) - 1), 1)


def matrix_entropy_deviations(points: Tensor, order: int = 2) -> Tensor:
    """Return the deviations of the matrix-based entropy of at most 2,048 of the rows."""
    unit = _few_units(points)
    return of_influence(ENTROPY_INFLUENCES[order](unit @ unit.T))


def mutual_information_deviations(features: Tensor, embeddings: Tensor, order: int = 2) -> Tensor:
    """Return the deviations of the matrix-based mutual information of at most 2,048 of the rows."""
    influence = ENTROPY_INFLUENCES[order]
    r, z = (unit @ unit.T for unit in map(_few_units, (features, embeddings)))
    return of_influence(influence(r) + influence(z) - influence(r * z))


def uniformity_deviations(points: Tensor) -> Tensor:
    """Return the deviations of the uniformity of at most 2,048 of the rows."""
    unit = _few_units(points)
    near = (4 * (unit @ unit.T) - 4).exp().fill_diagonal_(0).sum(dim=1).double()
    return of_influence(2 * near / near.mean().clamp_min(1e-300))


def group_share_deviations(points: Tensor) -> Tensor:
    """Return the deviations of the variance between groups of at most 2,048 of the rows, in fixed groups."""
    within, length = of_few(squares_of_groups, points)
    return of_influence((within.sum() / length.sum() * length - within) / length.mean())


def self_clustering_deviations(points: Tensor) -> Tensor:
    """Return the deviations of the self-clustering of at most 2,048 of the rows."""
    unit = _few_units(points)
    n, d = unit.shape
    room = n**2 - n - n * (n - 1) / d
    return of_influence(2 * n * ((unit @ unit.T) ** 2).sum(dim=1) / room if room > 0 else unit.new_zeros(n))


def two_nn_deviations(points: Tensor) -> Tensor:
    """Return the deviations of TwoNN of at most 2,048 of the rows, whose ratios are drawn anew."""
    logs = of_few(nearest_ratios, points)
    if not len(logs):
        return logs
    drawn = torch.multinomial(
        torch.ones(REPLICATES, len(logs)), len(logs), True, generator=torch.Generator().manual_seed(0)
    )
    return slope_of_ratios(logs[drawn.sort(dim=1).values]) - slope_of_ratios(logs)


def mst_deviations(points: Tensor) -> Tensor:
    """Return deviations of the spanning tree's dimension: from new subsets of nine tenths of its points."""
    generator = torch.Generator().manual_seed(0)
    distances = of_few(partial(distances_of_tree, max_points=1024, generator=generator), points)
    found = []
    for _ in range(TREES):
        part = torch.randperm(len(distances), generator=generator)[: int(PART_OF_TREE * len(distances))]
        found.append(growth_of_tree(distances[part][:, part], generator))
    values = torch.stack(found)
    return values - values[values.isfinite()].mean()


def _few_units(points: Tensor) -> Tensor:
    return normalize_rows(points[few_indices(len(points)).to(points.device)].float())


def _quadratic_influence(gram: Tensor) -> Tensor:
    squares = (gram**2).sum(dim=1).double()
    return -2 * squares / squares.mean().clamp_min(1e-300)


def _shannon_influence(gram: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(gram / len(gram))
    values = values.clamp_min(torch.finfo(values.dtype).eps)
    return -(vectors**2 @ (values * values.log())) * len(gram)


# How much each row moves the entropy of a Gram matrix of unit rows, by order, up to a constant.
ENTROPY_INFLUENCES = {1: _shannon_influence, 2: _quadratic_influence}
