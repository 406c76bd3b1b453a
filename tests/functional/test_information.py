"""Matrix-based information, uniformity and alignment against closed forms and NumPy."""

import numpy as np
import pytest
import scipy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric import WidestSpectrum, check_against, normal
from scipy.spatial.distance import pdist
from torch.autograd import gradcheck

from solo_dimreg.functional import (
    alignment,
    effective_rank,
    matrix_entropy,
    matrix_mutual_information,
    uniformity,
    wasserstein_uniformity,
)

ORDERS = [1, 2]


def naive_gram(x):
    x = x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)
    return x @ x.T / len(x)


def naive_entropy(gram, order):
    values = np.linalg.eigvalsh(gram)
    values = values[values > 1e-14]
    return -np.log(np.sum(values**2)) if order == 2 else -np.sum(values * np.log(values))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("b", [1, 2, 9])
def test_entropy_of_orthogonal_and_of_parallel_rows(b, order):
    assert matrix_entropy(3 * torch.eye(b), order).item() == pytest.approx(np.log(b), abs=1e-6)
    parallel = torch.arange(1.0, b + 1)[:, None] * torch.ones(1, 5)
    assert matrix_entropy(parallel, order).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("b", "d"), [(12, 5), (5, 12)])
def test_entropy_and_information_against_eigenvalues(b, d, order):
    x, y = normal(b, d), normal(b, 3, seed=1)
    k_x, k_y = naive_gram(x), naive_gram(y)
    joint = k_x * k_y / np.trace(k_x * k_y)
    h_x, h_y, h_xy = (naive_entropy(k, order) for k in (k_x, k_y, joint))
    assert matrix_entropy(x, order).item() == pytest.approx(h_x, rel=1e-9)
    assert matrix_mutual_information(x, y, order).item() == pytest.approx(h_x + h_y - h_xy, rel=1e-9)


@pytest.mark.parametrize(("b", "d"), [(300, 20), (20, 300)])
def test_entropy_decomposes_the_smaller_gram_matrix(b, d):
    x = normal(b, d).float().requires_grad_()
    with WidestSpectrum() as widest:
        entropy = matrix_entropy(x, order=1)
    assert widest.width == min(b, d)
    assert entropy.item() == pytest.approx(naive_entropy(naive_gram(x.detach().double()), 1), rel=1e-6)
    wide = x.detach().double().requires_grad_()
    unit = wide / wide.norm(dim=1, keepdim=True)
    values = torch.linalg.eigvalsh(unit @ unit.T / b).clamp_min(1e-30)
    expected = torch.autograd.grad(-(values * values.log()).sum(), wide)[0]
    gradient = torch.autograd.grad(entropy, x)[0].double()
    assert (gradient - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("order", ORDERS)
def test_information_at_its_ends(order):
    assert matrix_mutual_information(normal(8, 5), torch.ones(8, 2), order).item() == pytest.approx(
        0, abs=1e-9
    )
    identity = torch.eye(8)
    assert matrix_mutual_information(identity, identity, order).item() == pytest.approx(np.log(8), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), b=st.integers(1, 15), d=st.integers(1, 8), order=st.sampled_from(ORDERS))
def test_entropy_is_bounded_and_sees_directions_only(seed, b, d, order):
    x = normal(b, d, seed=seed)
    lengths = 0.1 + torch.rand(b, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rotation, _ = torch.linalg.qr(normal(d, d, seed=seed + 1))
    h = matrix_entropy(x, order)
    assert -1e-9 <= h.item() <= np.log(min(b, d)) + 1e-9
    torch.testing.assert_close(matrix_entropy(lengths * x @ rotation, order), h, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_gradients(order):
    x, y = normal(4, 6).requires_grad_(), normal(4, 5, seed=1).requires_grad_()
    for rows in (x, normal(6, 4).requires_grad_()):
        assert gradcheck(lambda a: matrix_entropy(a, order), (rows,))
    assert gradcheck(lambda a, b: matrix_mutual_information(a, b, order), (x, y))
    repeated = torch.eye(4, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda a: matrix_entropy(a, order), (repeated,))
    assert gradcheck(uniformity, (normal(5, 3).requires_grad_(),))
    assert gradcheck(alignment, (x[:, :5].detach().requires_grad_(), y))


def test_uniformity_against_scipy():
    x = normal(20, 6)
    unit = x / x.norm(dim=1, keepdim=True)
    expected = np.log(np.exp(-2 * pdist(unit.numpy(), "sqeuclidean")).mean())
    assert uniformity(x).item() == pytest.approx(expected, rel=1e-9)


def test_uniformity_of_identical_and_of_opposite_rows():
    assert uniformity(torch.ones(7, 3)).item() == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])).item() == pytest.approx(-8)


