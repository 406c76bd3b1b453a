"""Distances to the nearest neighbours: searched by matrix products, then computed exactly.

A matrix product gives the distances of all pairs at a fraction of the cost, but loses those that are small
against the length of the features. Here it only proposes candidates, by a lower bound of each distance; the
distances to these are computed from differences, and prove for almost every query that no other point can be
nearer. The few queries for which they do not are searched again by differences alone.

Both directions are operators of their own for ``torch``, which ``torch.compile`` calls as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from solo_dimreg.functional._points import COLUMNS, DIFFERENCES, Points
from solo_dimreg.functional._precision import full_products

# Candidates beside the k nearest: the farthest of them must be farther than the k-th, by more than rounding.
_MARGIN = 4
# A pair this many times closer than the pair is long is pulled by its difference, not by a product.
_CLOSE = 8.0


@torch.library.custom_op("solo_dimreg::nearest", mutates_args=())
def nearest(x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None) -> tuple[Tensor, Tensor]:
    """Distances to the k nearest rows of ``reference``, ascending, and those rows.

    Rounding may swap neighbours whose distances it makes equal, and does nothing else.

    Args:
        x: queries, shape (B, D), float32 or float64.
        reference: shape (N, D), of the same dtype. Where it is ``x`` itself, each product serves two queries.
        k: at most N, or N - 1 with ``self_indices``.
        self_indices: the row of each query in ``reference``, which is left out, shape (B,).

    Returns:
        Two tensors of shape (B, k), the second integer.
    """
    with full_products():
        return _nearest(x, reference, k, self_indices)


def _nearest(x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None) -> tuple[Tensor, Tensor]:
    points = Points(x, reference, self_indices)
    candidates = min(k + _MARGIN, len(reference) - (self_indices is not None))
    bounds, neighbours = points.candidates(candidates)
    distances, order = points.differences(neighbours).sort(dim=1)
    neighbours = neighbours.gather(1, order[:, :k])
    radius = distances[:, k - 1]
    proven = (radius**2 <= bounds[:, -1]) | (radius == 0)
    distances = distances[:, :k].contiguous()
    if candidates < len(reference) - (self_indices is not None):
        (again,) = (~proven).nonzero(as_tuple=True)
        if len(again):
            distances[again], neighbours[again] = points.search_exactly(again, k)
    return distances / points.scale, neighbours


@nearest.register_fake
def _(x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x), k), x.new_empty(len(x), k, dtype=torch.long)


@torch.library.custom_op("solo_dimreg::pull", mutates_args=())
def pull(
    x: Tensor, reference: Tensor, distances: Tensor, neighbours: Tensor, forces: Tensor
) -> tuple[Tensor, Tensor]:
    """Moves each query along the unit vectors from its neighbours, and these against them: the gradient.

    ``sum_j forces_ij (x_i - y_j) / d_ij`` is ``sum_j w_ij x_i - w y`` with the weights ``forces / d``, k to a
    row: a sparse product instead of B x k differences. Only the pairs whose distance is so small against
    their length that this would cancel are pulled one by one. A distance of 0 has no direction.

    Args:
        x: queries, shape (B, D).
        reference: shape (N, D).
        distances: shape (B, k).
        neighbours: rows of ``reference``, shape (B, k).
        forces: gradient of each distance, shape (B, k).

    Returns:
        The gradients of ``x``, shape (B, D), and of ``reference``, shape (N, D).
    """
    grad_reference = torch.empty_like(reference)
    return _pull(x, reference, distances, neighbours, forces, grad_reference), grad_reference


@pull.register_fake
def _(
    x: Tensor, reference: Tensor, distances: Tensor, neighbours: Tensor, forces: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(reference)


@torch.library.custom_op("solo_dimreg::pull_queries", mutates_args=())
def pull_queries(
    x: Tensor, reference: Tensor, distances: Tensor, neighbours: Tensor, forces: Tensor
) -> Tensor:
    """The first gradient of :func:`pull` alone."""
    return _pull(x, reference, distances, neighbours, forces)


@pull_queries.register_fake
def _(x: Tensor, reference: Tensor, distances: Tensor, neighbours: Tensor, forces: Tensor) -> Tensor:
    return torch.empty_like(x)


class NeighbourDistances(torch.autograd.Function):
    """:func:`nearest` with a gradient, which is that of the distances to the neighbours found."""

    @staticmethod
    def forward(x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None) -> tuple[Tensor, Tensor]:
        """Distances, (B, k), and rows of ``reference``, (B, k)."""
        return nearest(x, reference, k, self_indices)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keeps what the gradient depends on."""
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[:2], *output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """From that of the distances."""
        arguments = (*ctx.saved_tensors, grad)
        if ctx.needs_input_grad[1]:
            return *pull(*arguments), None, None
        return pull_queries(*arguments), None, None, None


