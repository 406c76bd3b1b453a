"""Find the neighbours of some samples of a source among all its samples; equal rows count once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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


def digests_of(rows: Tensor) -> list[bytes]:
    """Return 128 bits of each row (B, D), by which rows of other batches that equal it are recognised."""
    numbers = (rows.detach().cpu() + 0).contiguous()  # -0.0 equals 0.0, and -0.0 + 0 is 0.0
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in numbers.view(torch.uint8).numpy()]


def first_of(digests: Sequence[bytes]) -> Tensor:
    """Return the indices of the rows that differ from all rows before them, ascending, shape (U,)."""
    numbers = np.frombuffer(b"".join(digests), dtype=[("a", "u8"), ("b", "u8")])
    return torch.from_numpy(np.sort(np.unique(numbers, return_index=True)[1]))


class SearchAmongAll:
    """A search for the neighbours of some rows of a source among all its rows, batch by batch.

    Args:
        batches: A function that reads the source.
        place: 0 for the features, 1 for the embeddings.
        first: The indices of the rows that count among ``count`` samples, ascending.
        limit: Up to this many rows, the neighbours of all are sought, and else those of 1,000.
    """

    def __init__(
        self,
        batches: Callable[[Sequence[int] | None], Iterator[Batch]],
        place: int,
        first: Tensor,
        count: int,
        limit: int,
    ) -> None:
        self._duplicates, self._seen = count - len(first), 0
        queries = torch.arange(len(first)) if len(first) <= limit else random_indices(len(first))
        parts = list(zip(*batches(first[queries].tolist()), strict=True))
        self._labels = None if parts[2][0] is None else torch.cat(parts[2])
        self._search = SearchByBatches(torch.cat(parts[place]), queries, neighbours_sought(len(first)))
        none = torch.zeros(count, dtype=torch.bool)
        self._counted = none.index_fill(0, first, True)
        self._few = none.index_fill(0, first[few_indices(len(first))], True)
        self._rows: list[Tensor] = []  # which other metrics of neighbours look at

    def update(self, rows: Tensor) -> None:
        """Search the next batch (B, D) for neighbours."""
        part = slice(self._seen, self._seen + len(rows))
        if len(new := rows[self._counted[part]]):
            self._search.update(new)
            self._rows.append(rows[self._few[part]])
        self._seen = part.stop

    def found(self) -> Neighbourhoods:
        """Return the neighbourhoods."""
        rows = unit_scale(torch.cat(self._rows))
        return Neighbourhoods(self._search.distances, self._duplicates, self._labels, rows)
