"""The metrics of one set of features as numbers, for the diagnosis, the tracker and the benchmark."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from solo_dimreg.functional import matrix_mutual_information
from solo_dimreg.functional._rows import few_indices
from solo_dimreg.metrics.intervals import (
    Interval,
    interval,
    mutual_information_deviations,
    replicas,
)
from solo_dimreg.metrics.moments import Moments
from solo_dimreg.metrics.neighbourhoods import LID_NEIGHBOURS, Neighbourhoods, neighbours_within, unit_scale
from solo_dimreg.metrics.registry import METRICS, RANK, ROWS, MetricRecord
from solo_dimreg.metrics.streaming import FeatureStatistics

# The metrics of one set of features, in the order of the tables.
OF_ONE_SET = {
    name: record for name, record in METRICS.items() if record.in_diagnosis and record.inputs == ROWS
}
# The orders of I(R;Z).
INFORMATION = {"mutual_information": 2, "mutual_information_1": 1}


@dataclass(frozen=True)
class Space:
    """The metrics of the features, or of the embeddings.

    Each metric of the diagnosis is an attribute by its name in the glossary: ``effective_rank``, ``lid``,
    ``samples`` ... It is None where it is undefined.

    Attributes:
        numbers: The metrics by name.
        spectrum: Singular values of the covariance, (D,), descending.
        lids: LID of each point of ``lid``.
        distances: The distances of these points to their 32 nearest neighbours, ascending, (Q, 32), or to all
            if there are fewer; in units of the root mean square length.
        correlation: The D x D correlation matrix, with zeros for constant axes. For more than 4,096 axes, the
            means of the absolute correlations in 128 x 128 blocks.
        lid_by_k: The geometric mean of the LID for each number of neighbours k, from 8 up to 512.
        deviations: For each metric, and ``lid_by_k`` with its k, how far it moves in replicates of the
            sample; empty if they were not computed.
        resolution: Machine epsilon of the coarsest dtype of the features.
    """

    numbers: dict[str, Any]
    spectrum: Tensor
    lids: Tensor
    distances: Tensor
    correlation: Tensor
    lid_by_k: dict[int, float]
    deviations: Mapping[str, Tensor]
    resolution: float

    def __getattr__(self, name: str) -> Any:
        try:
            return vars(self)["numbers"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.numbers]

    def interval(self, name: str, k: int | None = None) -> Interval | None:
        """Return the 95 % interval over images of a metric, low and high, or None if it has none.

        Args:
            k: The number of neighbours, for ``lid_by_k``.
        """
        value, key = (self.numbers.get(name), name) if k is None else (self.lid_by_k.get(k), f"{name}.{k}")
        if key not in self.deviations:
            return None
        low, high = METRICS["lid" if name == "lid_by_k" else name].bounds
        return interval(value, self.deviations[key], (low, self.attainable if low == RANK[0] else high))

    @property
    def attainable(self) -> int:
        """Return the largest rank that this many centred samples of this many dimensions can have."""
        return max(1, min(self.samples - 1, self.dimensions))


def describe_space(
    moments: Moments,
    sample: Tensor,
    near: Neighbourhoods | None = None,
    names: Collection[str] = OF_ONE_SET.keys(),
) -> Space:
    """Return the metrics of features.

    Args:
        moments: The moments of all the features.
        sample: A random sample of the features, (n, D).
        near: The neighbours of some of the features among all. With None, the sample is taken as all the
            features, and its neighbours are sought in it.
    """
    near = near or neighbours_within(sample)
    points = unit_scale(sample)
    chosen = {name: record for name, record in OF_ONE_SET.items() if name in names}
    numbers = {name: _number(record, moments, near, points) for name, record in chosen.items()}
    of_points = near.lids(), near.distances[:, :LID_NEIGHBOURS]
    correlations = moments.correlations[0]
    return Space(numbers, moments.spectrum, *of_points, correlations, near.lid_by_k, {}, moments.resolution)


@torch.no_grad()
def with_intervals(moments: Moments, sample: Tensor, near: Neighbourhoods) -> Space:
    """Return the metrics of :func:`describe_space` with their deviations."""
    space = describe_space(moments, sample, near)
    of_moments = {name: record for name, record in OF_ONE_SET.items() if record.of_moments is not None}
    for name in ("samples", "dimensions"):
        del of_moments[name]
    values: dict[str, list[float]] = {name: [] for name in of_moments}
    for replica in replicas(moments, sample):
        for name, record in of_moments.items():
            values[name].append(float(record.of_moments(replica)))  # type: ignore[misc]
    found = {name: torch.tensor(each) - (space.numbers[name] or 0) for name, each in values.items()}
    points = unit_scale(sample)
    for name, record in OF_ONE_SET.items():
        if record.deviations is not None and space.numbers[name] is not None:
            found[name] = record.deviations(points if record.of_neighbours is None else near)
    curve = {f"lid_by_k.{k}": near.lid_deviations(k) for k in space.lid_by_k}
    return replace(space, deviations=found | curve)


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
    return {name: float(matrix_mutual_information(r, z, order=order)) for name, order in INFORMATION.items()}


@torch.no_grad()
def information_intervals(
    information: Mapping[str, float], features: Tensor, embeddings: Tensor
) -> dict[str, Interval | None]:
    """Return the 95 % intervals over images of I(R;Z) of order 2 and 1."""
    r, z = unit_scale(features), unit_scale(embeddings)
    moved = {name: mutual_information_deviations(r, z, order) for name, order in INFORMATION.items()}
    bounds = METRICS["mutual_information"].bounds
    return {name: interval(information[name], each, bounds) for name, each in moved.items()}


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
