"""Find the neighbours of all or some features among all features; equal rows count once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from solo_dimreg.functional._rows import KEPT_ROWS, distinct_rows
from solo_dimreg.functional.lid import lid_of_distances, neighbour_distances
from solo_dimreg.functional.neighbours import nearest_neighbours

# LDReg tracks the LID with 32 and with 512 neighbours; 512 are used only if they are a small part of all.
LID_NEIGHBOURS, MANY_NEIGHBOURS = 32, 512
SMALL_PART = 4
# If there are more samples than are kept, the neighbours of this many are sought among all samples.
QUERIES = 1_000


@dataclass(frozen=True)
class Neighbourhoods:
    """Distances from some distinct rows to their nearest neighbours among all distinct rows.

    Attributes:
        distances: ascending, (Q, k).
        duplicates: Number of rows that equal an earlier one, and are no neighbours.
        labels: The labels of the Q rows, or None.
        rows: The distinct rows, or at least those that metrics of pairs look at, (n, D).
    """

    distances: Tensor
    duplicates: int
    labels: Tensor | None
    rows: Tensor

    def lids(self, k: int = LID_NEIGHBOURS, estimator: str = "mom") -> Tensor:
        """Return the LID of each of the Q rows with k neighbours, or with as many as there are."""
        distances = self.distances[:, :k]
        if distances.shape[1] < 2:  # one neighbour says nothing, as in local_intrinsic_dimensionality
            distances = torch.zeros(len(distances), 2)
        return lid_of_distances(distances, estimator)

    def mean_lid(self, k: int = LID_NEIGHBOURS, estimator: str = "mom") -> float:
        """Return the geometric mean of the LIDs; NaN with 512 neighbours if fewer were sought."""
        if k == MANY_NEIGHBOURS > self.distances.shape[1]:
            return math.nan
        return float(self.lids(k, estimator).double().log().mean().exp())


def random_indices(count: int) -> Tensor:
    """Choose the samples whose neighbours are sought if there are too many for all; always the same ones."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:QUERIES]


def neighbours_sought(count: int) -> int:
    """Return the number of neighbours that are sought among ``count`` distinct rows."""
    return MANY_NEIGHBOURS if count >= SMALL_PART * MANY_NEIGHBOURS else LID_NEIGHBOURS


def neighbours_within(rows: Tensor, labels: Tensor | None = None, limit: int = KEPT_ROWS) -> Neighbourhoods:
    """Find the neighbours of all distinct rows (N, D) in memory, or of 1,000 if there are over ``limit``."""
    first = distinct_rows(rows)[0]
    points = unit_scale(rows[first])
    chosen = first
    if len(first) <= limit:
        distances = neighbour_distances(points, neighbours_sought(len(points)))
    else:
        queries = random_indices(len(first)).to(rows.device)
        chosen = first[queries]
        search = SearchByBatches(points[queries], queries, neighbours_sought(len(points)))
        for part in points.split(8192):
            search.update(part)
        distances = search.distances
    return Neighbourhoods(
        distances, len(rows) - len(first), None if labels is None else labels[chosen], points
    )


def unit_scale(rows: Tensor) -> Tensor:
    """Return the rows in units of their root mean square length, so that their squares fit into float32."""
    rows = rows.double()
    length = float((rows**2).sum(dim=1).mean().sqrt())
    return (rows / (length or 1.0)).float()


class SearchByBatches:
    """A search for the nearest neighbours of some samples among all samples, which arrive batch by batch.

    Args:
        queries: shape (Q, D).
        indices: the place of each query among the arriving samples, counted from 0, shape (Q,). A query is
            not its own neighbour.
        k: number of neighbours.
    """

    def __init__(self, queries: Tensor, indices: Tensor, k: int) -> None:
        self._queries = _at_least_float32(queries)
        self._indices = indices.to(queries.device)
        self._distances = self._queries.new_full((len(queries), k), torch.inf)
        self._seen = 0

    def update(self, rows: Tensor) -> None:
        """Search the next batch, shape (B, D), for neighbours."""
        k = self._distances.shape[1]
        # One more than asked for, since the query itself may be found.
        found = nearest_neighbours(self._queries, _at_least_float32(rows), min(k + 1, len(rows)), None)
        itself = found[1] == (self._indices - self._seen)[:, None]
        distances = found[0].masked_fill(itself, torch.inf)
        self._distances = torch.cat([self._distances, distances], 1).topk(k, dim=1, largest=False).values
        self._seen += len(rows)

    @property
    def distances(self) -> Tensor:
        """Return the distances, ascending, shape (Q, k), or (Q, N - 1) if fewer samples have arrived."""
        return self._distances[:, : max(self._seen - 1, 0)].float()


def _at_least_float32(rows: Tensor) -> Tensor:
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
