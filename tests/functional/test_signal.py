"""The directions above noise against the paper's table, NumPy's integral and signals of known rank."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric import normal

from solo_dimreg.functional import group_share, noise_share, signal_rank, variance_rank
from solo_dimreg.functional.signal import hard_threshold


@pytest.mark.parametrize(
    ("beta", "omega"),
    [(0.05, 1.5194), (0.1, 1.6089), (0.25, 1.8371), (0.5, 2.1711), (1, 2.8582)],
)
def test_the_threshold_is_that_of_the_paper(beta, omega):
    """Gavish & Donoho, table IV."""
    assert hard_threshold(beta) == pytest.approx(omega, rel=3e-4)


@pytest.mark.parametrize("beta", [0.03, 0.4, 0.97])
def test_the_median_halves_the_density(beta):
    """The Marchenko-Pastur density, integrated over its values up to the median, gives one half."""
    known = math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + math.sqrt(beta**2 + 14 * beta + 1)))
    median = (known / hard_threshold(beta)) ** 2
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    edges = np.linspace(low, median, 2_000_001)
    t = (edges[1:] + edges[:-1]) / 2
    density = np.sqrt((high - t) * (t - low)) / (2 * math.pi * beta * t)
    assert density.sum() * (edges[1] - edges[0]) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("width", [32, 128])
@pytest.mark.parametrize("noise", [0.003, 0.05])
@pytest.mark.parametrize("part", [16, 8])
def test_the_rank_of_a_signal_with_noise(width, noise, part):
    """The sketch of the issue: the rank is found in every case, at any aspect ratio."""
    rank = width // part
    basis = torch.linalg.qr(normal(width, rank, seed=1)).Q.T
    for rows in (60, 2_000):
        x = normal(rows, rank) @ basis + noise * normal(rows, width, seed=2) + 5
        assert signal_rank(x) == rank
        expected = noise**2 * (width - rank) / (noise**2 * width + rank)
        assert noise_share(x).item() == pytest.approx(expected, rel=0.4)
        assert signal_rank(x[:, : width - 1].half()) == rank


def test_extremes():
    assert signal_rank(normal(400, 64)) == 0 and noise_share(normal(400, 64)) == 1
    exact = normal(300, 5) @ normal(5, 40, seed=1)
    assert signal_rank(exact) == 5 and noise_share(exact) == 0
    constant = torch.full((50, 8), 0.7)
    assert signal_rank(constant) == 0 and noise_share(constant) == 1 and variance_rank(constant) == 1
    assert signal_rank(normal(1, 4)) == 0 and signal_rank(normal(2, 4)).isfinite()
    with pytest.raises(ValueError, match="x must have shape"):
        signal_rank(normal(4))


def test_the_entropy_rank_of_the_variances():
    values = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    left = torch.linalg.qr(normal(30, 3) - normal(30, 3).mean(dim=0)).Q
    p = values**2 / (values**2).sum()
    assert variance_rank(left * values).item() == pytest.approx((-(p * p.log()).sum()).exp().item(), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(8, 60),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-100, 100),
)
def test_scale_rotation_and_shift_change_nothing(seed, rows, scale, shift):
    x = normal(rows, 3, seed=seed) @ normal(3, 20, seed=1) + 0.1 * normal(rows, 20, seed=2)
    turn = torch.linalg.qr(normal(20, 20, seed=seed + 1)).Q
    for metric in (signal_rank, noise_share, variance_rank, group_share):
        torch.testing.assert_close(
            metric(scale * (x @ turn + shift)), metric(x), rtol=1e-6, atol=1e-9, equal_nan=True
        )


def test_the_share_between_groups():
    direction = normal(1, 32, seed=1)
    cloud = normal(4_000, 1) * direction + 1e-3 * normal(4_000, 32, seed=2)
    assert group_share(cloud).item() == pytest.approx(2 / math.pi, abs=0.03)  # of two halves of a normal
    centres = normal(10, 64, seed=3)
    groups = centres[torch.arange(600) % 10] + 0.05 * normal(600, 64)
    assert signal_rank(groups) == 9 and group_share(groups) > 0.98
    assert group_share(groups * torch.logspace(0, 1, 64)) > 0.95
    # Variance in few directions is no group: steep spectra are scaled first.
    steep = normal(600, 64) * torch.logspace(0, -4, 64)
    assert group_share(steep) < 0.5
    assert group_share(normal(400, 64)).isnan() and group_share(groups[:30]).isnan()
