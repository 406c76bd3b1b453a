"""Metrics that tell the directions of a signal from those of noise, and tight groups from a cloud."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_features
from solo_dimreg.functional._precision import full_precision, matmul
from solo_dimreg.functional.spectrum import entropy, singular_values, subtract_mean

POINTS = 8192  # of the integral of the Marchenko-Pastur density
# A direction stands out if its variance is above this many times the threshold of noise.
STEP = 7.0
LEAST_PER_GROUP = 4  # the mean size of the groups that are sought, at least
SMALLEST_GROUP = 0.1  # of the mean size; fewer points are outliers
# Where more than half of the directions are signal: a variance over the next, and how many are after it.
CLIFF, LEAST_AFTER = 7.0, 4
STEPS = 10  # of Lloyd's algorithm


@full_precision
def signal_rank(x: Tensor) -> Tensor:
    """Compute the number of directions above noise, by the optimal hard threshold of [1].

    The threshold is ``omega(beta)`` times the median singular value of the centred features [1, sec. III.E],
    for noise of unknown level. If more than half of the values are 0 up to rounding, it is 0. The median is
    no noise if half of the directions or more are signal. So if the variances beyond it fall by a factor of 7
    from one to the next, with at least 4 and a tenth of all after the fall, the threshold lies in the fall.
    Isotropic features have rank 0: none of their directions stands out.

    References:
        [1] Gavish & Donoho, The Optimal Hard Threshold for Singular Values is 4/sqrt(3), IEEE Transactions on
            Information Theory 2014.

    Args:
        x: features, shape (B, D).

    Returns:
        The number of singular values above the threshold, a scalar.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    spectrum = _spectrum(x)
    return (spectrum > noise_threshold(spectrum, len(x))).sum().to(x.dtype)


@full_precision
def noise_share(x: Tensor) -> Tensor:
    """Compute the share of the variance outside the directions that :func:`signal_rank` counts.

    Args:
        x: features, shape (B, D).

    Returns:
        The share, a scalar from 0 to 1; 1 if all features are equal.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    return noise_share_of(_spectrum(x), len(x))


@full_precision
def variance_rank(x: Tensor) -> Tensor:
    """Compute the exponential of the entropy of the normalized eigenvalues of the covariance.

    The effective rank takes the entropy of their roots, in which a flat floor of noise weighs more.

    Args:
        x: features, shape (B, D).

    Returns:
        The rank, a scalar from 1 to min(B - 1, D).

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    return entropy(_spectrum(x)).exp()


