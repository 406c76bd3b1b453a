"""Spectral measures against closed forms and NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric import normal

from solo_dimreg.functional import alpha_req, effective_rank, lidar, rankme, singular_spectrum
from solo_dimreg.functional.spectrum import inverse_square_root


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


def test_effective_rank_of_constant_features_ignores_rounding():
    # The mean of some of these columns is rounded, so that they are not 0 after centring.
    x = torch.linspace(0.1, 9.7, 20).expand(30, 20)
    assert (x - x.mean(dim=0)).count_nonzero() > 0
    x = x.clone().requires_grad_()
    rank = effective_rank(x, center=True)
    rank.backward()
    assert rank.item() == 1 and (x.grad == 0).all()
    assert (singular_spectrum(x) == 0).all()


@pytest.mark.parametrize("center", [False, True])
def test_effective_rank_of_features_that_overflowed_is_nan(center):
    x = torch.tensor([[torch.inf, 1.0], [2.0, 3.0]], requires_grad=True)
    rank = effective_rank(x, center)
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


@pytest.mark.parametrize("x", [normal(40, 6), normal(5, 9), with_singular_values([3.0, 1.0, 0.1])])
def test_rankme_against_numpy(x):
    s = np.linalg.svd(x.numpy(), compute_uv=False)
    p = s / s.sum() + 1e-7
    assert rankme(x).item() == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-9)


@pytest.mark.parametrize("rank", [1, 4, 12])
def test_rankme_of_equal_singular_values_is_the_rank(rank):
    assert rankme(with_singular_values([2.5] * rank)).item() == pytest.approx(rank, rel=1e-4)


def with_covariance_eigenvalues(values, b=60, d=20):
    """A (b, d) matrix whose covariance, over b - 1, has exactly these eigenvalues and zeros."""
    left, _ = torch.linalg.qr(torch.cat([torch.ones(b, 1).double(), normal(b, len(values))], dim=1))
    right, _ = torch.linalg.qr(normal(d, len(values), seed=1))
    scales = (torch.as_tensor(values, dtype=torch.float64) * (b - 1)).sqrt()
    return 5 + left[:, 1:] * scales @ right.T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [5, 10, 20])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.3])
def test_alpha_req_of_a_power_law_is_its_exponent(alpha, count, dtype):
    x = with_covariance_eigenvalues([i**-alpha for i in range(1, count + 1)]).to(dtype)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-3
    assert alpha_req(x).item() == pytest.approx(alpha, abs=tolerance)


def authors_exponent(spectrum):
    """The weighted fit of alpha-ReQ's authors, by NumPy's least squares: ranks 4 to 100, weights 1 / rank."""
    ranks = np.arange(1, len(spectrum) + 1)[3:100]
    # polyfit squares its weights
    return -np.polyfit(np.log(ranks), np.log(spectrum[3:100]), 1, w=ranks**-0.5)[0]


@pytest.mark.parametrize("d", [12, 60, 200])
def test_alpha_req_is_the_authors_fit(d):
    x = normal(300, d) * torch.linspace(1, 3, d).exp() ** -1
    expected = authors_exponent(singular_spectrum(x).numpy())
    assert alpha_req(x).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("alpha", "tolerance"), [(0.5, 0.1), (1.0, 0.1), (1.5, 0.1)])
def test_alpha_req_of_a_sample_is_near_that_of_its_distribution(alpha, tolerance):
    found = []
    for seed in range(3):
        x = normal(600, 512, seed=seed) * torch.arange(1.0, 513) ** (-alpha / 2)
        found.append(alpha_req(x).item())
    assert np.mean(found) == pytest.approx(alpha, abs=tolerance)


@pytest.mark.parametrize("x", [torch.zeros(6, 4), torch.full((6, 4), 7.3), normal(1, 4), torch.ones(6, 1)])
def test_alpha_req_without_a_spectrum_is_nan(x):
    assert torch.isnan(alpha_req(x))


def naive_lidar(x, q):
    n, d = len(x) // q, x.shape[1]
    classes = [x[i * q : (i + 1) * q] for i in range(n)]
    means = np.stack([c.mean(axis=0) for c in classes])
    between = sum(np.outer(m - means.mean(axis=0), m - means.mean(axis=0)) for m in means) / n
    within = sum(np.outer(v - m, v - m) for c, m in zip(classes, means, strict=True) for v in c) / (n * q)
    # S_w^-1 S_b has the eigenvalues of S_w^-1/2 S_b S_w^-1/2.
    values = np.linalg.eigvals(np.linalg.solve(within + 1e-4 * np.eye(d), between)).real.clip(0)
    p = values / values.sum() + 1e-7
    return np.exp(-np.sum(p * np.log(p)))


@pytest.mark.parametrize(("n", "q", "d"), [(20, 4, 6), (5, 10, 8), (2, 2, 3), (30, 2, 4)])
def test_lidar_against_numpy(n, q, d):
    x = normal(n, 1, d).expand(n, q, d).reshape(n * q, d) + 0.3 * normal(n * q, d, seed=1)
    assert lidar(x, q).item() == pytest.approx(naive_lidar(x.numpy(), q), rel=1e-7)


def test_lidar_of_few_rows_takes_the_smaller_side():
    """Value and gradient are those of the D x D matrices, which more rows than axes would make."""
    x = normal(9, 14).requires_grad_()
    assert lidar(x, 3).item() == pytest.approx(naive_lidar(x.detach().numpy(), 3), rel=1e-9)
    assert torch.autograd.gradcheck(lambda rows: lidar(rows, 3), x)


def test_lidar_counts_the_directions_that_tell_samples_apart():
    # Class means on both ends of 3 axes, isotropic views: 3 equal discriminants among 8 dimensions.
    means = torch.cat([torch.eye(3, 8), -torch.eye(3, 8)]).double()
    noise = 0.1 * torch.cat([torch.eye(8), -torch.eye(8)]).double()
    x = (means[:, None] + noise).flatten(0, 1)
    assert lidar(x, 16).item() == pytest.approx(3, rel=1e-4)


@pytest.mark.parametrize(("rows", "q"), [(7, 2), (4, 4), (6, 1)])
def test_lidar_refuses_rows_that_are_no_views(rows, q):
    with pytest.raises(ValueError, match="samples_per_class"):
        lidar(normal(rows, 3), q)


EIGENVALUES = {
    "distinct": [4.0, 2.0, 1.0, 0.5],
    "repeated": [2.0, 2.0, 2.0, 0.5],
    "nearly equal": [2.0, 2.0 + 1e-12, 2.0 + 2e-12, 0.5],
    "zero": [2.0, 1.0, 0.0, 0.0],
    "all equal": [3.0, 3.0, 3.0, 3.0],
}


@pytest.mark.parametrize("name", EIGENVALUES)
def test_inverse_square_root(name):
    rotation, _ = torch.linalg.qr(normal(4, 4))
    values = torch.tensor(EIGENVALUES[name], dtype=torch.float64)
    matrix = rotation * values @ rotation.T
    root = inverse_square_root(matrix, 1e-2)
    shifted = matrix + 1e-2 * torch.eye(4).double()
    torch.testing.assert_close(root @ shifted @ root, torch.eye(4).double(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EIGENVALUES)
def test_gradient_of_the_inverse_square_root(name):
    # Of a positive semi-definite matrix, as covariances are: A = F F^T.
    rotation, _ = torch.linalg.qr(normal(4, 4))
    factor = (rotation * torch.tensor(EIGENVALUES[name], dtype=torch.float64).sqrt()).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: inverse_square_root(f @ f.T, 1e-2), (factor,))


@pytest.mark.parametrize("function", [effective_rank, singular_spectrum, rankme, alpha_req])
def test_wrong_shapes_are_refused(function):
    with pytest.raises(ValueError, match=r"x must have shape \(B, D\)"):
        function(torch.zeros(3))


def test_the_spectrum_of_normalized_rows_is_directclrs():
    x = normal(30, 12) + 1
    unit = (x / x.norm(dim=1, keepdim=True)).numpy()
    expected = np.linalg.svd(np.cov(unit.T), compute_uv=False)
    np.testing.assert_allclose(singular_spectrum(x, normalize=True).numpy(), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_square_root_without_eps(dtype):
    full = normal(20, 6)
    covariance = (full.T @ full).to(dtype)
    root = inverse_square_root(covariance, 0)
    torch.testing.assert_close(root @ covariance @ root, torch.eye(6, dtype=dtype), rtol=1e-3, atol=1e-4)
    for singular in (torch.zeros(4, 4, dtype=dtype), torch.ones(4, 4, dtype=dtype)):
        singular.requires_grad_()
        out = inverse_square_root(singular, 0)
        (gradient,) = torch.autograd.grad(out.sum(), singular)
        assert torch.isfinite(out).all() and torch.isfinite(gradient).all()
