"""The metrics of one set of features as numbers, for the diagnosis, the tracker and the benchmark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from solo_dimreg.functional import matrix_mutual_information
from solo_dimreg.functional._rows import few_indices
from solo_dimreg.metrics.moments import Moments
from solo_dimreg.metrics.neighbourhoods import Neighbourhoods, neighbours_within, unit_scale
from solo_dimreg.metrics.registry import METRICS, ROWS, MetricRecord
from solo_dimreg.metrics.streaming import FeatureStatistics

# The metrics of one set of features, in the order of the tables.
OF_ONE_SET = {
    name: record for name, record in METRICS.items() if record.in_diagnosis and record.inputs == ROWS
}


@dataclass(frozen=True)
class Space:
    """The metrics of the features, or of the embeddings.

    Each metric of the diagnosis is an attribute by its name in the glossary: ``effective_rank``, ``lid``,
    ``samples`` ... It is None where it is undefined.

    Attributes:
        numbers: The metrics by name.
        spectrum: Singular values of the covariance, (D,), descending.
        lids: LID of each point of ``lid``.
        correlation: The D x D correlation matrix, with zeros for constant axes. For more than 4,096 axes, the
            means of the absolute correlations in 128 x 128 blocks.
    """

    numbers: dict[str, Any]
    spectrum: Tensor
    lids: Tensor
    correlation: Tensor

    def __getattr__(self, name: str) -> Any:
        try:
            return vars(self)["numbers"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.numbers]

    @property
    def attainable(self) -> int:
        """Return the largest rank that this many centred samples of this many dimensions can have."""
        return max(1, min(self.samples - 1, self.dimensions))


def describe_space(moments: Moments, sample: Tensor, near: Neighbourhoods | None = None) -> Space:
    """Return the metrics of features.

    Args:
        moments: The moments of all the features.
        sample: A random sample of the features, (n, D).
        near: The neighbours of some of the features among all. With None, the sample is taken as all the
            features, and its neighbours are sought in it.
    """
    near = near or neighbours_within(sample)
    points = unit_scale(sample)
    numbers = {name: _number(record, moments, near, points) for name, record in OF_ONE_SET.items()}
    return Space(numbers, moments.spectrum, near.lids(), moments.correlations[0])


def _number(record: MetricRecord, moments: Moments, near: Neighbourhoods, points: Tensor) -> Any:
    if record.of_moments is not None:
        value = record.of_moments(moments)
    elif record.of_neighbours is not None:
        value = record.of_neighbours(near)
    else:
        assert record.function is not None
        value = record.function(points)
    if isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None


def mutual_information(features: Tensor, embeddings: Tensor) -> dict[str, float]:
    """Return I(R;Z) of order 2 and 1, of at most 2,048 samples."""
    few = few_indices(len(features))
    r, z = unit_scale(features)[few], unit_scale(embeddings)[few]
    return {
        "mutual_information": float(matrix_mutual_information(r, z)),
        "mutual_information_1": float(matrix_mutual_information(r, z, order=1)),
    }


def representation_numbers(features: Tensor, embeddings: Tensor | None = None) -> dict[str, Any]:
    """Return the global and local dimensionality of features (N, D) and embeddings (N, d).

    Returns:
        Of the features: ``effective_rank`` (centred), ``lid`` (geometric mean, k = 32, over all points, or
        over 1,000 of more than 10,000), ``rankme`` and ``alpha_req`` as in :class:`Space`, and ``spectrum``,
        the D singular values of the covariance, descending. Of the embeddings, or None without them:
        ``z_correlation``, the mean absolute off-diagonal correlation, and ``z_spread``, the standard
        deviation divided by the root of the mean squared length, which is 0 if they are one point.
    """
    statistics = FeatureStatistics()
    statistics.update(features, embeddings)
    near = neighbours_within(features, limit=statistics.sample_size)
    moments = statistics.features
    found: dict[str, Any] = {"z_correlation": None, "z_spread": None}
    if (embedded := statistics.embeddings) is not None:
        found["z_correlation"] = embedded.correlation()[1]
        variance = float(embedded.variances.sum())
        squares = variance + float(embedded.mean @ embedded.mean)
        found["z_spread"] = math.sqrt(variance / squares) if squares else 0.0
    for name in ("effective_rank", "lid", "rankme", "alpha_req"):
        found[name] = _number(METRICS[name], moments, near, near.rows)
    return {**found, "spectrum": moments.spectrum.tolist()}