@full_precision
def group_share(x: Tensor) -> Tensor:
    """Compute which share of the variance of the signal lies between as many groups as it can hold apart.

    C tight groups have C - 1 directions between them, whatever the dimension within them is. So the features
    are projected onto the r directions whose variance is above 7 times the threshold of :func:`signal_rank`,
    scaled to variance 1 along each, and divided into r + 1 groups by Lloyd's algorithm, which starts from
    points that are far apart. The same is done for all directions above the threshold, as loose groups have
    some that are little above it, and the larger share counts. The share is near 1 for tight groups, 0.64 for
    a normal distribution with r = 1, and less with larger r. Outliers are no groups: points in groups below a
    tenth of the mean size count as not grouped, and if they hold more than half of the variance, the share is
    0.

    Args:
        x: features, shape (B, D).

    Returns:
        The share, a scalar from 0 to 1; NaN if r is 0, or if there are fewer than 4 points to a group.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    within, length = squares_of_groups(x)
    return 1 - within.sum() / length.sum()


def squares_of_groups(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distances of rows from the centre of their group, and from that of all, (B,) each.

    The groups, and the directions in which they are sought, are those of :func:`group_share`.
    """
    spectrum = _spectrum(x)
    threshold = noise_threshold(spectrum, len(x))
    ranks = {int((spectrum > times * threshold).sum()) for times in (STEP, 1.0)}
    ranks = {rank for rank in ranks if 0 < rank < len(x) // LEAST_PER_GROUP}
    if not ranks:
        return x.new_full((len(x),), math.nan), x.new_ones(len(x))
    rank = max(ranks)
    centred = subtract_mean(x)
    # In float32, the algorithm can fail to converge for features of few directions.
    if len(x) < x.shape[1]:
        points = torch.linalg.eigh((matmul(centred, centred.T)).double()).eigenvectors[:, -rank:].to(x)
    else:
        directions = torch.linalg.eigh((matmul(centred.T, centred)).double()).eigenvectors[:, -rank:]
        points = matmul(centred, directions.to(x))
        points = points / points.norm(dim=0)
    divided = [_divided(points[:, -each:]) for each in sorted(ranks)]
    return min(divided, key=lambda squares: float(squares[0].sum() / squares[1].sum()))


def _divided(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return :func:`squares_of_groups` of scaled points, (B, r), in r + 1 groups."""
    centres = points[_far_apart(points, points.shape[1] + 1)]
    for _ in range(STEPS):
        nearest = torch.cdist(points, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = nearest.bincount(minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    length = (points**2).sum(dim=1)
    small = (counts[:, 0] < SMALLEST_GROUP * len(points) / len(centres))[nearest]
    if length[small].sum() > length.sum() / 2:
        return length, length
    return torch.where(small, length, ((points - centres[nearest]) ** 2).sum(dim=1)), length


def _far_apart(points: Tensor, count: int) -> Tensor:
    """Return the indices of points, each the farthest from those before it."""
    chosen = [(points**2).sum(dim=1).argmax()]
    distances = ((points - points[chosen[0]]) ** 2).sum(dim=1)
    for _ in range(count - 1):
        chosen.append(distances.argmax())
        distances = torch.minimum(distances, ((points - points[chosen[-1]]) ** 2).sum(dim=1))
    return torch.stack(chosen)


def noise_threshold(spectrum: Tensor, rows: int) -> Tensor:
    """Return the variance up to which a direction counts as noise, see :func:`signal_rank`.

    ``spectrum`` holds the eigenvalues of the covariance of ``rows`` rows, descending, (D,).
    """
    few, many = sorted((max(rows - 1, 1), len(spectrum)))
    middle = spectrum[:few].sqrt()[[(few - 1) // 2, few // 2]].mean()
    half, last = (few + 1) // 2, min(few - LEAST_AFTER, 9 * few // 10)
    if half <= last and spectrum[half - 1] > 0:
        before, after = spectrum[half - 1 : last], spectrum[half : last + 1]
        falls = torch.where(before > 0, before / after, 1)
        if falls.max() > CLIFF:
            place = falls.argmax()
            return (before[place] * after[place]).sqrt()
    return (hard_threshold(few / many) * middle) ** 2


def noise_share_of(spectrum: Tensor, rows: int) -> Tensor:
    """Return :func:`noise_share` from the eigenvalues of the covariance, shape (D,)."""
    noise = torch.where(spectrum > noise_threshold(spectrum, rows), 0, spectrum)
    total = spectrum.sum()
    return torch.where(total > 0, noise.sum() / torch.where(total > 0, total, 1), 1)


@lru_cache(maxsize=1024)
def hard_threshold(beta: float) -> float:
    """Return ``omega(beta)``, the optimal hard threshold over the median singular value [1, eq. 11 and 5].

    ``beta`` is the smaller side of the matrix over the larger one. The median of the Marchenko-Pastur
    distribution is found numerically, with ``t = 1 + beta - 2 sqrt(beta) cos(angle)``.
    """
    known = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1)))
    angles = (torch.arange(POINTS, dtype=torch.float64) + 0.5) * (math.pi / POINTS)
    values = 1 + beta - 2 * math.sqrt(beta) * angles.cos()
    mass = (2 * angles.sin() ** 2 / (math.pi * values)).cumsum(0) * (math.pi / POINTS)
    place = int((mass < 0.5).sum())
    below = float(mass[place - 1])
    part = (0.5 - below) / (float(mass[place]) - below)
    # mass[i] is that up to the upper end of the i-th interval
    angle = (place + part) * math.pi / POINTS
    return known / math.sqrt(1 + beta - 2 * math.sqrt(beta) * math.cos(angle))


def _spectrum(x: Tensor) -> Tensor:
    """Return the eigenvalues of the covariance, (D,), with 0 for the rounding errors of ``x``."""
    values = singular_values(subtract_mean(x))
    floor = 8 * torch.finfo(x.dtype).eps * torch.linalg.vector_norm(x, dtype=torch.float64)
    values = torch.where(values > floor, values, 0) ** 2 / max(len(x) - 1, 1)
    return torch.cat([values, values.new_zeros(x.shape[1] - len(values))])
