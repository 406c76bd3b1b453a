"""Local intrinsic dimensionality: how fast the number of neighbours of a point grows with the radius."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from solo_dimreg.functional._checks import check_choice, check_features, check_int
from solo_dimreg.functional._precision import full_precision
from solo_dimreg.functional._rows import distinct_rows
from solo_dimreg.functional.neighbours import nearest_neighbours


@full_precision
def local_intrinsic_dimensionality(
    x: Tensor,
    reference: Tensor | None = None,
    k: int = 64,
    estimator: str = "mom",
    self_indices: Tensor | None = None,
) -> Tensor:
    """Estimate the local intrinsic dimensionality (LID) of each query from its k nearest neighbours.

    The neighbour distances ``d_1 <= ... <= d_k`` leave out the query itself. There are two estimators:

    - ``"mom"`` is the method of moments [1], in the form that LDReg trains with [2, released ``lid.py``]:
      ``m = mean(d_1..d_{k-1})`` and ``LID = m / (d_k - m)``. scikit-dimension's ``MOM`` averages all k
      distances instead, and ``LID_skdim + 1 = (LID + 1) * k / (k - 1)``.
    - ``"mle"`` is maximum likelihood, Hill's estimator [1]:
      ``LID = -1 / ((1/k) sum_i ln(d_i / d_k))``. scikit-dimension's ``MLE`` divides by k - 1 instead of k,
      and the released code of [2] adds 1e-4 to each ratio inside the logarithm. Neighbours at distance 0 are
      duplicates of the query with an infinite logarithm, and are left out of the mean.

    The estimate can be differentiated once, in ``x`` and in ``reference``. A distance of 0 has gradient 0.
    In units of ``d_k``, other distances and the spread of distances are raised to the machine epsilon at
    least, so the estimate is never 0 or infinite. Fewer than two neighbours, or k neighbours that all
    coincide with the query, say nothing about the dimension: the LID is 1 with gradient 0.

    Repeated rows lower the estimate by either estimator, as their neighbours come in groups at one distance.
    For a metric, use :func:`geometric_mean_lid`, which counts them once.

    References:
        [1] Amsaleg et al., Extreme-value-theoretic estimation of local intrinsic dimensionality, DMKD 2018,
            sections on maximum likelihood and on the method of moments.
        [2] Huang et al., LDReg: Local Dimensionality Regularized Self-Supervised Learning, ICLR 2024.

    Args:
        x: queries, shape (B, D).
        reference: points among which neighbours are sought, shape (N, D). None stands for the batch itself,
            and each point is left out of its own neighbourhood.
        k: number of neighbours, capped at the number there are.
        estimator: "mom" or "mle".
        self_indices: the row of each query in ``reference``, shape (B,), integer, if the queries are there.
            The query is left out by its row, so its duplicates stay in as neighbours at distance 0.

    Returns:
        The LID of each query, shape (B,), float32 at least.

    Raises:
        ValueError: k is below 2, the estimator is unknown, or the shapes do not fit.
    """
    check_lid_options(k, estimator)
    check_features("x", x)
    if reference is None:
        if self_indices is not None:
            raise ValueError(
                "self_indices names rows of reference, but no reference was given: give both or neither."
            )
        reference, self_indices = x, torch.arange(len(x), device=x.device)
    _check_reference(x, reference, self_indices)

    k = min(k, len(reference) - (self_indices is not None))
    if k < 2:
        return x[:, :0].sum(dim=1) + 1
    distances, _ = nearest_neighbours(x, reference, k, self_indices)
    return lid_of_distances(distances, estimator)


def lid_of_distances(distances: Tensor, estimator: str = "mom") -> Tensor:
    """Return the LID, (B,), from the ascending distances to the k nearest neighbours, (B, k) with k >= 2."""
    radius = distances[:, -1:]
    coincide = radius == 0
    ratios = torch.where(coincide, 1, distances) / torch.where(coincide, 1, radius)
    return torch.where(coincide.squeeze(1), 1, ESTIMATORS[estimator](ratios))


@full_precision
def geometric_mean_lid(
    x: Tensor,
    reference: Tensor | None = None,
    k: int = 64,
    estimator: str = "mom",
    self_indices: Tensor | None = None,
) -> Tensor:
    """Return the geometric mean of the LID over the queries, a scalar; LDReg reports this average [1].

    Rows that are exactly equal count once, among the queries and in the reference. Otherwise the neighbours
    of an image that is there more than once would be its copies, and its LID that of a point. The arguments
    and errors are the same as for :func:`local_intrinsic_dimensionality`.

    References:
        [1] Huang et al., LDReg: Local Dimensionality Regularized Self-Supervised Learning, ICLR 2024.
    """
    check_features("x", x)
    if reference is None:
        x = x[distinct_rows(x)[0]]
    else:
        _check_reference(x, reference, self_indices)
        queries = distinct_rows(x)[0]
        rows, groups = distinct_rows(reference)
        x, reference = x[queries], reference[rows]
        self_indices = None if self_indices is None else groups[self_indices[queries]]
    return local_intrinsic_dimensionality(x, reference, k, estimator, self_indices).log().mean().exp()


def check_lid_options(k: int, estimator: str) -> None:
    """Raise if :func:`local_intrinsic_dimensionality` cannot use an option, before there is any data."""
    check_int("k", k, minimum=2)
    check_choice("estimator", estimator, ESTIMATORS)


def _moments(ratios: Tensor) -> Tensor:
    floor = torch.finfo(ratios.dtype).eps
    inner = ratios[:, :-1]
    return inner.mean(dim=1).clamp_min(floor) / (1 - inner).mean(dim=1).clamp_min(floor)


def _maximum_likelihood(ratios: Tensor) -> Tensor:
    floor = torch.finfo(ratios.dtype).eps
    counted = ratios != 0  # NaN is counted, so that features that overflowed give NaN
    logs = torch.where(counted, ratios, 1).clamp_min(floor).log()
    return 1 / (-logs.sum(dim=1) / counted.sum(dim=1)).clamp_min(floor)


# Functions that return the LID, (B,), from the sorted distances in units of the largest, (B, k).
ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {"mom": _moments, "mle": _maximum_likelihood}


def _check_reference(x: Tensor, reference: Tensor, self_indices: Tensor | None) -> None:
    check_features("reference", reference)
    if reference.shape[1] != x.shape[1]:
        raise ValueError(
            f"reference must be as wide as x, got shapes {tuple(reference.shape)} and {tuple(x.shape)}."
        )
    if self_indices is not None and (self_indices.shape != x.shape[:1] or self_indices.dtype != torch.long):
        raise ValueError(
            f"self_indices must be a torch.long tensor of shape ({len(x)},), one row of reference for each "
            f"query, got {self_indices.dtype} of shape {tuple(self_indices.shape)}."
        )
