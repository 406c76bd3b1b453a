"""The search for nearest neighbours: candidates by blocks of matrix products, distances by differences."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# The number of points on each side of a block of the matrix product.
_TILE = 256
# Up to this many pairs (1 GiB in float32), all distances within one set are held, and each is used twice.
_SYMMETRIC = 2**28
# Above that, this many pairs are held at a time (128 MiB in float32).
_PAIRS = 2**25
# The columns and the numbers in all of the differences held at a time; they stay in the processor's cache.
COLUMNS = 256
DIFFERENCES = 2**20


class NeighbourSearch:
    """Queries and the reference to search in, scaled so that their squares neither overflow nor vanish."""

    def __init__(self, x: Tensor, reference: Tensor, self_indices: Tensor | None = None) -> None:
        self.x, self.reference, self.self_indices = x, reference, self_indices
        self.one_set = _same_memory(x, reference)
        # The shorter the features are, the more accurate is the matrix product.
        centre = reference.mean(dim=0)
        self.centre = torch.where(centre.isfinite(), centre, 0)
        extremes = [*x.aminmax(), *(() if self.one_set else reference.aminmax())]
        self.scale = _power_of_two(torch.stack(extremes).abs().max())

    def tile(self, of: Tensor, start: int) -> Tensor:
        """Return one tile of rows, centred and scaled."""
        return (of[start : start + _TILE] - self.centre).mul_(self.scale)

    def column(self, of: Tensor, start: int) -> Tensor:
        """Return some columns, (B, COLUMNS), scaled; they are not centred, as that could round."""
        return of[:, start : start + COLUMNS] * self.scale

    def squared_lengths(self, of: Tensor) -> Tensor:
        """Return the squared length of each centred row."""
        lengths = [self.tile(of, start).square_().sum(dim=1) for start in range(0, len(of), _TILE)]
        return torch.cat(lengths)

    def candidates(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the ``count`` least lower bounds of the squared distances, ascending, and their rows."""
        b, n = len(self.x), len(self.reference)
        # The rounding error of an inner product is a small multiple of sqrt(D) epsilons of the lengths.
        kept = 1 - (4 + math.sqrt(self.x.shape[1])) * torch.finfo(self.x.dtype).eps
        lengths = self.squared_lengths(self.reference).mul_(kept)
        if self.one_set and b * n <= _SYMMETRIC:
            return self._least_of(self._all_bounds(lengths), 0, count)
        own = self.squared_lengths(self.x).mul_(kept)
        found = []
        rows = max(_TILE, _PAIRS // n // _TILE * _TILE)
        for start in range(0, b, rows):
            found.append(
                self._least_of(self._some_bounds(own, lengths, start, min(b, start + rows)), start, count)
            )
        return torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found])

    def _all_bounds(self, lengths: Tensor) -> Tensor:
        """Return the bounds within one set, (N, N); each product gives two of them."""
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

    def _least_of(self, values: Tensor, start: int, count: int) -> tuple[Tensor, Tensor]:
        if self.self_indices is not None:
            values.scatter_(1, self.self_indices[start : start + len(values), None], torch.inf)
        return values.topk(count, dim=1, largest=False, sorted=True)

    def distances_to(self, neighbours: Tensor) -> Tensor:
        """Return the distances to the given neighbours, (B, k), computed from differences."""
        b, k = neighbours.shape
        squares = self.x.new_zeros(b, k)
        width = min(COLUMNS, self.x.shape[1])
        rows = max(1, min(b, DIFFERENCES // (k * width)))
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
        """Return the distances and neighbours of some queries, from their differences to all rows."""
        found = []
        reference = self.reference * self.scale
        for part in queries.split(max(1, _PAIRS // len(reference))):
            rows = self.x[part] * self.scale
            block = torch.cdist(rows, reference, compute_mode="donot_use_mm_for_euclid_dist")
            if self.self_indices is not None:
                block.scatter_(1, self.self_indices[part, None], torch.inf)
            found.append(block.topk(k, dim=1, largest=False, sorted=True))
        return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def _same_memory(x: Tensor, y: Tensor) -> bool:
    return x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride()


_ROOM = 50  # bits


def _power_of_two(size: Tensor) -> Tensor:
    """Return the power of two that scales ``size`` to about 2^50, or 1 if ``size`` is 0 or not finite.

    Scaling by a power of two is exact. Around 2^50 squares have room above, and far more room below, where an
    outlier leaves the other points.
    """
    _, exponent = torch.frexp(torch.where(size.isfinite() & (size > 0), size, 1))
    least, most = (-126, 126) if size.dtype == torch.float32 else (-1022, 1022)
    known = size.isfinite() & (size > 0)
    shift = torch.where(known, (_ROOM - exponent).clamp(least, most), 0)
    return torch.ldexp(torch.ones_like(size), shift)