def _pull(
    x: Tensor,
    reference: Tensor,
    distances: Tensor,
    neighbours: Tensor,
    forces: Tensor,
    grad_reference: Tensor | None = None,
) -> Tensor:
    """The gradient of ``x``; that of ``reference`` is written where there is a place for it."""
    points = Points(x, reference)
    scaled = distances * points.scale
    lengths = points.squared_lengths(reference)
    own = lengths if points.one_set else points.squared_lengths(x)
    long = own[:, None] + lengths[neighbours]
    # Also those whose weight could overflow.
    close = (scaled**2 * _CLOSE**2 < long) | (scaled < torch.finfo(x.dtype).tiny ** 0.5)
    weights = torch.where(close, 0, forces / torch.where(close, 1, scaled))
    pulls = weights.sum(dim=1, keepdim=True)
    grad_x = torch.empty_like(x)
    for_reference = None if grad_reference is None else _transposed(neighbours, weights, len(reference))
    for start in range(0, x.shape[1], COLUMNS):
        part = slice(start, start + COLUMNS)
        queries = (x[:, part] - points.centre[part]).mul_(points.scale)
        others = queries if points.one_set else (reference[:, part] - points.centre[part]).mul_(points.scale)
        products = F.embedding_bag(neighbours, others, per_sample_weights=weights, mode="sum")
        grad_x[:, part] = products.neg_().addcmul_(pulls, queries)
        if for_reference is not None and grad_reference is not None:
            total, products = for_reference(queries)
            grad_reference[:, part] = total[:, None] * others - products
    _pull_close(points, scaled, neighbours, forces, close & (scaled > 0), grad_x, grad_reference)
    return grad_x


def _transposed(neighbours: Tensor, weights: Tensor, count: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The product of the transposed weights with a matrix (B, ...), and their sums, (N,)."""
    flat, order = neighbours.flatten().sort()
    offsets = torch.searchsorted(flat, torch.arange(count + 1, device=flat.device))
    rows, sorted_weights = order // neighbours.shape[1], weights.flatten()[order]
    total = weights.new_zeros(count).index_add_(0, flat, sorted_weights)

    def product(matrix: Tensor) -> tuple[Tensor, Tensor]:
        bags = F.embedding_bag(
            rows, matrix, offsets, mode="sum", per_sample_weights=sorted_weights, include_last_offset=True
        )
        return total, bags

    return product


def _pull_close(
    points: Points,
    scaled: Tensor,
    neighbours: Tensor,
    forces: Tensor,
    close: Tensor,
    grad_x: Tensor,
    grad_reference: Tensor | None,
) -> None:
    """Adds the forces of the chosen pairs one by one."""
    for pairs in close.nonzero().split(max(1, DIFFERENCES // grad_x.shape[1])):
        query, place = pairs.unbind(dim=1)
        other = neighbours[query, place]
        # The direction first: the quotient of force and length overflows for nearly coinciding points.
        directions = (points.x[query] * points.scale).sub_(points.reference[other] * points.scale)
        directions.div_(scaled[query, place, None]).mul_(forces[query, place, None])
        grad_x.index_add_(0, query, directions)
        if grad_reference is not None:
            grad_reference.index_add_(0, other, directions, alpha=-1)
