"""Find the neighbours of all or some features among all features; equal rows count once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from solo_dimreg.functional._rows import KEPT_ROWS, distinct_rows
from solo_dimreg.functional.lid import lid_of_distances
from solo_dimreg.functional.neighbours import nearest_neighbours
from solo_dimreg.metrics.intervals import of_influence

# LDReg tracks the LID with 32 and with 512 neighbours; more than 32 only if they are a small part of all.
LID_NEIGHBOURS, MANY_NEIGHBOURS = 32, 512
SIZES = (8, 16, 32, 64, 128, 256, 512)  # the LID is a curve over these numbers of neighbours
SMALL_PART = 4
# Points whose next neighbour is this many times farther than the last are the edge of a group of points.
GAP, LEAST_IN_GROUP = 1.5, 8
# A LID of more than this many times the width says that the distances are equal.
MOST_LID = 4
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
        neighbours: The places of the neighbours among the Q rows, (Q, k), if these are all distinct rows.
    """

    distances: Tensor
    duplicates: int
    labels: Tensor | None
    rows: Tensor
    neighbours: Tensor | None = None

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

    @property
    def lid_by_k(self) -> dict[int, float]:
        """Return the geometric mean of the LIDs for each number of neighbours that was sought."""
        return {k: self.mean_lid(k) for k in SIZES if k <= self.distances.shape[1]}

    def lid_deviations(self, k: int = LID_NEIGHBOURS, estimator: str = "mom") -> Tensor:
        """Return how far the mean LID moves with the images, (R,).

        A row counts as a query and as a neighbour of others. The error of a query's own estimate is that of
        its neighbours, so it is subtracted once from the sum of both. If the neighbours of some of many rows
        are sought, only the queries count: their neighbourhoods share few rows.
        """
        lids = self.lids(k, estimator).double()
        influence = lids.log() - lids.log().mean()
        if self.neighbours is not None and self.distances.shape[1] > 1:
            neighbours = self.neighbours[:, :k]
            radius = self.distances[:, neighbours.shape[1] - 1, None]
            parts = torch.where(radius > 0, self.distances[:, :k] / radius, 1).double()
            shares = NEIGHBOUR_INFLUENCES[estimator](parts, lids[:, None]) / neighbours.shape[1]
            both = influence.index_add(0, neighbours.flatten(), shares.flatten())
            both -= both.mean()
            squares = (both**2).sum()
            once = torch.maximum(squares - (shares**2).sum(), (influence**2).sum())
            influence = both * torch.where(squares > 0, once / squares, 0).sqrt()
        return self.mean_lid(k, estimator) * of_influence(influence)

    def lid_in_groups(self) -> float:
        """Return the geometric mean LID of 32 neighbours, or of those before the widest gap beyond the 8th.

        In tight groups of fewer than 33 points, the other neighbours are elsewhere, and the gap alone would
        make the LID small. A point whose LID is above 4 times the width is left out: its neighbours are a
        tight group far away, or at distances that are equal up to rounding. NaN with at most 64 distinct
        rows, or if more than half of the points are left out.
        """
        distances = self.distances[:, :LID_NEIGHBOURS].double()
        if len(self.rows) <= 2 * LID_NEIGHBOURS:
            return math.nan
        steps = distances[:, LEAST_IN_GROUP:] / distances[:, LEAST_IN_GROUP - 1 : -1].clamp_min(1e-300)
        largest, place = steps.max(dim=1)
        sizes = torch.where(largest > GAP, place + LEAST_IN_GROUP, distances.shape[1])
        lids = torch.cat(
            [lid_of_distances(distances[sizes == size, :size]) for size in map(int, sizes.unique())]
        )
        kept = lids[lids <= MOST_LID * self.rows.shape[1]]
        return float(kept.log().mean().exp()) if len(kept) > len(lids) / 2 else math.nan


# How much more neighbours at these parts of the radius move the logarithm of the LID, with a fixed k.
NEIGHBOUR_INFLUENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mom": lambda parts, lid: (1 + 1 / lid) * (1 - (1 - parts) * (lid + 1)),
    "mle": lambda parts, lid: 1 + lid * parts.clamp_min(torch.finfo(torch.float32).eps).log(),
}


def random_indices(count: int) -> Tensor:
    """Choose the samples whose neighbours are sought if there are too many for all; always the same ones."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:QUERIES]


def neighbours_sought(count: int) -> int:
    """Return the number of neighbours that are sought among ``count`` distinct rows."""
    return max([LID_NEIGHBOURS, *(k for k in SIZES if SMALL_PART * k <= count)])


def neighbours_within(rows: Tensor, labels: Tensor | None = None, limit: int = KEPT_ROWS) -> Neighbourhoods:
    """Find the neighbours of all distinct rows (N, D) in memory, or of 1,000 if there are over ``limit``."""
    first = distinct_rows(rows)[0]
    points = unit_scale(rows[first])
    chosen, neighbours = first, None
    if len(first) <= limit:
        k = min(neighbours_sought(len(points)), len(points) - 1)
        with torch.no_grad():
            distances, neighbours = nearest_neighbours(points, points, k, torch.arange(len(points)).to(first))
    else:
        queries = random_indices(len(first)).to(rows.device)
        chosen = first[queries]
        search = SearchByBatches(points[queries], queries, neighbours_sought(len(points)))
        for part in points.split(8192):
            search.update(part)
        distances = search.distances
    of_chosen = None if labels is None else labels[chosen]
    return Neighbourhoods(distances, len(rows) - len(first), of_chosen, points, neighbours)


def unit_scale(rows: Tensor) -> Tensor:
    """Return the rows in units of their root mean square length, so that their squares fit into float32."""
    rows = rows.double()
    length = float((rows**2).sum(dim=1).mean().sqrt())
    return (rows / (length or 1.0)).float()


class SearchByBatches:
    """A search for the nearest neighbours of queries (Q, D) among all samples, which arrive batch by batch.

    ``indices`` are the places of the queries among the arriving samples, (Q,); none is its own neighbour.
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