def test_alignment_is_twice_one_minus_the_cosine():
    x1, x2 = normal(10, 4), normal(10, 4, seed=1)
    expected = 2 - 2 * torch.nn.functional.cosine_similarity(x1, x2).mean()
    torch.testing.assert_close(alignment(x1, x2), expected)
    assert alignment(x1, 5 * x1).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("order", [0, 3, 1.5, "2", True])
def test_other_orders_are_refused(order):
    with pytest.raises(ValueError, match="order must be 1 or 2, got"):
        matrix_entropy(normal(4, 3), order)


def test_other_samples_are_refused():
    with pytest.raises(ValueError, match="got 4 and 5 rows"):
        matrix_mutual_information(normal(4, 3), normal(5, 3))


def wasserstein_in_scipy(x):
    """Between any two Gaussians: |m1 - m2|^2 + tr(S1 + S2 - 2 (S2^1/2 S1 S2^1/2)^1/2)."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    covariance, d = np.cov(unit, rowvar=False, bias=True), x.shape[1]
    root = scipy.linalg.sqrtm(np.eye(d) / d)
    cross = scipy.linalg.sqrtm(root @ covariance @ root).real
    return np.sqrt((unit.mean(axis=0) ** 2).sum() + np.trace(covariance + np.eye(d) / d - 2 * cross))


def test_wasserstein_uniformity_is_the_distance_to_a_gaussian():
    x = normal(12, 4) * torch.tensor([3.0, 1.0, 1.0, 0.2]).double() + 0.5
    check_against(wasserstein_uniformity, wasserstein_in_scipy, x)


@pytest.mark.parametrize("measure", [wasserstein_uniformity, effective_rank])
@pytest.mark.parametrize(("b", "d"), [(300, 20), (20, 300)])
def test_singular_values_come_from_the_smaller_gram_matrix(measure, b, d):
    x = normal(b, d).float().requires_grad_()
    with WidestSpectrum() as widest:
        measure(x).backward()
    assert widest.width == min(b, d)


def test_wasserstein_uniformity_of_fewer_rows_than_axes():
    x = normal(4, 6)
    assert wasserstein_uniformity(x).item() == pytest.approx(wasserstein_in_scipy(x.numpy()), rel=1e-6)


def test_wasserstein_uniformity_sees_empty_axes_where_uniformity_does_not():
    # Figures of the paper's released study of the degrees of collapse: 20,000 points in 500 dimensions.
    x = torch.randn(1000, 500, generator=torch.Generator().manual_seed(0))
    half = x * (torch.arange(500) < 250)
    assert uniformity(half).item() == pytest.approx(-3.968, abs=0.002)
    assert uniformity(x).item() == pytest.approx(-3.984, abs=0.002)
    assert wasserstein_uniformity(half) - wasserstein_uniformity(x) > 0.4


def test_wasserstein_uniformity_is_0_for_what_fills_the_sphere():
    x = torch.cat([torch.eye(5), -torch.eye(5)]).requires_grad_()
    loss = wasserstein_uniformity(x)
    assert loss.item() == 0 and torch.autograd.grad(loss, x)[0].abs().max() == 0
    ones = torch.ones(4, 3)
    assert wasserstein_uniformity(ones).item() == pytest.approx(2**0.5)
