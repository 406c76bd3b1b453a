"""Whitening and the penalties on correlation, against closed forms, NumPy and float64 gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric import normal
from torch.autograd import gradcheck

from solo_dimreg.functional import (
    covariance_penalty,
    decorrelation,
    decorrelation_loss,
    off_diagonal_correlation,
    zca_whiten,
)


def correlated(b, d, seed=0, dtype=torch.float32):
    """Embeddings whose covariance has eigenvalues from 0.1 to 10, and a mean."""
    rotation, _ = torch.linalg.qr(normal(d, d, seed=seed + 1))
    return (normal(b, d, seed=seed) * torch.logspace(-0.5, 0.5, d).double() @ rotation.T + 3).to(dtype)


def hadamard():
    """8 samples of 7 axes whose covariance is exactly the identity."""
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    return torch.kron(torch.kron(pair, pair), pair)[:, 1:]


def whiten_by_autograd(x, eps=1e-5):
    centred = x - x.mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    return centred @ (vectors / (values + eps).sqrt()) @ vectors.T


@pytest.mark.parametrize(("b", "d", "num_groups"), [(256, 32, 1), (64, 32, 4), (128, 48, 3), (16, 8, 8)])
def test_covariance_of_each_group_becomes_the_identity(b, d, num_groups):
    x = zca_whiten(correlated(b, d), num_groups, eps=1e-7)
    assert x.dtype == torch.float32
    covariance = np.cov(x.numpy(), rowvar=False, bias=True)
    width = d // num_groups
    for start in range(0, d, width):
        block = covariance[start : start + width, start : start + width]
        np.testing.assert_allclose(block, np.eye(width), atol=1e-4)
    np.testing.assert_allclose(x.mean(dim=0), 0, atol=1e-5)


def test_it_is_zca_of_each_group():
    x = correlated(40, 6, dtype=torch.float64)
    expected = torch.cat([whiten_by_autograd(part) for part in x.split(3, dim=1)], dim=1)
    torch.testing.assert_close(zca_whiten(x, 2), expected)


def test_groups_of_one_axis_are_batch_normalization():
    x = correlated(20, 5, dtype=torch.float64)
    expected = F.batch_norm(x, None, None, training=True, eps=1e-5)
    torch.testing.assert_close(zca_whiten(x, num_groups=5, eps=1e-5), expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), d=st.integers(1, 6), extra=st.integers(3, 20))
def test_whitening_commutes_with_rotation(seed, d, extra):
    # This is what sets ZCA apart from the other whitenings.
    x, shift = normal(d + extra, d, seed=seed), normal(1, d, seed=seed + 1)
    rotation, _ = torch.linalg.qr(normal(d, d, seed=seed + 2))
    torch.testing.assert_close(
        zca_whiten(x @ rotation + shift), zca_whiten(x) @ rotation, rtol=1e-6, atol=1e-6
    )


GRADIENT_INPUTS = {
    "distinct eigenvalues": correlated(10, 4, dtype=torch.float64),
    "repeated eigenvalues": hadamard(),
    "two clusters of eigenvalues": hadamard() * torch.tensor([1.0, 1, 1, 2, 2, 2, 2]).double(),
    "nearly equal eigenvalues": hadamard() + 1e-9 * normal(8, 7),
    "constant axis": torch.cat([normal(9, 3), torch.ones(9, 1).double()], dim=1),
}


@pytest.mark.parametrize("name", GRADIENT_INPUTS)
def test_gradient(name):
    x = GRADIENT_INPUTS[name].clone().requires_grad_()
    assert gradcheck(lambda a: zca_whiten(a, eps=1e-2), (x,))


def test_gradient_in_groups():
    assert gradcheck(lambda a: zca_whiten(a, num_groups=2, eps=1e-2), (normal(8, 6).requires_grad_(),))


def test_autograd_through_eigh_fails_on_repeated_eigenvalues():
    weights = normal(8, 7)
    gradients = []
    for whiten in (whiten_by_autograd, zca_whiten):
        x = hadamard().requires_grad_()
        gradients.append(torch.autograd.grad((whiten(x) * weights).sum(), x)[0])
    assert not torch.isfinite(gradients[0]).all()
    assert torch.isfinite(gradients[1]).all()


@pytest.mark.parametrize("function", [zca_whiten, decorrelation_loss, off_diagonal_correlation])
def test_overflow_is_nan_and_no_error(function):
    x = normal(6, 2).float()
    x[0, 0] = torch.inf
    assert torch.isnan(function(x)).any()


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (normal(4, 8), {}, "needs more than 8 samples, got 4: raise the batch size, or num_groups from 1"),
        (normal(4, 8), {"num_groups": 2}, "groups of 4 axes needs more than 4 samples, got 4"),
        (normal(9, 8), {"num_groups": 3}, "num_groups must divide the 8 axes, got 3"),
        (normal(9, 8), {"num_groups": 0}, "num_groups must be an integer >= 1, got 0"),
        (normal(9, 8), {"eps": -1}, "eps must be a finite number >= 0, got -1"),
        (normal(9), {}, r"shape \(B, D\)"),
    ],
)
def test_wrong_arguments_are_refused(x, options, message):
    with pytest.raises(ValueError, match=message):
        zca_whiten(x, **options)


def test_off_diagonal_correlation_against_numpy():
    x = correlated(30, 7, dtype=torch.float64)
    c = np.corrcoef(x.numpy(), rowvar=False)
    expected = np.abs(c[~np.eye(7, dtype=bool)]).mean()
    assert off_diagonal_correlation(x).item() == pytest.approx(expected, rel=1e-9)


def test_off_diagonal_correlation_of_wide_features_in_strips(monkeypatch):
    x = normal(30, 50)
    x[:, 7] = 3.0
    whole = off_diagonal_correlation(x)
    monkeypatch.setattr(decorrelation, "STRIP", 16)
    torch.testing.assert_close(off_diagonal_correlation(x), whole, rtol=1e-12, atol=0)


def test_off_diagonal_correlation_at_its_ends():
    x = normal(10, 1)
    assert off_diagonal_correlation(x * torch.tensor([1.0, -2.0, 3.0])).item() == pytest.approx(1)
    assert off_diagonal_correlation(hadamard()).item() == pytest.approx(0, abs=1e-12)
    assert off_diagonal_correlation(x).item() == 0


def test_constant_axes_are_uncorrelated():
    x = correlated(30, 3)
    # The mean of some of these constants is rounded: what is left after centring is no correlation either.
    constants = torch.linspace(0.1, 9.7, 20).expand(30, 20)
    assert (constants - constants.mean(dim=0)).count_nonzero() > 0
    with_constants = torch.cat([x, constants, torch.zeros(30, 1)], dim=1)
    expected = off_diagonal_correlation(x) * (3 * 2) / (24 * 23)
    torch.testing.assert_close(off_diagonal_correlation(with_constants), expected)


def test_decorrelation_loss_against_numpy():
    x = 0.4 * correlated(30, 5, dtype=torch.float64)
    c = np.corrcoef(x.numpy(), rowvar=False)
    std = np.sqrt(x.numpy().var(axis=0, ddof=1) + 1e-4)
    expected = 2 * (c[~np.eye(5, dtype=bool)] ** 2).sum() / 5 + 3 * np.maximum(0, 0.5 - std).mean()
    loss = decorrelation_loss(x, correlation_weight=2, variance_weight=3, target_std=0.5)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("function", [decorrelation_loss, off_diagonal_correlation, covariance_penalty])
def test_gradients_of_penalties(function):
    assert gradcheck(function, ((0.3 * correlated(9, 4, dtype=torch.float64)).requires_grad_(),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correlation_weight": -1}, "correlation_weight must be a finite number >= 0, got -1"),
        ({"variance_weight": "1"}, "variance_weight must be a finite number >= 0, got '1'"),
        ({"target_std": 0}, "target_std must be a finite number > 0, got 0"),
    ],
)
def test_wrong_penalty_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        decorrelation_loss(normal(5, 3), **options)
