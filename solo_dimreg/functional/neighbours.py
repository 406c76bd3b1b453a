"""Distances to the nearest neighbours: searched by matrix products, then computed exactly.

A matrix product gives the distances of all pairs at a fraction of the cost, but it loses the distances that
are small against the length of the features. Here it only proposes candidates, by a lower bound of each
distance. The distances to the candidates are computed from differences, and prove for almost every query that
no other point can be nearer. The few other queries are searched again by differences alone.

The forward and the backward pass are custom operators of ``torch``, which ``torch.compile`` does not trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from solo_dimreg.functional._neighbour_search import COLUMNS, DIFFERENCES, NeighbourSearch
from solo_dimreg.functional._precision import full_products

# The candidates beyond the k nearest. The farthest must be farther than the k-th, by more than rounding.
_MARGIN = 4
# The gradient of a pair is computed from its difference if its distance is this many times below its length.
_CLOSE = 8.0


@torch.library.custom_op("solo_dimreg::nearest_neighbours", mutates_args=())
def nearest_neighbours(
    x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the distances to the k nearest rows of ``reference``, ascending, and the numbers of these rows.

    Rounding may swap neighbours whose distances it makes equal, and changes nothing else.

    Args:
        x: queries, shape (B, D), float32 or float64.
        reference: shape (N, D), of the same dtype. If it is ``x`` itself, each product serves two queries.
        k: at most N, or N - 1 with ``self_indices``.
        self_indices: the row of each query in ``reference``, which is left out, shape (B,).

    Returns:
        Two tensors of shape (B, k), the second integer.
    """
    with full_products():
        return _search(x, reference, k, self_indices)


def _search(x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None) -> tuple[Tensor, Tensor]:
    search = NeighbourSearch(x, reference, self_indices)
    candidates = min(k + _MARGIN, len(reference) - (self_indices is not None))
    bounds, neighbours = search.candidates(candidates)
    distances, order = search.distances_to(neighbours).sort(dim=1)
    neighbours = neighbours.gather(1, order[:, :k])
    radius = distances[:, k - 1]
    proven = (radius**2 <= bounds[:, -1]) | (radius == 0)
    distances = distances[:, :k].contiguous()
    if candidates < len(reference) - (self_indices is not None):
        (again,) = (~proven).nonzero(as_tuple=True)
        if len(again):
            distances[again], neighbours[again] = search.search_exactly(again, k)
    return distances / search.scale, neighbours


@nearest_neighbours.register_fake
def _(x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x), k), x.new_empty(len(x), k, dtype=torch.long)


