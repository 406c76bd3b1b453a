"""How evenly features spread: over their directions, over the sphere, and around their mean."""

from __future__ import annotations

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_features
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional.directclr import normalize_rows
from solo_dimreg.functional.spectrum import rankme, singular_values, subtract_mean


@full_precision
def nesum(x: Tensor) -> Tensor:
    """NESum, the normalized sum of the eigenvalues of the covariance: ``sum_i lambda_i / lambda_1`` [1, def.
    4.1].

    From 1, all variance in one direction, to D, whitened features; the effective rank weighs the small
    eigenvalues more. [1] finds representations that are too white as bad as those that are collapsed.

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
    # In units of the first, whose square neither overflows nor vanishes.
    return normalized_sum((values / torch.where(values[:1] > 0, values[:1], 1)) ** 2)


def normalized_sum(eigenvalues: Tensor) -> Tensor:
    """The sum of eigenvalues, descending, over the first; 1 if all are 0."""
    first = eigenvalues[0]
    return torch.where(first == 0, 1, eigenvalues.sum() / torch.where(first > 0, first, 1))


@full_precision
def rankme_share(x: Tensor) -> Tensor:
    """RankMe over the number of dimensions, ``RankMe / D``: comparable between widths, called RankMe* in [1].

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
    """The part of the mean squared length that the mean holds: ``||mean x||^2 / mean ||x||^2``.

    Centred spectra cannot see features that collapse onto one shared vector; this is 1 then, and 0 for
    centred features. Features after a ReLU, which are not negative, have a large one by themselves.

    Args:
        x: features, shape (B, D).

    Returns:
        A scalar from 0 to 1; 1 if all rows are 0.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    wide = x.double()  # the square of 1e20 is no float32
    total = (wide**2).sum(dim=1).mean()
    share = (wide.mean(dim=0) ** 2).sum() / torch.where(total > 0, total, 1)
    return torch.where(total == 0, 1, share).to(x.dtype)


@full_precision
def self_clustering(x: Tensor) -> Tensor:
    """Self-clustering: how much more parallel the rows are than on a uniform sphere [1, def. 3.5].

    With the sum Q of the squared cosines of all pairs, which is ``E = n + n (n - 1) / D`` on average over a
    uniform sphere and n^2 where all rows are parallel: ``(Q - E) / (n^2 - E)``. [1] writes Q as a Frobenius
    norm, and E and n^2 as those of its square, as its code has it. Not centred: features that are not
    negative are parallel in part, whatever they tell apart.

    References:
        [1] Tsitsulin, Munkhoeva & Perozzi, Unsupervised Embedding Quality Evaluation, TAG-ML at ICML 2023.

    Args:
        x: features, shape (B, D).

    Returns:
        A scalar of at most 1, about 0 for a uniform sphere, below it for rows that are more orthogonal than
        that; 1 for a single row or dimension. Rows of 0 have no direction and do not count.

    Raises:
        ValueError: ``x`` is not of shape (B, D).
    """
    check_features("x", x)
    unit = normalize_rows(x)
    n, d = (x.detach() != 0).any(dim=1).sum(), x.shape[1]
    found = ((unit @ unit.T if len(x) < d else unit.T @ unit) ** 2).sum()
    expected = n + n * (n - 1) / d
    room = n**2 - expected
    share = (found - expected) / torch.where(room > 0, room, 1)
    return torch.where(room > 0, share, 1)
