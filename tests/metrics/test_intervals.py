"""Intervals against closed forms, and against many samples of a known distribution."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from solo_dimreg import functional
from solo_dimreg.metrics import intervals
from solo_dimreg.metrics.intervals import interval, of_groups, replicas, weights
from solo_dimreg.metrics.moments import Moments
from solo_dimreg.metrics.neighbourhoods import SIZES, neighbours_within
from solo_dimreg.metrics.numbers import OF_ONE_SET, describe_space, with_intervals
from solo_dimreg.metrics.streaming import FeatureStatistics

SCALES = torch.arange(1, 25).double() ** -0.5


def normal(n: int, seed: int, scales: Tensor = SCALES) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, len(scales), generator=generator, dtype=torch.float64) * scales


def moments_of(rows: Tensor) -> Moments:
    statistics = FeatureStatistics()
    statistics.update(rows)
    return statistics.features


@pytest.mark.parametrize("name", ["effective_rank", "nesum", "alpha_req", "rankme"])
@pytest.mark.parametrize("count", [4_000, 40_000])
def test_the_spread_of_a_spectrum_is_that_of_the_delta_method(name: str, count: int) -> None:
    """Eigenvalues of a Gaussian's covariance vary independently, with the variance 2 lambda^2 / N."""
    values = (SCALES**2).requires_grad_()
    of_spectrum = OF_ONE_SET[name].of_moments
    assert of_spectrum is not None
    true = Moments(count, torch.zeros(24).double(), 1e-16)
    vars(true).update(eigenvalues=values, spectrum=values, singular_values=(values * count).sqrt())
    of_spectrum(true).backward()
    assert values.grad is not None
    expected = (2 / count * (values.grad * values.detach()) ** 2).sum().sqrt().item()
    rows = normal(count, seed=1)
    found = torch.tensor([float(of_spectrum(replica)) for replica in replicas(moments_of(rows), rows)])
    assert found.std().item() == pytest.approx(expected, rel=0.12)


def metric(name: str) -> Callable[[Tensor], tuple[float, Tensor]]:
    """Value and deviations of a metric of neighbours or pairs."""
    record = OF_ONE_SET[name]

    def of(rows: Tensor) -> tuple[float, Tensor]:
        given = neighbours_within(rows.float()) if record.of_neighbours else rows.float()
        value = (record.of_neighbours or record.function)(given)  # type: ignore[misc]
        assert record.deviations is not None
        return float(value), record.deviations(given)

    return of


def rank(rows: Tensor) -> tuple[float, Tensor]:
    moments = moments_of(rows)
    value = functional.effective_rank(rows, center=True)
    return float(value), intervals.rank_deviations(moments, rows)[0]


def curve(k: int) -> Callable[[Tensor], tuple[float, Tensor]]:
    def of(rows: Tensor) -> tuple[float, Tensor]:
        near = neighbours_within(rows)
        return near.mean_lid(k), near.lid_deviations(k)

    return of


CENTRES = normal(3, seed=99, scales=torch.ones(24)) * 3
DISTRIBUTIONS = {
    "a power law": lambda seed: normal(300, seed) + 0.2,
    "heavy tails": lambda seed: normal(300, seed) / normal(300, 1000 + seed)[:, :4].norm(dim=1, keepdim=True),
    "clusters": lambda seed: normal(300, seed) + CENTRES[torch.randint(3, (300,), generator=torch.Generator().manual_seed(seed))],
}
METHODS = {
    "effective_rank": rank,
    "lid": metric("lid"),
    "lid_mle": metric("lid_mle"),
    "lid with 8": curve(8),
    "lid with 64": curve(64),
    "two_nn": metric("two_nn"),
    "matrix_entropy": metric("matrix_entropy"),
    "matrix_entropy_1": metric("matrix_entropy_1"),
    "uniformity": metric("uniformity"),
    "self_clustering": metric("self_clustering"),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_95_of_100_intervals_have_the_mean_of_all_samples(name: str, distribution: str) -> None:
    found = [METHODS[name](DISTRIBUTIONS[distribution](seed)) for seed in range(40)]
    centre = np.mean([value for value, _ in found])
    ends = [interval(*each) for each in found]
    covered = sum(each is not None and each[0] <= centre <= each[1] for each in ends)
    print(name, distribution, covered, centre, np.std([v for v,_ in found])/np.mean([float(d.std()) for _,d in found]))
    assert covered >= 34