@torch.library.custom_op("solo_dimreg::distances_backward", mutates_args=())
def distances_backward(
    x: Tensor, reference: Tensor, distances: Tensor, neighbours: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of queries and reference from the gradients of their distances.

    The gradient of a query is ``sum_j g_ij (x_i - y_j) / d_ij``, along the unit vectors from its
    neighbours. With the weights ``w = g / d``, k to a row, it equals ``sum_j w_ij x_i - w y``: a sparse
    product instead of B x k differences. This would cancel for pairs whose distance is small against their
    length; only these are computed one by one. A distance of 0 has no direction.

    Args:
        x: queries, shape (B, D).
        reference: shape (N, D).
        distances: shape (B, k).
        neighbours: rows of ``reference``, shape (B, k).
        grad: gradient of each distance, shape (B, k).

    Returns:
        The gradients of ``x``, shape (B, D), and of ``reference``, shape (N, D).
    """
    grad_reference = torch.empty_like(reference)
    return _distances_backward(x, reference, distances, neighbours, grad, grad_reference), grad_reference


@distances_backward.register_fake
def _(
    x: Tensor, reference: Tensor, distances: Tensor, neighbours: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(reference)


@torch.library.custom_op("solo_dimreg::distances_backward_queries", mutates_args=())
def distances_backward_queries(
    x: Tensor, reference: Tensor, distances: Tensor, neighbours: Tensor, grad: Tensor
) -> Tensor:
    """Compute the gradient of the queries alone, see :func:`distances_backward`."""
    return _distances_backward(x, reference, distances, neighbours, grad)


@distances_backward_queries.register_fake
def _(x: Tensor, reference: Tensor, distances: Tensor, neighbours: Tensor, grad: Tensor) -> Tensor:
    return torch.empty_like(x)


class NeighbourDistances(torch.autograd.Function):
    """:func:`nearest_neighbours` with the gradient of the distances to the neighbours found."""

    @staticmethod
    def forward(x: Tensor, reference: Tensor, k: int, self_indices: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return distances, (B, k), and rows of ``reference``, (B, k)."""
        return nearest_neighbours(x, reference, k, self_indices)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Save the tensors that the gradient depends on."""
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[:2], *output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """Return the gradients of the inputs from the gradient of the distances."""
        arguments = (*ctx.saved_tensors, grad)
        if ctx.needs_input_grad[1]:
            return *distances_backward(*arguments), None, None
        return distances_backward_queries(*arguments), None, None, None


def _distances_backward(
    x: Tensor,
    reference: Tensor,
    distances: Tensor,
    neighbours: Tensor,
    grad: Tensor,
    grad_reference: Tensor | None = None,
) -> Tensor:
    """Return the gradient of ``x``, and write that of ``reference`` into ``grad_reference`` if given."""
    search = NeighbourSearch(x, reference)
    scaled = distances * search.scale
    lengths = search.squared_lengths(reference)
    own = lengths if search.one_set else search.squared_lengths(x)
    long = own[:, None] + lengths[neighbours]
    # Pairs whose weight could overflow count as close too.
    close = (scaled**2 * _CLOSE**2 < long) | (scaled < torch.finfo(x.dtype).tiny ** 0.5)
    weights = torch.where(close, 0, grad / torch.where(close, 1, scaled))
    totals = weights.sum(dim=1, keepdim=True)
    grad_x = torch.empty_like(x)
    for_reference = None if grad_reference is None else _transposed(neighbours, weights, len(reference))
    for start in range(0, x.shape[1], COLUMNS):
        part = slice(start, start + COLUMNS)
        queries = (x[:, part] - search.centre[part]).mul_(search.scale)
        others = queries if search.one_set else (reference[:, part] - search.centre[part]).mul_(search.scale)
        products = F.embedding_bag(neighbours, others, per_sample_weights=weights, mode="sum")
        grad_x[:, part] = products.neg_().addcmul_(totals, queries)
        if for_reference is not None and grad_reference is not None:
            total, products = for_reference(queries)
            grad_reference[:, part] = total[:, None] * others - products
    _add_close_pairs(search, scaled, neighbours, grad, close & (scaled > 0), grad_x, grad_reference)
    return grad_x


def _transposed(neighbours: Tensor, weights: Tensor, count: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a function that multiplies the transposed weights by a matrix (B, ...).

    It returns the sums of the transposed weights, (N,), and the product.
    """
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


def _add_close_pairs(
    search: NeighbourSearch,
    scaled: Tensor,
    neighbours: Tensor,
    grad: Tensor,
    close: Tensor,
    grad_x: Tensor,
    grad_reference: Tensor | None,
) -> None:
    """Add the gradients of the chosen pairs one by one."""
    for pairs in close.nonzero().split(max(1, DIFFERENCES // grad_x.shape[1])):
        query, place = pairs.unbind(dim=1)
        other = neighbours[query, place]
        # The direction first: the quotient of gradient and length overflows for nearly coinciding points.
        directions = (search.x[query] * search.scale).sub_(search.reference[other] * search.scale)
        directions.div_(scaled[query, place, None]).mul_(grad[query, place, None])
        grad_x.index_add_(0, query, directions)
        if grad_reference is not None:
            grad_reference.index_add_(0, other, directions, alpha=-1)
