"""Find the neighbours of all or some features among all features; equal rows count once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from solo_dimreg.diagnosis.streaming import NeighbourSearch
from solo_dimreg.functional._rows import KEPT_ROWS, distinct_rows, few_indices
from solo_dimreg.functional.lid import neighbour_distances

# LDReg tracks the LID with 32 and with 512 neighbours; 512 are used only if they are a small part of all.
LID_NEIGHBOURS, MANY_NEIGHBOURS = 32, 512
SMALL_PART = 4
# If there are more samples than are kept, the neighbours of this many are sought among all samples.
QUERIES = 1_000

#: features (B, D), embeddings (B, d) or None, labels (B,) or None
Batch = tuple[Tensor, Tensor | None, Tensor | None]


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


def random_indices(count: int) -> Tensor:
    """Choose the samples whose neighbours are sought if there are too many for all; always the same ones."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:QUERIES]


def neighbours(count: int) -> int:
    """Return the number of neighbours that are sought among ``count`` distinct rows."""
    return MANY_NEIGHBOURS if count >= SMALL_PART * MANY_NEIGHBOURS else LID_NEIGHBOURS


def neighbours_within(rows: Tensor, labels: Tensor | None = None, most: int = KEPT_ROWS) -> Neighbourhoods:
    """Find the neighbours of all distinct rows (N, D) in memory, or of 1,000 if there are over ``most``."""
    first = distinct_rows(rows)[0]
    points = unit_scale(rows[first])
    chosen = first
    if len(first) <= most:
        distances = neighbour_distances(points, neighbours(len(points)))
    else:
        queries = random_indices(len(first)).to(rows.device)
        chosen = first[queries]
        search = NeighbourSearch(points[queries], queries, neighbours(len(points)))
        for part in points.split(8192):
            search.update(part)
        distances = search.distances
    return Neighbourhoods(
        distances, len(rows) - len(first), None if labels is None else labels[chosen], points
    )


class RowDigests:
    """A set of digests, 128 bits a row, that recognises rows of earlier batches."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []

    def update(self, rows: Tensor) -> None:
        """Add the next batch, (B, D)."""
        numbers = (rows.detach().cpu() + 0).contiguous()  # -0.0 equals 0.0, and -0.0 + 0 is 0.0
        for row in numbers.view(torch.uint8).numpy():
            self._digests.append(blake2b(row.tobytes(), digest_size=16).digest())

    def first(self) -> Tensor:
        """Return the indices of the rows that differ from all rows before them, ascending, shape (U,)."""
        digests = np.frombuffer(b"".join(self._digests), dtype=[("a", "u8"), ("b", "u8")])
        return torch.from_numpy(np.sort(np.unique(digests, return_index=True)[1]))


class SearchAmongAll:
    """A search for the neighbours of some samples of a source among all its samples, batch by batch.

    Args:
        batches: A function that reads the source.
        first: For ``features`` and, if any, ``embeddings``: the indices of the rows that count, ascending.
        count: The number of samples.
        most: The neighbours of all rows are sought up to this many rows, and else the neighbours of 1,000.
    """

    def __init__(
        self,
        batches: Callable[[Sequence[int] | None], Iterator[Batch]],
        first: Mapping[str, Tensor],
        count: int,
        most: int,
    ) -> None:
        self._first, self._count, self._seen = first, count, 0
        self._counted: dict[str, Tensor] = {}
        self._searches: dict[str, NeighbourSearch] = {}
        self._labels: dict[str, Tensor | None] = {}
        self._few: dict[str, Tensor] = {}  # whether other metrics of neighbours look at a row
        self._rows: dict[str, list[Tensor]] = {kind: [] for kind in first}
        for kind, indices in first.items():
            places = torch.arange(len(indices)) if len(indices) <= most else random_indices(len(indices))
            parts = list(zip(*batches(indices[places].tolist()), strict=True))
            place = 0 if kind == "features" else 1
            self._labels[kind] = None if parts[2][0] is None else torch.cat(parts[2])
            self._searches[kind] = NeighbourSearch(torch.cat(parts[place]), places, neighbours(len(indices)))
            none = torch.zeros(count, dtype=torch.bool)
            self._counted[kind] = none.index_fill(0, indices, True)
            self._few[kind] = none.index_fill(0, indices[few_indices(len(indices))], True)

    def update(self, features: Tensor, embeddings: Tensor | None) -> None:
        """Search the next batch for neighbours."""
        part = slice(self._seen, self._seen + len(features))
        for kind, rows in (("features", features), ("embeddings", embeddings)):
            if rows is not None and len(new := rows[self._counted[kind][part]]):
                self._searches[kind].update(new)
                self._rows[kind].append(rows[self._few[kind][part]])
        self._seen = part.stop

    def found(self) -> dict[str, Neighbourhoods]:
        """Return the neighbourhoods by kind."""
        found = {}
        for kind, search in self._searches.items():
            duplicates, rows = self._count - len(self._first[kind]), torch.cat(self._rows[kind])
            found[kind] = Neighbourhoods(search.distances, duplicates, self._labels[kind], unit_scale(rows))
        return found


def unit_scale(rows: Tensor) -> Tensor:
    """Return the rows in units of their root mean square length, so that their squares fit into float32."""
    rows = rows.double()
    length = float((rows**2).sum(dim=1).mean().sqrt())
    return (rows / (length or 1.0)).float()
