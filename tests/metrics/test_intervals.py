"""Intervals against closed forms, and against many samples of a known distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from solo_dimreg import functional
from solo_dimreg.metrics import intervals
from solo_dimreg.metrics.intervals import interval, of_groups, replicas, weights, with_interval
from solo_dimreg.metrics.moments import Moments
from solo_dimreg.metrics.neighbourhoods import neighbours_within
from solo_dimreg.metrics.numbers import OF_ONE_SET, describe_space, with_intervals
from solo_dimreg.metrics.registry import POSITIVE, RANK, SHARE
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


def of_layers(name: str, deviations: Callable[[Moments, Tensor], Tensor]) -> Any:
    """Value and deviations of a metric of the table of layers."""

    def of(rows: Tensor) -> tuple[float, Tensor]:
        moments = moments_of(rows)
        return float(OF_ONE_SET[name].of_moments(moments)), deviations(moments, rows)  # type: ignore[misc]

    return of


def curve(k: int) -> Callable[[Tensor], tuple[float, Tensor]]:
    def of(rows: Tensor) -> tuple[float, Tensor]:
        near = neighbours_within(rows)
        return near.mean_lid(k), near.lid_deviations(k)

    return of


CENTRES = normal(3, seed=99, scales=torch.ones(24)) * 3
DISTRIBUTIONS = {
    "a power law": lambda seed: normal(300, seed) + 0.2,
    "heavy tails": lambda seed: normal(300, seed) / normal(300, 1000 + seed)[:, :4].norm(dim=1)[:, None],
    "clusters": lambda seed: normal(300, seed) + CENTRES[np.random.default_rng(seed).integers(3, size=300)],
}
METHODS = {
    "effective_rank": rank,
    "mean_share": of_layers("mean_share", intervals.mean_share_deviations),
    "off_diagonal_correlation": of_layers("off_diagonal_correlation", intervals.correlation_deviations),
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
    bounds = OF_ONE_SET[name if name in OF_ONE_SET else "lid"].bounds
    ends = [interval(*each, bounds) for each in found]
    covered = sum(each is not None and each[0] <= centre <= each[1] for each in ends)
    # A correlation without a fourth moment varies more than its rows say.
    narrow = (name, distribution) == ("off_diagonal_correlation", "heavy tails")
    assert covered >= (30 if narrow else 34)


def images_of_patches(seed: int) -> Tensor:
    """40 images of 16 patches near three points each, some tighter than others."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, 24, generator=generator) * SCALES.float()

    own = torch.randint(3, (40, 16), generator=generator)
    spread = torch.rand(40, 1, 1, generator=generator)
    return drawn(40, 3)[torch.arange(40)[:, None], own] + spread * drawn(40, 16) + 0.5


def test_95_of_100_intervals_have_the_mean_dse_and_its_terms() -> None:
    found = [functional.dense_structure(images_of_patches(seed)) for seed in range(30)]
    for i, name in enumerate(("distance", "radius_image", "radius_group", "dimension", "estimate")):
        values = [float(getattr(each, name)) for each in found]
        moved = [intervals.of_few_groups(each.influence[:, i]) for each in found]
        ends = [interval(*each) for each in zip(values, moved, strict=True)]
        covered = sum(each is not None and each[0] <= np.mean(values) <= each[1] for each in ends)
        assert covered >= 25, name
        assert np.mean([each.std() for each in moved]) < 2.2 * np.std(values), name
    three = functional.dense_structure(images_of_patches(0)[:24]).influence
    assert interval(1.0, intervals.of_few_groups(three[:, 4])) is None


def test_intervals_of_paired_differences_have_the_mean_difference() -> None:
    found = []
    for seed in range(40):
        rows = normal(200, seed)
        (one, moved), (other, others_moved) = rank(rows), rank(rows * SCALES)
        found.append((other - one, interval(other - one, others_moved - moved), moved.std()))
    centre = np.mean([value for value, _, _ in found])
    assert sum(ends is not None and ends[0] <= centre <= ends[1] for _, ends, _ in found) >= 34
    widths = [ends[1] - ends[0] for _, ends, _ in found if ends is not None]
    assert np.mean(widths) < 4 * float(np.mean([std for _, _, std in found])) * math.sqrt(2)


