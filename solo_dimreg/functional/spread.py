"""Metrics of how evenly features spread: over their directions, over the sphere, and around their mean."""

from __future__ import annotations

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_features
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.directclr import normalize_rows
from solo_dimreg.functional.spectrum import gram_matrix, rankme, singular_values, subtract_mean


@full_precision
def nesum(x: Tensor) -> Tensor:
    """Compute NESum, the normalized sum of the covariance's eigenvalues ``sum_i lambda_i / lambda_1`` [1].

    It ranges from 1, where all variance is in one direction, to D, for whitened features [1, def. 4.1]. The
    effective rank gives more weight to the small eigenvalues. [1] finds representations that are too white as
    bad as collapsed ones.

    References:
        [1] He & Ozay, Exploring the Gap between Collapsed & Whitened Features in Self-Supervised Learning,
            ICML 2022.

    Args:
        x: features, shape (B, D).

    Returns:
        NESum, a scalar; 1 if all rows are equal.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    values = singular_values(subtract_mean(x))
    # In units of the first value, squares neither overflow nor vanish.
    return normalized_sum((values / torch.where(values[:1] > 0, values[:1], 1)) ** 2)


def normalized_sum(eigenvalues: Tensor) -> Tensor:
    """Return the sum of descending eigenvalues divided by the first one, or 1 if all are 0."""
    first = eigenvalues[0]
    return torch.where(first == 0, 1, eigenvalues.sum() / torch.where(first > 0, first, 1))


@full_precision
def rankme_share(x: Tensor) -> Tensor:
    """Compute RankMe divided by the number of dimensions, ``RankMe / D``.

    It can be compared between widths. [1] calls it RankMe*.

    References:
        [1] Tsitsulin, Munkhoeva & Perozzi, Unsupervised Embedding Quality Evaluation, TAG-ML at ICML 2023.

    Args:
        x: features, shape (B, D).

    Returns:
        A scalar from 1 / D to 1, at most B / D.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    return rankme(x) / x.shape[1]


@full_precision
def mean_share(x: Tensor) -> Tensor:
    """Compute the part of the mean squared length that the mean holds, ``||mean x||^2 / mean ||x||^2``.

    It is 1 if the features collapse onto one shared vector, which centred spectra cannot see, and 0 for
    centred features. Features after a ReLU are not negative, so their mean share is large by itself.

    Args:
        x: features, shape (B, D).

    Returns:
        A scalar from 0 to 1; 1 if all rows are 0.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    wide = x.double()  # the square of 1e20 overflows float32
    total = (wide**2).sum(dim=1).mean()
    share = (wide.mean(dim=0) ** 2).sum() / torch.where(total > 0, total, 1)
    return torch.where(total == 0, 1, share).to(x.dtype)


@full_precision
def self_clustering(x: Tensor) -> Tensor:
    """Compute self-clustering: how much more parallel the rows are than on a uniform sphere [1, def. 3.5].

    It is ``(Q - E) / (n^2 - E)``. Q is the sum of the squared cosines of all pairs. On a uniform sphere Q is
    ``E = n + n (n - 1) / D`` on average, and if all rows are parallel it is n^2. [1] writes Q as a Frobenius
    norm, while its code squares the norm, to which E and n^2 belong. The rows are not centred: features that
    are not negative are parallel in part, whatever they tell apart.

    References:
        [1] Tsitsulin, Munkhoeva & Perozzi, Unsupervised Embedding Quality Evaluation, TAG-ML at ICML 2023.

    Args:
        x: features, shape (B, D).

    Returns:
        A scalar of at most 1. It is about 0 for a uniform sphere, negative for rows that are more orthogonal
        than that, and 1 for a single row or dimension. Rows of 0 have no direction and do not count.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    unit = normalize_rows(x)
    n, d = (x.detach() != 0).any(dim=1).sum(), x.shape[1]
    found = (gram_matrix(unit.mT if len(x) < d else unit) ** 2).sum()
    expected = n + n * (n - 1) / d
    room = n**2 - expected
    share = (found - expected) / torch.where(room > 0, room, 1)
    return torch.where(room > 0, share, 1)
