"""Mean, covariance and spectra from either side of the matrix, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solo_dimreg.diagnosis.diagnose import diagnose
from solo_dimreg.diagnosis.sources.opening import Source
from solo_dimreg.errors import ConfigError
from solo_dimreg.metrics import moments
from solo_dimreg.metrics.numbers import describe_space
from solo_dimreg.metrics.streaming import FeatureStatistics


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def statistics_of(rows: torch.Tensor, **options: int) -> FeatureStatistics:
    statistics = FeatureStatistics(**options)
    for batch in rows.split(37):
        statistics.update(batch)
    return statistics


@pytest.mark.parametrize("sample_size", [10_000, 20], ids=["from the rows", "from the covariance"])
@pytest.mark.parametrize(("n", "d"), [(60, 130), (130, 60), (90, 91), (91, 90), (2, 5)])
def test_spectra_are_those_of_numpy(n: int, d: int, sample_size: int) -> None:
    x = normal(n, d) * torch.linspace(0.1, 3, d) + 5
    found = statistics_of(x, sample_size=sample_size).features
    assert (found.rows is None) == (n >= d or n > sample_size)
    expected = np.zeros(d)
    singular = np.linalg.svd((x - x.mean(dim=0)).numpy(), compute_uv=False) ** 2 / (n - 1)
    expected[: len(singular)] = singular
    largest = expected[0]
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-8, atol=1e-12 * largest)
    raw = np.linalg.svd(x.numpy(), compute_uv=False) ** 2
    np.testing.assert_allclose(found.singular_values**2, raw, rtol=1e-8, atol=1e-12 * raw[0])
    np.testing.assert_allclose(found.variances, x.var(dim=0), rtol=1e-10)
    np.testing.assert_allclose(found.covariance, np.cov(x.T.numpy()), rtol=0, atol=1e-10 * largest)


@pytest.mark.parametrize("sample_size", [10_000, 20], ids=["from the rows", "from the covariance"])
def test_correlations_of_many_axes_come_in_blocks(sample_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(50, 77) + 2 * normal(50, 1, seed=1)
    x[:, 30] = 3  # constant: uncorrelated
    found = statistics_of(x, sample_size=sample_size).features
    with np.errstate(invalid="ignore"):
        whole = np.abs(np.nan_to_num(np.corrcoef(x.T.numpy())))
    mean = (whole.sum() - np.trace(whole)) / (77 * 76)
    matrix, average = found.correlation(1e-9)
    np.testing.assert_allclose(matrix.abs(), whole, atol=1e-10)
    assert average == pytest.approx(mean, rel=1e-10)
    for name, size in {"CORRELATION_AXES": 70, "CELLS": 10, "COLUMNS": 33}.items():
        monkeypatch.setattr(moments, name, size)
    blocks, average = found.correlation(1e-9)
    assert average == pytest.approx(mean, rel=1e-5)
    cell = np.arange(77) * 10 // 77
    expected = [[whole[np.ix_(cell == i, cell == j)].mean() for j in range(10)] for i in range(10)]
    np.testing.assert_allclose(blocks, expected, rtol=1e-5)


def test_wide_features_of_few_rows_need_no_covariance() -> None:
    """As 40 images of 3 x 64 x 64 pixels; of orthogonal directions with equal variances all is known."""
    basis = torch.linalg.qr(normal(12_288, 39))[0].T
    simplex = torch.linalg.svd(normal(40, 40) - normal(40, 40).mean(dim=0))[0][:, :39]
    simplex = torch.linalg.qr(simplex - simplex.mean(dim=0))[0]
    rows = (simplex @ basis).float() + 1
    space = describe_space(statistics_of(rows).features, rows)
    assert space.effective_rank == pytest.approx(39, rel=1e-3) and space.filled == 39
    assert space.spectrum.shape == (12_288,) and space.correlation.shape == (128, 128)
    assert 0 < space.off_diagonal_correlation < 0.3


def test_merged_statistics_go_over_to_the_covariance() -> None:
    x = normal(60, 40)
    parts = [statistics_of(part) for part in x.split(25)]
    total = FeatureStatistics()
    for part in parts:
        total.merge(part)
    assert parts[0].features.rows is not None and total.features.rows is None
    np.testing.assert_allclose(total.features.covariance, np.cov(x.T.numpy()), atol=1e-12)


def test_features_too_wide_for_their_number_are_refused() -> None:
    rows = torch.zeros(1, 20_000)
    source = Source("x", "", 10_001, lambda indices: iter([(rows, None, None)]))
    with pytest.raises(ConfigError, match=r"20000 dimensions are too wide .* or 10000 samples"):
        diagnose(source)
