"""Mean, covariance and spectra of features, computed from the smaller side of the matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from solo_dimreg.functional.decorrelation import mean_off_diagonal
from solo_dimreg.functional.spectrum import symmetric_eigenvalues

# For more axes than this, correlations are kept as means over blocks, this many to a side of the matrix.
CORRELATION_AXES, CELLS = 4_096, 128
COLUMNS = 4_096  # the columns that are converted to float64 at a time


@dataclass(frozen=True)
class Moments:
    """The moments of all the features, or of all the embeddings.

    Attributes:
        count: N, the number of samples.
        mean: shape (D,), float64.
        resolution: machine epsilon of the coarsest dtype of the features.
        scatter: N - 1 times the covariance, (D, D), float64; None if there are ``rows`` instead.
        rows: all features, (N, D), in their own dtype, while they take less memory than a scatter matrix.
        rounding: the part of the mean squared length that the scatter may have as a rounding error.
    """

    count: int
    mean: Tensor
    resolution: float
    scatter: Tensor | None = None
    rows: Tensor | None = None
    rounding: float = 0.0

    @classmethod
    def from_sums(cls, sums: Tensor, resolution: float) -> Moments:
        """Return the moments from the sum of ``r r^T`` over the rows r with a 1 in front, (1 + D, 1 + D).

        The mean is subtracted from the sum only here, so the sums of several processes can be added.
        """
        count, mean = int(sums[0, 0]), sums[0, 1:] / sums[0, 0]
        scatter = sums[1:, 1:] - count * torch.outer(mean, mean)
        return cls(count, mean, resolution, scatter, rounding=16 * torch.finfo(torch.float64).eps)

    @cached_property
    def mean_square(self) -> Tensor:
        """Return the mean squared length."""
        return self.variances.sum() * max(self.count - 1, 1) / self.count + self.mean @ self.mean

    @property
    def mean_share(self) -> Tensor:
        """Return the squared length of the mean divided by the mean squared length; 1 if that is 0."""
        return torch.where(self.mean_square > 0, self.mean @ self.mean / self.mean_square, 1.0)

    @property
    def spread(self) -> Tensor:
        """Return the variance divided by the mean squared length; 0 if that is 0."""
        variance = self.spectrum.sum() * max(self.count - 1, 1) / self.count
        return torch.where(self.mean_square > 0, variance / self.mean_square, 0.0)

    @cached_property
    def floor(self) -> Tensor:
        """Return the largest eigenvalue of the covariance that may be a rounding error.

        The error is that of the features in their own dtype, spread over D directions, that of the sums, and
        that of the decomposition.
        """
        part = max((2 * self.resolution) ** 2 / len(self.mean), self.rounding)
        decomposition = len(self.mean) * torch.finfo(torch.float64).eps * self.eigenvalues[0]
        return torch.maximum(part * self.mean_square, decomposition)

    @cached_property
    def spectrum(self) -> Tensor:
        """Return the eigenvalues of the covariance, descending, (D,), with 0 for rounding errors."""
        return torch.where(self.eigenvalues > self.floor, self.eigenvalues, 0)

    @cached_property
    def correlations(self) -> tuple[Tensor, float]:
        """Return :meth:`correlation` of the axes that vary by more than a rounding error."""
        return self.correlation(self.floor)

    @cached_property
    def covariance(self) -> Tensor:
        """Return the covariance matrix, shape (D, D), float64, divided by N - 1."""
        return self._scatter / max(self.count - 1, 1)

    @cached_property
    def variances(self) -> Tensor:
        """Return the diagonal of the covariance, shape (D,)."""
        if self.rows is None:
            return self.covariance.diagonal()
        squares = [(block**2).sum(dim=0) for block in self._columns(self.mean)]
        return torch.cat(squares) / max(self.count - 1, 1)

    @cached_property
    def eigenvalues(self) -> Tensor:
        """Return the eigenvalues of the covariance, descending, shape (D,).

        If the rows are fewer than the axes, they come from the Gram matrix of the centred rows, and the rest
        are 0.
        """
        values = _eigenvalues_of(self.products(self.mean)) / max(self.count - 1, 1)
        return torch.cat([values, values.new_zeros(len(self.mean) - len(values))])

    @cached_property
    def singular_values(self) -> Tensor:
        """Return the singular values of the features, not centred, descending, (min(N, D),)."""
        return _eigenvalues_of(self.products(torch.zeros_like(self.mean)))[: self.count].sqrt()

    def products(self, centre: Tensor) -> Tensor:
        """Return ``X^T X`` of the rows X minus a centre, or ``X X^T`` if the rows are fewer than the axes."""
        if self.few_rows:
            gram = self.mean.new_zeros(self.count, self.count)
            for block in self._columns(centre):
                gram.addmm_(block, block.T)
            return gram
        distance = self.mean - centre
        return self._scatter.addr(distance, distance, alpha=self.count)

    def correlation(self, floor: float | Tensor = 0.0) -> tuple[Tensor, float]:
        """Return the correlations of the axes, (D, D), and the mean absolute correlation of two axes.

        Axes whose variance is not above the floor count as constant, and their correlations are 0. For more
        than 4,096 axes, the matrix has the means of the absolute correlations in 128 x 128 blocks. Time grows
        with N D^2, and memory does not.
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
        if self.few_rows:
            blocks = self._columns(self.mean)
            parts = scale.split(COLUMNS)
            # These are entries of unit vectors: float32 rounds their products far below any relevant size.
            units = torch.cat([(x * s).float() for x, s in zip(blocks, parts, strict=True)], dim=1)
        for i, (start, stop) in enumerate(pairwise(edges)):
            if units is not None:
                strip = units[:, start:stop].T @ units[:, start:] / max(self.count - 1, 1)
            else:
                strip = self.covariance[start:stop, start:] * scale[start:stop, None] * scale[start:]
            sums[i].index_add_(0, cell[start:], strip.abs().sum(dim=0).double())
            sums[i:, i] = sums[i, i:].clone()
        total = float(sums.sum()) - int((scale > 0).sum())  # without the correlation of each axis with itself
        counts = cell.bincount(minlength=CELLS).double()
        return sums / counts / counts[:, None], max(0.0, total) / (d * (d - 1))

    def of_axes(self, axes: Tensor) -> Moments:
        """Return the moments of some axes."""
        scatter = None if self.scatter is None else self.scatter[axes][:, axes]
        rows = None if self.rows is None else self.rows[:, axes]
        return Moments(self.count, self.mean[axes], self.resolution, scatter, rows)

    @property
    def few_rows(self) -> bool:
        """Return whether there are rows, fewer than the axes."""
        return self.rows is not None and self.count < len(self.mean)

    @property
    def _scatter(self) -> Tensor:
        if self.scatter is not None:
            return self.scatter
        assert self.rows is not None
        centred = self.rows.double() - self.mean
        return centred.T @ centred

    def _columns(self, centre: Tensor) -> Iterator[Tensor]:
        """Yield the rows minus a centre, some columns at a time, in float64."""
        assert self.rows is not None
        for rows, mean in zip(self.rows.split(COLUMNS, dim=1), centre.split(COLUMNS), strict=True):
            yield rows.double() - mean


def _eigenvalues_of(matrix: Tensor) -> Tensor:
    return symmetric_eigenvalues(matrix).flip(0).clamp_min(0)
