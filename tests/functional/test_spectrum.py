"""Spectral measures against closed forms and NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solo_dimreg.functional import effective_rank, singular_spectrum


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_singular_values(values, b=30, d=12):
    """A (b, d) matrix that has exactly these singular values."""
    left, _ = torch.linalg.qr(normal(b, len(values)))
    right, _ = torch.linalg.qr(normal(d, len(values), seed=1))
    return left * torch.as_tensor(values, dtype=torch.float64) @ right.T


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_effective_rank_of_equal_singular_values_is_the_rank(rank):
    assert effective_rank(with_singular_values([2.5] * rank)).item() == pytest.approx(rank, rel=1e-9)


def test_effective_rank_is_the_exponential_of_the_entropy():
    values = np.array([4.0, 2.0, 1.0, 0.5])
    p = values / values.sum()
    expected = np.exp(-np.sum(p * np.log(p)))
    assert effective_rank(with_singular_values(values)).item() == pytest.approx(expected, rel=1e-9)


def test_effective_rank_of_centred_features_ignores_the_mean():
    x = normal(40, 6)
    shifted = effective_rank(x + 100, center=True)
    assert shifted.item() == pytest.approx(effective_rank(x - x.mean(dim=0)).item(), rel=1e-9)
    assert effective_rank(x + 100).item() < 1.5


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), b=st.integers(1, 20), d=st.integers(1, 20), scale=st.floats(1e-3, 1e3))
def test_effective_rank_is_bounded_and_invariant(seed, b, d, scale):
    x = normal(b, d, seed=seed)
    rotation, _ = torch.linalg.qr(normal(d, d, seed=seed + 1))
    rank = effective_rank(x)
    assert 1 - 1e-9 <= rank.item() <= min(b, d) + 1e-9
    torch.testing.assert_close(effective_rank(scale * x @ rotation), rank)


@pytest.mark.parametrize("center", [False, True])
def test_effective_rank_gradient(center):
    x = normal(7, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: effective_rank(a, center), (x,))


DEGENERATE = [
    torch.zeros(6, 4),
    torch.ones(6, 4),
    torch.eye(5),
    normal(1, 4).float(),
    normal(2, 4).repeat(3, 1),
]


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("x", DEGENERATE)
def test_effective_rank_is_finite(x, dtype, center):
    x = x.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rank = effective_rank(x, center)
    rank.backward()
    assert rank.dtype == torch.float32 and rank.item() >= 1 - 1e-6
    assert torch.isfinite(x.grad).all()


def test_effective_rank_of_features_that_overflowed_is_nan():
    x = torch.tensor([[torch.inf, 1.0], [2.0, 3.0]], requires_grad=True)
    rank = effective_rank(x)
    rank.backward()
    assert torch.isnan(rank) and torch.isnan(x.grad).all()


@pytest.mark.parametrize(("b", "d"), [(50, 8), (5, 8), (1, 3)])
def test_singular_spectrum_is_that_of_the_covariance(b, d):
    x = normal(b, d)
    spectrum = singular_spectrum(x)
    covariance = np.cov(x.numpy(), rowvar=False) if b > 1 else np.zeros((d, d))
    expected = np.linalg.svd(covariance, compute_uv=False)
    np.testing.assert_allclose(spectrum.numpy(), expected, atol=1e-12)


def test_singular_spectrum_resolves_small_values_in_float32():
    x = normal(200, 3, seed=4) * torch.tensor([1.0, 1e-3, 1e-5]).double()
    expected = np.linalg.eigvalsh(np.cov(x.numpy(), rowvar=False))[::-1]
    np.testing.assert_allclose(singular_spectrum(x.float()).numpy(), expected, rtol=0.02)


@pytest.mark.parametrize("function", [effective_rank, singular_spectrum])
def test_wrong_shapes_are_refused(function):
    with pytest.raises(ValueError, match=r"x must have shape \(B, D\)"):
        function(torch.zeros(3))
