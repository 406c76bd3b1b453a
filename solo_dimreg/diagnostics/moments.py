"""Mean, covariance and spectra of features, from whichever side of the matrix is the smaller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from solo_dimreg.functional.decorrelation import mean_off_diagonal
from solo_dimreg.functional.spectrum import symmetric_eigenvalues

# Of more axes than these, correlations are kept as means over blocks, so many to a side of the matrix.
CORRELATION_AXES, CELLS = 4_096, 128
COLUMNS = 4_096  # that are converted to float64 at a time


@dataclass(frozen=True)
class Moments:
    """What is known of all the samples of one kind of feature.

    Attributes:
        count: N, the number of samples.
        mean: shape (D,), float64.
        resolution: machine epsilon of the coarsest dtype that the features came in.
        scatter: N - 1 times the covariance, (D, D), float64; None where there are ``rows`` instead.
        rows: all features, (N, D), as they came: fewer than a covariance matrix would have.
    """

    count: int
    mean: Tensor
    resolution: float
    scatter: Tensor | None = None
    rows: Tensor | None = None

    @cached_property
    def covariance(self) -> Tensor:
        """The covariance matrix, shape (D, D), float64, divided by N - 1."""
        return self._scatter / max(self.count - 1, 1)

    @cached_property
    def variances(self) -> Tensor:
        """The diagonal of the covariance, shape (D,)."""
        if self.rows is None:
            return self.covariance.diagonal()
        squares = [(block**2).sum(dim=0) for block in self._columns(self.mean)]
        return torch.cat(squares) / max(self.count - 1, 1)

    def eigenvalues(self) -> Tensor:
        """Return the eigenvalues of the covariance, descending, shape (D,).

        Those of the Gram matrix of the centred rows where these are fewer than the axes; the rest are 0.
        """
        if not self._few_rows:
            return _eigenvalues(self.covariance)
        values = _eigenvalues(self._gram(self.mean)) / max(self.count - 1, 1)
        return torch.cat([values, values.new_zeros(len(self.mean) - len(values))])

    def squared_singular_values(self) -> Tensor:
        """Return those of the features as they are, not centred, descending, shape (min(N, D),)."""
        if self._few_rows:
            return _eigenvalues(self._gram(torch.zeros_like(self.mean)))
        squares = self._scatter + self.count * torch.outer(self.mean, self.mean)
        return _eigenvalues(squares)[: self.count]

    def correlation(self, floor: float = 0.0) -> tuple[Tensor, float]:
        """Return the correlations of the axes, and the mean absolute one of two axes.

        Args:
            floor: Axes whose variance is not above it count as constant; their correlations are 0.

        Returns:
            The correlation matrix, (D, D); of more than 4,096 axes the means of the absolute correlations
            in 128 x 128 blocks. The mean absolute correlation is over all pairs of axes in both cases, in
            time that grows with N D^2 and memory that does not.
        """
        scale = torch.where(self.variances > floor, self.variances, torch.inf).rsqrt()
        if len(scale) <= CORRELATION_AXES:
            matrix = self.covariance * scale * scale[:, None]
            return matrix, float(mean_off_diagonal(matrix))
        return self._correlation_blocks(scale)

    def _correlation_blocks(self, scale: Tensor) -> tuple[Tensor, float]:
        d = len(scale)
        cell = torch.arange(d, device=scale.device) * CELLS // d
        edges = torch.searchsorted(cell, torch.arange(CELLS + 1, device=scale.device)).tolist()
        sums = scale.new_zeros(CELLS, CELLS)
        units = None
        if self._few_rows:
            blocks = self._columns(self.mean)
            parts = scale.split(COLUMNS)
            # Entries of unit vectors: float32 rounds their products far below any correlation of note.
            units = torch.cat([(x * s).float() for x, s in zip(blocks, parts, strict=True)], dim=1)
        for i, (start, stop) in enumerate(pairwise(edges)):
            if units is not None:
                strip = units[:, start:stop].T @ units[:, start:] / max(self.count - 1, 1)
            else:
                strip = self.covariance[start:stop, start:] * scale[start:stop, None] * scale[start:]
            sums[i].index_add_(0, cell[start:], strip.abs().sum(dim=0).double())
            sums[i:, i] = sums[i, i:].clone()
        total = float(sums.sum()) - int((scale > 0).sum())  # without each axis with itself
        counts = cell.bincount(minlength=CELLS).double()
        return sums / counts / counts[:, None], max(0.0, total) / (d * (d - 1))

    @property
    def _few_rows(self) -> bool:
        return self.rows is not None and self.count < len(self.mean)

    @property
    def _scatter(self) -> Tensor:
        if self.scatter is not None:
            return self.scatter
        assert self.rows is not None
        centred = self.rows.double() - self.mean
        return centred.T @ centred

    def _gram(self, centre: Tensor) -> Tensor:
        gram = self.mean.new_zeros(self.count, self.count)
        for block in self._columns(centre):
            gram.addmm_(block, block.T)
        return gram

    def _columns(self, centre: Tensor) -> Iterator[Tensor]:
        """The rows less a centre, some columns at a time, in float64."""
        assert self.rows is not None
        for rows, mean in zip(self.rows.split(COLUMNS, dim=1), centre.split(COLUMNS), strict=True):
            yield rows.double() - mean


def _eigenvalues(matrix: Tensor) -> Tensor:
    return symmetric_eigenvalues(matrix).flip(0).clamp_min(0)
