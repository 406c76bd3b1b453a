"""Find the neighbours of some samples of a source among all its samples; equal rows count once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from solo_dimreg.functional._rows import few_indices
from solo_dimreg.metrics.neighbourhoods import (
    Neighbourhoods,
    SearchByBatches,
    neighbours_sought,
    random_indices,
    unit_scale,
)

#: features (B, D), embeddings (B, d) or None, labels (B,) or None
Batch = tuple[Tensor, Tensor | None, Tensor | None]


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
        limit: Up to this many rows, the neighbours of all are sought, and else those of 1,000.
    """

    def __init__(
        self,
        batches: Callable[[Sequence[int] | None], Iterator[Batch]],
        first: Mapping[str, Tensor],
        count: int,
        limit: int,
    ) -> None:
        self._first, self._count, self._seen = first, count, 0
        self._counted: dict[str, Tensor] = {}
        self._searches: dict[str, SearchByBatches] = {}
        self._labels: dict[str, Tensor | None] = {}
        self._few: dict[str, Tensor] = {}  # whether other metrics of neighbours look at a row
        self._rows: dict[str, list[Tensor]] = {kind: [] for kind in first}
        for kind, indices in first.items():
            places = torch.arange(len(indices)) if len(indices) <= limit else random_indices(len(indices))
            parts = list(zip(*batches(indices[places].tolist()), strict=True))
            place = 0 if kind == "features" else 1
            self._labels[kind] = None if parts[2][0] is None else torch.cat(parts[2])
            k = neighbours_sought(len(indices))
            self._searches[kind] = SearchByBatches(torch.cat(parts[place]), places, k)
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
