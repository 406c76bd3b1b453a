"""The streaming statistics against NumPy on the whole matrix, in every way of cutting it up."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from solo_dimreg.metrics.neighbourhoods import SearchByBatches
from solo_dimreg.metrics.streaming import FeatureStatistics


def data(n, d, e=0, offset=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, d, generator=generator, dtype=torch.float64)
    features = mixed @ torch.randn(d, d, generator=generator, dtype=torch.float64) + offset
    return features, (features[:, :e] ** 2 + mixed[:, :1] if e else None)


def stream(features, embeddings=None, labels=None, sizes=(7,), **options):
    """Batches whose sizes repeat ``sizes``."""
    statistics = FeatureStatistics(**options)
    start = turn = 0
    while start < len(features):
        part = slice(start, start + sizes[turn % len(sizes)])
        parts = [None if each is None else each[part] for each in (features, embeddings, labels)]
        statistics.update(*parts)
        start, turn = part.stop, turn + 1
    return statistics


def check_moments(statistics, features, embeddings):
    """1e-8 of the largest covariance, that of NumPy on all rows at once."""
    joint = np.concatenate([features.numpy(), embeddings.numpy()], axis=1)
    covariance, d = np.cov(joint.T), features.shape[1]
    tolerance = {"rtol": 0, "atol": 1e-8 * np.abs(covariance).max()}
    np.testing.assert_allclose(statistics.features.covariance, covariance[:d, :d], **tolerance)
    np.testing.assert_allclose(statistics.embeddings.covariance, covariance[d:, d:], **tolerance)
    np.testing.assert_allclose(statistics.features.mean, joint[:, :d].mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.embeddings.mean, joint[:, d:].mean(0), rtol=1e-12)
    assert statistics.features.count == statistics.embeddings.count == len(joint)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 80),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    offset=st.sampled_from([0.0, 1e3, -1e5]),
    seed=st.integers(0, 1000),
)
def test_moments_do_not_depend_on_the_batches(n, sizes, offset, seed):
    features, embeddings = data(n, 6, 3, offset, seed)
    check_moments(stream(features, embeddings, sizes=sizes), features, embeddings)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 80), cuts=st.lists(st.integers(0, 80), max_size=3), seed=st.integers(0, 1000))
def test_merged_statistics_equal_those_of_both_together(n, cuts, seed):
    features, embeddings = data(n, 5, 2, 1e3, seed)
    total = FeatureStatistics()
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    for start, stop in itertools.pairwise(edges):
        total.merge(stream(features[start:stop], embeddings[start:stop]))
    check_moments(total, features, embeddings)
    # All fit into the sample, which keeps their order.
    assert torch.equal(total.sample["features"], features)
    assert torch.equal(total.sample["embeddings"], embeddings)


def test_float32_features_are_summed_in_float64():
    features = (1e4 + torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))).float()
    statistics = stream(features, sizes=(333,))
    expected = np.cov(features.double().numpy().T)
    np.testing.assert_allclose(statistics.features.covariance, expected, rtol=0, atol=1e-8)
    assert statistics.features.resolution == torch.finfo(torch.float32).eps
    assert statistics.embeddings is None


def inclusions(make, runs=600):
    """How often each of 40 samples is among the 10 of the sample."""
    counts = torch.zeros(40)
    for seed in range(runs):
        sample = make(seed).sample
        assert len(sample["features"]) == 10
        assert torch.equal(sample["features"][:, 0].long(), sample["labels"])  # rows stay together
        counts[sample["labels"]] += 1
    return counts / runs


def numbered(part, seed):
    rows = torch.arange(40.0)[part, None]
    return stream(rows, labels=rows[:, 0].long(), sizes=(7, 3), sample_size=10, seed=seed)


@pytest.mark.parametrize("merged", [False, True])
def test_the_sample_is_uniform(merged):
    def make(seed):
        statistics = numbered(slice(0, 13) if merged else slice(None), 2 * seed)
        if merged:
            statistics.merge(numbered(slice(13, 40), 2 * seed + 1))
        return statistics

    # 600 draws of 10 of 40: a standard deviation of 0.018 around 0.25.
    assert (inclusions(make) - 0.25).abs().max() < 4.5 * 0.0177


def test_memory_does_not_grow_with_the_samples():
    def numbers(count):
        statistics = stream(*data(count, 4, 2), sizes=(50,), sample_size=30)
        kept = [value for value in vars(statistics).values() if isinstance(value, dict)]
        held = [statistics._keys, *(each for value in kept for each in value.values())]
        return sum(each.numel() for each in held)

    assert numbers(100) == numbers(3000) == 6 + 16 + 4 + 30 + 30 * 6


def test_the_sample_does_not_follow_changes_of_the_batch():
    batch = torch.zeros(4, 2)
    statistics = FeatureStatistics()
    statistics.update(batch)
    batch += 1
    assert not statistics.sample["features"].any()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ((torch.zeros(3, 5), torch.zeros(3, 2)), "features must be as wide as before, 4, got 5"),
        ((torch.zeros(3, 4), torch.zeros(3, 3)), "embeddings must be as wide as before, 2, got 3"),
        ((torch.zeros(3, 4), torch.zeros(2, 2)), "embeddings: 2 rows for 3 of features"),
        ((torch.zeros(3, 4),), "embeddings must come with every batch"),
        ((torch.zeros(3, 4), torch.zeros(3, 2), torch.zeros(3)), "labels must come with every batch"),
        ((torch.zeros(3, 4).long(),), "floating-point"),
    ],
)
def test_what_does_not_fit_is_refused(second, message):
    statistics = FeatureStatistics()
    statistics.update(torch.zeros(3, 4), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=message):
        statistics.update(*second)
    assert statistics.count == 3


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(6, 60),
    size=st.integers(1, 70),
    scale=st.sampled_from([1e-20, 1.0, 1e20]),
    seed=st.integers(0, 1000),
)
def test_neighbours_against_scipy(n, size, scale, seed):
    rows = scale * (
        100 + torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    rows[1] = rows[0]  # duplicates are neighbours at distance 0
    indices = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:5]
    search = SearchByBatches(rows[indices], indices, 4)
    for batch in rows.split(size):
        search.update(batch)
    # SciPy sums squared differences: duplicates are at distance 0 exactly. The first is the row itself.
    expected = np.sort(cdist(rows[indices] / scale, rows / scale), axis=1)[:, 1:5]
    np.testing.assert_allclose(search.distances / scale, expected, rtol=1e-5, atol=1e-6)


def test_fewer_neighbours_than_asked_for():
    search = SearchByBatches(torch.eye(3)[:1], torch.tensor([0]), 10)
    search.update(torch.eye(3))
    torch.testing.assert_close(search.distances, torch.full((1, 2), 2**0.5))


def test_nothing_seen_has_no_moments():
    with pytest.raises(ValueError, match="no features"):
        _ = FeatureStatistics().features
