"""NESum, shares and self-clustering against closed forms."""

import math

import numpy as np
import pytest
import torch
from numeric import normal
from torch.autograd import gradcheck

from solo_dimreg.functional import (
    effective_rank,
    mean_share,
    nesum,
    rankme,
    rankme_share,
    self_clustering,
    singular_spectrum,
)


def with_spectrum(variances, rows=64):
    """Features whose covariance has exactly these eigenvalues."""
    centred = normal(rows, len(variances)) - normal(rows, len(variances)).mean(dim=0)
    white = torch.linalg.qr(centred)[0] * (rows - 1) ** 0.5
    rotation = torch.linalg.qr(normal(len(variances), len(variances), seed=1))[0]
    return white * torch.tensor(variances, dtype=torch.float64).sqrt() @ rotation


@pytest.mark.parametrize("variances", [[1.0, 1, 1, 1], [8.0, 4, 2, 1], [5.0, 0, 0, 0], [1.0, 1e-3, 1e-6, 0]])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_nesum_of_a_known_spectrum(variances, shift):
    found = nesum(with_spectrum(variances) + shift).item()
    assert found == pytest.approx(sum(variances) / max(variances), rel=1e-6)


def test_nesum_is_that_of_numpy_and_scale_free():
    x = normal(40, 7) @ normal(7, 7, seed=1)
    values = np.linalg.eigvalsh(np.cov(x.numpy().T))
    assert nesum(x).item() == pytest.approx(values.sum() / values[-1], rel=1e-9)
    for scale in (1e-30, 1e25):
        assert nesum((scale * x).float()).item() == pytest.approx(nesum(x).item(), rel=1e-4)


def test_rankme_share_does_not_depend_on_the_width():
    narrow, wide = torch.linalg.qr(normal(256, 16))[0], torch.linalg.qr(normal(256, 64))[0]
    assert rankme_share(narrow).item() == pytest.approx(1, rel=1e-3)
    assert rankme_share(wide).item() == pytest.approx(1, rel=1e-3)
    empty = torch.cat([narrow, torch.zeros(256, 48)], dim=1)
    assert rankme_share(empty).item() == pytest.approx(0.25, rel=1e-3)
    assert rankme_share(empty).item() == pytest.approx(rankme(empty).item() / 64, rel=1e-9)


def test_centred_spectra_cannot_see_a_shared_vector_and_the_mean_share_does():
    x = normal(500, 16)
    shared = x + 100 * torch.eye(16, dtype=torch.float64)[0]
    for centred in (nesum, lambda f: effective_rank(f, center=True), singular_spectrum):
        torch.testing.assert_close(centred(shared), centred(x), rtol=1e-6, atol=1e-8)
    assert mean_share(x) < 0.01
    assert (
        mean_share(shared).item() == pytest.approx(1e4 / (1e4 + 16), rel=1e-2) and mean_share(shared) > 0.99
    )
    assert self_clustering(shared) > 0.99 and abs(self_clustering(x)) < 0.01


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_mean_share_of_two_points(scale):
    x = scale * torch.tensor([[3.0, 1.0], [3.0, -1.0]])
    assert mean_share(x).item() == pytest.approx(0.9, rel=1e-6)


def test_self_clustering_at_its_ends():
    assert self_clustering(torch.tensor([[1.0, 2], [2, 4], [-3, -6]])).item() == pytest.approx(1)
    # D orthogonal rows have Q = n, where a uniform sphere has n + (n - 1).
    d = 8
    assert self_clustering(torch.eye(d)).item() == pytest.approx(-1 / (d - 1), rel=1e-5)
    assert self_clustering(normal(4000, 32)).item() == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_self_clustering_of_all_pairs(shape):
    x = normal(*shape) + 0.5
    n, d = shape
    unit = x / x.norm(dim=1, keepdim=True)
    found = sum(float(a @ b) ** 2 for a in unit for b in unit)
    expected = n + n * (n - 1) / d
    assert self_clustering(x).item() == pytest.approx((found - expected) / (n**2 - expected), rel=1e-9)


@pytest.mark.parametrize(
    ("x", "values"),
    [
        (torch.zeros(6, 4), (1, 1, 1)),
        (torch.ones(6, 4), (1, 1, 1)),
        (torch.ones(1, 4), (1, 1, 1)),
        (torch.arange(1.0, 7)[:, None], (1, 3.5**2 / (91 / 6), 1)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_degenerate_features(x, values, dtype):
    x = x.to(dtype).requires_grad_()
    found = [figure(x) for figure in (nesum, mean_share, self_clustering)]
    assert [f.item() for f in found] == pytest.approx(values, rel=1e-3)
    sum(found).backward()
    assert torch.isfinite(x.grad).all() and not math.isnan(rankme_share(x).item())


@pytest.mark.parametrize("figure", [nesum, mean_share, self_clustering, rankme_share])
def test_gradients(figure):
    assert gradcheck(figure, ((normal(7, 4) + 0.3).requires_grad_(),))
    with pytest.raises(ValueError, match=r"x must have shape \(B, D\)"):
        figure(normal(4))
