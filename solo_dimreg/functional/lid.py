"""Local intrinsic dimensionality: how fast the number of neighbours of a point grows with the radius."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from solo_dimreg.functional._checks import check_choice, check_features, check_int
from solo_dimreg.functional._precision import full_precision

# Blocks of the distance matrix and of the differences behind its gradient, in elements: 128 MiB in float32.
_BLOCK = 2**25


@full_precision
def local_intrinsic_dimensionality(
    x: Tensor,
    reference: Tensor | None = None,
    k: int = 64,
    estimator: str = "mom",
    self_indices: Tensor | None = None,
) -> Tensor:
    """Estimates the local intrinsic dimensionality (LID) of each query from its k nearest neighbours.

    With the neighbour distances ``d_1 <= ... <= d_k``, the query itself left out:

    - ``"mom"``, the method of moments [1], in the form that LDReg trains with [2, released ``lid.py``]:
      ``m = mean(d_1..d_{k-1})`` and ``LID = m / (d_k - m)``. scikit-dimension's ``MOM`` averages all k
      distances instead; the two are tied by ``LID_skdim + 1 = (LID + 1) * k / (k - 1)``.
    - ``"mle"``, maximum likelihood, which is Hill's estimator [1]:
      ``LID = -1 / ((1/k) sum_i ln(d_i / d_k))``. scikit-dimension's ``MLE`` divides by k - 1 instead of k.

    Differentiable once, in ``x`` and in ``reference``. A distance of 0 has gradient 0. In units of ``d_k``,
    distances and the spread of distances below the machine epsilon count as that epsilon, so the estimate is
    never 0 or infinite. Fewer than two neighbours, or k neighbours that all coincide with the query, say
    nothing about the dimension: the LID is 1 with gradient 0.

    References:
        [1] Amsaleg et al., Extreme-value-theoretic estimation of local intrinsic dimensionality, DMKD 2018,
            sections on maximum likelihood and on the method of moments.
        [2] Huang et al., LDReg: Local Dimensionality Regularized Self-Supervised Learning, ICLR 2024.

    Args:
        x: queries, shape (B, D).
        reference: points among which neighbours are sought, shape (N, D). None: the batch itself, each point
            left out of its own neighbourhood.
        k: number of neighbours, capped at the number there are.
        estimator: "mom" or "mle".
        self_indices: where ``reference`` holds the queries, the row of each, shape (B,), integer. The query
            is left out by its row, so that its duplicates stay in as neighbours at distance 0.

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
                "self_indices says where the queries are in reference, but no reference was given."
            )
        reference, self_indices = x, torch.arange(len(x), device=x.device)
    _check_reference(x, reference, self_indices)

    k = min(k, len(reference) - (self_indices is not None))
    if k < 2:
        return x[:, :0].sum(dim=1) + 1
    with torch.no_grad():
        distances, neighbours = _nearest(x, reference, k, self_indices)
    return lid_of_distances(_NeighbourDistances.apply(x, reference, distances, neighbours), estimator)


@torch.no_grad()
def neighbour_distances(x: Tensor, k: int) -> Tensor:
    """Distances from each row of ``x`` (N, D) to its k nearest others, ascending, shape (N, k).

    k is capped at N - 1. Several k and both estimators can share them: the first k columns are those of a
    smaller k.
    """
    itself = torch.arange(len(x), device=x.device)
    return _nearest(x, x, min(k, len(x) - 1), itself)[0]


def lid_of_distances(distances: Tensor, estimator: str = "mom") -> Tensor:
    """The LID from the distances to the k nearest neighbours, ascending, (B, k) with k >= 2; shape (B,)."""
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
    """The geometric mean of the LID over the queries, a scalar: the average that LDReg reports [1].

    Arguments and errors are those of :func:`local_intrinsic_dimensionality`.

    References:
        [1] Huang et al., LDReg: Local Dimensionality Regularized Self-Supervised Learning, ICLR 2024.
    """
    return local_intrinsic_dimensionality(x, reference, k, estimator, self_indices).log().mean().exp()


def check_lid_options(k: int, estimator: str) -> None:
    """Refuses options that :func:`local_intrinsic_dimensionality` cannot use, before there is any data."""
    check_int("k", k, minimum=2)
    check_choice("estimator", estimator, ESTIMATORS)


def _moments(ratios: Tensor) -> Tensor:
    floor = torch.finfo(ratios.dtype).eps
    inner = ratios[:, :-1]
    return inner.mean(dim=1).clamp_min(floor) / (1 - inner).mean(dim=1).clamp_min(floor)


def _maximum_likelihood(ratios: Tensor) -> Tensor:
    floor = torch.finfo(ratios.dtype).eps
    return 1 / (-ratios.clamp_min(floor).log().mean(dim=1)).clamp_min(floor)


# From the sorted distances in units of the largest, (B, k), to the LID, (B,).
ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {"mom": _moments, "mle": _maximum_likelihood}


def _nearest(x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None) -> tuple[Tensor, Tensor]:
    """Distances to the k nearest rows of ``reference``, ascending, and those rows, both (B, k)."""
    found = []
    rows = max(1, _BLOCK // len(reference))
    for start in range(0, len(x), rows):
        # The matrix-product shortcut cancels for near-identical points, down to NaN: differences never do.
        block = torch.cdist(x[start : start + rows], reference, compute_mode="donot_use_mm_for_euclid_dist")
        if self_indices is not None:
            block.scatter_(1, self_indices[start : start + rows, None], torch.inf)
        found.append(block.topk(k, dim=1, largest=False, sorted=True))
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


class _NeighbourDistances(torch.autograd.Function):
    """Gives distances that are already known their gradient, from k differences per query instead of N."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reference: Tensor, distances: Tensor, neighbours: Tensor) -> Tensor:
        ctx.save_for_backward(x, reference, distances, neighbours)
        return distances.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, reference, distances, neighbours = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        grad_reference = torch.zeros_like(reference) if ctx.needs_input_grad[1] else None
        pull = torch.where(distances == 0, 0, grad).unsqueeze(2)
        lengths = torch.where(distances == 0, 1, distances).unsqueeze(2)
        rows = max(1, _BLOCK // (neighbours.shape[1] * x.shape[1]))
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            # The direction first: the quotient of pull and length overflows for nearly coinciding points.
            forces = (x[part].unsqueeze(1) - reference[neighbours[part]]) / lengths[part] * pull[part]
            grad_x[part] = forces.sum(dim=1)
            if grad_reference is not None:
                grad_reference.index_add_(0, neighbours[part].flatten(), forces.flatten(0, 1), alpha=-1)
        return grad_x, grad_reference, None, None


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
