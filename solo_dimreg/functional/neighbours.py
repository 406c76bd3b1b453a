"""Distances to the nearest neighbours: searched by matrix products, then computed exactly.

A matrix product gives the distances of all pairs at a fraction of the cost, but loses those that are small
against the length of the features. Here it only proposes candidates, by a lower bound of each distance; the
distances to these are computed from differences, and prove for almost every query that no other point can be
nearer. The few queries for which they do not are searched again by differences alone.

Both directions are operators of their own for ``torch``, which ``torch.compile`` calls as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Candidates beside the k nearest: the farthest of them must be farther than the k-th, by more than rounding.
_MARGIN = 4
# Points to a side of a block of the matrix product.
_TILE = 256
# Up to this many pairs, 1 GiB in float32, all distances within one set are held, to use each twice.
_SYMMETRIC = 2**28
# Otherwise so many of them at a time, 128 MiB in float32.
_PAIRS = 2**25
# Columns, and numbers in all, of the differences that are held at a time: they stay in the processor's cache.
_COLUMNS = 256
_DIFFERENCES = 2**20
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
    points = _Points(x, reference, self_indices)
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


class _Points:
    """Queries and reference in units in which their squares neither overflow nor vanish."""

    def __init__(self, x: Tensor, reference: Tensor, self_indices: Tensor | None = None) -> None:
        self.x, self.reference, self.self_indices = x, reference, self_indices
        self.one_set = _same_memory(x, reference)
        # The matrix product is the more accurate the shorter the features.
        centre = reference.mean(dim=0)
        self.centre = torch.where(centre.isfinite(), centre, 0)
        extremes = [*x.aminmax(), *(() if self.one_set else reference.aminmax())]
        self.scale = _power_of_two(torch.stack(extremes).abs().max())

    def tile(self, of: Tensor, start: int) -> Tensor:
        """Some rows, centred."""
        return (of[start : start + _TILE] - self.centre).mul_(self.scale)

    def column(self, of: Tensor, start: int) -> Tensor:
        """Some columns, (B, _COLUMNS), not centred, which could round."""
        return of[:, start : start + _COLUMNS] * self.scale

    def squared_lengths(self, of: Tensor) -> Tensor:
        """Of the centred rows."""
        lengths = [self.tile(of, start).square_().sum(dim=1) for start in range(0, len(of), _TILE)]
        return torch.cat(lengths)

    def candidates(self, count: int) -> tuple[Tensor, Tensor]:
        """Lower bounds of the squared distances to the rows of least bound, ascending, and those rows."""
        b, n = len(self.x), len(self.reference)
        # The rounding error of an inner product is a small multiple of sqrt(D) epsilons of the lengths.
        kept = 1 - (4 + math.sqrt(self.x.shape[1])) * torch.finfo(self.x.dtype).eps
        lengths = self.squared_lengths(self.reference).mul_(kept)
        if self.one_set and b * n <= _SYMMETRIC:
            return self._least(self._all_bounds(lengths), 0, count)
        own = self.squared_lengths(self.x).mul_(kept)
        found = []
        rows = max(_TILE, _PAIRS // n // _TILE * _TILE)
        for start in range(0, b, rows):
            found.append(
                self._least(self._some_bounds(own, lengths, start, min(b, start + rows)), start, count)
            )
        return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])

    def _all_bounds(self, lengths: Tensor) -> Tensor:
        """Those within one set, of which each product gives two."""
        n = len(self.x)
        bounds = self.x.new_empty(n, n)
        for i in range(0, n, _TILE):
            rows = self.tile(self.x, i)
            for j in range(i, n, _TILE):
                columns = rows if i == j else self.tile(self.x, j)
                block = torch.addmm(lengths[j : j + _TILE], rows, columns.T, alpha=-2)
                block += lengths[i : i + _TILE, None]
                bounds[i : i + _TILE, j : j + _TILE] = block
                if i != j:
                    bounds[j : j + _TILE, i : i + _TILE] = block.T
        return bounds

    def _some_bounds(self, own: Tensor, lengths: Tensor, start: int, stop: int) -> Tensor:
        bounds = self.x.new_empty(stop - start, len(lengths))
        rows = torch.cat([self.tile(self.x, i)[: stop - i] for i in range(start, stop, _TILE)])
        for j in range(0, len(lengths), _TILE):
            columns = self.tile(self.reference, j)
            bounds[:, j : j + _TILE] = torch.addmm(lengths[j : j + _TILE], rows, columns.T, alpha=-2)
        return bounds.add_(own[start:stop, None])

    def _least(self, values: Tensor, start: int, count: int) -> tuple[Tensor, Tensor]:
        if self.self_indices is not None:
            values.scatter_(1, self.self_indices[start : start + len(values), None], torch.inf)
        return values.topk(count, dim=1, largest=False, sorted=True)

    def differences(self, neighbours: Tensor) -> Tensor:
        """The distances to those neighbours, (B, k), from differences."""
        b, k = neighbours.shape
        squares = self.x.new_zeros(b, k)
        width = min(_COLUMNS, self.x.shape[1])
        rows = max(1, min(b, _DIFFERENCES // (k * width)))
        # One buffer for all blocks: fresh memory costs more than the arithmetic.
        buffer, partial = self.x.new_empty(rows * k * width), self.x.new_empty(rows, k)
        for column in range(0, self.x.shape[1], width):
            queries = self.column(self.x, column)
            others = queries if self.one_set else self.column(self.reference, column)
            for start in range(0, b, rows):
                wanted = neighbours[start : start + rows]
                block = buffer[: wanted.numel() * others.shape[1]].view(*wanted.shape, others.shape[1])
                torch.index_select(others, 0, wanted.reshape(-1), out=block.view(-1, others.shape[1]))
                block -= queries[start : start + rows, None]
                length = partial[: len(wanted)]
                torch.linalg.vector_norm(block, dim=2, out=length)
                squares[start : start + rows].addcmul_(length, length)
        return squares.sqrt_()

    def search_exactly(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distances and neighbours of some queries, from the differences to all rows."""
        found = []
        reference = self.reference * self.scale
        for part in queries.split(max(1, _PAIRS // len(reference))):
            rows = self.x[part] * self.scale
            block = torch.cdist(rows, reference, compute_mode="donot_use_mm_for_euclid_dist")
            if self.self_indices is not None:
                block.scatter_(1, self.self_indices[part, None], torch.inf)
            found.append(block.topk(k, dim=1, largest=False, sorted=True))
        return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def _pull(
    x: Tensor,
    reference: Tensor,
    distances: Tensor,
    neighbours: Tensor,
    forces: Tensor,
    grad_reference: Tensor | None = None,
) -> Tensor:
    """The gradient of ``x``; that of ``reference`` is written where there is a place for it."""
    points = _Points(x, reference)
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
    for start in range(0, x.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
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
    points: _Points,
    scaled: Tensor,
    neighbours: Tensor,
    forces: Tensor,
    close: Tensor,
    grad_x: Tensor,
    grad_reference: Tensor | None,
) -> None:
    """Adds the forces of the chosen pairs one by one."""
    for pairs in close.nonzero().split(max(1, _DIFFERENCES // grad_x.shape[1])):
        query, place = pairs.unbind(dim=1)
        other = neighbours[query, place]
        # The direction first: the quotient of force and length overflows for nearly coinciding points.
        directions = (points.x[query] * points.scale).sub_(points.reference[other] * points.scale)
        directions.div_(scaled[query, place, None]).mul_(forces[query, place, None])
        grad_x.index_add_(0, query, directions)
        if grad_reference is not None:
            grad_reference.index_add_(0, other, directions, alpha=-1)


def _same_memory(x: Tensor, y: Tensor) -> bool:
    return x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride()


def _power_of_two(size: Tensor) -> Tensor:
    """One over the power of two next to ``size``, or 1 where that is 0 or not finite: scaling is exact."""
    _, exponent = torch.frexp(torch.where(size.isfinite() & (size > 0), size, 1))
    # Not beyond what the inverse of the smallest numbers would be.
    least, most = (-126, 126) if size.dtype == torch.float32 else (-1022, 1022)
    return torch.ldexp(torch.ones_like(size), -exponent.clamp(least, most))