@pytest.mark.parametrize("turned", [False, True], ids=["independent axes", "correlated axes"])
def test_all_metrics_of_a_space(turned: bool) -> None:
    """The mean's share and the correlation, too, against the spread over many samples."""
    turn = torch.linalg.qr(normal(24, 5, torch.ones(24).double()))[0] if turned else torch.eye(24).double()
    shifted = [(normal(200, seed) + 0.2) @ turn for seed in range(80)]
    found = with_intervals(*(space := parts(shifted[0]))[1:])
    for name in ("mean_share", "spread", "off_diagonal_correlation", "rankme_share"):
        of = OF_ONE_SET[name].of_moments
        assert of is not None
        true = float(np.std([float(of(moments_of(rows))) for rows in shifted]))
        assert float(found.deviations[name].std()) == pytest.approx(true, rel=0.3), name
    assert found.interval("filled") == (24, 24) and found.interval("samples") is None
    assert space[0].interval("effective_rank") is None


def parts(rows: Tensor) -> tuple[Any, ...]:
    moments, near = moments_of(rows), neighbours_within(rows)
    return describe_space(moments, rows, near), moments, rows, near


def test_more_axes_than_correlations_are_kept_for() -> None:
    """Every 2nd of 6,000 axes stands for all, and the Gram matrix for the covariance."""
    rows = normal(40, 0, torch.ones(6_000).double())
    rows += normal(40, 1, torch.ones(1).double())
    found = [float(replica.correlations[1]) for replica in replicas(moments_of(rows), rows)]
    centre = float(functional.off_diagonal_correlation(rows))
    assert np.mean(found) == pytest.approx(centre, rel=0.2) and 0 < np.std(found) < centre


def test_groups_that_are_left_out_give_the_error_of_a_mean() -> None:
    x = normal(3_000, 0, torch.ones(1).double())[:, 0]
    found = [float(of_groups(lambda kept, part=part: part[kept].mean(), 300).std()) for part in x.split(300)]  # type: ignore[misc]
    assert np.mean(found) == pytest.approx(1 / math.sqrt(300), rel=0.15)


def test_weights_have_the_mean_1_and_are_the_same_for_all_metrics() -> None:
    drawn = weights(50)
    torch.testing.assert_close(drawn.mean(dim=1), torch.ones(len(drawn)))
    assert torch.equal(drawn, weights(50))


def test_a_count_has_whole_ends() -> None:
    assert interval(5, torch.tensor([0.0] * 90 + [1.0] * 10)) == (5, 6)
    assert interval(4, torch.zeros(90)) == (4, 4) and with_interval(4, (4, 4), 0) == "4"
    assert interval(None, torch.ones(9)) is None and interval(1.0, torch.full((9,), math.nan)) is None


def test_no_interval_leaves_the_range_of_its_metric() -> None:
    """Two tight points, one far outlier, ten points with rounding: each has broken a symmetric interval."""
    spikes = normal(200, 0, torch.ones(16).double())
    spikes[0] = 1e4
    points = torch.eye(16).double()[torch.arange(200) % 2] + 1e-3 * normal(200, 1, torch.ones(16).double())
    for rows in (spikes, points, points.round() + 1e-9 * spikes):
        space = with_intervals(*parts(rows)[1:])
        for name, record in OF_ONE_SET.items():
            if (ends := space.interval(name)) is not None:
                (low, high), (lowest, highest), value = ends, record.bounds, space.numbers[name]
                assert min(lowest, value) <= low <= value <= high <= max(highest, value), name
                if record.bounds == RANK:
                    assert high <= 16.001, name


def test_intervals_of_positive_metrics_are_logarithmic_and_end_where_replicates_explode() -> None:
    moved = torch.tensor([-1.0, 1.0]) / math.sqrt(2) / 1.96  # half a width of 1
    assert interval(4.0, moved, POSITIVE) == pytest.approx((4 * math.exp(-0.25), 4 * math.exp(0.25)))
    assert interval(1.1, moved, (1, 2)) == (1, 2)
    assert interval(0.2, moved, SHARE) == (0, 1)
    assert interval(4.0, 13 * moved, POSITIVE) is None and interval(0.0, moved, POSITIVE) is None
    assert (
        with_interval(4.0, (3.1, 5.1), 1) == "4.0 ± 1.0"
        and with_interval(4.0, (2.0, 9.0), 1) == "4.0 (2.0 to 9.0)"
    )
    assert with_interval(4.0, None, 1) == with_interval(4.0, (4.0, 4.0 + 1e-9), 1) == "4.0"
